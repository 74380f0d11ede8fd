"""Draws samples of plain images: by index, on any number of processes, stoppable anywhere.

The noise and a random label of a sample are functions of (seed, index). The mathematics is in
``diffusion``, the files are those of ``sample_files``.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ddpm.process import create_diffusion, sampling_settings, setting_defaults
from ddpm.sampling import draw_samples
from ddpm.stored_flags import listed_classes, start_of_file, trained_labels
from diffusion.guidance import CondFn, classifier_free
from diffusion.samplers import SamplerOptions
from diffusion.types import Model
from image_ddpm.classifier import Denoiser, load_guide
from image_ddpm.flags import GuideFlags, ImageDiffusionFlags, ImageModelFlags, ImageSampleFlags
from image_ddpm.networks import create_image_model, image_identity, model_keywords
from image_ddpm.parts import PartStore
from utils.debug_util import report_cost
from utils.files.atomic import sha256_of
from utils.files.records import require_same_settings
from utils.images.pixels import image_to_bytes, require_finite
from utils.loops.networks import compiled_for, load_checked
from utils.machine.cost import Stopwatch, find_batch_size
from utils.machine.threads import BackgroundWriter
from utils.process.progress import Progress
from utils.process.stop import StopFlag
from utils.script_util import AUTO
from utils.seeds import stable_seed

if TYPE_CHECKING:
    from diffusion.process import GaussianDiffusion
    from models.unet import TimeConditionedUNet

# what a record of settings says where a random label may be any of the network's
ALL_LABELS = "all"


def with_label_numbers(
    flags: ImageSampleFlags, names: Sequence[str], log: Callable[[str], None]
) -> ImageSampleFlags:
    """The flags with the labels of the classes that ``--labels`` names.

    A whole number is a label, whatever the classes are called.

    Args:
        flags: of the sampler.
        names: of the network's classes by label; empty: not known.
        log: told of a number that is also the name of another class.

    Raises:
        ValueError: for a name that no class has; suggests the nearest.
    """
    chosen = flags.chosen_labels
    numbers = [_number(part, names) for part in chosen]
    for part, number in zip(chosen, numbers, strict=True):
        if part in names and names.index(part) != number:
            log(
                f"notice: --labels {part} is label {part}; the class of that name has label "
                f"{names.index(part)}"
            )
    if all(map(_is_number, chosen)):
        return flags
    return replace(flags, labels=",".join(map(str, numbers)))


def _is_number(part: str) -> bool:
    try:
        int(part)
    except ValueError:
        return False
    return True


def _number(part: str, names: Sequence[str]) -> int:
    return int(part) if _is_number(part) else _label_of(part, names)


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


def random_labels(names: Sequence[str], num_classes: int) -> str:
    """Which labels are drawn at random, as a record of settings keeps it."""
    labels = trained_labels(names, num_classes)
    return ALL_LABELS if len(labels) == num_classes else ",".join(map(str, labels))


Log = Callable[[str], None]
SECONDS_FILE = ".seconds.json"


class ImageSampler:
    """Draws ``num_samples`` samples.

    Args:
        model: the denoiser, on the device and in evaluation mode.
        diffusion: the respaced process.
        network: the flags of the model.
        flags: how many, of which classes, how.
        device: where to compute.
        log: receives notices.
        guide: makes of labels (N,) the gradient of a classifier (``diffusion.guidance``).
        class_names: of the network or its guide by label, as far as they are known; random labels
            are among those.

    Raises:
        ValueError: for labels that the network does not have or was not trained on.
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
        flags, self.class_names = with_label_numbers(flags, class_names, log), class_names
        self._chosen = [int(part) for part in flags.chosen_labels]
        self._trained = trained_labels(class_names, network.num_classes)
        self._network, self._flags, self._device, self._log = network, flags, device, log
        self._model, self._diffusion = model, diffusion
        network_call = compiled_for(model, flags.compile, device, log, is_trained=False)
        self._denoiser: Model = guided(network_call, network, flags)
        self._guide, self._has_labels = guide, network.class_cond or guide is not None
        self._check_labels()
        self._options = SamplerOptions(
            sampler=flags.chosen_sampler,
            clip_denoised=flags.clip_denoised,
            eta=flags.eta,
        )
        if flags.batch_size == AUTO:
            found = find_batch_size(self._one_step, device, log)
            self._flags = dataclasses.replace(flags, batch_size=found)

    @property
    def flags(self) -> ImageSampleFlags:
        """How many, which and how; classes as numbers."""
        return self._flags

    @property
    def _shape(self) -> tuple[int, int, int]:
        side = self._network.image_size
        return (self._network.in_channels, side, side)

    def run(self, store: PartStore, rank: int = 0, world_size: int = 1) -> bool:
        """Draws what is missing of this process's share.

        Returns:
            True when done; False when a signal asked to stop (finished samples stay).

        Raises:
            CheckpointError: if the network's output is not finite.
        """
        stop, size = StopFlag(), self._flags.batch_size
        watch, is_stopped = Stopwatch(self._device), False
        with (
            store.share(rank, world_size) as missing,
            stop.listening(),
            BackgroundWriter() as writer,
        ):
            total = len(range(rank, self._flags.num_samples, world_size))
            with Progress(
                total, "sampling", unit="sample", done=total - len(missing), is_shown=rank == 0
            ) as bar:
                for start in range(0, len(missing), size):
                    indices = missing[start : start + size]
                    watch.start()
                    samples = self._draw(indices, stop)
                    if samples is None:
                        is_stopped = True
                        break
                    watch.stop(len(indices))
                    writer.submit(store.save, indices, self._arrays(indices, samples))
                    bar.update(len(indices))
        watch.save(os.path.join(self._flags.output_dir, SECONDS_FILE))
        if is_stopped:
            folder = self._flags.output_dir
            self._log(f"stopped ({stop.reason}); run again with --output_dir {folder} to go on")
            return False
        return True

    def report_cost(self) -> None:
        """Logs parameter count and memory in use."""
        report_cost(self._model, self._device, self._log)

    def dry_run(self) -> None:
        """One step of a full batch, guidance included, and what the whole run would take."""
        size = self._flags.batch_size
        started = time.monotonic()
        self._one_step(size).sum().item()  # waits for the device
        seconds = (time.monotonic() - started) / size
        self.report_cost()
        steps = self._diffusion.num_timesteps
        hours = seconds * steps * self._flags.num_samples / 3600
        self._log(f"one step, with warm-up: {seconds:.3f} s a sample")
        self._log(
            f"{self._flags.num_samples} samples of {steps} steps on one device: about {hours:.2f} h"
        )
        self._log("dry run: nothing was written")

    def _one_step(self, size: int) -> torch.Tensor:
        """The first step of the first ``size`` samples, guidance included."""
        x = torch.randn(size, *self._shape, device=self._device)
        options = dataclasses.replace(self._options_for(list(range(size))), eta=0.0)
        t = next(iter(self._diffusion.descending_timesteps(x)))
        with torch.no_grad():
            out = self._diffusion.p_sample(self._denoiser, x, t, torch.zeros_like(x), options)
        return out["sample"]

    def label(self, index: int) -> int:
        """The class of a sample: the given ones in turn, or a random one of (seed, index)."""
        if self._chosen:
            return self._chosen[index % len(self._chosen)]
        rng = np.random.default_rng(stable_seed(self._flags.seed, "label", index))
        return self._trained[int(rng.integers(len(self._trained)))]

    def _check_labels(self) -> None:
        text, num_classes = self._flags.labels, self._network.num_classes
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

    def _draw(self, indices: list[int], stop: StopFlag) -> torch.Tensor | None:
        """Samples (N, C, H, H) in [-1, 1]; None if a signal came.

        Short batches are filled up: kernels round by batch size.
        """
        filled = [*indices, *[indices[-1]] * (self._flags.batch_size - len(indices))]
        generators = [
            torch.Generator(self._device).manual_seed(
                stable_seed(self._flags.seed, "sample", index)
            )
            for index in filled
        ]
        options = self._options_for(filled)
        samples = draw_samples(
            self._diffusion,
            self._denoiser,
            generators,
            self._shape,
            options,
            lambda: bool(stop.reason),
        )
        return None if samples is None else samples[: len(indices)]

    def _options_for(self, indices: list[int]) -> SamplerOptions:
        """The options with the labels of these samples, for the network and the guide."""
        if not self._has_labels:
            return self._options
        y = torch.tensor([self.label(index) for index in indices], device=self._device)
        return dataclasses.replace(
            self._options,
            model_kwargs={"y": y} if self._network.class_cond else None,
            cond_fn=self._guide(y) if self._guide else None,
        )

    def _arrays(self, indices: list[int], samples: torch.Tensor) -> dict[str, Any]:
        require_finite(samples, f"sample {indices[0]}")
        pixels = image_to_bytes(samples).permute(0, 2, 3, 1)  # NHWC
        arrays = {"samples": np.ascontiguousarray(pixels.cpu().numpy())}
        if self._has_labels:
            arrays["labels"] = np.array([self.label(index) for index in indices], np.int64)
        return arrays


def guided(model: Model, network: ImageModelFlags, flags: ImageSampleFlags) -> Model:
    """The denoiser, or its classifier-free guidance.

    Raises:
        ValueError: if the network was not trained for guidance.
    """
    if flags.guidance_scale == 1.0:
        return model
    if network.null_label is None:
        raise ValueError(
            f"--guidance_scale {flags.guidance_scale:g} needs a network that was trained with "
            "--class_dropout; give that flag's value here, too"
        )
    return classifier_free(model, flags.guidance_scale, network.null_label)


SETTINGS_FILE = ".sampling.json"


def load_sampler(
    network: ImageModelFlags,
    process: ImageDiffusionFlags,
    flags: ImageSampleFlags,
    guide: GuideFlags,
    device: torch.device,
    log: Callable[[str], None],
) -> ImageSampler:
    """The sampler with its network and its guide.

    Raises:
        CheckpointError: if a checkpoint is missing, damaged or of another network.
        ValueError: for flags that contradict each other.
    """
    keywords = model_keywords(network, process)
    identity = image_identity(network, process, is_training=False)
    model = load_checked(create_image_model, keywords, flags.model_path, log, identity)
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
    network: ImageModelFlags,
    process: ImageDiffusionFlags,
    sampler: ImageSampler,
    guide: GuideFlags,
) -> None:
    """Remembers what the samples of the output folder are drawn with, and refuses anything else.

    Raises:
        DataError: names the settings that differ.
    """
    flags = sampler.flags
    settings = sampling_settings(network, process, flags, flags.seed)
    own: dict[str, Any] = {"labels": flags.labels, "guidance_scale": flags.guidance_scale}
    own["random_labels"] = random_labels(sampler.class_names, network.num_classes)
    if flags.chosen_labels or not (network.class_cond or guide.classifier_path):
        own["random_labels"] = ALL_LABELS  # none is drawn
    if guide.classifier_path:
        own |= {**vars(guide), "classifier_path": sha256_of(guide.classifier_path)}
    classes = (type(network), type(process), ImageSampleFlags, GuideFlags)
    require_same_settings(
        os.path.join(flags.output_dir, SETTINGS_FILE),
        {**settings, **own},
        defaults={**setting_defaults(*classes), "random_labels": ALL_LABELS},
    )
