"""Many images of one size as one npz, row by row, so that its size does not matter."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from utils.files.atomic import atomic_write

Shape = tuple[int, int, int, int]


def samples_path(output_dir: str, shape: Shape) -> str:
    """`samples_NxHxWxC.npz` of a shape (N, H, W, C)."""
    return os.path.join(output_dir, f"samples_{'x'.join(map(str, shape))}.npz")


def write_rows(
    path: str,
    shape: Shape,
    rows: Iterable[NDArray[np.uint8]],
    labels: NDArray[np.int64] | None = None,
) -> None:
    """Write `arr_0`, uint8 of a shape (N, H, W, C), and `arr_1`, the labels (N,), if there are any.

    The labels are looked at when all rows have passed. The file is there whole or not at all.
    """
    with atomic_write(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("arr_0.npy", "w", force_zip64=True) as member:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(member, header)
            for row in rows:
                member.write(row.tobytes())
        if labels is not None:
            with archive.open("arr_1.npy", "w") as member:
                np.lib.format.write_array(member, labels, allow_pickle=False)
