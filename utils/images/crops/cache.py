"""Centre crops as one memory-mapped array, cut once and shared by processes and runs.

A cache only grows: a crop is on the disk before the line of the index that names it, so whatever a
killed process leaves behind the last whole line does not count, and the next one goes on there.
Nothing is mended: a damaged cache, and one with a crop of an image that has changed since, is
refused, with the folder to delete.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import IO, Any

import numpy as np
import PIL
from numpy.typing import NDArray

from utils.files.atomic import is_remote, naming_disk_errors, write_through
from utils.files.lock import Lock, lock_notice, try_lock
from utils.files.records import parse_json, require_same_settings
from utils.flags.groups import ERROR, NATIVE, CropFlags
from utils.images.crops.cache_index import (
    CachedRecords,
    Record,
    find_records,
    keep_records,
)
from utils.images.crops.native_crops import stored_as
from utils.images.crops.patches import is_patch
from utils.images.crops.recipes import CenterCrop, CropRecipe, CropSource
from utils.images.files import (
    BadImageError,
    Crop,
    ImageFacts,
)
from utils.images.folder import Stamp, file_stamp, file_stamps
from utils.images.listing import Texts
from utils.machine.threads import num_cores
from utils.process.errors import DataError, StorageError
from utils.process.stop import StopFlag
from utils.runs.job import working
from utils.sizes import Size

INDEX_FILE = "index.jsonl"
_REMEDY = "run again to go on with the crop cache"
_FORMAT = 2
# between two looks at the stop flag; also what is lost when the process is killed
_CHUNK_IMAGES = 128
_SECONDS_BETWEEN_TRIES = 0.2


def _settings(recipe: CenterCrop) -> dict[str, str | int | float]:
    """What the values of a crop depend on, beside the file."""
    folder = recipe.data_dir
    # caches of earlier versions, which do not name it, stay in use
    scale: dict[str, str | int | float] = {"crop": NATIVE} if is_patch(recipe) else {}
    return scale | {
        "format": _FORMAT,
        "data_dir": folder if is_remote(folder) else os.path.realpath(folder),
        "size": Size.of(recipe.size).stored,
        "channels": recipe.num_channels,
        "fast_crop": False,  # of earlier versions, whose caches stay in use
        "apply_orientation": recipe.apply_orientation,
        "pillow": PIL.__version__,
        **stored_as(recipe)[2],
    }


def crop_folder(recipe: CenterCrop, cache_dir: str) -> str:
    """Return where the crops are kept: other settings, another folder."""
    text = json.dumps(_settings(recipe), sort_keys=True)
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return os.path.join(cache_dir, f"{Size.of(recipe.size)}x{recipe.num_channels}_{digest}")


class CachedCrops(CropSource):
    """Crops out of a cache; a damaged image, which has none, is decoded again to tell what it has.

    When a process reads a crop for the first time, the image's file must have the size and time of
    change that it had when it was cut, and the crop its checksum.
    """

    def __init__(
        self, names: Sequence[str], recipe: CenterCrop, folder: str, records: CachedRecords
    ) -> None:
        super().__init__(names, recipe)
        self._folder, self._records, self._data_dir = folder, records, recipe.data_dir
        self._is_checked = np.zeros(len(names), np.bool_)  # (N,)
        self._file, self._dtype, _ = stored_as(recipe)
        self._map: NDArray[Any] | None = None

    def __getstate__(self) -> dict[str, object]:
        """Without the map, which pickles as its whole content."""
        return {**self.__dict__, "_map": None}

    def read(self, index: int) -> Crop:
        """See `CropSource`; DataError for a damaged cache, and for an image that has changed."""
        row = self._records.rows[index]
        if row < 0:
            return super().read(index)
        crop = np.array(self._crops()[row])
        if not self._is_checked[index]:
            name = self._names[index]
            if file_stamp(name, self._data_dir) != self._records.stamp(index):
                raise _changed(self._folder, name)
            if zlib.crc32(crop.data) != self._records.crcs[index]:
                raise _damaged(self._folder, f"row {row} of {self._file}: checksum")
            self._is_checked[index] = True
        return Crop(crop, ImageFacts.parse(self._records.facts(index)))

    def _crops(self) -> NDArray[Any]:
        if self._map is None:
            path, shape = os.path.join(self._folder, self._file), self._recipe.shape
            try:
                self._map = np.memmap(
                    path, self._dtype, "r", shape=(self._records.num_rows, *shape)
                )
            except (ValueError, FileNotFoundError) as error:
                raise _damaged(self._folder, f"{self._file}: {error}") from None
        return self._map


def crop_source(names: Texts, recipe: CropRecipe, flags: CropFlags) -> CropSource:
    """Return the crops of the images: from the files, or from the cache once it has all of them.

    Where an earlier run has kept what this list finds in a large cache, only some images are
    compared with their files here, and all when they are read.

    Raises:
        BadImageError: for damaged images while a cache is made, unless they are skipped.
        DataError: for a damaged cache, and for an image that has changed since it was cut.
        FileNotFoundError: an image that is compared has no file.
        StopRequested: if a signal came before the cache was complete.
        StorageError: if there is no room.
    """
    if not flags.cache_dir or flags.dry_run:
        return CropSource(names, recipe)
    assert isinstance(recipe, CenterCrop)  # flags refuse a cache of others
    stamps_of = partial(file_stamps, data_dir=recipe.data_dir)
    folder = crop_folder(recipe, flags.cache_dir)
    index_file, skips = os.path.join(folder, INDEX_FILE), flags.on_bad_image != ERROR
    records = find_records(folder, index_file, names, stamps_of, takes_damaged=skips)
    if records is not None:
        CropCache(recipe, folder, records.num_rows)
    else:
        cache, stop = CropCache(recipe, folder), StopFlag()
        stamp_of = dict(zip(names, map(tuple, stamps_of(names).tolist()), strict=True))
        with stop.listening():
            if cache.missing(stamp_of, flags.on_bad_image):
                cache.complete(stamp_of, flags.on_bad_image, stop)
        stop.check(_REMEDY)
        known = names, cache.num_rows, cache.records.__getitem__
        records = keep_records(folder, index_file, cache.digest.hexdigest(), *known)
    return CachedCrops(names, recipe, folder, records)


class CropCache:
    """A folder of crops and its index; DataError if it is damaged, or of other settings.

    Where the number of rows is known, lines are not read.

    Attributes:
        records: by image name.
        num_rows: crops in the data file that count.
        digest: of the index's lines, SHA-256.
    """

    def __init__(self, recipe: CenterCrop, folder: str, num_rows: int | None = None) -> None:
        self.folder, self._recipe = folder, recipe
        self._file, dtype, _ = stored_as(recipe)
        self._crop_bytes = math.prod(recipe.shape) * dtype.itemsize
        self._paths = [os.path.join(folder, name) for name in (self._file, INDEX_FILE)]
        if num_rows is None:
            self._read()
        else:
            self._require_same_settings()
            self._require_whole(num_rows)

    def missing(self, stamps: Mapping[str, Stamp], on_bad_image: str) -> list[str]:
        """Return the images to cut; damaged ones if they have changed, or are not to be skipped."""
        found = []
        for name, stamp in stamps.items():
            record = self.records.get(name)
            is_other = record is None or record.stamp != stamp
            if record is None or (record.row < 0 and (is_other or on_bad_image == ERROR)):
                found.append(name)
            elif is_other:
                raise _changed(self.folder, name)
        return found

    def complete(self, stamps: Mapping[str, Stamp], on_bad_image: str, stop: StopFlag) -> None:
        """Cut, in threads, what no other process has cut meanwhile; one process at a time.

        What was cut before an error or a stop is kept. For what it raises see `crop_source`.
        """
        lock = self._wait_for_lock(stop)
        with lock:
            self._read()
            missing, num_images = self.missing(stamps, on_bad_image), len(stamps)
            self._require_same_settings()
            self._require_room(len(missing))
            done, cut = num_images - len(missing), partial(_try_to_cut, self._recipe, on_bad_image)
            with (
                self._open(self._paths[0], self.num_rows * self._crop_bytes) as data,
                self._open(self._paths[1], self._num_bytes) as index,
                ThreadPoolExecutor(num_cores()) as pool,
                working(
                    num_images, "crop cache", "image", done=done, stop=stop, remedy=_REMEDY
                ) as job,
            ):
                for start in range(0, len(missing), _CHUNK_IMAGES):
                    chunk = missing[start : start + _CHUNK_IMAGES]
                    crops = list(pool.map(cut, chunk))
                    self._require(lock)
                    self._append(data, (crop.pixels.tobytes() for crop in crops if crop))
                    for name, crop in zip(chunk, crops, strict=True):
                        self.records[name] = self._record(crop, stamps[name])
                    lines = b"".join(index_line(name, self.records[name]) for name in chunk)
                    self._append(index, [lines])
                    self.digest.update(lines)
                    job.done(len(chunk))

    def _record(self, crop: Crop | None, stamp: Stamp) -> Record:
        if crop is None:
            return Record(-1, 0, stamp, "")
        self.num_rows += 1
        return Record(self.num_rows - 1, zlib.crc32(crop.pixels.data), stamp, str(crop.facts))

    def _read(self) -> None:
        self.records: dict[str, Record] = {}
        self.num_rows = self._num_bytes = 0  # rows and bytes of the index that count
        self.digest = hashlib.sha256()
        try:
            with open(self._paths[1], "rb") as file:
                content = file.read()
        except (FileNotFoundError, NotADirectoryError):
            return
        self._require_same_settings()
        self._num_bytes = content.rfind(b"\n") + 1
        for number, line in enumerate(content[: self._num_bytes].splitlines(), 1):
            try:
                name, row, crc, size, changed, _, facts = parse_json(line)
                if row not in (-1, self.num_rows) or crc >> 32:
                    raise ValueError("no such line is written")
                if row >= 0:
                    ImageFacts.parse(facts)
                self.records[name] = Record(row, crc, (size, changed), facts)
            except (ValueError, TypeError, AttributeError):
                raise _damaged(self.folder, f"{INDEX_FILE}, line {number} is damaged") from None
            self.num_rows += row >= 0
        self.digest.update(content[: self._num_bytes])
        self._require_whole(self.num_rows)

    def _require_whole(self, num_rows: int) -> None:
        data_file = self._paths[0]
        size = os.path.getsize(data_file) if os.path.exists(data_file) else 0
        expected = num_rows * self._crop_bytes
        if size < expected:
            raise _damaged(self.folder, f"{self._file} has {size} bytes of {expected}")

    def _require_same_settings(self) -> None:
        path, settings = os.path.join(self.folder, "settings.json"), _settings(self._recipe)
        try:
            require_same_settings(path, settings, defaults={}, folder_flag="--cache_dir")
        except DataError as error:
            raise DataError(
                f"crop cache: {error}; or delete {self.folder} to have it made again"
            ) from None

    def _require_room(self, num_images: int) -> None:
        needed, free = num_images * self._crop_bytes, shutil.disk_usage(self.folder).free
        if needed > free:
            raise StorageError(
                errno.ENOSPC,
                f"the crop cache {self.folder} needs {needed / 2**30:.1f} GiB more, "
                f"{free / 2**30:.1f} GiB are free; choose another --cache_dir",
            )

    def _require(self, lock: Lock) -> None:
        if not lock.is_held():
            raise DataError(
                f"crop cache {self.folder} was taken over by another process while this one did "
                f"not answer; {_REMEDY}"
            )

    def _wait_for_lock(self, stop: StopFlag) -> Lock:
        """The lock, once no other process adds to the cache; it goes with the process."""
        if notice := lock_notice(self.folder):
            print(notice, flush=True)
        words = f"waiting for another process that completes the crop cache {self.folder}"
        while (file := try_lock(os.path.join(self.folder, ".lock"))) is None:
            if words:
                print(words, flush=True)
            words = ""
            stop.check(_REMEDY)
            time.sleep(_SECONDS_BETWEEN_TRIES)
        return file

    @staticmethod
    def _open(path: str, size: int) -> IO[bytes]:
        """A file of the cache behind its last byte that counts; what a killed process left goes."""
        with naming_disk_errors(path):
            file = open(path, "ab", buffering=0)  # noqa: SIM115 - the caller closes it
            file.truncate(size)
        return file

    @staticmethod
    def _append(file: IO[bytes], parts: Iterable[bytes]) -> None:
        for part in parts:
            write_through(file.name, file.fileno(), part)
        with naming_disk_errors(file.name):
            os.fsync(file.fileno())


def index_line(name: str, record: Record) -> bytes:
    """That of the index; its empty word once told what is wrong with an image."""
    content = [name, record.row, record.crc, *record.stamp, "", record.facts]
    return json.dumps(content).encode() + b"\n"


def _try_to_cut(recipe: CenterCrop, on_bad_image: str, name: str) -> Crop | None:
    try:
        return recipe.cut(name)
    except BadImageError:
        if on_bad_image == ERROR:
            raise
        return None


def _changed(folder: str, name: str) -> DataError:
    return _damaged(folder, f"image {name} has changed since its crop was cached")


def _damaged(folder: str, problem: str) -> DataError:
    return DataError(f"crop cache {folder}: {problem}; delete this folder to have it made again")
