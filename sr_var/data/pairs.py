"""Batches for the networks: uint8 crops from disk become (input, label) pairs on the device.

Input and label are the same for the mean and the variance net: the low-res image upsampled
bilinearly, and the high-res image, NCHW float in [-1, 1]. What a loss makes of them is its task's
business.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from sr_var.base_dataset import load_entries
from sr_var.degradation import area_downsample, bilinear_upsample
from sr_var.flags.scripts import DataFlags
from utils.images.dataset import CropDataset, Entry, TestCrops, noting
from utils.images.pixels import bytes_to_image
from utils.loops.data import TrainData, shard_batches
from utils.loops.loader import default_num_workers, loaded, make_loader

if TYPE_CHECKING:
    from sr_var.data.folds import CrossFit

Choose = Callable[[list[Entry]], list[Entry]]


def load_train_crops(
    flags: DataFlags,
    large_size: int,
    batch_size: int,
    seed: int,
    prepare: Callable[[dict[str, Any]], tuple[Any, Any]],
    log: Callable[[str], None],
    choose: Choose = list,
) -> TrainData[Any]:
    """Endless shuffled training batches; ``prepare`` makes the task's pair from a batch of crops.

    It receives ``high_res`` (N, 3, H, H) uint8 on the CPU, ``y``, ``place`` (among the entries) and
    ``position`` (N,). `log` receives a line for every bad image that was replaced, and what became
    of others; `choose` says which images to use, and may refuse them.

    Raises:
        DataError: for missing data, or a batch larger than the data.
    """
    entries = choose(load_entries(flags.data_info_dict_path, flags.data_dir))
    log(f"{len(entries)} training images from {flags.data_info_dict_path}")
    note = noting(entries, large_size, flags, log)

    def report_and_prepare(batch: dict[str, Any]) -> tuple[Any, Any]:
        note(batch)
        return prepare(batch)

    return TrainData(
        CropDataset(entries, large_size, flags, seed),
        batch_size,
        report_and_prepare,
        seed=seed,
        num_workers=flags.num_workers,
    )


def regression_pair(
    high_res_uint8: torch.Tensor, small_size: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """(low-res image upsampled bilinearly, high-res image) on the device, of (N, 3, H, H) bytes."""
    high_res = bytes_to_image(high_res_uint8.to(device, non_blocking=True))
    low_res = area_downsample(high_res, small_size)
    return bilinear_upsample(low_res, high_res.shape[-1]), high_res


def load_regression_data(
    flags: DataFlags,
    sizes: tuple[int, int],
    batch_size: int,
    seed: int,
    device: torch.device,
    log: Callable[[str], None],
    cross_fit: CrossFit | None = None,
) -> TrainData[Any]:
    """Training batches for the mean and the variance net; ``sizes`` is (large, small).

    With a ``cross_fit`` that leaves a fold out, the batches hold none of its images. With one that
    leaves out nothing, the input is a dict of ``low_res``, the upsampled images, and ``fold`` (N,).
    """
    large_size, small_size = sizes
    folds: list[int] = []  # of the images, once they are chosen

    def prepare(batch: dict[str, Any]) -> tuple[Any, torch.Tensor]:
        low_res_up, high_res = regression_pair(batch["high_res"], small_size, device)
        if cross_fit is None or cross_fit.left_out is not None:
            return low_res_up, high_res
        fold = torch.tensor([folds[place] for place in batch["place"].tolist()])
        return {"low_res": low_res_up, "fold": fold.to(device)}, high_res

    def choose(entries: list[Entry]) -> list[Entry]:
        if cross_fit is None:
            return entries
        log(cross_fit.describe(entries))
        kept = cross_fit.kept(entries)
        folds[:] = map(cross_fit.fold_of, kept)
        return kept

    return load_train_crops(flags, large_size, batch_size, seed, prepare, log, choose)


def rank_batches(
    entries: Sequence[Entry], batch_size: int, pending: Iterable[Entry] | None = None
) -> list[list[Entry]]:
    """This rank's share of the images, each once and in order; or the batches with pending ones.

    The other images of these are computed again: a result depends in its last bits on what else is
    in its batch, and a run that was stopped should leave what one run leaves.
    """
    batches = [[entries[i] for i in batch] for batch in shard_batches(len(entries), batch_size)]
    if pending is None:
        return batches
    wanted = set(pending)
    return [batch for batch in batches if not wanted.isdisjoint(batch)]


def test_batches(
    batches: Sequence[Sequence[Entry]], flags: DataFlags, large_size: int
) -> Iterator[dict[str, Any]]:
    """The images of these batches, in order.

    Yields:
        ``high_res`` (n, 3, H, H) uint8, ``y`` (n,) and ``name`` (list of n); skipped images are
        left out, and counted and listed at the end.
    """
    crops = TestCrops.from_flags([entry for batch in batches for entry in batch], large_size, flags)
    num_workers = default_num_workers() if flags.num_workers < 0 else flags.num_workers
    ends = list(itertools.accumulate(map(len, batches)))
    indices = [list(range(end - len(b), end)) for b, end in zip(batches, ends, strict=True)]
    loader = make_loader(crops, indices, num_workers, collate=_drop_skipped)
    skipped: list[str] = []
    for entries, batch in zip(batches, loaded(loader), strict=True):
        names = batch["name"] if batch else []
        skipped += [entry.name for entry in entries if entry.name not in names]
        if batch:
            yield batch
    if skipped:
        print(f"warning: {len(skipped)} damaged images were skipped: {', '.join(skipped)}")


test_batches.__test__ = False  # type: ignore[attr-defined]  # no test case


def _drop_skipped(items: list[dict[str, Any] | None]) -> Any:
    kept = [item for item in items if item is not None]
    return torch.utils.data.default_collate(kept) if kept else None
