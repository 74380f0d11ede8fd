"""The file `exact_moments.npz` beside samples whose law is known: written and read.

It holds mean and central moments of one image's law; `oracle.law` computes them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from oracle.law import OracleLaw
from sr_var.results.moments import MAX_ARRAY_BYTES, as_floats
from utils.files.atomic import atomic_write
from utils.images.pixels import image_to_255, to_hwc
from utils.metrics import HALF_RANGE_255
from utils.process.errors import DataError
from utils.untrusted.arrays import read_npz

Array = npt.NDArray[np.float64]

TRUTH_FILE = "exact_moments.npz"
_KEYS = ("mean", "variance", "third_central_moment", "fourth_central_moment")


@dataclass(frozen=True)
class Truth:
    """Exact mean μ, variance v and fourth central moment μ₄ of every pixel, HWC grey levels."""

    mean: Array
    variance: Array
    fourth: Array


def load_truth(folder: str, size: int) -> Truth | None:
    """Reads ``exact_moments.npz``; None if there is none.

    Raises:
        DataError: if the file is damaged, of another size, not finite, or no law has such moments.
    """
    path = os.path.join(folder, TRUTH_FILE)
    if not os.path.exists(path):
        return None
    remedy = "write the data set again"
    file = read_npz(path, path, remedy=remedy, max_bytes=MAX_ARRAY_BYTES)
    try:
        arrays = {key: as_floats(file[key]) for key in _KEYS}
    except (KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}); {remedy}") from None
    for key, array in arrays.items():
        if array.shape != (size, size, 3):
            raise DataError(
                f"{path}: {key} has shape {array.shape}, not that of --large_size {size}; "
                "give the size that the data set was written with"
            )
        if not np.isfinite(array).all():
            raise DataError(f"{path}: {key} is not finite everywhere; write the data set again")
    if (arrays["variance"] < 0).any() or (arrays["fourth_central_moment"] < 0).any():
        raise DataError(f"{path} holds negative even moments; write the data set again")
    return Truth(arrays["mean"], arrays["variance"], arrays["fourth_central_moment"])


def save_truth(folder: str, law: OracleLaw) -> None:
    """Writes the file of one image's law; the folder exists."""
    arrays: dict[str, Any] = exact_moments_255(law)
    with atomic_write(os.path.join(folder, TRUTH_FILE)) as file:
        np.savez(file, **arrays)


def exact_moments_255(law: OracleLaw) -> dict[str, Array]:
    """Mean and central moments of one image's law, HWC float64, in powers of grey levels."""
    return {
        "mean": to_hwc(image_to_255(law.mean[0])),
        "variance": to_hwc(law.variance[0]) * HALF_RANGE_255**2,
        "third_central_moment": to_hwc(law.third_central_moment[0]) * HALF_RANGE_255**3,
        "fourth_central_moment": to_hwc(law.fourth_central_moment[0]) * HALF_RANGE_255**4,
    }
