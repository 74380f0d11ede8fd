"""Features and statistics on disk: checked when read, whoever wrote them; and kept for later runs.

``arr_0`` (N, D) alone is features; ``mean``, ``covariance`` and ``count`` are statistics, with
``features`` (count, D) if the kernel distance and the floor from halves are wanted, too.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from image_ddpm.quality.distances import (
    FeatureStatistics,
    covariance_root,
    feature_statistics,
    merge_statistics,
)
from image_ddpm.quality.image_sets import ImageSet, array_set, choose, folder_set
from utils.files.atomic import atomic_write
from utils.files.storage import is_folder, make_folder
from utils.process.errors import DataError
from utils.untrusted.arrays import read_npz

ARRAYS = ("arr_0", "mean", "covariance", "count", "features", "features_name")
_STATISTICS = ("mean", "covariance", "count")
_CHUNK = 4096
_AGREEMENT = 1e-4
# the sixth power, in the kernel, stays finite
_LARGEST = 1e30


@dataclass(frozen=True)
class FeatureSet:
    """One of the two sets that are compared, named by `flag` and `path` in messages.

    `features` (N, D) are None if only their statistics are known; `name` says what made them, or
    is empty.
    """

    flag: str
    path: str
    statistics: FeatureStatistics
    features: NDArray[Any] | None
    name: str


def read_input(
    flag: str, path: str, num_images: int, seed: int, **reading: Any
) -> ImageSet | FeatureSet:
    """Images, features or statistics, as the path's content says.

    Of images or features, `num_images` are drawn by the seed (0: all); statistics are always whole.
    `reading` is that of a folder, see `folder_set`, which may be remote.

    Raises:
        DataError: names flag, file, what is wrong and the remedy.
    """
    if is_folder(path):
        return folder_set(flag, path, num_images, seed, **reading)
    if not os.path.exists(path):
        raise DataError(f"{flag} {path} is missing: give a folder of images or an .npz file")
    arrays = read_npz(path, f"{flag} {path}", ARRAYS)
    if any(key in arrays for key in _STATISTICS):
        return _stored_statistics(flag, path, arrays)
    if "arr_0" not in arrays:
        raise DataError(
            f"{flag} {path} holds neither arr_0 (images or features) nor mean, covariance and count"
        )
    array = arrays["arr_0"]
    if not np.issubdtype(array.dtype, np.floating):
        return array_set(flag, path, array, num_images, seed)
    _require_features(flag, path, "arr_0", array)
    chosen = array[choose(len(array), num_images, seed)]
    return FeatureSet(flag, path, statistics_of(chosen), chosen, _name_in(flag, path, arrays))


def statistics_of(features: NDArray[Any]) -> FeatureStatistics:
    """Statistics of features (N, D), in float64 a few thousand at a time."""
    merged = feature_statistics(features[:_CHUNK])
    for start in range(_CHUNK, len(features), _CHUNK):
        part = feature_statistics(features[start : start + _CHUNK])
        merged = merge_statistics(merged, part)
    return merged


def save_features(path: str, found: FeatureSet) -> None:
    """Writes features and statistics for `read_input`."""
    assert found.features is not None
    make_folder(os.path.dirname(path) or ".")
    with atomic_write(path) as file:
        np.savez(
            file,
            mean=found.statistics.mean,
            covariance=found.statistics.covariance,
            count=np.int64(found.statistics.count),
            features=found.features,
            features_name=np.array(found.name),
        )


def _stored_statistics(flag: str, path: str, arrays: dict[str, NDArray[Any]]) -> FeatureSet:
    where = f"{flag} {path}"
    missing = [key for key in _STATISTICS if key not in arrays]
    if missing:
        raise DataError(f"{where} holds no {' and no '.join(missing)}; statistics need all three")
    count, mean, covariance = (arrays[key] for key in ("count", "mean", "covariance"))
    if count.shape != () or not np.issubdtype(count.dtype, np.integer) or int(count) < 2:
        raise DataError(f"{where}: count must be one whole number of at least 2")
    for key, array in (("mean", mean), ("covariance", covariance)):
        if not np.issubdtype(array.dtype, np.floating) or not (np.abs(array) < _LARGEST**2).all():
            raise DataError(f"{where}: {key} must be float and finite; compute it again")
    if mean.ndim != 1 or not mean.size:
        raise DataError(f"{where}: mean has shape {mean.shape}, not (D,)")
    mean, covariance = mean.astype(np.float64), covariance.astype(np.float64)
    try:
        covariance_root(covariance, len(mean))
    except ValueError as error:
        raise DataError(f"{where}: {error}; compute it again") from None
    statistics = FeatureStatistics(mean, covariance, int(count))
    features = arrays.get("features")
    if features is not None:
        _require_features(flag, path, "features", features)
        _require_agreement(where, statistics, features)
    return FeatureSet(flag, path, statistics, features, _name_in(flag, path, arrays))


def _require_features(flag: str, path: str, key: str, array: NDArray[Any]) -> None:
    is_float = np.issubdtype(array.dtype, np.floating)
    if not is_float or array.ndim != 2 or len(array) < 2 or not array.shape[1]:
        raise DataError(
            f"{flag} {path}: {key} is {array.dtype} {array.shape}; features are float (N, D) of 2 "
            "or more images, samples uint8 (N, H, W, 3)"
        )
    if not (np.abs(array) < _LARGEST).all():
        raise DataError(
            f"{flag} {path}: {key} holds values that are not finite, or beyond {_LARGEST:g}; "
            "compute it again"
        )


def _require_agreement(where: str, said: FeatureStatistics, features: NDArray[Any]) -> None:
    if features.shape != (said.count, len(said.mean)):
        raise DataError(
            f"{where}: features {features.shape} are not the {said.count} of {len(said.mean)} "
            "dimensions that its statistics are of; make the file again"
        )
    found = statistics_of(features)
    variance = float(np.trace(said.covariance)) + 1e-30
    shift = float(np.sum((found.mean - said.mean) ** 2)) / variance
    spread = float(np.abs(found.covariance - said.covariance).max()) / variance
    if max(shift, spread) > _AGREEMENT:
        raise DataError(f"{where}: its statistics are not those of its features; make it again")


def _name_in(flag: str, path: str, arrays: dict[str, NDArray[Any]]) -> str:
    name = arrays.get("features_name", np.array(""))
    if name.shape != () or name.dtype.kind != "U" or len(str(name)) > 200:
        raise DataError(f"{flag} {path}: features_name must be one short text; leave it out")
    return str(name)
