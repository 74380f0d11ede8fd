"""Samples as files: ``samples_NxHxWxC.npz``, and pictures of them.

Layout: ``<output_dir>/samples_NxHxWxC.npz`` with ``arr_0`` (N, H, W, C) uint8 and, with classes,
``arr_1`` (N,) int64; ``png/<label>_<index>.png`` and ``grid.png`` (docs/file_formats.md).
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from image_ddpm.parts import PartStore
from utils.atomic_file import atomic_write
from utils.image_util import make_grid, write_png
from utils.progress import Progress

_NUM_IN_GRID, _GRID_COLUMNS = 100, 10


def samples_path(output_dir: str, shape: tuple[int, int, int, int]) -> str:
    """``samples_NxHxWxC.npz`` of a shape (N, H, W, C)."""
    return os.path.join(output_dir, f"samples_{'x'.join(map(str, shape))}.npz")


def finish_samples(
    store: PartStore, path: str, shape: tuple[int, int, int, int], log: Callable[[str], None]
) -> bool:
    """Writes the samples' file if all parts are there; whether it is there now.

    Raises:
        DataError: for a part that cannot be read.
        StorageError: if the file cannot be written.
    """
    with store.finishing() as is_ours:
        if is_ours and not os.path.exists(path):
            write_samples(store, path, shape)
            store.remove()
            log(f"written: {path}")
    if os.path.exists(path):
        return True
    log("this process is done; the last one of the others puts the samples together")
    return False


def write_samples(store: PartStore, path: str, shape: tuple[int, int, int, int]) -> None:
    """Puts the parts together in the order of their indices, without holding them all in memory.

    Raises:
        DataError: for a part that cannot be read.
        StorageError: if the file cannot be written.
    """
    with TemporaryDirectory(dir=os.path.dirname(path), prefix=".samples") as folder:
        names = [os.path.join(folder, f"{name}.npy") for name in ("arr_0", "arr_1")]
        pixels = np.lib.format.open_memmap(names[0], "w+", np.uint8, shape)
        labels: NDArray[np.int64] | None = None
        for index, arrays in store.items():
            pixels[index] = arrays["samples"]
            if "labels" in arrays:
                labels = np.zeros(shape[0], np.int64) if labels is None else labels
                labels[index] = arrays["labels"]
        pixels.flush()
        del pixels
        if labels is not None:
            np.save(names[1], labels)
        with atomic_write(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name in names:
                if os.path.exists(name):
                    archive.write(name, os.path.basename(name))


def write_pictures(path: str, output_dir: str) -> None:
    """Each sample of a file as ``png/<label>_<index>.png`` (those that are missing), and a grid."""
    with np.load(path, allow_pickle=False) as stored:
        pixels = stored["arr_0"]
        labels = stored["arr_1"] if "arr_1" in stored.files else None
    folder = os.path.join(output_dir, "png")
    os.makedirs(folder, exist_ok=True)
    with Progress(len(pixels), "writing pictures", unit="picture") as bar:
        for index, image in enumerate(pixels):
            prefix = "" if labels is None else f"{labels[index]}_"
            name = os.path.join(folder, f"{prefix}{index:06d}.png")
            if not os.path.exists(name):
                write_png(name, _drawable(image))
            bar.update()
    write_png(os.path.join(output_dir, "grid.png"), sample_grid(pixels, labels))


def sample_grid(pixels: NDArray[np.uint8], labels: NDArray[Any] | None) -> NDArray[np.uint8]:
    """Up to a hundred samples side by side, HWC; with labels a row a class, as far as they go."""
    order = np.arange(len(pixels))
    if labels is not None:
        by_class = [order[labels == y][:_GRID_COLUMNS] for y in np.unique(labels)]
        order = np.concatenate(by_class)
    images = [np.repeat(pixels[i], 3 // pixels.shape[3], axis=2) for i in order[:_NUM_IN_GRID]]
    return make_grid(images, min(_GRID_COLUMNS, len(images)))


def _drawable(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return image[:, :, 0] if image.shape[2] == 1 else image
