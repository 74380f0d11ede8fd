"""The std by what errors show: isotonic regression of the squared error on the predicted std.

Among all maps that do not fall, the one of least Σ weight·((y − m)² − g(std)²)² (Barlow et al.,
"Statistical inference under order restrictions", 1972; by pool adjacent violators). It says how
large errors are where the net says so much, and nothing about a share that an interval holds: the
factor is chosen afterwards, on other units.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sr_var.calibrate.record import STD_FLOOR, StdMap

Array = npt.NDArray[np.float64]
_EDGES: Array = np.geomspace(STD_FLOOR, 256, 1025)


class ErrorsByStd:
    """Sums of squared errors over pixels, by predicted std, in 1024 bins even in its logarithm."""

    def __init__(self) -> None:
        self._weight, self._std, self._square = (np.zeros(len(_EDGES) - 1) for _ in range(3))

    def add(self, std_255: Array, error_255: Array, weight: float = 1.0) -> None:
        """Take in pixels: their std, at least `STD_FLOOR`, and y − m; each counts `weight`."""
        place = np.searchsorted(_EDGES[1:-1], std_255.ravel(), side="right")
        for sums, values in (
            (self._weight, None),
            (self._std, std_255.ravel()),
            (self._square, error_255.ravel() ** 2),
        ):
            sums += weight * np.bincount(place, values, minlength=len(sums))

    def std_map(self) -> StdMap:
        """The map from predicted to recalibrated std.

        Raises:
            ValueError: nothing was added.
        """
        # scikit-learn takes a second to import
        from sklearn.isotonic import isotonic_regression

        is_there = self._weight > 0
        if not is_there.any():
            raise ValueError("no pixels to recalibrate the std on")
        weight = self._weight[is_there]
        predicted = self._std[is_there] / weight
        square = isotonic_regression(self._square[is_there] / weight, sample_weight=weight)
        recalibrated = np.maximum(np.sqrt(square), STD_FLOOR)
        # of a run of equal values the ends are enough
        is_end = np.ones(len(predicted), bool)
        is_end[1:-1] = np.diff(recalibrated)[:-1] + np.diff(recalibrated)[1:] > 0
        return StdMap(tuple(predicted[is_end].tolist()), tuple(recalibrated[is_end].tolist()))
