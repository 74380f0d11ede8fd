"""What a verification has found of each image, kept until its end for the run after a stop.

A result counts where flags, code and libraries are the same and every file that it was made of has
the size and time of change that it had. Neither images whose exact law is known are kept nor
measured pairs, whose files are not all known here.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import sr_var
import utils
from sr_var.flags.verify import VerificationFlags
from sr_var.results.folder import OF_VERIFICATION, SAMPLES_FOLDER
from sr_var.verify.numbers.calibration import Histograms
from sr_var.verify.numbers.metrics import ImageResult
from utils.files.atomic import is_remote, write_bytes_atomic
from utils.files.records import parse_json, versions
from utils.files.storage import make_folder
from utils.images.files import safe_join
from utils.images.folder import file_stamp
from utils.images.listing import Entry
from utils.process.errors import DataError
from utils.untrusted.arrays import read_npz

FOLDER = ".compared"
# flags that say how a run goes and what it shows, not what it finds of an image
_OF_THE_RUN = ("log_dir", "num_threads", "num_panels", "print_table", "full_table", "margin")
_HISTOGRAMS, _SUMS, _WORDS = "histograms.", "sums.", "words"
_METRICS = ("metrics", "means")
_MAX_BYTES = 1 << 24
_SHAPES = {name: values.shape for name, values in vars(Histograms()).items()}
_FileStamp = tuple[str, int, int]


class KeptResults:
    """Results of images in `<log_dir>/.compared/`, a file each.

    Args:
        num_scatter: pixels that an image gives to the scatter plot.
        log: is told once if nothing can be kept.
    """

    def __init__(
        self, flags: VerificationFlags, num_scatter: int, log: Callable[[str], None]
    ) -> None:
        self._flags, self._log, self._found = flags, log, list[str]()
        self._folder = os.path.join(flags.log_dir, FOLDER)
        is_known = not flags.pairs_dir and not is_remote(flags.log_dir)
        self._is_kept, self._of_all = flags.is_writing and is_known, ""
        if self._is_kept:
            given = {name: value for name, value in vars(flags).items() if name not in _OF_THE_RUN}
            files = [path for path in given.values() if isinstance(path, str)]
            self._of_all = _digest(
                [sorted(given.items()), num_scatter, _code(), versions()],
                [*map(_stamps_of, filter(os.path.isfile, files))],
                [_stamps_in(folder) for folder in self._roots()],
            )

    @property
    def num_found(self) -> int:
        """Images whose results an earlier run has left."""
        return len(self._found)

    def key(self, entry: Entry) -> str:
        """What a result of the image is made of; to be asked for before the files are read."""
        if not self._is_kept:
            return ""
        folders = [safe_join(root, entry.name) for root in self._roots()]
        folders += [os.path.join(folder, SAMPLES_FOLDER) for folder in folders[1:]]
        try:
            stamp = file_stamp(entry.name, self._flags.data_dir)
        except OSError:
            return ""  # who reads the image says what is wrong
        return _digest(self._of_all, vars(entry), stamp, [*map(_stamps_in, folders)])

    def find(self, entry: Entry, key: str) -> ImageResult | None:
        """What an earlier run has found of the same, if what it wrote beside samples is there.

        None as well of a damaged file.
        """
        path = self._path(entry)
        if not key or not all(map(os.path.exists, [path, *self._written(entry)])):
            return None
        try:
            result = read_result(path, key)
        except (DataError, OSError):
            return None
        if result is not None:
            self._found.append(entry.name)
        return result

    def keep(self, entry: Entry, key: str, result: ImageResult) -> None:
        """Keep the result of an image; where the disk takes no more, the run goes on without."""
        if not key or not self._is_kept or result.data is not None or result.expected is not None:
            return
        try:
            make_folder(self._folder)
            write_bytes_atomic(self._path(entry), packed(result, key))
        except OSError as error:
            self._is_kept = False
            self._log(f"notice: nothing is kept for a run after a stop: {error}")

    def _path(self, entry: Entry) -> str:
        digest = hashlib.sha256(entry.name.encode("utf-8", "surrogatepass")).hexdigest()
        return os.path.join(self._folder, f"{digest[:32]}.npz")

    def _written(self, entry: Entry) -> list[str]:
        """What the verification writes beside the samples of an image."""
        if not self._flags.num_samples:
            return []
        folder = safe_join(self._flags.ddpm_sr_output_dir, entry.name)
        return [os.path.join(folder, name) for name in OF_VERIFICATION]

    def _roots(self) -> list[str]:
        flags = self._flags
        return [flags.nets_dir, *([flags.ddpm_sr_output_dir] if flags.num_samples else [])]


def read_result(path: str, key: str) -> ImageResult | None:
    """The result in a file; None of another key, a DataError of a damaged file."""
    found = read_npz(path, path, max_bytes=_MAX_BYTES)
    try:
        return _unpacked(found, key)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path} holds no result of a verification: {error}") from None


def remove_kept(log_dir: str) -> None:
    """Remove what was kept, at the end of a verification."""
    shutil.rmtree(os.path.join(log_dir, FOLDER), ignore_errors=True)


def _digest(*content: object) -> str:
    text = json.dumps(content, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _stamps_in(folder: str) -> list[_FileStamp]:
    """Those of the files of a folder, but for what the verification itself writes there."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(e.name for e in entries if e.name not in OF_VERIFICATION and e.is_file())
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [_stamps_of(os.path.join(folder, name)) for name in names]


def _stamps_of(path: str) -> _FileStamp:
    status = os.stat(path)
    return path, status.st_size, status.st_mtime_ns


@functools.cache
def _code() -> str:
    """A digest of the modules that find anything."""
    digest = hashlib.sha256()
    for package in (sr_var, utils):
        for path in sorted(Path(package.__path__[0]).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def packed(result: ImageResult, key: str) -> bytes:
    """The content of the file of a result without arrays and without an exact law."""
    assert result.histograms is not None and result.sums is not None
    words: dict[str, Any] = {
        "key": key,
        "name": result.name,
        "group": result.group,
        "is_float": result.is_float,
        "num_stored": result.num_stored,
    }
    arrays: dict[str, npt.NDArray[Any]] = {"scatter": result.scatter}
    for kind in _METRICS:
        values: Mapping[str, float] = getattr(result, kind)
        words[kind], arrays[kind] = [*values], np.array([*values.values()], np.float64)
    for route, sums in result.histograms.items():
        arrays |= {f"{_HISTOGRAMS}{route}.{name}": part for name, part in vars(sums).items()}
    arrays |= {f"{_SUMS}{name}": part for name, part in result.sums.items()}
    arrays[_WORDS] = np.frombuffer(json.dumps(words).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _unpacked(found: Mapping[str, npt.NDArray[Any]], key: str) -> ImageResult | None:
    words = parse_json(found[_WORDS].tobytes())
    if words["key"] != key:
        return None
    by_route: dict[str, dict[str, npt.NDArray[Any]]] = {}
    for place, part in _below(_HISTOGRAMS, found):
        route, _, name = place.rpartition(".")
        if part.shape != _SHAPES[name] or part.dtype != np.float64:
            raise ValueError(f"{place} is no histogram")
        by_route.setdefault(route, {})[name] = part
    metrics, means = (
        dict(zip(words[kind], found[kind].tolist(), strict=True)) for kind in _METRICS
    )
    return ImageResult(
        name=words["name"],
        metrics=metrics,
        data=None,
        is_float=words["is_float"],
        means=means,
        histograms={route: Histograms(**parts) for route, parts in by_route.items()},
        scatter=found["scatter"],
        sums=dict(_below(_SUMS, found)),
        num_stored=words["num_stored"],
        group=words["group"],
    )


def _below(
    prefix: str, found: Mapping[str, npt.NDArray[Any]]
) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    for name, part in found.items():
        if name.startswith(prefix):
            yield name.removeprefix(prefix), part
