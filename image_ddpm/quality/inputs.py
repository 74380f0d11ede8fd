"""What is compared: sets of images, features or their statistics, checked whoever wrote them.

`arr_0` (N, D) of an .npz alone is features; `mean`, `covariance` and `count` are statistics, with
`features` (count, D) if the kernel distance and the floor from halves are wanted, too. With either,
`spatial` (N, S) are spatial features and `probabilities` (N, K) those of classes. `mu` and `sigma`,
`mu_s` and `sigma_s` are published statistics, with images of the same law in `arr_0`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from image_ddpm.quality.distances import (
    FeatureStatistics,
    covariance_root,
    feature_statistics,
    merge_statistics,
)
from utils.files.atomic import atomic_write
from utils.files.storage import is_folder, make_folder, problem_with_letters
from utils.flags.groups import OrientationFlags
from utils.images.crops.dataset import ImageNotes, note_of
from utils.images.files import BadImageError, image_facts, read_image, with_extension
from utils.images.folder import scan
from utils.process.errors import DataError
from utils.seeds import stable_seed
from utils.untrusted.arrays import read_npz

Picture = NDArray[np.uint8]
Log = Callable[[str], None]


@dataclass(frozen=True)
class ImageSet:
    """Images in a fixed order; `flag` and `path` name them in messages.

    A folder has `names`, relative to it; an `array`, (N, H, W, C) uint8, C 1 or 3, has none.
    `indices` are those that count, ascending; `published` are statistics that came with an array.
    """

    flag: str
    path: str
    names: Sequence[str] | None
    array: Picture | None
    indices: NDArray[np.int64]
    apply_orientation: bool = False
    published: FeatureSet | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def picture(self, k: int) -> Picture:
        """The k-th image that counts, (H, W, 3); DataError names a file that is no whole image."""
        return self._read(k)[0]

    def _read(self, k: int) -> tuple[Picture, str]:
        if self.array is not None:
            return np.broadcast_to(self.array[self.indices[k]], (*self.array.shape[1:3], 3)), ""
        is_turned = self.apply_orientation
        try:
            image, facts = read_image(self._file(k), apply_orientation=is_turned)
        except BadImageError as error:
            raise DataError(f"{self.flag}: {error}") from None
        return np.asarray(image), note_of(self.label(k), facts, 0, OrientationFlags(is_turned))

    def size(self, k: int) -> tuple[int, int]:
        """(width, height) of the k-th image that counts; only the header of a file is read."""
        if self.array is not None:
            return self.array.shape[2], self.array.shape[1]
        try:
            return image_facts(self._file(k), apply_orientation=self.apply_orientation).size
        except BadImageError as error:
            raise DataError(f"{self.flag}: {error}") from None

    def _file(self, k: int) -> str:
        assert self.names is not None
        return os.path.join(self.path, self.names[int(self.indices[k])])

    def label(self, k: int) -> str:
        """What messages call the k-th image."""
        name = self.names[int(self.indices[k])] if self.names else f"image {self.indices[k]}"
        return f"{self.flag} {self.path}: {name}"

    def batches(self, batch_size: int, log: Log = print) -> Iterator[list[Picture]]:
        """All that count, in order; what does not reach the pixels of files is counted and said."""
        notes = ImageNotes(log, 0, len(self))
        for start in range(0, len(self), batch_size):
            read = [self._read(k) for k in range(start, min(start + batch_size, len(self)))]
            notes.add(note for _, note in read)
            yield [picture for picture, _ in read]


def folder_set(
    flag: str,
    path: str,
    num_images: int,
    seed: int,
    *,
    apply_orientation: bool = False,
    log: Log = print,
) -> ImageSet:
    """The images of a folder, which may be remote, sorted by name without extension; all levels."""
    # no name is taken out of a list here: whatever can be written down will do
    found = scan(path, log, flag, problem_with=problem_with_letters)
    # with the extension that scan leaves off: a.b.JPEG and a.b.png are the pair a.b
    names = sorted(map(with_extension, found), key=os.path.splitext)
    chosen = choose(len(names), num_images, seed)
    return ImageSet(flag, path, names, None, chosen, apply_orientation)


def choose(num_items: int, num_chosen: int, seed: int) -> NDArray[np.int64]:
    """Ascending indices of `num_chosen` (0: all) items; a function of both numbers and the seed.

    So two sets of one length keep their pairs.
    """
    if not 0 < num_chosen < num_items:
        return np.arange(num_items)
    rng = np.random.default_rng(stable_seed(seed, "num_images"))
    return np.sort(rng.permutation(num_items)[:num_chosen])


def require_pairs(reference: ImageSet, samples: ImageSet) -> None:
    """Check that image k of both sets shows the same: kinds, names and numbers (DataError)."""
    remedy = "give two folders of equal names or two .npz of equal length, or leave --paired out"
    if (reference.names is None) != (samples.names is None):
        raise DataError(
            f"--paired True: {reference.path} and {samples.path} are a folder and an array, whose "
            f"pairs nobody knows; {remedy}"
        )
    if reference.names is None or samples.names is None:
        lengths = [len(part.array) for part in (reference, samples) if part.array is not None]
        if lengths[0] != lengths[1]:
            raise DataError(
                f"--paired True: --reference has {lengths[0]} images, --samples {lengths[1]}; "
                f"{remedy}"
            )
        return
    stems = [
        Counter(os.path.splitext(name)[0] for name in names)
        for names in (reference.names, samples.names)
    ]
    lonely = sorted(key for key in stems[0] | stems[1] if (stems[0][key], stems[1][key]) != (1, 1))
    if lonely:
        raise DataError(
            f"--paired True: {len(lonely)} names have not one image in each folder: "
            f"{', '.join(lonely[:5])}{' …' if len(lonely) > 5 else ''}; {remedy}"
        )


_PUBLISHED = ("mu", "sigma")
ARRAYS = (
    *("arr_0", "mean", "covariance", "count", "features", "features_name"),
    *("spatial", "probabilities", *_PUBLISHED, "mu_s", "sigma_s"),
)
_STATISTICS = ("mean", "covariance", "count")
_CHUNK = 4096
_AGREEMENT = 1e-4
# the sixth power, in the kernel, stays finite
_LARGEST = 1e30


@dataclass(frozen=True)
class FeatureSet:
    """One of the two sets that are compared, named by `flag` and `path` in messages.

    `features` (N, D) are None if only their statistics are known; `name` says what made them, or
    is empty. `spatial` are features (N, S) of the same images that keep the place, `probabilities`
    (N, K) those of their classes; None: unknown.
    """

    flag: str
    path: str
    statistics: FeatureStatistics
    features: NDArray[Any] | None
    name: str
    spatial: FeatureSet | None = None
    probabilities: NDArray[Any] | None = None


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
    where = f"{flag} {path}"
    arrays = read_npz(path, where, ARRAYS)
    if any(key in arrays for key in _STATISTICS):
        statistics, features = _stored_statistics(where, arrays)
        more = _more(flag, path, arrays, np.arange(statistics.count))
        return FeatureSet(flag, path, statistics, features, _name_in(where, arrays), *more)
    published = _published(flag, path, arrays)
    if "arr_0" not in arrays:
        if published is not None:
            return published
        raise DataError(
            f"{where} holds neither arr_0 (images or features) nor mean, covariance and count nor "
            "mu and sigma"
        )
    array = arrays["arr_0"]
    if np.issubdtype(array.dtype, np.floating):
        _require_features(where, "arr_0", array)
        indices = choose(len(array), num_images, seed)
        chosen, more = array[indices], _more(flag, path, arrays, indices, len(array))
        return FeatureSet(flag, path, statistics_of(chosen), chosen, _name_in(where, arrays), *more)
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] not in (1, 3) or not array.size:
        raise DataError(
            f"{where}: arr_0 is {array.dtype} {array.shape}; samples are uint8 (N, H, W, 3) "
            "or (N, H, W, 1) grey levels, features are float (N, D)"
        )
    indices = choose(len(array), num_images, seed)
    return ImageSet(flag, path, None, array, indices, published=published)


def statistics_of(features: NDArray[Any]) -> FeatureStatistics:
    """Statistics of features (N, D), in float64 a few thousand at a time."""
    merged = feature_statistics(features[:_CHUNK])
    for start in range(_CHUNK, len(features), _CHUNK):
        part = feature_statistics(features[start : start + _CHUNK])
        merged = merge_statistics(merged, part)
    return merged


def save_features(path: str, found: FeatureSet) -> None:
    """Write features and statistics for `read_input`."""
    assert found.features is not None
    spatial = found.spatial.features if found.spatial else None
    more: dict[str, Any] = {"spatial": spatial, "probabilities": found.probabilities}
    make_folder(os.path.dirname(path) or ".")
    with atomic_write(path) as file:
        np.savez(
            file,
            mean=found.statistics.mean,
            covariance=found.statistics.covariance,
            count=np.int64(found.statistics.count),
            features=found.features,
            features_name=np.array(found.name),
            **{name: array for name, array in more.items() if array is not None},
        )


def _stored_statistics(
    where: str, arrays: dict[str, NDArray[Any]]
) -> tuple[FeatureStatistics, NDArray[Any] | None]:
    missing = [key for key in _STATISTICS if key not in arrays]
    if missing:
        raise DataError(f"{where} holds no {' and no '.join(missing)}; statistics need all three")
    count, mean, covariance = (arrays[key] for key in ("count", "mean", "covariance"))
    if count.shape != () or not np.issubdtype(count.dtype, np.integer) or int(count) < 2:
        raise DataError(f"{where}: count must be one whole number of at least 2")
    statistics = _moments(where, {"mean": mean, "covariance": covariance}, int(count))
    features = arrays.get("features")
    if features is not None:
        _require_features(where, "features", features)
        _require_agreement(where, statistics, features)
    return statistics, features


def _moments(where: str, arrays: dict[str, NDArray[Any]], count: int) -> FeatureStatistics:
    """Mean and covariance, under the names that the file has for them."""
    for key, array in arrays.items():
        is_float = np.issubdtype(array.dtype, np.floating)
        if not is_float or not (np.abs(array.astype(np.float64)) < _LARGEST**2).all():
            raise DataError(f"{where}: {key} must be float and finite; compute it again")
    (name, mean), (_, covariance) = arrays.items()
    if mean.ndim != 1 or not mean.size:
        raise DataError(f"{where}: {name} has shape {mean.shape}, not (D,)")
    mean, covariance = mean.astype(np.float64), covariance.astype(np.float64)
    try:
        covariance_root(covariance, len(mean))
    except ValueError as error:
        raise DataError(f"{where}: {error}; compute it again") from None
    return FeatureStatistics(mean, covariance, count)


def _published(flag: str, path: str, arrays: dict[str, NDArray[Any]]) -> FeatureSet | None:
    """Statistics as others publish them, of an unknown number of images; None without them."""
    where, found = f"{flag} {path}", []
    for ending in ("", "_s"):
        names = [name + ending for name in _PUBLISHED]
        held = {name: arrays[name] for name in names if name in arrays}
        if len(held) == 1:
            raise DataError(f"{where} holds {' '.join(held)} alone of {' and '.join(names)}")
        statistics = _moments(where, held, 0) if held else None
        found.append(FeatureSet(flag, path, statistics, None, "") if statistics else None)
    pooled, spatial = found
    if pooled is None and spatial is not None:
        raise DataError(f"{where} holds mu_s and sigma_s, but no mu and sigma")
    return None if pooled is None else replace(pooled, spatial=spatial)


def _more(
    flag: str,
    path: str,
    arrays: dict[str, NDArray[Any]],
    indices: NDArray[np.int64],
    count: int | None = None,
) -> tuple[FeatureSet | None, NDArray[Any] | None]:
    """Spatial features and probabilities beside features of `count` images; those that count."""
    where, count, kept = f"{flag} {path}", count or len(indices), []
    for key in ("spatial", "probabilities"):
        array = arrays.get(key)
        if array is not None:
            _require_features(where, key, array)
            if len(array) != count:
                raise DataError(f"{where}: {key} is of {len(array)} images, features of {count}")
        kept.append(None if array is None else array[indices])
    spatial, probabilities = kept
    if spatial is None:
        return None, probabilities
    return FeatureSet(flag, path, statistics_of(spatial), spatial, ""), probabilities


def _require_features(where: str, key: str, array: NDArray[Any]) -> None:
    is_float = np.issubdtype(array.dtype, np.floating)
    if not is_float or array.ndim != 2 or len(array) < 2 or not array.shape[1]:
        raise DataError(
            f"{where}: {key} is {array.dtype} {array.shape}; features are float (N, D) of 2 "
            "or more images, samples uint8 (N, H, W, 3)"
        )
    if not (np.abs(array) < _LARGEST).all():
        raise DataError(
            f"{where}: {key} holds values that are not finite, or beyond {_LARGEST:g}; "
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


def _name_in(where: str, arrays: dict[str, NDArray[Any]]) -> str:
    name = arrays.get("features_name", np.array(""))
    if name.shape != () or name.dtype.kind != "U" or len(str(name)) > 200:
        raise DataError(f"{where}: features_name must be one short text; leave it out")
    return str(name)
