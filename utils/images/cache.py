"""Centre crops as one memory-mapped array, cut once and shared by processes and runs.

Not for the files' format: that is ``utils.images.cache_index``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from utils.files.lock import try_lock
from utils.files.records import require_same_settings
from utils.flags.data import CropFlags
from utils.images.cache_index import (
    DATA_FILE,
    INDEX_FILE,
    LOCK_FILE,
    SETTINGS_FILE,
    CenterCrop,
    Crop,
    Index,
    Record,
    Stamp,
    file_stamps,
    read_index,
)
from utils.images.decode import BadImageError, ImageFacts
from utils.machine.threads import num_cores
from utils.process.errors import DataError, StopRequested, StorageError
from utils.process.progress import Progress
from utils.process.stop import StopFlag

# between two looks at the stop flag; also what is lost when the process is killed
_CHUNK_IMAGES = 128
_SECONDS_BETWEEN_TRIES = 0.2


class CropSource(Protocol):
    """Where the centre crops of a list of images come from."""

    def read(self, index: int) -> Crop:
        """The crop of the image at this place of the list, to keep.

        Raises:
            BadImageError: for a damaged image.
            DataError: for a damaged cache.
        """


class DecodedCrops:
    """Crops cut from their files, again at every call.

    Args:
        names: of the images.
        recipe: how they are cut.
    """

    def __init__(self, names: Sequence[str], recipe: CenterCrop) -> None:
        self._names, self._recipe = names, recipe

    def read(self, index: int) -> Crop:
        """See :class:`CropSource`."""
        return self._recipe.cut(self._names[index])


class CachedCrops:
    """Crops out of a cache that holds all of them.

    The map is opened by each process that reads. A crop is compared with its checksum when a
    process reads it for the first time.

    Args:
        names: of the images.
        recipe: how they were cut.
        folder: of the cache.
        index: its index.

    Raises:
        DataError: if the data file is shorter than the index says.
    """

    def __init__(self, names: Sequence[str], recipe: CenterCrop, folder: str, index: Index) -> None:
        records = [index.records[name] for name in names]
        self._rows = np.array([record.row for record in records], np.int64)  # (N,)
        self._crcs = np.array([record.crc for record in records], np.uint32)  # (N,)
        self._is_checked = np.zeros(len(records), np.bool_)  # (N,)
        self._problems = {i: record.problem for i, record in enumerate(records) if record.row < 0}
        places: dict[ImageFacts | None, int] = {}  # of many images few sizes
        facts = [places.setdefault(record.facts, len(places)) for record in records]
        self._facts, self._facts_of = list(places), np.array(facts, np.int32)  # (N,)
        self._folder, self._shape = folder, (index.num_rows, *recipe.shape)
        self._map: NDArray[np.uint8] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without the map, which pickles as its whole content."""
        return {**self.__dict__, "_map": None}

    @property
    def problems(self) -> list[str]:
        """What is wrong with each damaged image of the list."""
        return list(self._problems.values())

    def read(self, index: int) -> Crop:
        """See :class:`CropSource`."""
        facts = self._facts[self._facts_of[index]]
        if facts is None:
            raise BadImageError(self._problems[index])
        crop = np.array(self._crops()[self._rows[index]])
        if not self._is_checked[index]:
            if zlib.crc32(crop.data) != self._crcs[index]:
                raise _damaged(self._folder, f"row {self._rows[index]} of {DATA_FILE}: checksum")
            self._is_checked[index] = True
        return Crop(crop, facts)

    def _crops(self) -> NDArray[np.uint8]:
        if self._map is None:
            path = os.path.join(self._folder, DATA_FILE)
            try:
                self._map = np.memmap(path, np.uint8, "r", shape=self._shape)  # (rows, H, W, C)
            except (ValueError, FileNotFoundError) as error:
                raise _damaged(self._folder, f"{DATA_FILE}: {error}") from None
        return self._map


def crop_source(names: Sequence[str], recipe: CenterCrop, flags: CropFlags) -> CropSource:
    """The crops of the images: from the files, or from the cache, which is completed first.

    Raises:
        BadImageError: for damaged images while a cache is made, unless they are skipped.
        DataError: for a damaged cache.
        StopRequested: if a signal came before the cache was complete.
    """
    if not flags.cache_dir or flags.dry_run:
        return DecodedCrops(names, recipe)
    folder, stamps = recipe.folder(flags.cache_dir), file_stamps(names, recipe.data_dir)
    images = list(zip(names, stamps, strict=True))
    try:
        index = _complete_index(images, recipe, folder, flags.on_bad_image)
        crops = CachedCrops(names, recipe, folder, index)
    except BadImageError:
        raise
    except DataError as error:
        raise _damaged(folder, str(error)) from None
    if crops.problems and flags.on_bad_image == "error":
        raise BadImageError(crops.problems[0])
    return crops


def _damaged(folder: str, problem: str) -> DataError:
    return DataError(f"crop cache {folder}: {problem}; delete this folder to have it made again")


def _complete_index(
    images: Sequence[tuple[str, Stamp]], recipe: CenterCrop, folder: str, on_bad_image: str
) -> Index:
    """The index of the cache once all images are in it."""
    stop = StopFlag()
    with stop.listening():
        index = read_index(folder, recipe)
        if index.missing(images):
            with _sole_builder(folder, stop):
                index = read_index(folder, recipe)  # another process may have been here meanwhile
                missing = index.missing(images)
                total, done = len(set(images)), len(set(images)) - len(missing)
                if missing:
                    with Progress(total, "crop cache", unit="image", done=done) as bar:
                        _Builder(recipe, folder, on_bad_image, index).build(missing, bar, stop)
    _stop_if_asked(stop)
    return index


def _stop_if_asked(stop: StopFlag) -> None:
    if stop.reason:
        raise StopRequested(f"stopped ({stop.reason}) while crops were cached; run again to go on")


@contextlib.contextmanager
def _sole_builder(folder: str, stop: StopFlag) -> Iterator[None]:
    """Waits until no other process adds to the cache; the lock goes with the process."""
    is_told = False
    while (file := try_lock(os.path.join(folder, LOCK_FILE))) is None:
        if not is_told:
            print(f"waiting for another process that completes the crop cache {folder}", flush=True)
        is_told = True
        _stop_if_asked(stop)
        time.sleep(_SECONDS_BETWEEN_TRIES)
    with file:
        yield


class _Builder:
    """Adds crops to a cache; only one process at a time."""

    def __init__(self, recipe: CenterCrop, folder: str, on_bad_image: str, index: Index) -> None:
        self._recipe, self._folder, self._index = recipe, folder, index
        self._is_skipping = on_bad_image == "skip"

    def build(self, missing: Sequence[tuple[str, Stamp]], bar: Progress, stop: StopFlag) -> None:
        """Cuts the missing crops, in threads; what was cut before an error or a stop is kept.

        Raises:
            BadImageError: for the first damaged image, unless they are skipped.
            StopRequested: if a signal came.
            StorageError: if there is no room.
        """
        path = os.path.join(self._folder, SETTINGS_FILE)
        settings = self._recipe.settings()
        require_same_settings(path, settings, defaults={}, folder_flag="--cache_dir")
        self._require_room(len(missing))
        try:
            with (
                self._open(DATA_FILE, self._index.num_rows * self._recipe.num_bytes) as data,
                self._open(INDEX_FILE, self._index.num_bytes) as lines,
                ThreadPoolExecutor(num_cores()) as pool,
            ):
                for start in range(0, len(missing), _CHUNK_IMAGES):
                    chunk = missing[start : start + _CHUNK_IMAGES]
                    cut = list(pool.map(self._cut, [name for name, _ in chunk]))
                    self._store(chunk, cut, data, lines)
                    bar.update(len(chunk))
                    _stop_if_asked(stop)
        except OSError as error:
            if isinstance(error, (StorageError, FileNotFoundError)):
                raise
            raise StorageError(
                error.errno, f"cannot add to the crop cache {self._folder}: {error}; run again"
            ) from error

    def _cut(self, name: str) -> Crop | BadImageError:
        try:
            return self._recipe.cut(name)
        except BadImageError as error:
            return error

    def _store(
        self,
        chunk: Sequence[tuple[str, Stamp]],
        cut: Sequence[Crop | BadImageError],
        data: IO[bytes],
        lines: IO[bytes],
    ) -> None:
        """Crops first, then the lines that make them count."""
        new: list[str] = []
        failure: BadImageError | None = None
        for (name, stamp), crop in zip(chunk, cut, strict=True):
            if isinstance(crop, BadImageError):
                record = Record(-1, 0, stamp, str(crop))
                if not self._is_skipping:
                    failure = crop
                    break
            else:
                crc = zlib.crc32(crop.pixels.data)
                record = Record(self._index.num_rows, crc, stamp, facts=crop.facts)
                data.write(crop.pixels.tobytes())
                self._index.num_rows += 1
            self._index.records[name] = record
            new.append(record.line(name))
        _flush(data)
        lines.write("".join(new).encode())
        _flush(lines)
        if failure is not None:
            raise failure

    def _open(self, name: str, size: int) -> IO[bytes]:
        """A file of the cache behind its last byte that counts; what a killed process left goes."""
        file = open(os.path.join(self._folder, name), "ab")  # noqa: SIM115 - the caller closes it
        file.truncate(size)
        return file

    def _require_room(self, num_images: int) -> None:
        needed, free = num_images * self._recipe.num_bytes, shutil.disk_usage(self._folder).free
        if needed > free:
            raise StorageError(
                errno.ENOSPC,
                f"the crop cache {self._folder} needs {needed / 2**30:.1f} GiB more, "
                f"{free / 2**30:.1f} GiB are free; choose another --cache_dir",
            )


def _flush(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
