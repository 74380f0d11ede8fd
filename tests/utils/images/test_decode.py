"""What a file says of its image, which way up it is, and texts that do not matter."""

from __future__ import annotations

import io
import os
import socket
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.tiny import photo
from utils.files import atomic as atomic_file
from utils.images.files import (
    BadImageError,
    ImageFacts,
    center_crop_arr,
    decode_facts,
    decode_image,
    image_facts,
    open_image,
    read_crop,
    read_image,
)

PIXELS = photo(0, (12, 16))


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png_with(*chunks: bytes) -> bytes:
    """A PNG with more chunks behind its header."""
    plain = _encoded(Image.fromarray(PIXELS), "PNG")
    return plain[:33] + b"".join(chunks) + plain[33:]


def _deep_png() -> bytes:
    """A colour image of 16 bits a channel, which Pillow reads and does not write."""
    header = struct.pack(">IIBBBBB", 4, 2, 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + bytes(range(24)) for _ in range(2))
    parts = (_chunk(b"IHDR", header), _chunk(b"IDAT", zlib.compress(rows)), _chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


_MUCH = b"x" * (3 << 20)
_TEXTS = {
    "zTXt": _chunk(b"zTXt", b"key\0\0" + zlib.compress(_MUCH)),
    "iTXt": _chunk(b"iTXt", b"key\0\1\0\0\0" + zlib.compress(_MUCH)),
    "iCCP": _chunk(b"iCCP", b"name\0\0" + zlib.compress(_MUCH)),
    "tEXt": _chunk(b"tEXt", b"key\0" + _MUCH) * 23,
}


@pytest.mark.parametrize("kind", _TEXTS)
def test_texts_of_a_png_do_not_make_it_unreadable_however_large(kind: str) -> None:
    data = _png_with(_TEXTS[kind])
    with pytest.raises(ValueError), Image.open(io.BytesIO(data)) as image:  # Pillow refuses it
        image.load()
    found = decode_image(data, "x.png", "")
    np.testing.assert_array_equal(np.asarray(found.image), PIXELS)
    assert decode_facts(data, "x.png", "").size == (16, 12)


def test_png_cut_off_behind_a_large_text_is_refused_by_name() -> None:
    data = _png_with(_TEXTS["zTXt"])
    for length in (len(data) - 40, 60):
        with pytest.raises(BadImageError, match=r"x\.png: "):
            decode_image(data[:length], "x.png", "Mend it")


def _images() -> dict[str, tuple[bytes, tuple[str, ...]]]:
    image = Image.fromarray(PIXELS)
    turned, upright = Image.Exif(), Image.Exif()
    turned[0x0112], upright[0x0112] = 6, 1
    deep = Image.fromarray(np.zeros((3, 4), np.uint16))
    palette, veiled = image.convert("P"), image.convert("RGBA")
    veiled.putalpha(100)
    return {
        "plain jpeg": (_encoded(image, "JPEG"), ()),
        "plain png": (_encoded(image, "PNG"), ()),
        "grey": (_encoded(image.convert("L"), "PNG"), ()),
        "16-bit grey": (_encoded(deep, "PNG"), ("16-bit",)),
        "16-bit colour": (_deep_png(), ("16-bit",)),
        "alpha": (_encoded(image.convert("RGBA"), "PNG"), ("alpha",)),
        "grey alpha": (_encoded(image.convert("LA"), "PNG"), ("alpha",)),
        "palette alpha": (_encoded(palette, "PNG", transparency=3), ("alpha",)),
        "webp alpha": (_encoded(veiled, "WEBP"), ("alpha",)),
        "upright": (_encoded(image, "JPEG", exif=upright), ()),
        "turned jpeg": (_encoded(image, "JPEG", exif=turned), ("orientation",)),
        "turned png": (_encoded(image, "PNG", exif=turned), ("orientation",)),
        "turned webp": (_encoded(image, "WEBP", exif=turned), ("orientation",)),
        "broken exif": (_encoded(image, "JPEG", exif=b"Exif\0\0MM\0*\0\0\xff\xff"), ()),
    }


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("name", _images())
def test_file_says_what_does_not_reach_its_pixels(name: str) -> None:
    data, expected = _images()[name]
    decoded = decode_image(data, name, "")
    assert decoded.facts.changes == expected and decoded.image.mode == "RGB"
    assert decoded.facts.size == decoded.image.size
    assert decode_facts(data, name, "") == decoded.facts  # known before a pixel is decoded
    assert ImageFacts.parse(str(decoded.facts)) == decoded.facts


@pytest.mark.parametrize("line", ["", "3", "3x", "axb", "3x4 none", "3x4  alpha", "3x4x5"])
def test_line_that_says_nothing_of_an_image_is_refused(line: str) -> None:
    with pytest.raises(ValueError):
        ImageFacts.parse(line)


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_orientation_is_applied_on_request_only(
    tmp_path: Path, kind: str, orientation: int
) -> None:
    tag = Image.Exif()
    tag[0x0112] = orientation
    path = tmp_path / f"x.{kind.lower()}"
    Image.fromarray(PIXELS).save(path, kind, exif=tag)
    with Image.open(path) as stored:
        upright = ImageOps.exif_transpose(stored)
        plain = np.asarray(stored)
    np.testing.assert_array_equal(np.asarray(open_image(path)), plain)
    image, facts = read_image(path, apply_orientation=True)
    np.testing.assert_array_equal(np.asarray(image), np.asarray(upright))
    assert facts.size == image_facts(path, apply_orientation=True).size == image.size


def test_line_too_long_to_be_cut_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "line.png"
    Image.new("RGB", (100_000, 1)).save(path)
    with pytest.raises(BadImageError, match=r"line\.png: 100000x1 .* 256"):
        read_crop(path, lambda image: center_crop_arr(image, 256))
    assert read_crop(path, lambda image: center_crop_arr(image, 4))[0].shape == (4, 4, 3)


def _special(folder: Path, kind: str) -> Path:
    path = folder / "x.png"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to(os.devnull)
    else:
        place = os.getcwd()
        os.chdir(folder)  # a socket's path is short
        try:
            with socket.socket(socket.AF_UNIX) as server:
                server.bind("x.png")
        finally:
            os.chdir(place)
    return path


@pytest.mark.parametrize("kind", ["pipe", "device", "socket"])
def test_what_is_no_plain_file_is_a_bad_image_and_never_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = _special(tmp_path, kind)
    opened: list[object] = []
    monkeypatch.setattr(atomic_file, "open", lambda *args: opened.append(args), raising=False)
    for read in (read_image, image_facts):
        with pytest.raises(BadImageError, match=rf"x\.png: a {kind}"):
            read(path)
    assert opened == []
