"""TIFF files of other programs come back as they were written; everything else is refused."""

from __future__ import annotations

import io
import itertools
import logging
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.native_files import tiff_of
from utils.images.files import MAX_PIXELS, BadImageError
from utils.images.native import NativeImage, read_native
from utils.images.tiff import MAX_PAGES, decode_tiff
from utils.process.errors import DataError

pytest.importorskip("tifffile")
RNG = np.random.default_rng(0)
SIDES = (37, 41)
_PLANES = {"planarconfig": "separate"}
# shape, axes to move to the end, options
_LAYOUTS: dict[str, tuple[tuple[int, ...], bool, dict[str, Any]]] = {
    "grey": (SIDES, False, {}),
    "rgb": ((*SIDES, 3), False, {"photometric": "rgb"}),
    "rgb planes": ((3, *SIDES), True, {"photometric": "rgb", **_PLANES}),
    "5 channels": ((*SIDES, 5), False, {"photometric": "minisblack", "planarconfig": "contig"}),
    "5 planes": ((5, *SIDES), True, {"photometric": "minisblack", **_PLANES}),
}


def _values(shape: tuple[int, ...], dtype: Any) -> Any:
    high = {"u1": 256, "u2": 65536}.get(dtype, 2048)
    return RNG.integers(0, high, shape).astype(dtype)


def _read(folder: Path, data: bytes, **options: Any) -> NativeImage:
    path = folder / "x.tif"
    path.write_bytes(data)
    return read_native(path, **options)


@pytest.mark.parametrize("layout", _LAYOUTS)
@pytest.mark.parametrize("dtype", ["u1", "u2", "f2", "f4", "f8"])
def test_every_layout_and_type_comes_back(tmp_path: Path, layout: str, dtype: str) -> None:
    shape, is_first, options = _LAYOUTS[layout]
    values = _values(shape, dtype)
    wanted = np.moveaxis(values, 0, 2) if is_first else values.reshape(*SIDES, -1)
    cuts: list[Any] = [{}, {"rowsperstrip": 5}, {"tile": (16, 32)}]
    packings: list[Any] = [{}, {"compression": "zlib", "predictor": dtype[0] == "u"}]
    for order, cut, packing in itertools.product("<>", cuts, packings):
        stored = values.astype(order + dtype)
        found = _read(tmp_path, tiff_of(stored, byteorder=order, **options, **cut, **packing))
        np.testing.assert_array_equal(found.pixels, wanted)
        assert found.pixels.dtype == (np.float32 if dtype[0] == "f" else np.dtype(dtype))
        assert found.alpha is None and found.num_pages == 1 and not found.notices()


@pytest.mark.parametrize(
    "compression", ["tiff_lzw", "packbits", "tiff_deflate", "tiff_adobe_deflate"]
)
@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_files_of_libtiff_come_back(tmp_path: Path, compression: str, dtype: str) -> None:
    shape = (70, 51, 3) if dtype == "u1" else (70, 51)
    values = _values(shape, dtype) // 9
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "TIFF", compression=compression)
    np.testing.assert_array_equal(
        _read(tmp_path, buffer.getvalue()).pixels, values.reshape(70, 51, -1)
    )


@pytest.mark.parametrize("num_channels", [1, 3])
def test_predictor_of_floats_is_undone(tmp_path: Path, num_channels: int) -> None:
    """Its bytes sorted by significance, then differences along the row (Adobe's TechNote 3)."""
    values = RNG.normal(size=(9, 7, num_channels)).astype(np.float32)
    rows = values.astype(">f4").view(np.uint8).reshape(9, -1, 4).swapaxes(1, 2).reshape(9, -1)
    steps = rows.reshape(9, -1, num_channels).astype(np.int16)
    steps[:, 1:] -= rows.reshape(9, -1, num_channels)[:, :-1]
    packed = zlib.compress(steps.astype(np.uint8).tobytes())
    layout = {"planarconfig": "contig"} if num_channels > 1 else {}
    data = tiff_of(values.squeeze(), photometric="minisblack", rowsperstrip=9, **layout)
    data = _with_tags(data, {259: 8, 317: 3, 279: len(packed), 273: len(data)}) + packed
    np.testing.assert_array_equal(_read(tmp_path, data).pixels, values)


def _with_tags(data: bytes, values: dict[int, int]) -> bytes:
    """A little-endian TIFF whose tags of one value have others; new ones replace those of text."""
    start = struct.unpack_from("<I", data, 4)[0]
    (count,) = struct.unpack_from("<H", data, start)
    size = 2 + 12 * count
    entries = {}
    for i in range(count):
        tag, kind, number, value = struct.unpack_from("<HHII", data, start + 2 + 12 * i)
        entries[tag] = (kind, number, value)
    for tag in (270, 305, 282, 283, 296):  # texts and resolutions make room
        entries.pop(tag, None)
    entries |= {tag: (4, 1, value) for tag, value in values.items()}
    assert len(entries) <= count
    packed = struct.pack("<H", len(entries)) + b"".join(
        struct.pack("<HHII", tag, *entries[tag]) for tag in sorted(entries)
    )
    return data[:start] + (packed + bytes(4)).ljust(size + 4, b"\0") + data[start + size + 4 :]


def test_alpha_is_kept_apart_and_other_channels_stay(tmp_path: Path) -> None:
    values = _values((*SIDES, 5), "u2")
    data = tiff_of(values, photometric="rgb", extrasamples=["unassalpha", "unspecified"])
    found = _read(tmp_path, data)
    np.testing.assert_array_equal(found.pixels, values[..., [0, 1, 2, 4]])
    assert found.alpha is not None and found.facts.changes == ("alpha",)
    np.testing.assert_array_equal(found.alpha, values[..., 3])
    assert "alpha" in found.notices()[0]


def test_white_is_zero_is_turned_round(tmp_path: Path) -> None:
    values = _values(SIDES, "u2")
    found = _read(tmp_path, tiff_of(values, photometric="miniswhite"))
    np.testing.assert_array_equal(found.pixels[..., 0], 65535 - values)


def test_pages_are_images_unless_they_are_channels(tmp_path: Path) -> None:
    values = _values((4, *SIDES), "u2")
    data = tiff_of(values, photometric="minisblack")
    first, third = _read(tmp_path, data), _read(tmp_path, data, page=2)
    np.testing.assert_array_equal(first.pixels[..., 0], values[0])
    np.testing.assert_array_equal(third.pixels[..., 0], values[2])
    assert first.facts.changes == ("pages",)
    assert first.num_pages == 4 and "4 pages, of which page 2" in third.notices()[0]
    wanted = _read(tmp_path, data, num_channels=4)
    np.testing.assert_array_equal(wanted.pixels, np.moveaxis(values, 0, 2))
    assert wanted.num_pages == 1 and not wanted.notices()
    assert _read(tmp_path, data, num_channels=3).num_channels == 1
    for page in (-1, 4):
        with pytest.raises(BadImageError, match=f"page {page} of 4"):
            _read(tmp_path, data, page=page)


@pytest.mark.parametrize("kind", [{"imagej": True}, {"ome": True, "photometric": "minisblack"}])
def test_channels_and_slices_of_microscopes_are_told_apart(tmp_path: Path, kind: Any) -> None:
    values = _values((4, *SIDES), "u2")
    found = _read(tmp_path, tiff_of(values, **kind, metadata={"axes": "CYX"}))
    np.testing.assert_array_equal(found.pixels, np.moveaxis(values, 0, 2))
    found = _read(tmp_path, tiff_of(values, **kind, metadata={"axes": "ZYX"}))
    assert found.num_channels == 1 and found.num_pages == 4


def test_smaller_copies_among_the_pages_do_not_count(tmp_path: Path) -> None:
    import tifffile

    values = _values(SIDES, "u2")
    with tifffile.TiffWriter(tmp_path / "x.tif") as writer:
        writer.write(values)
        writer.write(values[::2, ::2], subfiletype=1)
    found = read_native(tmp_path / "x.tif")
    np.testing.assert_array_equal(found.pixels[..., 0], values)
    assert found.num_pages == 1


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({256: 100_000, 257: 1000}, f"more than {MAX_PIXELS} pixels"),
        ({256: 9000, 257: 9000, 277: 60}, "MiB"),
        ({256: 0}, "no image of 0x37"),
        ({258: 12}, "12 bits of sample format 1"),
        ({339: 2}, "16 bits of sample format 2"),
        ({262: 3}, "PALETTE"),
        ({262: 6}, "YCBCR"),
        ({259: 7}, "compression JPEG is not read"),
        ({273: 1 << 30}, "cut off: 0 of"),
        ({278: 5}, "1 strips or tiles instead of 8"),
        ({266: 2}, "no image of 41x37"),
    ],
)
def test_what_is_not_read_is_refused_by_name(
    tmp_path: Path, tags: dict[int, int], words: str
) -> None:
    data = _with_tags(tiff_of(_values(SIDES, "u2")), tags)
    with pytest.raises(BadImageError, match=rf"x\.tif: .*{words}"):
        _read(tmp_path, data)


def test_strip_that_unpacks_to_more_than_the_image_takes_no_room(tmp_path: Path) -> None:
    """A strip of 1 MB that holds 1 GB: only the pixels of the image are unpacked."""
    packer = zlib.compressobj(9)
    zeros = bytes(1 << 24)
    packed = b"".join([packer.compress(zeros) for _ in range(64)] + [packer.flush()])
    data = tiff_of(_values(SIDES, "u2"))
    data = _with_tags(data, {259: 8, 279: len(packed), 273: len(data)}) + packed
    assert not _read(tmp_path, data).pixels.any()


def test_pages_in_a_circle_and_too_many_are_refused(tmp_path: Path) -> None:
    data = bytearray(tiff_of(_values((3, 4), "u1"), software=False))
    start = struct.unpack_from("<I", data, 4)[0]
    (count,) = struct.unpack_from("<H", data, start)
    size = 6 + 12 * count
    directory = data[start : start + size]
    places = [len(data) + i * size for i in range(MAX_PAGES)]
    for place in places:  # each leads to the next one, the last one to the first
        following = place + size if place < places[-1] else places[0]
        data += directory[:-4] + struct.pack("<I", following)
    struct.pack_into("<I", data, start + size - 4, places[0])
    with pytest.raises(BadImageError, match=f"more than {MAX_PAGES} pages"):
        _read(tmp_path, bytes(data))


def test_float_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    values = np.ones(SIDES, np.float32)
    values[3, 4] = np.nan
    with pytest.raises(BadImageError, match="row 3, column 4, channel 0: fill them"):
        _read(tmp_path, tiff_of(values))


def test_without_tifffile_the_extra_is_named_and_no_image_is_called_bad(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = tiff_of(_values(SIDES, "u1"))
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(DataError, match=r"setup\.sh tiff, or pip install tifffile") as caught:
        decode_tiff(data, 1 << 30)
    assert not isinstance(caught.value, BadImageError)


def test_damage_is_told_by_the_error_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tiff_of(_values((3, *SIDES), "u1"), photometric="minisblack")
    assert logging.getLogger("tifffile").handlers
    for length in range(0, len(data) - 1, 97):
        with pytest.raises(BadImageError, match=r"x\.tif: "):
            _read(tmp_path, data[:length])
    assert capsys.readouterr() == ("", "")
