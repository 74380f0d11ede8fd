"""The noise-aware classifier: from flags to the network, its training, and the guide it becomes.

arXiv 2105.05233, section 4; the gradient is `diffusion.guidance`'s.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import torch

from ddpm.process import create_diffusion, create_schedule_sampler
from ddpm.stored_flags import Start, differing_classes, start_of_file
from ddpm.train_loop import LearnsTimesteps, NamesClasses, noising
from diffusion.guidance import CondFn, classifier_gradient
from diffusion.timesteps import ScheduleSampler, UniformSampler
from image_ddpm.flags import (
    ClassifierFlags,
    ClassifierImageFlags,
    ClassifierProcessFlags,
    ClassifierTrainFlags,
    GuideFlags,
    ImageDataFlags,
    ImageDiffusionFlags,
    ImageModelFlags,
    noise_of,
)
from image_ddpm.networks import NUM_CLASSES, channel_mult
from models.config import EncoderConfig, UNetConfig, parse_attention_resolutions
from models.encoder import EncoderUNet
from utils.files.records import Identity, differences, made_with, stored_value
from utils.images.crops.dataset import CropBatch, Preparation, train_crops
from utils.images.listing import Entry
from utils.images.pixels import bytes_to_image
from utils.loops.data import TrainData
from utils.loops.networks import load_checked
from utils.process.errors import CheckpointError
from utils.script_util import FlagValues, defaults, free_flags
from utils.sizes import Size, SizeLike, StoredSize

Log = Callable[[str], None]
Guide = Callable[[torch.Tensor], CondFn]
_ANY_NOISE: Mapping[str, object] = MappingProxyType({})
_TOP = 5


# what the flags of a classifier are called here and in its configuration
_SAME = (
    "attention_resolutions",
    "channel_mult",
    "num_head_channels",
    "use_scale_shift_norm",
    "resblock_updown",
    "pool",
)
_FLAGS = {
    "model_channels": "classifier_width",
    "num_res_blocks": "classifier_depth",
    **{name: f"classifier_{name}" for name in _SAME},
}


class ClassifierUNet(UNetConfig):
    """The U-Net that a classifier is half of; messages name this task's flags for its fields."""

    flag_names = MappingProxyType({name: f"--{flag}" for name, flag in _FLAGS.items()})


@dataclass(frozen=True)
class Denoiser:
    """A denoiser, with its checkpoint, as far as its guide has to know it."""

    network: ImageModelFlags
    process: ImageDiffusionFlags
    start: Start

    @property
    def class_names(self) -> list[str]:
        """The names of its classes by label; empty if it has none or they are not known."""
        return self.start.class_names if self.network.class_cond else []


def create_classifier(
    *, image_size: SizeLike, in_channels: int, num_classes: int, **flags: Any
) -> EncoderUNet:
    """The network of `ClassifierFlags`.

    ValueError for a value that makes no network.
    """
    parsed = ClassifierFlags(**flags)
    own: dict[str, Any] = {name: getattr(parsed, flag) for name, flag in _FLAGS.items()}
    attention, mult = map(ClassifierUNet.flag, ("attention_resolutions", "channel_mult"))
    own |= {
        "attention_resolutions": parse_attention_resolutions(
            own["attention_resolutions"], attention
        ),
        "channel_mult": channel_mult(image_size, own["channel_mult"], mult),
        "image_size": Size.of(image_size).plain,
        "in_channels": in_channels,
    }
    pool = own.pop("pool")
    unet = ClassifierUNet(**own)
    return EncoderUNet(EncoderConfig(unet=unet, num_classes=num_classes, pool=pool))


def classifier_keywords(flags: ClassifierFlags, image: Mapping[str, StoredSize]) -> FlagValues:
    """The keywords of `create_classifier` for a trained classifier."""
    return {**{name: getattr(flags, name) for name in defaults(ClassifierFlags)}, **image}


def classifier_identity(
    flags: ClassifierFlags,
    image: Mapping[str, StoredSize],
    noise: Mapping[str, object] = _ANY_NOISE,
) -> Identity:
    """What the checkpoints of a classifier of images are.

    `noise` is of the images that it knows (`ClassifierProcessFlags.known_noise`); empty: any.
    """
    free = free_flags(ClassifierFlags)
    return Identity(EncoderUNet.__name__, classifier_keywords(flags, image), noise, free=free)


def load_guide(
    flags: GuideFlags, denoiser: Denoiser, device: torch.device, log: Log
) -> Guide | None:
    """What makes of labels (N,) the gradient of the classifier that guides; None without one.

    Raises:
        CheckpointError: if the file is missing, damaged or of another classifier, or one of other
            classes, images or noise than the denoiser's.
    """
    if not flags.classifier_path:
        return None
    guide = start_of_file(flags.classifier_path)
    image = _images_of_guide(guide, denoiser)
    create = functools.partial(create_classifier, **classifier_keywords(flags, image))
    identity = classifier_identity(flags, image)
    model = load_checked(
        create, guide.path, flags.asked_precision, log, identity, with_backward=True
    ).to(device)
    return functools.partial(classifier_gradient, model, flags.classifier_scale)


def _images_of_guide(guide: Start, denoiser: Denoiser) -> dict[str, StoredSize]:
    """The sizes of the guide's images and the number of its classes."""
    network, path = denoiser.network, denoiser.start.path
    made, names = made_with(guide.manifest), guide.class_names
    image = {name: getattr(network, name) for name in defaults(ClassifierImageFlags)}
    asked = {**image, **noise_of(denoiser.process), "noised": True}
    if names and denoiser.class_names:
        differing = differing_classes(names, denoiser.class_names)
        if differing:
            raise CheckpointError(
                f"{guide.path} knows other classes than the denoiser {path} (label {differing}); "
                "train a guide on the denoiser's classes"
            )
        del asked["num_classes"]  # numbers of no meaning beyond the names
        image["num_classes"] = stored_value(
            NUM_CLASSES,
            made.get("num_classes", network.num_classes),
            f"the manifest of {guide.path}",
        )
    found = differences(made, {name: asked[name] for name in asked if name in made}, {})
    if found:
        raise CheckpointError(
            f"{guide.path} is for other images or noise than the denoiser {path}: "
            f"{', '.join(map(str, found))}; train a guide with the denoiser's flags"
        )
    return image


class NoisyImages(NamedTuple):
    """What a classifier sees: `x` (N, C, H, W), and `t` (N,) as processes hand it to networks."""

    x: torch.Tensor
    t: torch.Tensor


class DrawnImages(NamedTuple):
    """What a classifier is trained on, and how its timesteps were drawn."""

    images: NoisyImages
    step: torch.Tensor  # (N,) timesteps of the whole process
    weight: torch.Tensor  # (N,) of their losses


class NoisyData(NamedTuple):
    """Batches of `DrawnImages` and labels, and what their timesteps are drawn from."""

    data: TrainData
    schedule_sampler: ScheduleSampler


class NoiseLevels(NamedTuple):
    """One image at one timestep of each quarter of the chain; see `image_ddpm.validation`.

    Attributes:
        images: the noisy copies, and the timesteps; K of them.
        shares: (K,) float64, of all timesteps, that those of a quarter are; their sum is 1.
        quarters: which one each is of, from 0, the least noise; none of an image without noise.
    """

    images: NoisyImages
    shares: torch.Tensor
    quarters: Sequence[int]


def classifier_metrics(logits: torch.Tensor, label: torch.Tensor) -> dict[str, torch.Tensor]:
    """Metrics (N,) of each image: `loss`, −log softmax in nats, and whether the label is found.

    `accuracy`: its logit is the largest; `accuracy_top_5`: it is among the five largest, where
    there are more than five classes. Logits are (N, K), labels (N,).
    """
    found = {
        "loss": torch.nn.functional.cross_entropy(logits, label, reduction="none"),
        "accuracy": (logits.argmax(dim=1) == label).float(),
    }
    if logits.shape[1] > _TOP:
        top = logits.topk(_TOP, dim=1).indices
        found[f"accuracy_top_{_TOP}"] = (top == label[:, None]).any(dim=1).float()
    return found


class ClassifierTrainLoop(NamesClasses, LearnsTimesteps):
    """Cross entropy of the label, (N,), given an image that is as noisy as t says."""

    def compute_loss(
        self, micro_input: DrawnImages, micro_label: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean of −log softmax(f(x_t, t))_y over the slice, weighted by how t was drawn."""
        logits: torch.Tensor = self.wrapped_model(*micro_input.images).float()
        if isinstance(self.schedule_sampler, UniformSampler):
            return torch.nn.functional.cross_entropy(logits, micro_label), logits
        losses = torch.nn.functional.cross_entropy(logits, micro_label, reduction="none")
        self.learn_losses(micro_input.step, losses)
        return (losses * micro_input.weight).mean(), logits

    def judge(self, batch: NoiseLevels, label: torch.Tensor) -> dict[str, torch.Tensor]:
        """`classifier_metrics` of one image: weighted means over its noise levels, and each.

        So the mean over images estimates that over all timesteps. `loss_q0` is that of the first
        quarter of the chain, and so on.
        """
        logits = self.wrapped_model(*batch.images).float()
        rows = classifier_metrics(logits, label)
        found = {name: (row.double() * batch.shares).sum() for name, row in rows.items()}
        for place, quarter in enumerate(batch.quarters):
            found |= {f"{name}_q{quarter}": row[place] for name, row in rows.items()}
        return found

    def _post_process(
        self,
        micro_input: DrawnImages,
        micro_label: torch.Tensor,
        micro_output: torch.Tensor,
        i: int,
    ) -> None:
        found = classifier_metrics(micro_output, micro_label)
        del found["loss"]  # the loop's own
        for name, values in found.items():  # of uniform timesteps, however they are drawn
            self.logger.add(name, (values * micro_input.weight).mean())


def load_noisy_images(
    entries: Sequence[Entry],
    flags: ImageDataFlags,
    image: ClassifierImageFlags,
    train: ClassifierTrainFlags,
    process: ClassifierProcessFlags,
    device: torch.device,
    log: Log,
) -> NoisyData:
    """Endless shuffled batches for `ClassifierTrainLoop`; without noise t is 0."""
    diffusion = create_diffusion(process)
    schedule = create_schedule_sampler(train.schedule_sampler, diffusion)

    def prepare(batch: CropBatch) -> tuple[DrawnImages, torch.Tensor]:
        x = bytes_to_image(batch.image.to(device, non_blocking=True))
        t = torch.zeros(len(x), dtype=torch.int64, device=device)
        weight = torch.ones(len(x), device=device)
        if process.noised:
            t, weight, noise, _ = noising(schedule, train.seed, batch.position, x)
            x = diffusion.q_sample(x, t, noise=noise)
        images = NoisyImages(x, diffusion.network_timesteps(t))
        return DrawnImages(images, t, weight), batch.label.to(device)

    data = train_crops(
        entries, image.image_size, flags, train, Preparation(prepare), log, image.in_channels
    )
    return NoisyData(data, schedule)
