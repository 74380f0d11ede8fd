"""Float moments of an image's samples beside the 8-bit pictures: ``moments.npz``.

8-bit pictures lose what the moments need (1/12 of a squared grey level, the tails). The file knows
which samples it counts, so that a sample drawn again after a stop is not counted twice.
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from utils.atomic_file import atomic_write
from utils.errors import DataError
from utils.metric_util import Moments

MOMENTS_FILE = "moments.npz"
# what numpy and zipfile raise on damaged archives
_DAMAGE = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    EOFError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
)
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SampleMoments:
    """Moments of the samples ``indices`` of one image, HWC, grey levels; None for no samples."""

    moments: Moments | None = None
    indices: tuple[int, ...] = ()

    def add(self, samples_255: Array, indices: Iterable[int]) -> SampleMoments:
        """With more samples (n, H, W, C), grey levels; those counted before are left out."""
        fresh = [(i, index) for i, index in enumerate(indices) if index not in self.indices]
        if not fresh:
            return self
        batch = Moments.from_samples(samples_255[[i for i, _ in fresh]])
        merged = batch if self.moments is None else Moments.merge(self.moments, batch)
        return SampleMoments(merged, self.indices + tuple(index for _, index in fresh))

    def save(self, path: str, *, is_final: bool) -> None:
        """Writes the file: float64 while samples are missing, float32 when complete."""
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
        with atomic_write(path) as file:
            np.savez(file, **arrays)


def load_moments(path: str) -> SampleMoments | None:
    """Reads ``moments.npz``; None if there is none.

    Raises:
        DataError: if the file is damaged or of another kind.
    """
    if not os.path.exists(path):
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            n = int(file["count"])
            mean, variance, third, fourth = (
                np.asarray(file[key], np.float64)
                for key in ("mean", "variance", "third_central_moment", "fourth_central_moment")
            )
            known = file["indices"] if "indices" in file else np.arange(n)
            indices = tuple(int(index) for index in known)
    except _DAMAGE as error:
        raise DataError(
            f"{path} is damaged ({error}); delete it and its samples to draw them anew"
        ) from None
    arrays = (mean, variance, third, fourth)
    is_whole = n >= 1 and len(indices) == n == len(set(indices))
    if not is_whole or len({array.shape for array in arrays}) != 1:
        raise DataError(f"{path} does not hold the moments of {n} samples; delete it and them")
    if not all(np.isfinite(array).all() for array in arrays):
        raise DataError(f"{path} holds values that are not finite; delete it and the samples")
    return SampleMoments(Moments.from_central_moments(n, *arrays), indices)
