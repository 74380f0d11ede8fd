"""Float TIFF files that are written row by row: other programs and this one read the same."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.native_files import geo_keys, tiff_of
from utils.images import float_tiff
from utils.images.float_tiff import float_tiff_layout, start_float_tiff
from utils.images.geotiff import Placement
from utils.images.native import read_native
from utils.process.errors import DataError

tifffile = pytest.importorskip("tifffile")


def write(path: Path, array: Any, placement: Placement | None = None) -> None:
    """Three rows at a time."""
    with open(path, "wb") as file:
        start_float_tiff(file, array.shape, placement or Placement(), "std, grey levels")
        for start in range(0, len(array), 3):
            file.write(array[start : start + 3].data)


@pytest.mark.parametrize("num_channels", [1, 2, 3, 4, 7])
def test_what_is_written_is_read_by_anybody(tmp_path: Path, num_channels: int) -> None:
    array = np.random.default_rng(0).normal(size=(700, 120, num_channels)).astype("<f4")
    path = tmp_path / "x.tif"
    write(path, array)
    np.testing.assert_array_equal(tifffile.imread(path).reshape(array.shape), array)
    found = read_native(path)
    np.testing.assert_array_equal(found.pixels, array)
    assert found.alpha is None and found.num_pages == 1
    shape, start = float_tiff_layout(str(path))
    assert shape == array.shape
    np.testing.assert_array_equal(np.fromfile(path, "<f4", offset=start), array.ravel())
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        assert page.description == "std, grey levels" and len(page.dataoffsets) > 1
        assert page.photometric.name == ("RGB" if num_channels == 3 else "MINISBLACK")


def test_its_place_is_written(tmp_path: Path) -> None:
    placement = Placement(
        scale=(2.5, 2.5, 0.0),
        tie_points=(0.0, 0.0, 0.0, 5.0, 6.0, 0.0),
        keys=geo_keys(2),
        doubles=(1.5,),
        texts="somewhere|",
        resolution=(400.0, 300.0, 3),
    )
    write(tmp_path / "x.tif", np.zeros((5, 4, 1), "<f4"), placement)
    assert read_native(tmp_path / "x.tif").placement == placement


def test_large_files_are_big_tiff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(float_tiff, "_LARGEST_CLASSIC", 100)
    array = np.random.default_rng(0).normal(size=(20, 12, 3)).astype("<f4")
    write(tmp_path / "x.tif", array)
    assert (tmp_path / "x.tif").read_bytes()[:4] == b"II+\0"
    np.testing.assert_array_equal(read_native(tmp_path / "x.tif").pixels, array)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        tiff_of(np.zeros((4, 5), np.uint8)),
        tiff_of(np.zeros((4, 5), np.float32), byteorder=">"),
        tiff_of(np.zeros((4, 5), np.float32), compression="zlib"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.tif").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.tif .*delete it"):
        float_tiff_layout(str(tmp_path / "x.tif"))


def test_without_tifffile_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(DataError, match=r"setup\.sh tiff"):
        float_tiff.tifffile_module()
