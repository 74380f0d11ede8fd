"""Where in spatial frequency the errors are, and where the samples say they should be.

Mean squares by radial frequency, in 8 bands of 1/16 cycle a pixel, the last with the corners.
They add up to the mean square of all pixels (Parseval). The low-res image tells nothing above half
a cycle a block.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import fft

from sr_var.results.moments import Array

NUM_BANDS = 8
# samples whose spectra are averaged
_NUM_SPECTRA = 4


def band_power(image: npt.NDArray[np.floating]) -> Array:
    """The mean square in each band, (8,), of an image (H, W, C)."""
    height, width, channels = image.shape
    spectrum = fft.rfft2(image.astype(np.float32), axes=(0, 1))
    power = (spectrum.real**2 + spectrum.imag**2).sum(axis=2, dtype=np.float64)
    rows, columns = np.fft.fftfreq(height), np.fft.rfftfreq(width)
    # a column stands for its mirror image, too
    weight = np.where((columns == 0) | ((columns == 0.5) & (width % 2 == 0)), 1.0, 2.0)
    radius = np.hypot(rows[:, None], columns)
    band = np.minimum((radius * 2 * NUM_BANDS).astype(np.int64), NUM_BANDS - 1)
    sums = np.bincount(band.ravel(), (power * weight).ravel(), minlength=NUM_BANDS)
    return np.asarray(sums / ((height * width) ** 2 * channels))


def power_of_samples(members_uint8: npt.NDArray[np.uint8], mean: Array, count: int) -> Array:
    """The variance of the samples' law in each band: that of x_i − x̄, times n/(n − 1)."""
    drawn = members_uint8[:_NUM_SPECTRA]
    total = sum(band_power(member - mean) for member in drawn)
    return np.asarray(total / len(drawn) * count / (count - 1))
