"""The figures of two sets of features or of pairs of images, with a bar and a way to stop.

Computes no distance (``distances`` and ``utils.metrics`` do); knows no file.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from image_ddpm.quality.distances import (
    frechet_distance,
    gaussian_floor,
    halves_distance,
    kernel_distance,
)
from image_ddpm.quality.feature_files import FeatureSet
from image_ddpm.quality.flags import MAX_SUBSET_SIZE, EvalFlags
from image_ddpm.quality.image_sets import ImageSet
from utils.metrics import MIN_SSIM_SIDE, psnr, ssim
from utils.process.errors import DataError
from utils.process.stop import ANEW, StopFlag
from utils.runs.job import working
from utils.seeds import stable_seed

LEAST_FOR_KERNEL, LEAST_FOR_FLOOR = 3, 4
# nothing is kept of a comparison that was stopped
stage = partial(working, remedy=ANEW)


def frechet_figures(
    flags: EvalFlags, reference: FeatureSet, samples: FeatureSet, stop: StopFlag
) -> dict[str, Any]:
    """The Fréchet distance and its floors: halves of the reference, and a normal law's.

    Raises:
        StopRequested: a signal.
    """
    a, b = reference.statistics, samples.statistics
    half, halves = a.count // 2, []
    if reference.features is not None and len(reference.features) >= LEAST_FOR_FLOOR:
        with stage(
            flags.num_splits, "halves of the reference", "split", stop=stop, remedy=ANEW
        ) as job:
            for k in range(flags.num_splits):
                seed = stable_seed(flags.seed, "halves", k)
                halves.append(halves_distance(reference.features, seed))
                job.done()
    mean = float(np.mean(halves)) if halves else None
    return {
        "distance": frechet_distance(a.mean, a.covariance, b.mean, b.covariance),
        # to first order a floor goes with 1/n₁ + 1/n₂ (distances.gaussian_floor)
        "floor": mean and mean * (1 / a.count + 1 / b.count) / (2 / half),
        "floor_of_halves": mean,
        "floor_of_halves_std": float(np.std(halves, ddof=1)) if len(halves) > 1 else None,
        "count_of_half": half if halves else None,
        "gaussian_floor": gaussian_floor(a.covariance, a.count, b.count),
        "gaussian_floor_of_halves": gaussian_floor(a.covariance, half, half) if halves else None,
    }


def subset_size(flags: EvalFlags, num_reference: int | None, num_samples: int | None) -> int | None:
    """Vectors in a subset of the kernel distance; None if there is none to be had.

    Args:
        flags: ``subset_size`` 0 means half of the smaller set.
        num_reference: vectors of the reference; None if only statistics are known.
        num_samples: of the samples.

    Raises:
        ValueError: a ``subset_size`` that these sets do not allow.
    """
    given = f"--subset_size {flags.subset_size}"
    if num_reference is None or num_samples is None:
        if flags.subset_size:
            raise ValueError(
                f"{given}: statistics without features have no kernel distance; leave the flag out"
            )
        return None
    smaller = min(num_reference, num_samples)
    if flags.subset_size >= smaller:
        raise ValueError(f"{given} must be below the {smaller} images of the smaller set")
    if smaller < LEAST_FOR_KERNEL:
        return None
    return flags.subset_size or max(2, min(MAX_SUBSET_SIZE, smaller // 2))


def kernel_figures(
    flags: EvalFlags, reference: FeatureSet, samples: FeatureSet, stop: StopFlag
) -> dict[str, Any] | None:
    """The kernel distance with its standard error; None if a set has no, or too few, features.

    Raises:
        StopRequested: a signal.
    """
    features = (reference.features, samples.features)
    size = subset_size(flags, *(None if part is None else len(part) for part in features))
    if size is None:
        return None
    assert reference.features is not None and samples.features is not None
    with stage(flags.num_subsets, "kernel distance", "subset", stop=stop) as job:
        found = kernel_distance(
            reference.features,
            samples.features,
            flags.num_subsets,
            size,
            stable_seed(flags.seed, "subsets"),
            job.done,
        )
    return {**found._asdict(), "num_subsets": flags.num_subsets, "subset_size": size}


def require_pair_sizes(reference: ImageSet, samples: ImageSet, stop: StopFlag) -> None:
    """Checks that pairs have figures, off the headers of their files: before any costly pass.

    Raises:
        DataError: two images of a pair differ in size, or are too small for SSIM.
        StopRequested: a signal.
    """
    with stage(len(reference), "sizes of the pairs", "image", stop=stop) as job:
        for k in range(len(reference)):
            real, drawn = reference.size(k), samples.size(k)
            if real != drawn or min(real) < MIN_SSIM_SIDE:
                raise DataError(
                    f"--paired True: {reference.label(k)} is {real[0]}x{real[1]}, "
                    f"{samples.label(k)} {drawn[0]}x{drawn[1]}; pairs must be of one size, of "
                    f"{MIN_SSIM_SIDE} pixels a side or more"
                )
            job.done()


def pair_figures(reference: ImageSet, samples: ImageSet, stop: StopFlag) -> dict[str, Any]:
    """Mean PSNR of the pairs that differ and mean SSIM of all, with their standard errors.

    The pairs have passed :func:`require_pair_sizes`.

    Raises:
        StopRequested: a signal.
    """
    decibels, similarities = [], []
    with stage(len(reference), "pairs", "image", stop=stop) as job:
        for k in range(len(reference)):
            real, drawn = reference.picture(k), samples.picture(k)
            decibels.append(psnr(real, drawn))
            similarities.append(ssim(real, drawn))
            job.done()
    finite = [value for value in decibels if math.isfinite(value)]
    return {
        "count": len(decibels),
        "num_identical": len(decibels) - len(finite),
        "psnr": float(np.mean(finite)) if finite else None,
        "psnr_standard_error": _standard_error(finite),
        "ssim": float(np.mean(similarities)),
        "ssim_standard_error": _standard_error(similarities),
    }


def _standard_error(values: list[float]) -> float | None:
    """Of the mean of independent values: standard deviation / √n; None below two of them."""
    if len(values) < 2:
        return None
    return float(np.std(values, ddof=1)) / math.sqrt(len(values))
