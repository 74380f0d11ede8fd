"""Float moments of an image's samples, `moments.npz`, and of their law, `exact_moments.npz`.

8-bit pictures lose what the moments need (1/12 of a squared grey level, the tails). The file knows
which samples it counts, so that a sample drawn again after a stop is not counted twice. Besides the
moments of all samples it keeps mean and variance of the samples' block means, which the
verification's consistency needs. Files without them stay readable, and stay without them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from utils.files.atomic import atomic_write
from utils.images.pixels import image_to_255, to_hwc
from utils.metrics import HALF_RANGE_255, WHITE, Moments
from utils.process.errors import DataError
from utils.sizes import Size, SizeLike
from utils.untrusted.arrays import read_npz

if TYPE_CHECKING:
    from oracle.law import OracleLaw

MOMENTS_FILE, TRUTH_FILE = "moments.npz", "exact_moments.npz"
# of one array: a square of 4096 pixels in float64 takes 0.4
MAX_ARRAY_BYTES = 1 << 30
_MAX_SAMPLES = 10_000_000
_REMEDY = "delete it and its samples to draw them anew"
_KEYS = ("mean", "variance", "third_central_moment", "fourth_central_moment")
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class MeanVariance:
    """Count, mean and Σ (x − x̄)² of some samples, element by element; mergeable.

    Source of `merge`: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for
    computing sample variances", 1979.
    """

    count: int
    mean: Array
    m2: Array

    @classmethod
    def from_samples(cls, samples: Array) -> MeanVariance:
        """Over the first axis, (n, …) → (…), n at least 1."""
        mean = samples.mean(axis=0)
        return cls(len(samples), mean, np.asarray(((samples - mean) ** 2).sum(axis=0)))

    @staticmethod
    def merge(a: MeanVariance, b: MeanVariance) -> MeanVariance:
        """Both sets of samples together."""
        n, delta = a.count + b.count, b.mean - a.mean
        m2 = a.m2 + b.m2 + delta**2 * (a.count * b.count / n)
        return MeanVariance(n, a.mean + delta * (b.count / n), m2)

    @property
    def variance(self) -> Array:
        """Unbiased (n − 1); needs two samples."""
        return self.m2 / (self.count - 1)


@dataclass(frozen=True)
class SampleMoments:
    """Moments of the samples `indices` of one image, HWC, grey levels; None for no samples.

    `blocks` are the means of all samples over the blocks that one low-res pixel stands for, (h, w,
    3); None where they are not known, or not there yet.
    """

    moments: Moments | None = None
    indices: tuple[int, ...] = ()
    blocks: MeanVariance | None = None

    def add(
        self, samples_255: Array, indices: Iterable[int], small_size: SizeLike | None = None
    ) -> SampleMoments:
        """With more samples (n, H, W, C), grey levels; those counted before are left out.

        `small_size` is that of the low-res image; None keeps no block means.
        """
        fresh = [(i, index) for i, index in enumerate(indices) if index not in self.indices]
        if not fresh:
            return self
        new = samples_255[[i for i, _ in fresh]]
        batch = Moments.from_samples(new)
        merged = batch if self.moments is None else Moments.merge(self.moments, batch)
        blocks = None
        if small_size is not None and (self.moments is None or self.blocks is not None):
            blocks = _merged(self.blocks, block_means(new, small_size))
        all_indices = self.indices + tuple(index for _, index in fresh)
        return SampleMoments(merged, all_indices, blocks)

    def save(self, path: str, *, is_final: bool) -> None:
        """Write the file: float64 while samples are missing, float32 when complete."""
        assert self.moments is not None
        dtype = np.float32 if is_final else np.float64
        n, moments = len(self.indices), self.moments
        variance = moments.variance if n > 1 else np.zeros_like(moments.mean)
        arrays: dict[str, Any] = {
            "count": np.int64(n),
            "mean": moments.mean.astype(dtype),
            "variance": variance.astype(dtype),
            "third_central_moment": moments.third_central_moment.astype(dtype),
            "fourth_central_moment": moments.fourth_central_moment.astype(dtype),
            "indices": np.asarray(sorted(self.indices), np.int64),
        }
        if self.blocks is not None:
            spread = self.blocks.m2 / max(self.blocks.count - 1, 1)
            arrays["block_mean"] = self.blocks.mean.astype(dtype)
            arrays["block_variance"] = spread.astype(dtype)
        with atomic_write(path) as file:
            np.savez(file, **arrays)


def block_means(images: npt.NDArray[Any], small_size: SizeLike) -> Array:
    """(…, H, W, C) → (…, h, w, C): the mean of every block, W / w pixels a side.

    w is the width of `small_size` (h, w), or that number; W is a multiple of it, and H of W / w.
    """
    factor = images.shape[-2] // Size.of(small_size).width
    means: Array = block_sums(images, factor) / factor**2
    return means


def block_sums(images: npt.NDArray[Any], factor: int) -> npt.NDArray[Any]:
    """(…, H, W, C) → (…, h, w, C): the sum of every block of `factor` pixels a side.

    Whole numbers of bytes, float64 of anything else.
    """
    num_channels = images.shape[-1]
    # sums of slices: several times quicker than a mean over two short axes
    rows: npt.NDArray[Any] = images[..., ::factor, :, :].astype(_sum_type(images, factor), "C")
    for i in range(1, factor):
        rows += images[..., i::factor, :, :]
    # and of one long line, which also adds across blocks, quicker than of many short ones
    line = rows.reshape(-1)
    total = line.copy()
    for i in range(1, factor):
        total[: -i * num_channels] += line[i * num_channels :]
    found: npt.NDArray[Any] = total.reshape(rows.shape)[..., ::factor, :]
    return found


def _sum_type(images: npt.NDArray[Any], factor: int) -> npt.DTypeLike:
    """The narrowest, and so quickest, type that the sum of a block fits into."""
    if images.dtype != np.uint8:
        return np.float64
    return np.uint16 if WHITE * factor**2 <= np.iinfo(np.uint16).max else np.uint32


def counted_samples(path: str) -> tuple[int, ...] | None:
    """Which samples `moments.npz` counts; None and errors as `load_moments`.

    That the arrays are moments is not looked at, only that the file is whole: several times
    quicker.
    """
    if not os.path.exists(path):
        return None
    file = read_npz(path, path, remedy=_REMEDY, max_bytes=MAX_ARRAY_BYTES)
    with _naming_damage(path):
        indices = _read_indices(file)
        if missing := [key for key in _KEYS if file[key].dtype.kind not in "iuf"]:
            raise TypeError(f"{missing[0]} are no numbers")
    _require_samples(path, indices, [file[key].shape for key in _KEYS])
    return indices


def load_moments(path: str) -> SampleMoments | None:
    """Read `moments.npz`; None if there is none, a DataError if it is damaged."""
    if not os.path.exists(path):
        return None
    file = read_npz(path, path, remedy=_REMEDY, max_bytes=MAX_ARRAY_BYTES)
    with _naming_damage(path):
        indices = _read_indices(file)
        # in the numbers of the file, which become floats where sums are made of them
        mean, variance, third, fourth = (_require_real(file[key]) for key in _KEYS)
        n = len(indices)
        blocks = _read_blocks(file, n)
    arrays = (mean, variance, third, fourth)
    _require_samples(path, indices, [array.shape for array in arrays])
    if blocks is not None and (blocks.mean.shape != blocks.m2.shape or blocks.mean.ndim != 3):
        raise DataError(f"{path} holds block means of no image; delete it and the samples")
    of_blocks = (blocks.mean, blocks.m2) if blocks else ()
    if not all(np.isfinite(array).all() for array in (*arrays, *of_blocks)):
        raise DataError(f"{path} holds values that are not finite; delete it and the samples")
    moments = Moments.from_central_moments(n, mean, variance, third, fourth)
    return SampleMoments(moments, indices, blocks)


@contextlib.contextmanager
def _naming_damage(path: str) -> Iterator[None]:
    try:
        yield
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise DataError(f"{path} is damaged ({error}); {_REMEDY}") from None


def _read_indices(file: Mapping[str, npt.NDArray[Any]]) -> tuple[int, ...]:
    n = int(file["count"])
    known = file["indices"] if "indices" in file else range(n)
    if len(known) != n or n > _MAX_SAMPLES:
        raise ValueError(f"it counts {n} samples and lists {len(known)}")
    return tuple(int(index) for index in known)


def _require_samples(path: str, indices: Sequence[int], shapes: Sequence[tuple[int, ...]]) -> None:
    if not indices or len(set(indices)) != len(indices) or len({*shapes}) != 1:
        raise DataError(
            f"{path} does not hold the moments of {len(indices)} samples; delete it and them"
        )


def _require_real(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array; a TypeError for what is no real numbers."""
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{array.dtype} where numbers should be")
    return array


def _as_floats(array: npt.NDArray[Any]) -> Array:
    """Real numbers of any width in float64; anything else is a TypeError."""
    return _require_real(array).astype(np.float64)


def _merged(known: MeanVariance | None, samples: Array) -> MeanVariance | None:
    new = MeanVariance.from_samples(samples)
    return new if known is None else MeanVariance.merge(known, new)


def _read_blocks(file: Mapping[str, Any], count: int) -> MeanVariance | None:
    if "block_mean" not in file or count < 1:
        return None
    mean, variance = (_as_floats(file[f"block_{key}"]) for key in ("mean", "variance"))
    return MeanVariance(count, mean, variance * (count - 1))


@dataclass(frozen=True)
class Truth:
    """Exact mean μ, variance v and central moments μ₃, μ₄ of every pixel, HWC grey levels."""

    mean: Array
    variance: Array
    third: Array
    fourth: Array


def load_truth(folder: str, size: SizeLike) -> Truth | None:
    """Read `exact_moments.npz`; None if there is none.

    Raises:
        DataError: if the file is damaged, of another size, not finite, or no law has such moments.
    """
    path = os.path.join(folder, TRUTH_FILE)
    if not os.path.exists(path):
        return None
    remedy = "write the data set again"
    file = read_npz(path, path, remedy=remedy, max_bytes=MAX_ARRAY_BYTES)
    try:
        arrays = {key: _as_floats(file[key]) for key in _KEYS}
    except (KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}); {remedy}") from None
    for key, array in arrays.items():
        if array.shape != (*Size.of(size), 3):
            raise DataError(
                f"{path}: {key} has shape {array.shape}, not that of --large_size {Size.of(size)}; "
                "give the size that the data set was written with"
            )
        if not np.isfinite(array).all():
            raise DataError(f"{path}: {key} is not finite everywhere; write the data set again")
    if (arrays["variance"] < 0).any() or (arrays["fourth_central_moment"] < 0).any():
        raise DataError(f"{path} holds negative even moments; write the data set again")
    return Truth(*(arrays[key] for key in _KEYS))


def save_truth(folder: str, law: OracleLaw) -> None:
    """Write `exact_moments.npz` of one image, in powers of grey levels; the folder exists."""
    with atomic_write(os.path.join(folder, TRUTH_FILE)) as file:
        np.savez(
            file,
            mean=to_hwc(image_to_255(law.mean[0])),
            variance=to_hwc(law.variance[0]) * HALF_RANGE_255**2,
            third_central_moment=to_hwc(law.third_central_moment[0]) * HALF_RANGE_255**3,
            fourth_central_moment=to_hwc(law.fourth_central_moment[0]) * HALF_RANGE_255**4,
        )
