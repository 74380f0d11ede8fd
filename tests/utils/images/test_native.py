"""Images in their own numbers: PNG of 8 and 16 bits, `.npy`, and what is refused."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.native_files import png16_lines, png16_of, png_chunk, tiff_of
from tests.tiny import photo
from utils.images.files import MAX_PIXELS, BadImageError, open_image
from utils.images.native import MAX_NATIVE_BYTES, NativeImage, read_native

RNG = np.random.default_rng(0)
PIXELS = photo(0, (12, 17))  # (12, 17, 3) uint8


def _values(*shape: int) -> Any:
    return RNG.integers(0, 65536, shape).astype(np.uint16)


def _read(folder: Path, data: bytes, **options: Any) -> NativeImage:
    path = folder / "x.img"
    path.write_bytes(data)
    return read_native(path, **options)


def _saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize("num_channels", [1, 2, 3, 4])
@pytest.mark.parametrize("kinds", [(0, 1, 2), (3,), (4,), (4, 1, 3, 2, 0)])
@pytest.mark.parametrize("sides", [(1, 1), (1, 9), (9, 1), (11, 6), (6, 11)])
def test_16_bit_png_comes_back_whatever_its_filters(
    tmp_path: Path, sides: tuple[int, int], kinds: tuple[int, ...], num_channels: int
) -> None:
    image = _values(*sides, num_channels)
    image[:, sides[1] // 2 :] //= 999  # flat ground, where the filters differ
    found = _read(tmp_path, png16_of(image, kinds))
    parts = [found.pixels] if found.alpha is None else [found.pixels, found.alpha[:, :, None]]
    np.testing.assert_array_equal(np.concatenate(parts, axis=2), image)
    assert found.pixels.dtype == np.uint16 and (found.alpha is None) == (num_channels in (1, 3))
    assert found.facts.size == sides[::-1]


def test_16_bit_png_has_the_high_bytes_that_pillow_reads(tmp_path: Path) -> None:
    data = png16_of(_values(9, 5, 3))
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(_read(tmp_path, data).pixels >> 8, np.asarray(image))


def test_interlaced_16_bit_png_comes_back(tmp_path: Path) -> None:
    starts = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2)]
    for sides in [(13, 10), (3, 2), (1, 1)]:
        image = _values(*sides, 3)
        parts = [image[y::dy, x::dx] for x, y, dx, dy in [*starts, (0, 1, 1, 2)]]
        lines = b"".join(png16_lines(part, (4, 1)) for part in parts if part.size)
        found = _read(tmp_path, png16_of(image, lines=lines, is_interlaced=True))
        np.testing.assert_array_equal(found.pixels, image)


def test_transparent_colour_of_a_16_bit_png_becomes_alpha(tmp_path: Path) -> None:
    image = _values(4, 5, 3)
    image[1, 2] = image[3, 0] = (1, 2, 3)
    colour = png_chunk(b"tRNS", np.array([1, 2, 3], ">u2").tobytes())
    found = _read(tmp_path, png16_of(image, (0,), colour))
    assert found.alpha is not None
    assert sorted(zip(*np.nonzero(found.alpha == 0), strict=True)) == [(1, 2), (3, 0)]
    np.testing.assert_array_equal(found.pixels, image)


@pytest.mark.parametrize("place", [0, 20, 40, 70, -8])
def test_16_bit_png_with_a_flipped_bit_is_refused_by_name(tmp_path: Path, place: int) -> None:
    data = bytearray(png16_of(_values(4, 5, 3)))
    data[place] ^= 0x10
    with pytest.raises(BadImageError, match=r"x\.img: "):
        _read(tmp_path, bytes(data))


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "1"])
def test_8_bit_images_have_the_channels_and_the_alpha_of_their_file(
    tmp_path: Path, mode: str
) -> None:
    has_alpha = mode in ("LA", "RGBA")
    colours = np.dstack([PIXELS, PIXELS[:, :, :1]]) if has_alpha else PIXELS
    image = Image.fromarray(colours).convert(mode)
    found = _read(tmp_path, _saved(image))
    wanted = np.asarray(image.convert({"P": "RGB", "1": "L"}.get(mode, mode))).reshape(12, 17, -1)
    np.testing.assert_array_equal(found.pixels, wanted[..., :-1] if has_alpha else wanted)
    assert found.pixels.dtype == np.uint8 and found.facts.changes == ("alpha",) * has_alpha
    assert (found.alpha is not None) == has_alpha == bool(found.notices())
    if found.alpha is not None:
        np.testing.assert_array_equal(found.alpha, wanted[..., -1])


def test_photograph_has_the_pixels_of_the_8_bit_reader(tmp_path: Path) -> None:
    found = _read(tmp_path, _saved(Image.fromarray(PIXELS), "JPEG"))
    np.testing.assert_array_equal(found.pixels, np.asarray(open_image(tmp_path / "x.img")))
    assert found.num_channels == 3 and found.type_range == (0, 255) and not found.notices()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "PNG 16", "JPEG", "TIFF"])
def test_orientation_is_applied_on_request_to_pixels_and_alpha(
    tmp_path: Path, orientation: int, kind: str
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    if kind == "TIFF":
        data = tiff_of(PIXELS, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
    elif kind == "PNG 16":
        chunk = png_chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
        data = png16_of(np.dstack([PIXELS, PIXELS[:, :, :1]]).astype(np.uint16), (0,), chunk)
    else:
        data = _saved(Image.fromarray(PIXELS), kind, exif=exif)
    stored = _read(tmp_path, data)
    found = _read(tmp_path, data, apply_orientation=True)
    picture = Image.fromarray(stored.pixels.astype(np.uint8))
    picture.info["exif"] = exif.tobytes()
    wanted = np.asarray(ImageOps.exif_transpose(picture))
    np.testing.assert_array_equal(found.pixels, wanted)
    assert found.facts.size == wanted.shape[1::-1]
    assert ("orientation" in found.facts.changes) == (orientation > 1)
    if found.alpha is not None:
        np.testing.assert_array_equal(found.alpha, wanted[:, :, 0])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32, np.float64, ">u2"])
@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 3), (3, 9, 7), (7, 9, 7)])
def test_array_is_read_with_channels_first_or_last(
    tmp_path: Path, shape: tuple[int, ...], dtype: Any
) -> None:
    array = _values(*shape).astype(dtype) if dtype == ">u2" else (_values(*shape) % 250)
    array = np.asfortranarray(array.astype(dtype))
    found = _read(tmp_path, _npy(array))
    wanted = {2: array[..., None], 3: np.moveaxis(array, 0, 2) if shape[0] == 3 else array}
    np.testing.assert_array_equal(found.pixels, wanted[len(shape)])
    is_float = np.dtype(dtype).kind == "f"
    assert found.pixels.dtype == (np.float32 if is_float else np.dtype(dtype).newbyteorder("="))
    assert found.type_range is None if is_float else found.type_range is not None


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros(5, np.uint8), r"shape \(5,\)"),
        (np.zeros((2, 2, 2, 2), np.uint8), "shape"),
        (np.zeros((0, 4), np.uint8), "shape"),
        (np.zeros((4, 4), np.int16), "int16: save it as uint8, uint16 or float32"),
        (np.zeros((4, 4), bool), "bool"),
        (np.zeros((4, 4), complex), "complex128"),
        (np.array([[{}]]), "pickled objects"),
        (np.full((2, 3), np.nan, np.float32), "6 of its values are NaN"),
        (np.array([[0, 1], [2, np.inf]]), "1 of its values .* row 1, column 1, channel 0"),
        (np.array([[1e300]]), "infinite in 32 bits"),
        (np.zeros((1, 100_000_000), np.uint8), f"more than {MAX_PIXELS} pixels"),
    ],
)
def test_array_that_is_no_image_is_refused_by_name(tmp_path: Path, array: Any, words: str) -> None:
    with pytest.raises(BadImageError, match=rf"x\.img: .*{words}"):
        _read(tmp_path, _npy(array))


def test_array_cut_off_is_refused_and_so_is_a_page_of_what_has_none(tmp_path: Path) -> None:
    with pytest.raises(BadImageError, match=r"no whole \.npy file"):
        _read(tmp_path, _npy(np.zeros((9, 9), np.uint8))[:-1])
    with pytest.raises(BadImageError, match="page 1, and it is no TIFF"):
        _read(tmp_path, _saved(Image.fromarray(PIXELS)), page=1)


def test_image_of_too_many_bytes_is_refused(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (9000, 9000, 4)}
    )
    path = tmp_path / "x.npy"
    with open(path, "wb") as file:  # a hole takes no room on the disk
        file.write(header.getvalue())
        file.truncate(MAX_NATIVE_BYTES + 999_999_999)
    with pytest.raises(BadImageError, match=r"x\.npy: "):
        read_native(path)
