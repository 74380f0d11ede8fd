"""Samples of plain images: which are missing, of which classes they are, and where they go.

The noise and a random label of a sample are functions of (seed, index). Samples are kept in parts
(`parts`), the files made of them are those of `sample_files`.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from ddpm.flags import EACH
from ddpm.process import create_diffusion
from ddpm.sampling import SETTINGS_FILE, Sampler, require_same_law
from ddpm.stored_flags import listed_classes, start_of_file, trained_labels
from diffusion.guidance import CondFn, classifier_free
from diffusion.samplers import SamplerOptions
from diffusion.types import Model
from image_ddpm.classifier import Denoiser, load_guide
from image_ddpm.flags import (
    GuideFlags,
    ImageDiffusionFlags,
    ImageModelFlags,
    ImageSampleFlags,
)
from image_ddpm.networks import load_denoiser
from image_ddpm.parts import PartStore
from utils.images.pixels import image_to_bytes, require_finite
from utils.loops.portable import weights_digest
from utils.process.errors import DataError
from utils.process.progress import Progress
from utils.script_util import defaults, with_values
from utils.seeds import stable_seed
from utils.sizes import Size

if TYPE_CHECKING:
    from diffusion.process import GaussianDiffusion
    from models.unet import TimeConditionedUNet

# what a record of settings says where a random label may be any of the network's
ALL_LABELS = "all"
Log = Callable[[str], None]


def with_label_numbers(flags: ImageSampleFlags, names: Sequence[str], log: Log) -> ImageSampleFlags:
    """The flags with the labels of the classes that `--labels` names.

    A whole number is a label, whatever the classes are called; `log` is told where it is also the
    name of another class. `names` are the network's by label; empty: not known.

    Raises:
        ValueError: for a name that no class has; suggests the nearest.
    """
    chosen = flags.chosen_labels
    numbers = [int(part) if _is_number(part) else _label_of(part, names) for part in chosen]
    for part, number in zip(chosen, numbers, strict=True):
        if part in names and names.index(part) != number:
            log(
                f"notice: --labels {part} is label {part}; the class of that name has label "
                f"{names.index(part)}"
            )
    if all(map(_is_number, chosen)):
        return flags
    return replace(flags, labels=",".join(map(str, numbers)))


def with_each_label(args: argparse.Namespace) -> argparse.Namespace:
    """The arguments with all labels in place of `--labels each`, and as many samples.

    Of a network that keeps the names of its classes these are the labels that had images in
    training. `--num_samples`, where it is given, stays: the labels come in turn.
    """
    if args.labels != EACH:
        return args
    paths = (args.model_path, args.classifier_path)
    names = next(filter(any, (start_of_file(path).class_names for path in paths)), [])
    labels = trained_labels(names, args.num_classes)
    number = args.num_samples if "num_samples" in args.given_flags else len(labels)
    return with_values(args, labels=",".join(map(str, labels)), num_samples=number)


def _is_number(part: str) -> bool:
    try:
        int(part)
    except ValueError:
        return False
    return True


def _label_of(name: str, names: Sequence[str]) -> int:
    if name in names:
        return names.index(name)
    if not any(names):
        raise ValueError(
            f"--labels {name}: the checkpoint does not keep the names of its classes; give whole "
            "numbers, as in 0,7"
        )
    near = difflib.get_close_matches(name, [other for other in names if other], n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"it has {listed_classes(names)}"
    raise ValueError(f"--labels {name}: the network has no such class ({hint})")


class ImageSampler(Sampler[int]):
    """Draws `num_samples` samples, of the flags' `network`; a row is an index.

    Args:
        guide: makes of labels (N,) the gradient of a classifier (`diffusion.guidance`).
        class_names: of the network or its guide by label, as far as they are known; random labels
            are among those.

    Attributes:
        flags: how many, which and how; classes as numbers.
        store: of the samples.
    """

    def __init__(
        self,
        *,
        model: TimeConditionedUNet,
        diffusion: GaussianDiffusion,
        network: ImageModelFlags,
        flags: ImageSampleFlags,
        device: torch.device,
        log: Log,
        guide: Callable[[torch.Tensor], CondFn] | None = None,
        class_names: Sequence[str] = (),
    ) -> None:
        self.flags = with_label_numbers(flags, class_names, log)
        super().__init__(
            model=model,
            diffusion=diffusion,
            shape=(network.in_channels, *Size.of(network.image_size)),
            num_samples=flags.num_samples,
            flags=self.flags,
            device=device,
            log=log,
        )
        self._denoiser = guided(self._denoiser, network, flags)
        self._guide, self._has_labels = guide, network.class_cond or guide is not None
        self._class_cond, self.class_names = network.class_cond, class_names
        self._chosen = [int(part) for part in self.flags.chosen_labels]
        self._trained = trained_labels(class_names, network.num_classes)
        self._check_labels(network.num_classes)
        self.store = PartStore(flags.output_dir, flags.num_samples)

    @contextlib.contextmanager
    def _missing(self, rank: int, world_size: int, bar: Progress) -> Iterator[Iterator[int]]:
        with self.store.share(rank, world_size) as missing:
            bar.skip(len(range(rank, self.flags.num_samples, world_size)) - len(missing))
            yield iter(missing)

    def _first_rows(self, size: int) -> Sequence[int]:
        return range(size)

    def _seed(self, row: int) -> int:
        return stable_seed(self.flags.seed, "sample", row)

    def _options_for(self, rows: Sequence[int]) -> SamplerOptions:
        if not self._has_labels:
            return self._options
        y = torch.tensor([self._label(index) for index in rows], device=self._device)
        return replace(
            self._options,
            model_kwargs={"y": y} if self._class_cond else None,
            cond_fn=self._guide(y) if self._guide else None,
        )

    def _label(self, index: int) -> int:
        """The class of a sample: the given ones in turn, or a random one of (seed, index)."""
        if self._chosen:
            return self._chosen[index % len(self._chosen)]
        rng = np.random.default_rng(stable_seed(self.flags.seed, "label", index))
        return self._trained[int(rng.integers(len(self._trained)))]

    def _check_labels(self, num_classes: int) -> None:
        text = self.flags.labels
        if self._chosen and not self._has_labels:
            raise ValueError(
                f"--labels {text} needs a network with --class_cond True, or a classifier"
            )
        for label in self._chosen:
            if not 0 <= label < num_classes:
                raise ValueError(f"--labels {text}: the network knows 0 to {num_classes - 1}")
            if label not in self._trained:
                raise ValueError(
                    f"--labels {text}: no image of the training had label {label}; the classes are "
                    f"{listed_classes(self.class_names)}"
                )

    def _store(self, rows: Sequence[int], samples: torch.Tensor) -> None:
        require_finite(samples, f"sample {rows[0]}")
        pixels = image_to_bytes(samples).permute(0, 2, 3, 1)  # NHWC
        arrays = {"samples": np.ascontiguousarray(pixels.cpu().numpy())}
        if self._has_labels:
            arrays["labels"] = np.array([self._label(index) for index in rows], np.int64)
        self._writer.submit(self.store.save, rows, arrays)


def guided(model: Model, network: ImageModelFlags, flags: ImageSampleFlags) -> Model:
    """The denoiser, or its guidance; ValueError if it was not trained for any."""
    if flags.guidance_scale == 1.0:
        return model
    if network.null_label is None:
        raise ValueError(
            f"--guidance_scale {flags.guidance_scale:g} needs a network that was trained with "
            "--class_dropout; give that flag's value here, too"
        )
    return classifier_free(model, flags.guidance_scale, network.null_label)


def load_sampler(
    network: ImageModelFlags,
    process: ImageDiffusionFlags,
    flags: ImageSampleFlags,
    guide: GuideFlags,
    device: torch.device,
    log: Log,
) -> ImageSampler:
    """The sampler with its network and its guide.

    Raises:
        CheckpointError: if a checkpoint is missing, damaged or of another network.
        ValueError: for flags that contradict each other.
    """
    model = load_denoiser(network, process, flags.model_path, log)
    denoiser = Denoiser(network, process, start_of_file(flags.model_path))
    names = denoiser.class_names or start_of_file(guide.classifier_path).class_names
    return ImageSampler(
        model=model.to(device),
        diffusion=create_diffusion(process),
        network=network,
        flags=flags,
        device=device,
        log=log,
        guide=load_guide(guide, denoiser, device, log),
        class_names=names,
    )


def require_settings(
    path: str,
    network: ImageModelFlags,
    process: ImageDiffusionFlags,
    sampler: ImageSampler,
    guide: GuideFlags,
) -> None:
    """Remember what the samples of the output folder are drawn with, and refuse anything else.

    Raises:
        DataError: names the settings that differ; or if the samples' file `path` is there and no
            record says what it was drawn with.
    """
    flags = sampler.flags
    record = os.path.join(flags.output_dir, SETTINGS_FILE)
    if os.path.exists(path) and not os.path.exists(record):
        raise DataError(
            f"{path} is there, but not {record}, so nobody knows what drew these samples; give "
            "another --output_dir"
        )
    labels = trained_labels(sampler.class_names, network.num_classes)
    is_random = not flags.chosen_labels and (network.class_cond or guide.classifier_path)
    is_any = not is_random or len(labels) == network.num_classes
    own: dict[str, object] = {
        "labels": flags.labels,
        "guidance_scale": flags.guidance_scale,
        "random_labels": ALL_LABELS if is_any else ",".join(map(str, labels)),
    }
    if guide.classifier_path:
        own |= {**vars(guide), "classifier_path": weights_digest(guide.classifier_path)}
    own_defaults = {**defaults(GuideFlags), "random_labels": ALL_LABELS}
    require_same_law(network, process, flags, own, own_defaults)
