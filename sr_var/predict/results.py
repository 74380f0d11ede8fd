"""The files of one image: arrays written row by row, and the record that makes it done.

`<output_dir>/<name>_mean.npy` (or `.tif`) and so on (docs/file_formats.md). Arrays are written as
their rows come, so that an image never has to fit into the memory; they appear when all rows are
there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from sr_var.flags.predict import NPY, TIFF
from sr_var.predict.predictor import Prediction
from utils.files.atomic import JsonObject, atomic_write, write_json_atomic
from utils.files.records import find_record
from utils.files.storage import make_folder
from utils.images.files import safe_join
from utils.images.float_tiff import float_tiff_layout, start_float_tiff
from utils.images.geotiff import Placement
from utils.process.errors import StorageError

Floats = npt.NDArray[np.float32]
ARRAYS = ("mean", "std", "lower", "upper")
_ENDINGS = {NPY: ".npy", TIFF: ".tif"}
# rows of an array to look at at a time
STRIP_ROWS = 256


class StoredArray:
    """An array of `array_writer` in a file, (H, W, C), of which only the rows asked for are read.

    Both formats keep the rows one after the other.

    A memory map would do, but its pages count as this process's memory.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self.shape: tuple[int, ...]
        self._offset: int
        if path.endswith(_ENDINGS[TIFF]):
            self.shape, self._offset = float_tiff_layout(path)
        else:
            mapped = np.load(path, mmap_mode="r", allow_pickle=False)
            self.shape, self._offset = mapped.shape, mapped.offset

    def __getitem__(self, rows: slice) -> Floats:
        """Read rows (r, W, C)."""
        first, last, _ = rows.indices(self.shape[0])
        row = int(np.prod(self.shape[1:]))
        count = max(0, last - first) * row
        values = np.fromfile(self._path, "<f4", count, offset=self._offset + 4 * first * row)
        return values.reshape(-1, *self.shape[1:])


@dataclass(frozen=True)
class Target:
    """Where the results of one image go.

    Attributes:
        output_dir: `--output_dir`.
        name: of the image.
        format: of its arrays, `--format`.
    """

    output_dir: str
    name: str
    format: str = NPY

    @property
    def arrays(self) -> tuple[str, ...]:
        """The endings of the arrays, as of `ARRAYS`."""
        return tuple(f"{kind}{_ENDINGS[self.format]}" for kind in ARRAYS)

    def path(self, ending: str) -> str:
        """The path of a result, as of `mean.png`; the folder is made.

        Raises:
            ValueError: the name leads out of the output folder.
        """
        path = safe_join(self.output_dir, f"{self.name}_{ending}")
        make_folder(os.path.dirname(path), "--output_dir")
        return path

    def array(self, kind: str) -> StoredArray:
        """One of `ARRAYS`."""
        return StoredArray(self.path(f"{kind}{_ENDINGS[self.format]}"))

    def record(self) -> JsonObject:
        """What is known of a finished image; empty of another one."""
        return find_record(self.path("result.json"), dict) or {}

    def finish(self, record: Mapping[str, Any]) -> None:
        """Write the record: the last file of an image."""
        write_json_atomic(self.path("result.json"), dict(record))

    def remove(self, endings: tuple[str, ...]) -> None:
        """Remove files of these endings, those that are there."""
        for ending in endings:
            with contextlib.suppress(FileNotFoundError):
                os.remove(self.path(ending))

    def is_whole(self, endings: tuple[str, ...]) -> bool:
        """Whether all files of these endings are there."""
        return all(os.path.exists(self.path(ending)) for ending in endings)


@contextlib.contextmanager
def array_writer(
    target: Target, shape: tuple[int, int, int], placement: Placement | None = None, unit: str = ""
) -> Iterator[Callable[[Prediction[Floats]], None]]:
    """Yield what takes the rows of the four arrays, from top to bottom.

    The files appear at the end of the block, none if it raises. A TIFF also says where its pixels
    lie (`placement`) and what the numbers are.

    Raises:
        StorageError: the disk has no room for them; told before the first row.
        ValueError: other rows came than the shape (H, W, C) has.
    """
    paths = [target.path(ending) for ending in target.arrays]
    _require_room(paths[0], len(ARRAYS) * 4 * int(np.prod(shape, dtype=np.int64)))
    with contextlib.ExitStack() as stack:
        files: list[IO[bytes]] = [stack.enter_context(atomic_write(path)) for path in paths]
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        for file, kind in zip(files, ARRAYS, strict=True):
            if target.format == TIFF:
                start_float_tiff(file, shape, placement or Placement(), f"{kind}, {unit}")
            else:
                np.lib.format.write_array_header_1_0(file, header)
        num_rows = 0

        def write(part: Prediction[Floats]) -> None:
            nonlocal num_rows
            for file, kind in zip(files, ARRAYS, strict=True):
                file.write(np.ascontiguousarray(getattr(part, kind), "<f4").data)
            num_rows += len(part.mean)

        yield write
        if num_rows != shape[0]:
            raise ValueError(f"{num_rows} rows of an image that has {shape[0]}")


def _require_room(path: str, num_bytes: int) -> None:
    free = shutil.disk_usage(os.path.dirname(path) or ".").free
    if num_bytes > free:
        raise StorageError(
            errno.ENOSPC,
            f"{path} and the other arrays take {num_bytes / 2**20:.0f} MiB, "
            f"{free / 2**20:.0f} MiB are free; free some space or give another --output_dir",
        )


def strips(height: int) -> Iterator[slice]:
    """Rows to look at one after the other."""
    for start in range(0, height, STRIP_ROWS):
        yield slice(start, min(start + STRIP_ROWS, height))
