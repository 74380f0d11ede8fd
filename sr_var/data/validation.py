"""The images that a net is judged on while it trains, and what is computed on them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm.stored_flags import check_labels, class_names
from sr_var.base_dataset import load_entries
from sr_var.data.folds import CrossFit, FoldedInput
from sr_var.data.label_noise import LabelNoise, with_label_noise
from sr_var.data.pairs import load_regression_data, split_off
from sr_var.degradation import with_labels
from sr_var.degrade.view import Sizes, View
from sr_var.flags.scripts import DataFlags
from sr_var.flags.validation import NetTrainFlags
from utils.flags.groups import Reading
from utils.images.crops.dataset import CropDataset
from utils.images.crops.held_out import load_held_out
from utils.images.files import with_extension
from utils.images.listing import ImageList
from utils.loops.data import Pair, TrainData
from utils.loops.validation import Validation
from utils.metrics import HALF_RANGE_255, VARIANCE_FLOOR
from utils.process.errors import DataError

Log = Callable[[str], None]


class TrainingImages(NamedTuple):
    """What a training of a mean, variance or baseline net is made with, by its loop's keywords."""

    data: TrainData
    validation: Validation | None
    class_names: list[str]  # by label; empty of a net without classes

    @property
    def entries(self) -> ImageList:
        """The images that are trained on."""
        assert isinstance(self.data.dataset, CropDataset)
        return self.data.dataset.entries


def load_training(
    flags: DataFlags,
    sizes: Sizes,
    train: NetTrainFlags,
    device: torch.device,
    log: Log,
    cross_fit: CrossFit | None = None,
    num_labels: int | None = None,
) -> TrainingImages:
    """`load_regression_data` and `load_validation` of the same flags, and the classes' names."""
    data = load_regression_data(flags, sizes, train, device, log, cross_fit, num_labels)
    validation = load_validation(flags, sizes, train, device, log, cross_fit, num_labels)
    found = TrainingImages(data, validation, [])
    return found if num_labels is None else found._replace(class_names=class_names(found.entries))


def load_validation(
    flags: DataFlags,
    sizes: Sizes,
    train: NetTrainFlags,
    device: torch.device,
    log: Log,
    cross_fit: CrossFit | None = None,
    num_labels: int | None = None,
) -> Validation | None:
    """What a net is judged on while it trains, by the flags; None where they ask for nothing.

    `sizes` are (large, small), or a view. Pairs are those of `load_regression_data`, with labels,
    too; with a cross-fit of all folds an image meets the net of its name's fold. All processes
    call it.

    Raises:
        DataError: images are missing, damaged, or trained on; or a label is not known.
    """
    if not train.has_validation:
        return None
    view = View.of_sizes(sizes).for_tests()
    entries, source = _candidates(flags, train)
    check_labels(entries, num_labels)
    held_out = load_held_out(entries, view.large, train.val_images, flags, log, flags.in_channels)
    log(held_out.words(source, train.val_interval))
    noise = LabelNoise.of(train)

    def pairs() -> Iterator[tuple[int, Pair]]:
        for place, item in held_out.crops.items():
            low_res, high_res = view.pair(item.image[None], [item.name], device)
            label = with_label_noise(noise, high_res, [item.name])
            y = None if num_labels is None else torch.tensor([item.label], device=device)
            net_input = with_labels(low_res, y)
            if cross_fit is not None and cross_fit.left_out is None:
                fold = torch.tensor([cross_fit.fold_of(held_out.entries[place])], device=device)
                yield place, (FoldedInput(net_input, fold), label)
            else:
                yield place, (net_input, label)

    names = [with_extension(entry.name) for entry in held_out.entries]
    record = {"val_share": train.val_share, **asdict(Reading.of(flags))}
    return Validation(names, pairs, train.val_interval, record)


def _candidates(flags: DataFlags, train: NetTrainFlags) -> tuple[ImageList, str]:
    """All images that may be judged, and what they are, in words."""
    listed = load_entries(flags.data_info_dict_path, flags.data_dir)
    if train.val_share:
        _, held = split_off(listed, train)
        return held, f"{len(held)} that are left out of the training (--val_share)"
    path = train.val_data_info_dict_path
    entries = load_entries(path, flags.data_dir, "--val_data_info_dict_path")
    files = {with_extension(name) for name in entries.names}
    trained = files.intersection(map(with_extension, listed.names))
    both = [name for name in entries.names if with_extension(name) in trained]
    if both:
        raise DataError(
            f"--val_data_info_dict_path {path}: {len(both)} of {len(entries)} images are trained "
            f"on, as {both[0]}; list others, or leave a share of the training images out with "
            "--val_share"
        )
    return entries, path


def psnr_of(mean: Tensor, label: Tensor) -> Tensor:
    """PSNR in dB over all values, 10 log₁₀(4 / mse): images in [-1, 1] have the range 2."""
    mse = (mean.double() - label.double()).square().mean()
    return 10 * (4 / mse).log10()


def calibration_of(squared_residual: Tensor, variance: Tensor) -> dict[str, Tensor]:
    """`z2` and `nll` (nats, of grey levels) of a normal law; docs/theory.md, section 3.

    Means over the values of z² = r²/v and ½ (ln 2πv + z²), v raised to 1/12 grey level² as in the
    verification. Residuals and variances are those of images in [-1, 1], of one shape.
    """
    unit = HALF_RANGE_255**2
    v = (variance.double() * unit).clamp(min=VARIANCE_FLOOR)
    z2 = squared_residual.double() * unit / v
    return {"z2": z2.mean(), "nll": 0.5 * ((2 * math.pi * v).log() + z2).mean()}
