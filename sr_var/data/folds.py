"""Cross-fitting: residuals of images from the mean net that has not seen them.

A net's residuals on its own training images are too small, and a variance net trained on them is
biased low (docs/theory.md, section 4). With K nets, net k trained on all images outside fold k, the
residual of an image comes from the net of its fold (Chernozhukov et al. 2018, section 1).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sr_var.degradation import NetInput, labels_of, low_res_of, mean_of, with_labels
from sr_var.flags.nets import CrossFitFlags, FoldFlags
from utils import dist_util
from utils.files.atomic import JsonObject
from utils.images.listing import Entry, ImageList
from utils.loops.data import to_device
from utils.metrics import HALF_RANGE_255
from utils.process.errors import CheckpointError, DataError
from utils.seeds import stable_seed


@dataclass(frozen=True)
class CrossFit:
    """A division of images into folds, each name for itself or all of a class together (`by`).

    `left_out` is the fold that a mean net does not see; None for a run that uses all nets.
    """

    num_folds: int
    by: str
    left_out: int | None = None

    @classmethod
    def from_flags(cls, flags: CrossFitFlags, num_labels: int | None = None) -> CrossFit | None:
        """The division that the flags ask for; None without `--cross_fit`.

        `num_labels` are those that the nets know, if any.

        Raises:
            ValueError: nets that know classes would not see some of them.
        """
        if not flags.cross_fit:
            return None
        if num_labels is not None and flags.fold_by == "class":
            raise ValueError(
                "--fold_by class leaves whole classes out, whose labels a mean net with "
                "--class_cond True would not learn: give --fold_by image"
            )
        left_out = flags.fold if isinstance(flags, FoldFlags) else None
        return cls(flags.cross_fit, flags.fold_by, left_out)

    def fold_of(self, entry: Entry) -> int:
        """A function of the name (or class) and K alone: no list of images changes it."""
        return stable_seed("fold", entry.group if self.by == "class" else entry.name) % (
            self.num_folds
        )

    def folds_of(self, entries: Sequence[Entry]) -> NDArray[np.int64]:
        """`fold_of` each of them, (n,)."""
        return np.fromiter(map(self.fold_of, entries), np.int64, len(entries))

    def kept(self, entries: Sequence[Entry], folds: NDArray[np.int64] | None = None) -> ImageList:
        """The entries without those of the fold that is left out; `folds` are theirs, if known.

        Raises:
            DataError: if no image is left.
        """
        if self.left_out is None:
            return ImageList.of(entries)
        folds = self.folds_of(entries) if folds is None else folds
        kept = ImageList.of(entries).take(np.flatnonzero(folds != self.left_out))
        if not kept:
            raise DataError(
                f"all {len(entries)} images fall into fold {self.left_out} (--fold_by {self.by}); "
                "give another --cross_fit, or --fold_by image"
            )
        return kept

    def describe(self, folds: NDArray[np.int64]) -> str:
        """A line for the log: how many images are in each fold."""
        sizes = ", ".join(map(str, np.bincount(folds, minlength=self.num_folds)))
        tail = "" if self.left_out is None else f"; fold {self.left_out} is left out"
        return f"images in the {self.num_folds} folds by {self.by}: {sizes}{tail}"

    def record(self) -> JsonObject:
        """What a checkpoint remembers."""
        return dataclasses.asdict(self)

    def require_unseen(self, fold: int, path: str, state: JsonObject) -> None:
        """Refuse a mean net, whose residuals are wanted in a fold, if it has seen its images.

        `state` is stored with its checkpoint; of one of another tool, which has none, nothing can
        be known.
        """
        wanted = dataclasses.replace(self, left_out=fold).record()
        if state and state.get("cross_fit") != wanted:
            found = state.get("cross_fit")
            told = f"left out {found}" if found else "was trained on all images"
            raise CheckpointError(
                f"{path} {told}, so its residuals in fold {fold} would be too small; it must come "
                f"from sr_mean_train.py --cross_fit {self.num_folds} --fold_by {self.by} --fold "
                f"{fold}"
            )


class FoldedInput(NamedTuple):
    """A batch for the nets of its images' folds.

    Low-res images (N, 3, h, w) in [-1, 1], with their labels where the nets know classes; folds
    (N,), integers in [0, K).
    """

    low_res: NetInput
    fold: Tensor


class FoldedMean(nn.Module):
    """K frozen mean nets as one; the k-th has not seen the images of fold k."""

    def __init__(self, nets: Iterable[nn.Module]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)

    def forward(
        self,
        low_res: Tensor,
        size: Sequence[int] | None = None,
        fold: Tensor | None = None,
        y: Tensor | None = None,
    ) -> Tensor:
        """The mean by the net of each image's fold; for images without a fold, the nets' average.

        Images and folds are as in `FoldedInput`, `size` is that of the mean (None: of the images),
        `y` are labels (N,). Waits for the device once a net: how many images a net gets is a shape.
        """
        size = low_res.shape[2:] if size is None else size
        if fold is None:
            whole = with_labels(low_res, y)
            return torch.stack([mean_of(net, whole, size) for net in self.nets]).mean(dim=0)
        mean: Tensor | None = None
        for k, net in enumerate(self.nets):
            (mine,) = torch.nonzero(fold == k, as_tuple=True)
            if len(mine):
                part = with_labels(low_res[mine], None if y is None else y[mine])
                own = mean_of(net, part, size).to(low_res.dtype)
                mean = own.new_empty((len(low_res), *own.shape[1:])) if mean is None else mean
                mean[mine] = own
        assert mean is not None
        return mean

    def of_folds(self, batch: FoldedInput, size: Sequence[int]) -> Tensor:
        """`forward` of a batch whose images have folds."""
        mean: Tensor = self(low_res_of(batch.low_res), size, batch.fold, labels_of(batch.low_res))
        return mean


@dataclass(frozen=True)
class Leakage:
    """Mean squared residuals in grey levels² of the same images under two kinds of nets.

    `in_fold`: the K − 1 nets that were trained on the image; `out_of_fold`: the one that was not.
    """

    in_fold: float
    out_of_fold: float
    num_images: int

    @property
    def ratio(self) -> float:
        """in_fold / out_of_fold: 1 without leakage, below it the share that is left of r²."""
        return self.in_fold / self.out_of_fold


def squared_residuals(model: FoldedMean, low_res: NetInput, high_res: Tensor) -> Tensor:
    """Mean of (y − m̂_k(x))² over channels and pixels, (N, K)."""
    size = high_res.shape[2:]
    residuals = [high_res - mean_of(net, low_res, size).float() for net in model.nets]
    return torch.stack([r.square().mean(dim=(1, 2, 3)) for r in residuals], dim=1)


def split_residuals(squared: Tensor, fold: Tensor) -> tuple[Tensor, Tensor]:
    """(average over images of the K − 1 nets that saw them, of the net that did not).

    `squared` is (N, K), `fold` (N,) integers in [0, K).
    """
    out_of_fold = squared.gather(1, fold[:, None])[:, 0]  # (N,)
    in_fold = (squared.sum(dim=1) - out_of_fold) / (squared.shape[1] - 1)
    return in_fold.mean(), out_of_fold.mean()


@torch.no_grad()
def measure_leakage(
    model: FoldedMean,
    batches: Iterable[tuple[FoldedInput, Tensor]],
    num_images: int,
    device: torch.device,
) -> Leakage:
    """Both residuals on at least `num_images` > 0 training images a process (all agree).

    `batches` are endless, with the high-res images (N, 3, H, W) as labels.
    """
    sums, count = torch.zeros(2, dtype=torch.float64), 0
    for batch, high_res in batches:
        batch, high_res = to_device(batch, device), to_device(high_res, device)
        squared = squared_residuals(model, batch.low_res, high_res)
        means = torch.stack(split_residuals(squared.double(), batch.fold))
        sums += means.cpu() * len(high_res)
        count += len(high_res)
        if count >= num_images:
            break
    means = dist_util.mean_over_ranks((sums / count).to(device)) * HALF_RANGE_255**2
    return Leakage(means[0].item(), means[1].item(), count)
