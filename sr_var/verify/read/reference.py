"""The reference of one image: what its samples say, from ``moments.npz`` or from the pictures.

Memory does not grow with the number of samples: each picture is decoded, added to exact sums of
powers and forgotten. Comparing with the nets is the business of `numbers.metrics`.
"""

from __future__ import annotations

import functools
import itertools
import math
import os
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sr_var.results.folder import sample_path
from sr_var.results.moments import (
    MOMENTS_FILE,
    Array,
    MeanVariance,
    SampleMoments,
    block_means,
    load_moments,
)
from utils.images.decode import BadImageError
from utils.images.files import open_image
from utils.images.pixels import PowerSums
from utils.machine.threads import ordered_map
from utils.metrics import WHITE, Moments
from utils.process.errors import DataError

# even, so that a group begins with a sample of even index
_PICTURES_AT_A_TIME = 14
# of a picture, and of moments in float32
_ROUNDING_255 = 0.51


@dataclass(frozen=True)
class Reference:
    """What the samples of one image say, grey levels.

    Attributes:
        moments: of all samples, HWC.
        half_variances: unbiased variances of the samples of even and of odd index, HWC; None where
            they are not known.
        block_variance: unbiased variance over the samples of their block means, (h, w, 3); None
            where it is not known.
        is_float: whether the moments come from ``moments.npz`` rather than from 8-bit pictures.
    """

    moments: Moments
    half_variances: tuple[Array, Array] | None
    block_variance: Array | None
    is_float: bool


def load_reference(
    folder: str, num_samples: int, size: int, small_size: int, *, num_threads: int = 1
) -> Reference:
    """The first ``num_samples`` samples of one image; float moments are preferred to pictures.

    A moments file without halves is completed from the pictures where all of them are there.
    ``num_threads`` pictures are decoded at a time.

    Raises:
        DataError: if samples are missing or of another size, or the moments those of others.
    """
    path = os.path.join(folder, MOMENTS_FILE)
    stored = load_moments(path)
    wanted = set(range(num_samples))
    if stored is None or stored.moments is None or set(stored.indices) != wanted:
        return _from_pictures(folder, num_samples, size, small_size, num_threads)
    if stored.moments.mean.shape[:2] != (size, size):
        raise _other_size(path, stored.moments.mean.shape, size)
    for index in (0, num_samples - 1):
        _require_counted(folder, index, stored.moments)
    halves, blocks = _parts(stored, small_size)
    has_pictures = all(os.path.exists(sample_path(folder, i)) for i in range(num_samples))
    if (halves is None or blocks is None) and num_samples >= 4 and has_pictures:
        pictures = _from_pictures(folder, num_samples, size, small_size, num_threads)
        halves = pictures.half_variances if halves is None else halves
        blocks = pictures.block_variance if blocks is None else blocks
    return Reference(stored.moments, halves, blocks, True)


def reference_moments(
    folder: str, num_samples: int, size: int, *, num_threads: int = 1
) -> tuple[Moments, bool]:
    """The moments alone, and whether they are in float; see :func:`load_reference`."""
    reference = load_reference(folder, num_samples, size, size, num_threads=num_threads)
    return reference.moments, reference.is_float


def read_picture(path: str, size: int) -> npt.NDArray[np.uint8]:
    """One 8-bit picture, (size, size, 3).

    Raises:
        DataError: if it is damaged or of another size.
    """
    picture = np.asarray(open_image(path))
    if picture.shape != (size, size, 3):
        raise _other_size(path, picture.shape, size)
    return picture


def _require_counted(folder: str, index: int, moments: Moments) -> None:
    """Refuses moments that cannot count the picture of a sample, if there is one.

    Each of n values lies within s (n − 1)/√n of their mean, s² their unbiased variance (Samuelson,
    "How deviant can you be?", 1968). Clipped pictures are held against the clipped mean.
    """
    path = sample_path(folder, index)
    try:
        picture = read_picture(path, len(moments.mean))
    except (FileNotFoundError, NotADirectoryError, BadImageError):
        return
    deviation = np.abs(picture - np.clip(moments.mean, 0, WHITE))
    largest = np.sqrt(moments.variance) * (moments.count - 1) / math.sqrt(moments.count)
    if (deviation > largest + _ROUNDING_255).any():
        raise DataError(
            f"{os.path.join(folder, MOMENTS_FILE)} is of other samples than the pictures beside "
            f"it: it cannot count {path}; delete it to have the pictures taken instead, or give "
            "the folder of one sampler's results"
        )


def _other_size(path: str, shape: tuple[int, ...], size: int) -> DataError:
    return DataError(
        f"{path} is {shape[1]}×{shape[0]}, not --large_size {size}; give --large_size {shape[0]}, "
        "or the folder of results of that size"
    )


def _from_pictures(
    folder: str, num_samples: int, size: int, small_size: int, num_threads: int
) -> Reference:
    paths = [sample_path(folder, i) for i in range(num_samples)]
    missing = [path for path in paths if not os.path.exists(path)]
    if missing:
        raise DataError(
            f"{len(missing)} of {num_samples} samples are missing, the first is {missing[0]}; run "
            "ddpm_sr_sample.py again, or lower --num_samples"
        )
    first = read_picture(paths[0], size)
    even, odd, first_blocks = PowerSums(first), PowerSums(first), block_means(first, small_size)
    total, squares = np.zeros_like(first_blocks), np.zeros_like(first_blocks)
    pictures = ordered_map(functools.partial(read_picture, size=size), paths, num_threads)
    while group := list(itertools.islice(pictures, _PICTURES_AT_A_TIME)):
        even.add(group[::2])
        odd.add(group[1::2])
        for picture in group:
            block = block_means(picture, small_size) - first_blocks
            total += block
            squares += block * block
    block_variance = np.maximum(squares - total**2 / num_samples, 0) / (num_samples - 1)
    half_variances = (even.variance, odd.variance) if odd.count > 1 else None
    even.absorb(odd)
    del odd
    return Reference(even.moments(), half_variances, block_variance, False)


def _parts(
    stored: SampleMoments, small_size: int
) -> tuple[tuple[Array, Array] | None, Array | None]:
    halves: tuple[MeanVariance, MeanVariance] | None = stored.halves
    blocks = stored.blocks
    if blocks is not None and blocks.mean.shape[:2] != (small_size, small_size):
        blocks = None
    variances = None if halves is None else (halves[0].variance, halves[1].variance)
    return variances, None if blocks is None or blocks.count < 2 else blocks.variance
