"""Mean and variance of sample pictures as one would write it down: read all, stack, reduce."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def mean_and_variance(paths: Sequence[str]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Of 8-bit pictures of one size, HWC; the variance is unbiased."""
    pictures = np.stack(
        [np.asarray(Image.open(path, formats=["PNG"]).convert("RGB")) for path in paths]
    )
    return pictures.mean(axis=0), pictures.var(axis=0, ddof=1)
