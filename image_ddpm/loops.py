"""Training of the denoiser of plain images; now and then it draws a few, to look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from ddpm.process import create_diffusion, create_schedule_sampler
from ddpm.stored_flags import class_names, trained_labels
from ddpm.train_loop import DiffusionTrainLoop, NamesClasses, Noising, noising
from diffusion.samplers import SamplerOptions, gaussian_noise_fn, sample_loop
from image_ddpm.flags import ImageDataFlags, ImageDiffusionFlags, ImageModelFlags, ImageTrainFlags
from image_ddpm.networks import image_identity
from utils import dist_util
from utils.flags.training import TrainFlags
from utils.images.crops.dataset import CropBatch, Preparation, train_crops
from utils.images.listing import Entry
from utils.images.pixels import bytes_to_image, image_to_bytes, make_grid, to_hwc
from utils.loops.data import TrainData
from utils.seeds import stable_seed
from utils.sizes import Size

if TYPE_CHECKING:
    from diffusion.timesteps import ScheduleSampler
    from utils.logger import RunLogger

GRID_STEPS = 20


def load_train_images(
    entries: Sequence[Entry],
    flags: ImageDataFlags,
    model: ImageModelFlags,
    train: TrainFlags,
    schedule_sampler: ScheduleSampler,
    device: torch.device,
    log: Callable[[str], None],
) -> TrainData:
    """Endless shuffled batches of `Noising` and the images, (N, C, H, W) in [-1, 1].

    A class-conditional network is given their labels, `y`. With `class_dropout`, a label is
    replaced by 'none' as a function of (seed, position in the stream).
    """

    def prepare(batch: CropBatch) -> tuple[Noising, torch.Tensor]:
        images, labels = bytes_to_image(batch.image.to(device, non_blocking=True)), batch.label
        if model.null_label is not None:
            seeds = (stable_seed(train.seed, "class dropout", int(i)) for i in batch.position)
            drawn = torch.tensor([np.random.default_rng(seed).random() for seed in seeds])
            labels = torch.where(drawn < model.class_dropout, model.null_label, labels)
        condition = {"y": labels.to(device)} if model.class_cond else {}
        return noising(schedule_sampler, train.seed, batch.position, images, **condition), images

    return train_crops(
        entries, model.image_size, flags, train, Preparation(prepare), log, model.in_channels
    )


class ImageDiffusionTrainLoop(NamesClasses, DiffusionTrainLoop):
    """The diffusion loss of images, given their label or nothing."""

    def __init__(
        self,
        *,
        model: torch.nn.Module,
        entries: Sequence[Entry],
        data_flags: ImageDataFlags,
        network: ImageModelFlags,
        process: ImageDiffusionFlags,
        train: ImageTrainFlags,
        logger: RunLogger,
    ) -> None:
        self._network, self._process, self._train = network, process, train
        diffusion = create_diffusion(process)
        sampler = create_schedule_sampler(train.schedule_sampler, diffusion)
        device, log = dist_util.current_device(), logger.info
        super().__init__(
            model=model,
            data=load_train_images(entries, data_flags, network, train, sampler, device, log),
            diffusion=diffusion,
            schedule_sampler=sampler,
            class_names=class_names(entries) if network.class_cond else [],
            identity=image_identity(network, process, is_training=True),
            logger=logger,
            **train.common(),
        )

    def _post_process(
        self, micro_input: Noising, micro_label: torch.Tensor, micro_output: None, i: int
    ) -> None:
        if i == 0 and self.is_image_step:
            shown = micro_label[: self._train.num_grid_samples]
            self._show("training images", image_to_bytes(shown))
        interval = self._train.sample_interval
        is_due = interval and self.step and self.step % interval == 0
        if i == 0 and is_due and dist_util.is_main():
            self._show("samples", image_to_bytes(self.draw_grid()))

    def draw_grid(self) -> torch.Tensor:
        """`num_grid_samples` samples of the network as it is, (N, C, H, W), the same noise ever.

        DPM-Solver++ (2M), respaced; the classes that have images in turn.
        """
        num_steps = min(GRID_STEPS, self._process.diffusion_steps)
        diffusion = create_diffusion(replace(self._process, timestep_respacing=str(num_steps)))
        size = self._train.num_grid_samples
        shape = (size, self._network.in_channels, *Size.of(self._network.image_size))
        generators = [
            torch.Generator(self.device).manual_seed(stable_seed(self.flags.seed, "grid", i))
            for i in range(size)
        ]
        x, noise_fn = gaussian_noise_fn(generators, shape, self.device)
        condition = {}
        if self._network.class_cond:
            labels = trained_labels(self.class_names, self._network.num_classes)
            y = [labels[i % len(labels)] for i in range(size)]
            condition["y"] = torch.tensor(y, device=self.device)
        options = SamplerOptions(sampler="dpmpp_2m", model_kwargs=condition)
        self.model.eval()
        try:
            return sample_loop(diffusion, self.model, x, noise_fn, options)
        finally:
            self.model.train()

    def _show(self, tag: str, images_uint8: torch.Tensor) -> None:
        pictures = [np.repeat(to_hwc(image), 3 // image.shape[0], axis=2) for image in images_uint8]
        columns = max(1, round(len(pictures) ** 0.5))
        self.logger.image(tag, make_grid(pictures, columns), self.step)
