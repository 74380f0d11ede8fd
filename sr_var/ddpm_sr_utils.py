"""Training of the diffusion model that draws high-res images given a low-res one.

Drawing samples from it is the business of ``sampling``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ddpm.stored_flags import check_labels
from ddpm.train_loop import DiffusionTrainLoop, NamesClasses, noising
from sr_var.data.pairs import load_train_crops
from sr_var.degradation import area_downsample, bilinear_upsample
from sr_var.flags.scripts import DataFlags
from sr_var.results.folder import PICTURES_IN_STRIP, strip
from utils.flags.training import TrainFlags
from utils.images.dataset import Entry
from utils.images.pixels import bytes_to_image
from utils.loops.data import TrainData

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from diffusion.timesteps import ScheduleSampler


class SRDiffusionTrainLoop(NamesClasses, DiffusionTrainLoop):
    """The diffusion loss given the low-res image.

    Batch: a dict of ``low_res``, ``y``, ``t``, ``weight`` and ``noise``; label: the high-res image.
    `rest` is that of `NamesClasses` and `DiffusionTrainLoop`.
    """

    def __init__(self, *, is_class_cond: bool, **rest: Any) -> None:
        names = ("low_res", "y") if is_class_cond else ("low_res",)
        super().__init__(condition_names=names, **rest)

    def _post_process(self, micro_input: Any, micro_label: Any, micro_output: Any, i: int) -> None:
        if i == 0 and self.is_image_step:
            label = micro_label[:PICTURES_IN_STRIP]
            low_res = bilinear_upsample(micro_input["low_res"][:PICTURES_IN_STRIP], label.shape[-1])
            self.logger.image("low_res | target", strip(low_res, label), self.step)


def load_diffusion_data(
    flags: DataFlags,
    sizes: tuple[int, int],
    train: TrainFlags,
    schedule_sampler: ScheduleSampler,
    device: torch.device,
    log: Callable[[str], None],
    num_classes: int | None = None,
) -> TrainData[Any]:
    """Training batches with their timesteps and noise; ``sizes`` is (large, small).

    ``num_classes`` is that of a class-conditional network: labels are checked at the start.
    """
    large_size, small_size = sizes

    def prepare(batch: dict[str, Any]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        high_res = bytes_to_image(batch["high_res"].to(device, non_blocking=True))
        condition = {
            "low_res": area_downsample(high_res, small_size),
            "y": batch["y"].to(device),
            **noising(schedule_sampler, train.seed, batch["position"], high_res),
        }
        return condition, high_res

    def checked(entries: list[Entry]) -> list[Entry]:
        check_labels(entries, num_classes)
        return entries

    return load_train_crops(flags, large_size, train.batch_size, train.seed, prepare, log, checked)
