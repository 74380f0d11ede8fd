"""Which images a set holds, in which order, and what their headers say."""

from __future__ import annotations

import io
import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from image_ddpm.quality.inputs import ImageSet, folder_set, read_input, require_pairs
from tests.image_ddpm.quality.sets import pictures, write_folder
from utils.images.files import MAX_PIXELS, open_image
from utils.process.errors import DataError


def _folder(folder: Path, *names: str) -> ImageSet:
    for seed, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = "PNG" if name.lower().endswith(".png") else "JPEG"
        Image.fromarray(pictures(1, seed)[0]).save(path, format=kind)
    return folder_set("--samples", str(folder), 0, 0)


def test_files_are_sorted_by_name_without_extension_and_keep_their_names(tmp_path: Path) -> None:
    names = ["a-b.png", "a.png", "b.JPEG", "b.c.JPEG", "b.c.d.png", "c.png.JPEG", "d/a\\b:.png"]
    found = _folder(tmp_path, *names, ".hidden.png")
    assert list(found.names or ()) == ["a.png", "a-b.png", *names[2:]]
    for k in range(len(found)):
        assert found.picture(k).shape == (16, 20, 3)


def test_names_with_dots_keep_their_pairs_whatever_the_extension(tmp_path: Path) -> None:
    one = _folder(tmp_path / "one", "x.1.JPEG", "x.2.JPEG", "y.png.JPEG")
    other = _folder(tmp_path / "other", "x.1.png", "x.2.jpg", "y.png.png")
    require_pairs(one, other)
    stems = [[os.path.splitext(name)[0] for name in part.names or ()] for part in (one, other)]
    assert stems[0] == stems[1] == ["x.1", "x.2", "y.png"]


def test_linked_folders_are_entered_as_elsewhere(tmp_path: Path) -> None:
    write_folder(tmp_path / "real", pictures(3))
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "there").symlink_to(tmp_path / "real")
    found = folder_set("--samples", str(tmp_path / "links"), 0, 0)
    assert list(found.names or ()) == [
        f"there/{name}" for name in ("image_001.png", "image_002.png", "more/image_000.png")
    ]


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What lies under ``gs://``, on a stand-in for ``blobfile``."""
    root = tmp_path / "bucket"

    def local(path: str) -> str:
        return str(root / path.removeprefix("gs://"))

    def walk(path: str) -> Iterator[tuple[str, list[str], list[str]]]:
        for folder, folders, files in os.walk(local(path)):
            yield folder.replace(str(root), "gs:/", 1), folders, files

    module: Any = types.ModuleType("blobfile")
    module.BlobFile = lambda path, mode: open(local(path), mode)  # noqa: SIM115
    module.isdir = lambda path: os.path.isdir(local(path))
    module.walk = walk
    monkeypatch.setitem(sys.modules, "blobfile", module)
    return root


@pytest.mark.parametrize("end", ["", "/"])
def test_a_remote_folder_holds_what_a_local_one_holds(bucket: Path, end: str) -> None:
    images = pictures(7)
    write_folder(bucket / "b" / "set" / ".cache", images)
    local = folder_set("--samples", str(write_folder(bucket / "b" / "set", images)), 5, 1)
    remote = read_input("--samples", f"gs://b/set{end}", 5, 1)
    assert isinstance(remote, ImageSet) and remote.names == local.names
    for k in range(5):
        np.testing.assert_array_equal(remote.picture(k), local.picture(k))
    (bucket / "b" / "empty").mkdir()
    with pytest.raises(DataError, match="--reference gs://b/empty"):
        read_input("--reference", "gs://b/empty", 0, 0)


def _encoded(extension: str, side: tuple[int, int], **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture = Image.fromarray(pictures(1, shape=(*side[::-1], 3))[0])
    picture.save(buffer, format=extension, **options)
    return buffer.getvalue()


# a tag that turns the picture, which counts nowhere
_TURNED = Image.Exif()
_TURNED[0x0112] = 6


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.png", _encoded("PNG", (60, 7))),
        ("a.bmp", _encoded("BMP", (300, 190))),
        ("a.webp", _encoded("WEBP", (300, 190), lossless=True)),
        ("a.jpg", _encoded("JPEG", (60, 7), icc_profile=os.urandom(90_000))),
        ("b.png", _encoded("PNG", (60, 7), icc_profile=os.urandom(90_000))),
        ("b.jpg", _encoded("JPEG", (60, 7), exif=_TURNED)),
    ],
)
def test_the_header_says_the_size_of_the_decoded_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, data: bytes
) -> None:
    (tmp_path / name).write_bytes(data)
    found = folder_set("--samples", str(tmp_path), 0, 0)
    expected = open_image(tmp_path / name).size
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("a picture is decoded"))
    assert found.size(0) == expected


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_file_without_a_whole_header_is_named(tmp_path: Path) -> None:
    whole = _encoded("PNG", (60, 7))
    huge = _encoded("BMP", (60, 7))
    # width and height of a bitmap lie behind 18 bytes
    huge = huge[:18] + MAX_PIXELS.to_bytes(4, "little") + (2).to_bytes(4, "little") + huge[26:]
    for data in (b"", b"no image", whole[:20], huge):
        (tmp_path / "a.png").write_bytes(data)
        with pytest.raises(DataError, match=r"--samples: .*a\.png"):
            folder_set("--samples", str(tmp_path), 0, 0).size(0)
