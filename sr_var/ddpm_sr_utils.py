"""Training of the diffusion model that draws high-res images given a low-res one.

Drawing samples from it is the business of `sampling`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from ddpm.train_loop import DiffusionTrainLoop, NamesClasses, Noising, noising
from sr_var.base_dataset import load_training_entries
from sr_var.data.pairs import Seeing
from sr_var.degrade.view import Sizes, View
from sr_var.flags.scripts import DataFlags
from sr_var.results.folder import PICTURES_IN_STRIP, strip
from utils.flags.training import TrainFlags
from utils.images.crops.dataset import CropBatch, Preparation, train_crops
from utils.loops.data import TrainData

if TYPE_CHECKING:
    from diffusion.timesteps import ScheduleSampler


class SRDiffusionTrainLoop(NamesClasses, DiffusionTrainLoop):
    """The diffusion loss given the low-res image and, of a network with classes, its label."""

    def _post_process(
        self, micro_input: Noising, micro_label: torch.Tensor, micro_output: None, i: int
    ) -> None:
        if i == 0 and self.is_image_step:
            label = micro_label[:PICTURES_IN_STRIP]
            low_res = micro_input.condition["low_res"][:PICTURES_IN_STRIP, : label.shape[1]]
            picture = strip(low_res, label)
            self.logger.image("low_res | target", picture, self.step)


def load_diffusion_data(
    flags: DataFlags,
    sizes: Sizes,
    train: TrainFlags,
    schedule_sampler: ScheduleSampler,
    device: torch.device,
    log: Callable[[str], None],
    num_classes: int | None = None,
) -> TrainData:
    """Training batches with their timesteps and noise; `sizes` is (large, small), or a view.

    `num_classes` is that of a class-conditional network: it is given `y` beside `low_res`,
    and labels are checked at the start.
    """
    view = View.of_sizes(sizes)
    entries = load_training_entries(flags, num_classes, log)

    def prepare(batch: CropBatch) -> tuple[Noising, torch.Tensor]:
        positions = batch.position.tolist()
        low_res, high_res = view.pair(batch.image, positions, device, batch.seen)
        condition = {"low_res": low_res}
        if num_classes is not None:
            condition["y"] = batch.label.to(device)
        noised = noising(schedule_sampler, train.seed, batch.position, high_res, **condition)
        return noised, high_res

    how = Preparation(prepare, Seeing.of(view))
    return train_crops(entries, view.large, flags, train, how, log, flags.in_channels)
