"""Sums of powers of 8-bit pictures, in whole numbers and so exact; moments out of them.

Not for floats (`utils.metrics.Moments`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from utils.metrics import Float64Array, Moments

# bytes are counted from the middle of their range: |e| <= 128, so that a few fourth powers fit
# into 32 bits, which take half the time of 64
_MIDDLE, _MAX_FOURTH_POWERS = 128, 7
# values at a time: few enough for the processor's cache, enough to forget the call of numpy
_STRIP = 1 << 15


class PowerSums:
    """Σ eᵏ, k = 1 … 4, of e = x − 128, for every value of pictures of one shape.

    Args:
        pivot_uint8: a picture near the others, best one of them: moments are taken around it, so
            that they lose nothing to cancellation.
    """

    def __init__(self, pivot_uint8: NDArray[np.uint8]) -> None:
        self._pivot, self._shape = pivot_uint8.reshape(-1), pivot_uint8.shape
        self._sums = np.zeros((4, pivot_uint8.size), np.int64)
        self.count = 0

    def add(self, pictures_uint8: Sequence[NDArray[np.uint8]]) -> None:
        """Counts some more samples, each of the pivot's shape."""
        flat = [picture.reshape(-1) for picture in pictures_uint8]
        for start in range(0, len(flat), _MAX_FOURTH_POWERS):
            self._add_few(flat[start : start + _MAX_FOURTH_POWERS])
        self.count += len(flat)

    def _add_few(self, flat: Sequence[NDArray[np.uint8]]) -> None:
        scratch = np.empty((6, min(_STRIP, self._pivot.size)), np.int32)
        for strip in self._strips():
            part = scratch[:, : strip.stop - strip.start]
            sums, power, square = part[:4], part[4], part[5]
            sums[:] = 0
            for picture in flat:
                # flipping the highest bit turns x into x − 128 of a signed byte
                np.copyto(power, (picture[strip] ^ np.uint8(_MIDDLE)).view(np.int8))
                sums[0] += power
                np.multiply(power, power, out=square)
                sums[1] += square
                power *= square
                sums[2] += power
                square *= square
                sums[3] += square
            self._sums[:, strip] += sums

    def absorb(self, other: PowerSums) -> None:
        """Counts the samples of another one, too; the pivot stays."""
        self._sums += other._sums
        self.count += other.count

    @property
    def variance(self) -> Float64Array:
        """Unbiased (n - 1); needs two samples."""
        assert self.count > 1
        variance = np.empty(self._pivot.size)
        for strip in self._strips():
            s1, s2 = self._around_pivot(strip, 2)
            variance[strip] = np.maximum(s2 - s1 / self.count * s1, 0) / (self.count - 1)
        return variance.reshape(self._shape)

    def moments(self) -> Moments:
        """The sums of central powers: the binomial expansion of Σ (d − d̄)ᵏ."""
        fields = np.empty((4, self._pivot.size))
        for strip in self._strips():
            s1, s2, s3, s4 = self._around_pivot(strip, 4)
            mean = s1 / self.count
            square = mean * mean
            fields[0, strip] = self._pivot[strip] + mean
            # equal samples cancel up to rounding only
            fields[1, strip] = np.maximum(s2 - mean * s1, 0)
            fields[2, strip] = s3 - 3 * mean * s2 + 2 * square * s1
            m4 = s4 - 4 * mean * s3 + 6 * square * s2 - 3 * square * mean * s1
            fields[3, strip] = np.maximum(m4, 0)
        return Moments(self.count, *(field.reshape(self._shape) for field in fields))

    def _around_pivot(self, strip: slice, max_power: int) -> list[Float64Array]:
        """Σ dᵏ of d = x − pivot, whole numbers below 2⁵³: of the size of the samples' spread."""
        p = self._pivot[strip].astype(np.int64) - _MIDDLE
        shifted = []
        for k in range(1, max_power + 1):
            # Σ (e − p)ᵏ expanded, from the highest power of p downwards
            total: NDArray[np.int64] | int = self.count
            for j in range(1, k + 1):
                total = math.comb(k, j) * self._sums[j - 1, strip] - p * total
            shifted.append(np.asarray(total, np.float64))
        return shifted

    def _strips(self) -> Iterator[slice]:
        for start in range(0, self._pivot.size, _STRIP):
            yield slice(start, min(start + _STRIP, self._pivot.size))
