"""The photographs of `data/demo`: list, licences, splits, and tiles cut from them."""

from __future__ import annotations

import hashlib
import importlib.util
import struct
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from tests.tiny import ROOT, done, tree

FOLDER = ROOT / "data" / "demo"


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


make_photos, make_tiles = _script("make_photos"), _script("make_tiles")
LIST = make_photos.read_list()


def _photos(folder: Path, split: str, **images: np.ndarray) -> None:
    (folder / split).mkdir(parents=True, exist_ok=True)
    for name, pixels in images.items():
        # JPEG of the name, PNG inside: the pixels stay what they are
        Image.fromarray(pixels).save(folder / split / f"{name}.jpg", format="PNG")


def _noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def test_the_files_are_those_of_the_list() -> None:
    there = {path.relative_to(FOLDER).as_posix() for path in FOLDER.glob("*/*.*")}
    assert there == {f"{one.split}/{one.name}.jpg" for one in LIST}
    sizes = [path.stat().st_size for path in FOLDER.glob("*/*.jpg")]
    assert sum(sizes) <= 8_000_000
    for path in FOLDER.glob("*/*.jpg"):
        with Image.open(path) as image:
            image.load()
            assert image.mode == "RGB" and min(image.size) >= 3 * 64, path
            assert not image.getexif() and "icc_profile" not in image.info, path


def test_every_licence_is_free_and_on_the_page() -> None:
    assert {one.licence for one in LIST} <= set(make_photos.LICENCES)
    assert {one.package for one in LIST} == set(make_photos.VERSIONS)
    assert all(one.author and one.source for one in LIST)
    page = (FOLDER / "LICENCES.md").read_text(encoding="utf-8")
    assert page == make_photos.licences_page(LIST)


def test_no_scene_and_no_author_is_in_two_splits() -> None:
    for key in ("name", "file", "sha256"):
        assert len({getattr(one, key) for one in LIST}) == len(LIST), key
    splits: dict[str, set[str]] = {}
    for one in LIST:
        splits.setdefault(one.author, set()).add(one.split)
    assert all(len(found) == 1 for found in splits.values())
    counts = {split: sum(one.split == split for one in LIST) for split in make_photos.SPLITS}
    assert counts == {"train": 45, "calibration": 12, "test": 12}


def test_tiles_are_the_photographs_pixels_and_do_not_overlap(tmp_path: Path) -> None:
    photo = _noise(150, 215)
    photo[:80, :80] = 9  # flat
    _photos(tmp_path, "test", one=photo)
    tiles = dict(make_tiles.cut_tiles("test", 64, 0, tmp_path))
    assert list(tiles) == [f"one_{i:03d}" for i in range(1, 6)]
    top, left = (150 - 128) // 2, (215 - 192) // 2
    for name, tile in tiles.items():
        row, column = divmod(int(name[-3:]), 3)
        y, x = top + 64 * row, left + 64 * column
        np.testing.assert_array_equal(np.asarray(tile), photo[y : y + 64, x : x + 64])


def test_tiles_of_a_smaller_stride_overlap(tmp_path: Path) -> None:
    photo = _noise(100, 140)
    _photos(tmp_path, "train", one=photo)
    tiles = [tile for _, tile in make_tiles.cut_tiles("train", 64, 0, tmp_path, 32)]
    assert len(tiles) == 2 * 3
    top, left = (100 - 96) // 2, (140 - 128) // 2
    for i, tile in enumerate(tiles):
        y, x = top + 32 * (i // 3), left + 32 * (i % 3)
        np.testing.assert_array_equal(np.asarray(tile), photo[y : y + 64, x : x + 64])


def test_fewer_tiles_are_spread_over_the_photograph(tmp_path: Path) -> None:
    _photos(tmp_path, "train", one=_noise(64, 64 * 10), two=_noise(64, 128, 1))
    names = [name for name, _ in make_tiles.cut_tiles("train", 64, 5, tmp_path)]
    assert names == ["one_001", "one_003", "one_005", "one_007", "one_009", "two_000", "two_001"]


def test_the_demo_gets_as_many_tiles_as_the_page_says(tmp_path: Path) -> None:
    splits = ",".join(make_tiles.SPLITS)
    for folder in ("a", "b"):
        argv = ["--output_dir", str(tmp_path / folder), "--splits", splits]
        assert make_tiles.main(argv) == 0
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    counts = {split: len(list((tmp_path / "a" / split).iterdir())) for split in make_tiles.SPLITS}
    assert counts == {"train": 900, "calibration": 60, "test": 60}
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(f"`{split}/`" in page and f"| {n} (" in page for split, n in counts.items())


def test_info_dicts_are_written_for_tiles(tmp_path: Path) -> None:
    make_tiles.main(["--output_dir", str(tmp_path / "tiles"), "--num_tiles", "2"])
    said = done(
        "sr_data_info",
        ["--data_dir", str(tmp_path / "tiles"), "--test_folder", "test", "--large_size", "64"]
        + ["--output_dir", str(tmp_path / "info"), "--log_dir", str(tmp_path / "log")],
    ).out
    assert "57 classes: 90 training and 24 test images" in said


@pytest.mark.parametrize(
    ("words", "code", "named"),
    [
        (["--splits", "train,valid"], 2, "valid"),
        (["--tile_size", "4"], 2, "--tile_size"),
        (["--num_tiles", "-1"], 2, "--num_tiles"),
        (["--strides", "8,8,8"], 2, "--strides"),
        (["--splits", "test", "--tile_size", "2000"], 3, "smaller --tile_size"),
    ],
)
def test_wrong_flags_are_named(
    words: list[str],
    code: int,
    named: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as stop:
        make_tiles.main(["--output_dir", str(tmp_path), *words])
    assert stop.value.code == code and named in capsys.readouterr().err


def test_tiles_of_another_cut_are_not_mixed_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--output_dir", str(tmp_path), "--splits", "test"]
    make_tiles.main(argv)
    before = tree(tmp_path)
    with pytest.raises(SystemExit) as stop:
        make_tiles.main([*argv, "--num_tiles", "3"])
    assert stop.value.code == 3 and "another cut" in capsys.readouterr().err
    assert tree(tmp_path) == before


def _resource(*, flags: int = 0) -> bytes:
    """A Qt resource file, format 3, of the one file `/a/bü.png`."""
    content = struct.pack(">I", 5) + b"hello"
    names = b"".join(
        struct.pack(">HI", len(name), 0) + name.encode("utf-16-be") for name in ("a", "bü.png")
    )
    second = 6 + 2
    nodes = [
        struct.pack(">IHII8x", 0, 2, 1, 1),
        struct.pack(">IHII8x", 0, 2, 1, 2),
        struct.pack(">IHHHI8x", second, flags, 0, 0, 0),
    ]
    data = 24
    header = struct.pack(">4s5i", b"qres", 3, data + len(content) + len(names), data, 0, 0)
    header = header[:16] + struct.pack(">i", data + len(content)) + header[20:]
    return header + content + names + b"".join(nodes)


def test_a_file_is_found_in_a_qt_resource_file() -> None:
    assert make_photos.read_resource(_resource(), "/a/bü.png") == b"hello"
    for path in ("/a/c.png", "/b", "/a/bü.png/d"):
        with pytest.raises(ValueError, match="holds no"):
            make_photos.read_resource(_resource(), path)
    for content, path in ((_resource(flags=1), "/a/bü.png"), (_resource(), "/a")):
        with pytest.raises(ValueError, match="compressed"):
            make_photos.read_resource(content, path)
    with pytest.raises(ValueError, match="not a Qt resource"):
        make_photos.read_resource(b"PK\3\4" + bytes(20), "/a")


def test_a_photograph_is_reduced_to_means_and_another_one_refused(tmp_path: Path) -> None:
    pixels = _noise(13, 20)
    path = tmp_path / "package" / "one.png"
    path.parent.mkdir()
    Image.fromarray(pixels).save(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    one = replace(LIST[0], package="package", file="one.png", sha256=digest, shrink=3)
    found = np.asarray(make_photos.load_photograph(one, tmp_path), float)
    means = pixels[:12, :18].reshape(4, 3, 6, 3, 3).mean((1, 3))
    assert (
        found.shape == (4, 6, 3) and np.abs(found - means).max() < 0.6
    )  # Pillow's sums are rounded
    with pytest.raises(ValueError, match="licence"):
        make_photos.load_photograph(replace(one, sha256="0" * 64), tmp_path)
    with pytest.raises(ValueError, match="unpack"):
        make_photos.load_photograph(replace(one, file="two.png"), tmp_path)
