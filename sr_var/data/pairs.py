"""Batches for the networks: uint8 crops from disk become (input, label) pairs on the device.

Input and label are the same for the mean and the variance net: the low-res image X and the high-res
image Y, NCHW float in [-1, 1]. A network that works at the high-res side upsamples X itself; what a
loss makes of them is its task's business.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, overload

import torch

from ddpm.stored_flags import check_labels
from sr_var.base_dataset import load_entries
from sr_var.data.folds import CrossFit, FoldedInput
from sr_var.data.label_noise import LabelNoise, with_label_noise
from sr_var.degradation import NetInput, area_downsample, with_labels
from sr_var.degrade.view import Sizes, View
from sr_var.flags.scripts import DataFlags
from sr_var.flags.validation import NetTrainFlags, ValidationFlags
from utils.images.crops.dataset import (
    CropBatch,
    CropItem,
    Finish,
    Preparation,
    TestCrops,
    train_crops,
)
from utils.images.listing import Entry, ImageList, LazySequence
from utils.images.pixels import bytes_to_image
from utils.loops.data import TrainData, default_num_workers, loaded, make_loader, shard_batches
from utils.loops.validation import drawn
from utils.process.errors import DataError
from utils.sizes import SizeLike


class Photographs(NamedTuple):
    """What a test loop's input is of: `name` (n), and `high_res` (n, 3, H, W) in [-1, 1]."""

    name: list[str]
    high_res: torch.Tensor


@dataclass(frozen=True)
class Seeing:
    """Adds what networks see to a batch of crops, in the process that loads them.

    X is made there alone where it takes the processor on every device (`View.is_made_on_cpu`), so
    that the number of processes that load changes nothing.

    Attributes:
        view: what they see.
        has_names: whether the random numbers of an image are those of its name, as in tests; else
            of its place in the stream.
    """

    view: View
    has_names: bool = False

    @classmethod
    def of(cls, view: View, *, has_names: bool = False) -> Seeing | None:
        """None where X is made on the device."""
        return cls(view, has_names) if view.is_made_on_cpu else None

    def __call__(self, batch: CropBatch) -> CropBatch:
        """The batch with X beside its images."""
        items = batch.name if self.has_names else batch.position.tolist()
        return batch._replace(seen=self.view.x_of(bytes_to_image(batch.image), items))


def regression_pair(
    high_res_uint8: torch.Tensor, small_size: SizeLike, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """(low-res image, high-res image) on the device, of (N, C, H, W) bytes or 255ths."""
    high_res = bytes_to_image(high_res_uint8.to(device, non_blocking=True))
    return area_downsample(high_res, small_size), high_res


def load_regression_data(
    flags: DataFlags,
    sizes: Sizes,
    train: NetTrainFlags,
    device: torch.device,
    log: Callable[[str], None],
    cross_fit: CrossFit | None = None,
    num_labels: int | None = None,
) -> TrainData:
    """Training batches for the mean and the variance net; `sizes` is (large, small), or a view.

    A `--val_share` of the images is left out; labels have the noise of `--label_noise`, X has not.
    With a `cross_fit` that leaves a fold out, the batches hold none of its images. With one that
    leaves out nothing, the input is a `FoldedInput`. For a network that knows `num_labels` classes
    images have that of theirs beside them (`Labelled`).

    Raises:
        DataError: for missing data, a batch larger than the data, or a label that is not known.
    """
    view = View.of_sizes(sizes)
    entries, _ = split_off(load_entries(flags.data_info_dict_path, flags.data_dir), train)
    check_labels(entries, num_labels)
    folds = None
    if cross_fit is not None:
        folds_of_all = cross_fit.folds_of(entries)
        log(cross_fit.describe(folds_of_all))
        entries = cross_fit.kept(entries, folds_of_all)
        if cross_fit.left_out is None:
            folds = torch.from_numpy(folds_of_all)
    log(f"{len(entries)} training images from {flags.data_info_dict_path}")
    noise = LabelNoise.of(train)

    def prepare(batch: CropBatch) -> tuple[NetInput | FoldedInput, torch.Tensor]:
        positions = batch.position.tolist()
        low_res, high_res = view.pair(batch.image, positions, device, batch.seen)
        label = with_label_noise(noise, high_res, positions)
        net_input = with_labels(low_res, None if num_labels is None else batch.label.to(device))
        if folds is None:
            return net_input, label
        return FoldedInput(net_input, folds[batch.place].to(device)), label

    how = Preparation(prepare, Seeing.of(view))
    return train_crops(entries, view.large, flags, train, how, log, flags.in_channels)


def split_off(entries: Sequence[Entry], flags: ValidationFlags) -> tuple[ImageList, ImageList]:
    """(entries to train on, entries to validate on), each in its order, by `--val_share`.

    Each name draws for itself, so the share is met on average; at least one is on each side.

    Raises:
        DataError: there are not two images.
    """
    images = ImageList.of(entries)
    if not flags.val_share:
        return images, images[:0]
    if len({*itertools.islice(dict.fromkeys(images.names), 2)}) < 2:
        raise DataError(
            f"--val_share {flags.val_share}: of one image none can be left out of the training; "
            "list others with --val_data_info_dict_path"
        )
    out = {*(drawn(images.names, share=flags.val_share) or drawn(images.names, 1))}
    kept = images.keep(lambda name: name not in out)
    if not kept:
        out.remove(drawn(images.names)[-1])
        kept = images.keep(lambda name: name not in out)
    return kept, images.keep(out.__contains__)


class Batches(LazySequence[ImageList]):
    """Batches of images, each made when it is asked for; `shares` are their places in the list."""

    def __init__(self, images: ImageList, shares: Sequence[range]) -> None:
        self._images, self._shares = images, shares

    def __len__(self) -> int:
        return len(self._shares)

    @overload
    def __getitem__(self, index: int) -> ImageList: ...
    @overload
    def __getitem__(self, index: slice) -> Batches: ...
    def __getitem__(self, index: int | slice) -> ImageList | Batches:
        if isinstance(index, slice):
            return Batches(self._images, self._shares[index])
        return self._images.take(self._shares[index])


def rank_batches(
    entries: Sequence[Entry], batch_size: int, pending: Sequence[Entry] | None = None
) -> Batches:
    """This rank's share of the images, each once and in order; or the batches with pending ones.

    The other images of these are computed again: a result depends in its last bits on what else is
    in its batch, and a run that was stopped should leave what one run leaves.
    """
    images, shares = ImageList.of(entries), shard_batches(len(entries), batch_size)
    batches = Batches(images, shares)
    if pending is None or len(pending) == len(entries):
        return batches
    wanted = set(pending)
    pairs = zip(shares, batches, strict=True)
    return Batches(images, [share for share, batch in pairs if not wanted.isdisjoint(batch)])


def crop_batches(
    batches: Sequence[Sequence[Entry]],
    flags: DataFlags,
    large_size: SizeLike,
    finish: Finish | None = None,
) -> Iterator[CropBatch]:
    """The images of these batches, in order; `finish` as in `Preparation`.

    Skipped images are left out, and counted and listed at the end.
    """
    listed = ImageList.of(entry for batch in batches for entry in batch)
    crops = TestCrops.from_flags(listed, large_size, flags, flags.in_channels)
    num_workers = default_num_workers() if flags.num_workers < 0 else flags.num_workers
    ends = list(itertools.accumulate(map(len, batches)))
    indices = [list(range(end - len(b), end)) for b, end in zip(batches, ends, strict=True)]
    loader = make_loader(crops, indices, num_workers, collate=partial(_whole, finish))
    skipped: list[str] = []
    for entries, batch in zip(batches, loaded(loader), strict=True):
        names = batch.name if batch else []
        skipped += [entry.name for entry in entries if entry.name not in names]
        if batch:
            yield batch
    if skipped:
        print(f"warning: {len(skipped)} damaged images were skipped: {', '.join(skipped)}")


def _whole(finish: Finish | None, items: list[CropItem | None]) -> CropBatch | None:
    kept = [item for item in items if item is not None]
    return CropBatch.of(kept, finish) if kept else None
