"""Training of the denoiser of plain images; now and then it draws a few, to look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ddpm.process import create_diffusion, create_schedule_sampler
from ddpm.stored_flags import trained_labels
from ddpm.train_loop import DiffusionTrainLoop, NamesClasses, Noising
from diffusion.samplers import SamplerOptions, gaussian_noise_fn, sample_loop
from image_ddpm.flags import ImageDiffusionFlags, ImageModelFlags, ImageTrainFlags
from image_ddpm.networks import image_identity
from utils import dist_util
from utils.images.pixels import image_to_bytes, make_grid, to_hwc
from utils.seeds import stable_seed

if TYPE_CHECKING:
    from diffusion.process import GaussianDiffusion
    from diffusion.timesteps import ScheduleSampler
    from utils.logger import RunLogger

GRID_STEPS = 20


class ImageDiffusionTrainLoop(NamesClasses, DiffusionTrainLoop):
    """The diffusion loss of images, given their label or nothing.

    Args:
        shape: (C, H, H) of an image.
        num_classes: labels in a grid of samples run over those that have images; None: no labels.
        grid_diffusion: the process that the grid is drawn with, respaced; None for no grid.
        sample_interval: steps between grids; 0: none.
        num_grid_samples: images in one.
        rest: of :class:`NamesClasses` and :class:`DiffusionTrainLoop`.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, int, int],
        num_classes: int | None,
        grid_diffusion: GaussianDiffusion | None,
        sample_interval: int = 0,
        num_grid_samples: int = 16,
        **rest: Any,
    ) -> None:
        self._shape, self._num_classes, self._grid_diffusion = shape, num_classes, grid_diffusion
        self._sample_interval, self._num_grid_samples = sample_interval, num_grid_samples
        super().__init__(**rest)

    def _post_process(
        self, micro_input: Noising, micro_label: torch.Tensor, micro_output: None, i: int
    ) -> None:
        if i == 0 and self.is_image_step:
            self._show("training images", image_to_bytes(micro_label[: self._num_grid_samples]))
        is_due = self._sample_interval and self.step and self.step % self._sample_interval == 0
        if i == 0 and is_due and dist_util.is_main():
            self._show("samples", image_to_bytes(self.draw_grid()))

    def draw_grid(self) -> torch.Tensor:
        """``num_grid_samples`` samples of the network as it is, (N, C, H, H), the same noise ever.

        DPM-Solver++ (2M); the classes in turn.
        """
        assert self._grid_diffusion is not None
        size = self._num_grid_samples
        generators = [
            torch.Generator(self.device).manual_seed(stable_seed(self.flags.seed, "grid", i))
            for i in range(size)
        ]
        x, noise_fn = gaussian_noise_fn(generators, (size, *self._shape), self.device)
        condition = {}
        if self._num_classes is not None:
            labels = trained_labels(self.class_names, self._num_classes)
            y = [labels[i % len(labels)] for i in range(size)]
            condition["y"] = torch.tensor(y, device=self.device)
        options = SamplerOptions(sampler="dpmpp_2m", model_kwargs=condition)
        self.model.eval()
        try:
            return sample_loop(self._grid_diffusion, self.model, x, noise_fn, options)
        finally:
            self.model.train()

    def _show(self, tag: str, images_uint8: torch.Tensor) -> None:
        pictures = [np.repeat(to_hwc(image), 3 // image.shape[0], axis=2) for image in images_uint8]
        columns = max(1, round(len(pictures) ** 0.5))
        self.logger.image(tag, make_grid(pictures, columns), self.step)


def make_train_loop(
    model: torch.nn.Module,
    load_data: Callable[[ScheduleSampler], Any],
    names: Sequence[str],
    flags: ImageModelFlags,
    process: ImageDiffusionFlags,
    train: ImageTrainFlags,
    logger: RunLogger,
) -> ImageDiffusionTrainLoop:
    """The loop of the flags; ``load_data`` gets the schedule sampler that it draws t from.

    ``names`` are those of the classes, by label.
    """
    diffusion = create_diffusion(process)
    sampler = create_schedule_sampler(train.schedule_sampler, diffusion)
    grid_diffusion = None
    if train.sample_interval:
        num_steps = min(GRID_STEPS, process.diffusion_steps)
        grid_diffusion = create_diffusion(replace(process, timestep_respacing=str(num_steps)))
    return ImageDiffusionTrainLoop(
        model=model,
        data=load_data(sampler),
        diffusion=diffusion,
        schedule_sampler=sampler,
        shape=(flags.in_channels, flags.image_size, flags.image_size),
        num_classes=flags.num_classes if flags.class_cond else None,
        class_names=names,
        identity=image_identity(flags, process, is_training=True),
        grid_diffusion=grid_diffusion,
        sample_interval=train.sample_interval,
        num_grid_samples=train.num_grid_samples,
        logger=logger,
        **train.common(),
    )
