"""Bombs, PNG files, picture grids, and the paths that names out of an info dict may lead to."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFile

from utils.images.files import (
    MAX_PIXELS,
    BadImageError,
    image_facts,
    open_image,
    resolve_image_path,
    safe_join,
)
from utils.images.pictures import write_picture
from utils.images.pixels import make_grid
from utils.process.errors import DataError

ROOT = Path(__file__).resolve().parents[3]


def _noise(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def _png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", pixels), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("width", [MAX_PIXELS // 1000 + 1, 10 * MAX_PIXELS // 1000, 2**31 - 1])
def test_decompression_bomb_is_an_error_and_no_global_setting_changes(
    tmp_path: Path, width: int
) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(_png_that_claims(width, 1000))
    limit = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        filters = list(warnings.filters)
        with pytest.raises(BadImageError, match=r"bomb\.png"):
            open_image(path)
        assert warnings.filters == filters
    assert limit == Image.MAX_IMAGE_PIXELS


def test_bomb_is_an_error_also_where_another_library_lifted_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    path = tmp_path / "bomb.png"
    path.write_bytes(_png_that_claims(100_000, 100_000))
    with pytest.raises(BadImageError, match=r"bomb\.png: 100000x100000"):
        open_image(path)


def test_reading_refuses_to_run_with_truncated_images_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_picture(tmp_path / "x.png", _noise(4, 4, 3))
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(ValueError, match="LOAD_TRUNCATED_IMAGES"):
        open_image(tmp_path / "x.png")


def test_missing_image_is_file_not_found_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.JPEG.*data_dir"):
        open_image(tmp_path / "nowhere.JPEG")


def test_folder_or_link_to_nothing_in_place_of_an_image_is_a_bad_image(tmp_path: Path) -> None:
    (tmp_path / "folder.JPEG").mkdir()
    (tmp_path / "link.JPEG").symlink_to(tmp_path / "none.JPEG")
    for read in (open_image, image_facts):
        with pytest.raises(BadImageError, match=r"folder\.JPEG: a folder"):
            read(tmp_path / "folder.JPEG")
        with pytest.raises(BadImageError, match=r"link\.JPEG: a link"):
            read(tmp_path / "link.JPEG")


def test_bad_image_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"x\.png.*8 bytes"):
        open_image(tmp_path / "x.png")


def test_decoding_needs_no_torch() -> None:
    code = "import sys, utils.images.files, utils.metrics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60).returncode == 0


@pytest.mark.parametrize("shape", [(5, 7, 3), (5, 7)])
def test_png_round_trips_bit_for_bit(tmp_path: Path, shape: tuple[int, ...]) -> None:
    image = _noise(*shape)
    write_picture(tmp_path / "x.png", image)
    with Image.open(tmp_path / "x.png") as stored:
        np.testing.assert_array_equal(np.asarray(stored), image)
    assert os.listdir(tmp_path) == ["x.png"]


def test_png_of_a_strided_view_is_that_of_its_copy(tmp_path: Path) -> None:
    view = _noise(3, 8, 6).transpose(1, 2, 0)[::2, ::-1]
    write_picture(tmp_path / "view.png", view)
    write_picture(tmp_path / "copy.png", view.copy())
    assert (tmp_path / "view.png").read_bytes() == (tmp_path / "copy.png").read_bytes()


@pytest.mark.parametrize("image", [np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8)])
def test_png_of_floats_or_of_other_shapes_is_refused(
    tmp_path: Path, image: NDArray[np.uint8]
) -> None:
    with pytest.raises(ValueError, match=r"dtype|shape"):
        write_picture(tmp_path / "x.png", image)
    assert os.listdir(tmp_path) == []


def test_grid_holds_each_image_at_its_place() -> None:
    images = [_noise(4, 6, 3, seed=seed) for seed in range(5)]
    grid = make_grid(images, 3, padding=2)
    assert grid.shape == (2 * (4 + 2) + 2, 3 * (6 + 2) + 2, 3)
    covered = np.zeros(grid.shape[:2], bool)
    for index, image in enumerate(images):
        top, left = 2 + 6 * (index // 3), 2 + 8 * (index % 3)
        np.testing.assert_array_equal(grid[top : top + 4, left : left + 6], image)
        covered[top : top + 4, left : left + 6] = True
    assert (grid[~covered] == 255).all()


def test_grid_of_few_images_is_no_wider_than_they_are() -> None:
    assert make_grid([_noise(4, 6, 3)], 8, padding=0).shape == (4, 6, 3)


def test_grid_refuses_no_images_and_mixed_shapes() -> None:
    with pytest.raises(ValueError, match="at least one"):
        make_grid([], 3)
    with pytest.raises(ValueError, match="image 1"):
        make_grid([_noise(4, 4, 3), _noise(5, 4, 3)], 2)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("n01/n01_1", "n01/n01_1.JPEG"),
        ("n01/n01_1.JPEG", "n01/n01_1.JPEG"),
        ("x.jpg", "x.jpg"),
        ("x.Png", "x.Png"),
        ("x.WEBP", "x.WEBP"),
        ("x.bmp", "x.bmp"),
        ("x.v2", "x.v2.JPEG"),
        ("x.png/y", "x.png/y.JPEG"),
        ("png", "png.JPEG"),
    ],
)
def test_image_names_resolve_with_or_without_extension(name: str, expected: str) -> None:
    assert resolve_image_path("data/train", name) == f"data/train/{expected}"
    assert resolve_image_path("gs://bucket/train", name) == f"gs://bucket/train/{expected}"


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../b", "a\\b", "a\0", "", "C:/x"])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="image name"):
        resolve_image_path(tmp_path, name)
    for root in (tmp_path, "gs://bucket/out"):
        with pytest.raises(ValueError, match="name"):
            safe_join(root, name)


def test_output_paths_below_the_root_are_allowed(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "inside")
    for name in ("n01/n01_1", "inside/x", "link/x", "./x"):
        assert safe_join(tmp_path, name) == os.path.join(tmp_path, name)
    assert safe_join("gs://bucket/out", "a/b") == "gs://bucket/out/a/b"
    assert safe_join("/", "a/b") == "/a/b"


def test_output_paths_through_a_link_out_of_the_root_are_refused(tmp_path: Path) -> None:
    root, outside = tmp_path / "out", tmp_path / "out_side"
    root.mkdir()
    outside.mkdir()
    (root / "link").symlink_to(outside)
    for name in ("link/x", "link"):
        with pytest.raises(ValueError, match="symbolic link"):
            safe_join(root, name)


def test_root_that_is_a_link_itself_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "root").symlink_to(tmp_path / "real")
    assert safe_join(tmp_path / "root", "a") == str(tmp_path / "root" / "a")
