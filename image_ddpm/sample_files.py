"""Samples as files: `samples_NxHxWxC.npz`, and pictures of them.

Layout: `<output_dir>/samples_NxHxWxC.npz` with `arr_0` (N, H, W, C) uint8 and, with classes,
`arr_1` (N,) int64; `classes.json`, the names of the classes where they are known;
`png/<label>_<name>_<index>.png` and `grid.png` (docs/file_formats.md). All of it passes row by
row, so that its size does not matter.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from image_ddpm.parts import PartStore, read_part
from utils.files.atomic import write_json_atomic
from utils.files.storage import make_folder
from utils.images.pictures import write_picture
from utils.images.pixels import make_grid
from utils.images.rows import Shape, write_rows
from utils.machine.threads import chosen_threads, ordered_map
from utils.process.errors import DataError
from utils.process.stop import StopFlag, go_on_with
from utils.runs.job import Job, working
from utils.untrusted.arrays import read_npz, read_npz_rows

CLASSES_FILE = "classes.json"
# letters of a class in the name of a picture: four bytes each fit beside the numbers
_MAX_NAME = 50
_ROWS_IN_GRID, _GRID_COLUMNS = 10, 10
# parts that are open at a time: rows of as many processes lie between each other
_NUM_OPEN_PARTS = 64
# pictures of damaged samples may have been drawn already
_REMEDY = "delete it and the folder png beside it, and run again"


def finish_and_draw(
    store: PartStore,
    path: str,
    shape: Shape,
    log: Callable[[str], None],
    *,
    pictures: str,
    class_names: Sequence[str] = (),
) -> None:
    """Put samples of a shape (N, H, W, C) together if all parts are there, and draw them.

    `pictures` is their format, as `png`; empty: none are wanted.

    Raises:
        DataError: for a part that cannot be read, or a damaged file.
        StorageError: if a file cannot be written.
        StopRequested: if a signal came; what is missing is made by the next run.
    """
    stop, folder = StopFlag(), os.path.dirname(path)
    with stop.listening():
        with store.finishing() as is_whole:
            if is_whole:
                if not os.path.exists(path):
                    write_samples(store, path, shape, stop)
                    log(f"written: {path}")
                store.remove()
        if not os.path.exists(path):
            log("this process is done; the last one of the others puts the samples together")
            return
        if any(class_names):
            named = {str(y): name for y, name in enumerate(class_names) if name}
            write_json_atomic(os.path.join(folder, CLASSES_FILE), named)
        if pictures:
            write_pictures(path, shape, folder, class_names, stop, pictures)


def _stage(
    path: str, shape: Shape, label: str, unit: str, stop: StopFlag | None
) -> AbstractContextManager[Job]:
    remedy = go_on_with(f"--output_dir {os.path.dirname(path)}")
    return working(shape[0], label, unit, stop=stop, remedy=remedy)


def write_samples(store: PartStore, path: str, shape: Shape, stop: StopFlag | None = None) -> None:
    """Put the parts together in the order of their indices."""
    places, part = store.places(), functools.lru_cache(maxsize=_NUM_OPEN_PARTS)(read_part)
    has_labels = "labels" in part(places[0][0])
    labels = np.zeros(shape[0], np.int64)

    def rows() -> Iterator[NDArray[np.uint8]]:
        with _stage(path, shape, "putting together", "sample", stop) as job:
            for index in range(shape[0]):
                name, row = places[index]
                arrays = part(name)
                labels[index] = arrays["labels"][row] if has_labels else 0
                yield arrays["samples"][row]
                job.done()

    write_rows(path, shape, rows(), labels if has_labels else None)


def picture_name(
    index: int, label: int | None, class_names: Sequence[str] = (), ending: str = "png"
) -> str:
    """`<label>_<name>_<index>.png`, as far as label and name are known, or of another ending.

    Of the name, letters, digits, dots and hyphens; other characters become hyphens.
    """
    number = f"{index:06d}.{ending}"
    if label is None:
        return number
    name = class_names[label][:_MAX_NAME] if 0 <= label < len(class_names) else ""
    safe = "".join(c if (c.isalnum() and _is_for_files(c)) or c in "-." else "-" for c in name)
    return f"{label}_{number}" if safe in ("", str(label)) else f"{label}_{safe}_{number}"


def _is_for_files(letter: str) -> bool:
    """Whether the system's encoding of file names has the letter."""
    try:
        os.fsencode(letter)
    except UnicodeEncodeError:
        return False
    return True


def write_pictures(
    path: str,
    shape: Shape,
    output_dir: str,
    class_names: Sequence[str] = (),
    stop: StopFlag | None = None,
    ending: str = "png",
) -> None:
    """Each sample of `write_samples`'s file as a picture (those that are missing), and a grid.

    They lie in a folder of the name of their format; the grid is a PNG.

    DataError if the file is damaged, or not of this shape (N, H, W, C).
    """
    num_samples, labels = shape[0], _read_labels(path, shape[0])
    rows = grid_rows(num_samples, labels)
    wanted, shown = {i for row in rows for i in row}, {}
    folder = os.path.join(output_dir, ending)
    make_folder(folder)

    def draw(item: tuple[int, NDArray[np.uint8]]) -> tuple[int, NDArray[np.uint8]]:
        index, image = item
        label = None if labels is None else int(labels[index])
        name = os.path.join(folder, picture_name(index, label, class_names, ending))
        if not os.path.exists(name):
            write_picture(name, image[:, :, 0] if image.shape[2] == 1 else image)
        return item

    samples = read_npz_rows(path, "arr_0", shape, remedy=_REMEDY)
    drawn = ordered_map(draw, enumerate(samples), chosen_threads(-1))
    with (
        contextlib.closing(drawn),
        _stage(path, shape, "writing pictures", "picture", stop) as job,
    ):
        for index, image in drawn:
            if index in wanted:
                shown[index] = image
            job.done()
    write_picture(os.path.join(output_dir, "grid.png"), sample_grid(rows, shown))


def _read_labels(path: str, num_samples: int) -> NDArray[Any] | None:
    stored = read_npz(path, path, ["arr_1"], remedy=_REMEDY, max_bytes=8 * num_samples)
    labels = stored.get("arr_1")
    if labels is not None and (labels.shape != (num_samples,) or labels.dtype.kind not in "iu"):
        raise DataError(f"{path}: arr_1 is no label of each of {num_samples} samples; {_REMEDY}")
    return labels


def grid_rows(num_samples: int, labels: NDArray[Any] | None) -> list[list[int]]:
    """Indices of up to a hundred samples, by row of the grid; with labels a row a class."""
    if labels is None:
        order = list(range(min(num_samples, _ROWS_IN_GRID * _GRID_COLUMNS)))
        return [order[i : i + _GRID_COLUMNS] for i in range(0, len(order), _GRID_COLUMNS)]
    classes = np.unique(labels)[:_ROWS_IN_GRID]
    return [np.flatnonzero(labels == y)[:_GRID_COLUMNS].tolist() for y in classes]


def sample_grid(
    rows: list[list[int]], images: Mapping[int, NDArray[np.uint8]]
) -> NDArray[np.uint8]:
    """The rows side by side, HWC with three channels; a short row ends in black."""
    num_columns = max(map(len, rows))
    blank = np.zeros_like(images[rows[0][0]])
    cells = [
        images[row[column]] if column < len(row) else blank
        for row in rows
        for column in range(num_columns)
    ]
    return make_grid([np.repeat(cell, 3 // cell.shape[2], axis=2) for cell in cells], num_columns)
