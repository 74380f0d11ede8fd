"""The 1797 handwritten digits that come with scikit-learn: real images that need no download."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from utils.metrics import WHITE
from utils.process.errors import DataError

NUM_TEST = 360
_LARGEST = 16  # the grey levels of the bundled images are 0..16


@dataclass(frozen=True)
class DigitImages:
    """All digits, and which of them are for training and for testing."""

    images: NDArray[np.uint8]
    """(1797, side, side), grey levels 0..255."""
    labels: NDArray[np.int64]
    """(1797,), 0 to 9."""
    training: NDArray[np.int64]
    """1437 positions, in random order."""
    test: NDArray[np.int64]
    """360 positions, in random order."""


def load_digit_images(side: int, seed: int = 0) -> DigitImages:
    """The bundled 8×8 images, resized bicubically to `side` pixels a side.

    A side of 8 keeps the pixels as they are; `seed` is that of the split. DataError without
    scikit-learn.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise DataError(
            "--source digits needs scikit-learn: pip install scikit-learn, or choose another "
            "--source"
        ) from None
    found = load_digits()
    grey = np.rint(found.images * (WHITE / _LARGEST)).astype(np.uint8)
    size, bicubic = (side, side), Image.Resampling.BICUBIC
    images = np.stack([np.asarray(Image.fromarray(image).resize(size, bicubic)) for image in grey])
    order = np.random.default_rng(seed).permutation(len(images))
    return DigitImages(
        images, found.target.astype(np.int64), training=order[NUM_TEST:], test=order[:NUM_TEST]
    )
