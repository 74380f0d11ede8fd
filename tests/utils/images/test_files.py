"""Images decode safely, crop as the reference does, and keep every grey level."""

from __future__ import annotations

import io
import random
import warnings
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.golden_recipe import GOLDENS_DIR, rng
from utils.images.crops.patches import random_flip
from utils.images.files import (
    BadImageError,
    center_crop_arr,
    open_image,
    random_crop_arr,
)

PICTURE_PATH = GOLDENS_DIR / "synthetic_500x375.png"


def _picture(width: int, height: int) -> NDArray[np.uint8]:
    """Colour ramps, waves and noise in blocks of five pixels: the picture of the golden crops."""
    noise = rng(f"pipeline:{width}x{height}").standard_normal((height // 5 + 1, width // 5 + 1, 3))
    blocks = np.kron(noise, np.ones((5, 5, 1)))[:height, :width]  # HWC
    y, x = np.mgrid[:height, :width]
    red, green = 255 * x / (width - 1), 255 * y / (height - 1)
    blue = 127.5 + 100 * np.sin(x / 17) * np.cos(y / 23)
    values_255 = np.stack([red, green, blue], axis=-1) + 24 * blocks
    return np.round(np.clip(values_255, 0, 255)).astype(np.uint8)


def _encoded(image: Image.Image, image_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("key", "width", "height", "size"),
    [
        ("crop64", 500, 375, 64),
        ("crop256", 500, 375, 256),
        ("crop_375x500_64", 375, 500, 64),
        ("crop_101x67_64", 101, 67, 64),
    ],
)
def test_centre_crop_equals_the_reference_bit_for_bit(
    key: str, width: int, height: int, size: int
) -> None:
    expected = np.load(GOLDENS_DIR / "pipeline.npz")[key]
    crop = center_crop_arr(Image.fromarray(_picture(width, height)), size)
    np.testing.assert_array_equal(crop, expected, strict=True)


def test_centre_crop_of_the_stored_picture_equals_the_reference() -> None:
    expected = np.load(GOLDENS_DIR / "pipeline.npz")
    for size in (64, 256):
        crop = center_crop_arr(open_image(PICTURE_PATH), size)
        np.testing.assert_array_equal(crop, expected[f"crop{size}"])


def test_centre_crop_of_a_square_of_that_size_is_the_image() -> None:
    picture = _picture(64, 64)
    np.testing.assert_array_equal(center_crop_arr(Image.fromarray(picture), 64), picture)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (63, 64), (128, 129), (300, 17)])
def test_every_crop_has_the_size_asked_for(shape: tuple[int, int]) -> None:
    image = Image.new("RGB", shape, (1, 2, 3))
    for size in (1, 16, 64):
        crops = [center_crop_arr(image, size)]
        crops += [random_crop_arr(image, size, np.random.default_rng(i)) for i in range(5)]
        for crop in crops:
            assert crop.shape == (size, size, 3)
            assert (crop == (1, 2, 3)).all()


@pytest.mark.parametrize("size", [0, -1])
def test_crop_of_no_size_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="size"):
        center_crop_arr(Image.new("RGB", (4, 4)), size)


def test_crop_of_a_line_that_would_fill_the_memory_is_refused() -> None:
    with pytest.raises(BadImageError, match="pixels"):
        center_crop_arr(Image.new("RGB", (50_000, 1)), 256)


def test_crop_refuses_other_modes_than_rgb() -> None:
    with pytest.raises(ValueError, match="'L'"):
        center_crop_arr(Image.new("L", (8, 8)), 4)


def test_random_crop_and_flip_are_functions_of_the_generator() -> None:
    image = open_image(PICTURE_PATH)

    def augmented(seed: int) -> NDArray[np.uint8]:
        generator = np.random.default_rng(seed)
        return random_flip(random_crop_arr(image, 32, generator), generator)

    np.random.seed(0)
    first = [augmented(seed) for seed in range(8)]
    np.random.seed(1)
    again = [augmented(seed) for seed in range(8)]
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    assert len({crop.tobytes() for crop in first}) == 8


def test_random_crop_of_the_whole_short_side_is_a_shift_of_the_centre_crop() -> None:
    image = Image.fromarray(_picture(96, 64))
    found = set()
    for seed in range(60):
        generator = np.random.default_rng(seed)
        crop = random_crop_arr(image, 64, generator, min_crop_frac=1.0)
        shifts = [x for x in range(33) if (np.asarray(image)[:, x : x + 64] == crop).all()]
        assert len(shifts) == 1
        found.update(shifts)
    assert min(found) <= 3
    assert max(found) >= 29


@pytest.mark.parametrize("fractions", [(0.0, 1.0), (0.9, 0.8), (0.8, 1.5), (float("nan"), 1.0)])
def test_crop_fractions_out_of_range_are_refused(fractions: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="fractions"):
        random_crop_arr(
            Image.new("RGB", (9, 9)),
            4,
            np.random.default_rng(0),
            min_crop_frac=fractions[0],
            max_crop_frac=fractions[1],
        )


def test_flip_mirrors_about_half_of_the_images_and_copies() -> None:
    image = _picture(8, 4)
    flips = [random_flip(image, np.random.default_rng(seed)) for seed in range(200)]
    num_mirrored = sum(bool((flip == image[:, ::-1]).all()) for flip in flips)
    assert 70 < num_mirrored < 130
    assert all((flip == image).all() or (flip == image[:, ::-1]).all() for flip in flips)
    assert all(flip.flags.c_contiguous and not np.shares_memory(flip, image) for flip in flips)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "BMP"])
def test_supported_formats_decode_to_rgb(tmp_path: Path, image_format: str) -> None:
    path = tmp_path / "x.JPEG"  # the content decides, not the name
    path.write_bytes(_encoded(Image.new("RGB", (40, 30), (200, 100, 50)), image_format))
    image = open_image(path)
    assert image.mode == "RGB"
    assert image.size == (40, 30)
    assert np.abs(np.asarray(image).astype(int) - (200, 100, 50)).max() <= 4


@pytest.mark.parametrize("image_format", ["GIF", "TIFF", "PPM", "EPS", "ICO"])
def test_other_formats_are_refused(tmp_path: Path, image_format: str) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(_encoded(Image.new("RGB", (40, 30)), image_format))
    with pytest.raises(BadImageError, match=r"picture\.png: not a whole"):
        open_image(path)


def test_every_mode_becomes_rgb_as_stated(tmp_path: Path) -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    levels_16 = np.array([[0, 257, 65535, 385, 386]], dtype=np.uint16)
    cases = [
        (Image.new("L", (1, 1), 77), {}, [77, 77, 77]),
        (Image.new("1", (1, 1), 1), {}, [255, 255, 255]),
        (Image.new("LA", (1, 1), (77, 0)), {}, [77, 77, 77]),
        (Image.new("RGBA", (1, 1), (9, 8, 7, 0)), {}, [9, 8, 7]),
        (palette, {}, [10, 20, 30, 40, 50, 60]),
        (palette, {"transparency": b"\x00\x80"}, [10, 20, 30, 40, 50, 60]),
        (Image.fromarray(levels_16), {}, [0, 0, 0, 1, 1, 1, 255, 255, 255, 1, 1, 1, 2, 2, 2]),
    ]
    for image, options, expected in cases:
        path = tmp_path / "x.png"
        path.write_bytes(_encoded(image, "PNG", **options))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            decoded = open_image(path)
        assert decoded.mode == "RGB"
        assert np.asarray(decoded).ravel().tolist() == expected, image.mode


def test_cmyk_jpeg_becomes_rgb(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(_encoded(Image.new("CMYK", (16, 16), (255, 0, 0, 0)), "JPEG"))
    pixels = np.asarray(open_image(path)).astype(int)
    assert np.abs(pixels - (0, 255, 255)).max() <= 4


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "BMP"])
def test_truncated_image_is_an_error_with_its_name(tmp_path: Path, image_format: str) -> None:
    data = _encoded(Image.fromarray(_picture(60, 40)), image_format)
    path = tmp_path / "n01" / "truncated.JPEG"
    path.parent.mkdir()
    for share in (0.0, 0.1, 0.5, 0.9):
        path.write_bytes(data[: int(share * len(data))])
        with pytest.raises(BadImageError, match=r"n01/truncated\.JPEG"):
            open_image(path)


def test_damaged_image_decodes_or_is_a_bad_image(tmp_path: Path) -> None:
    generator = random.Random(0)
    path = tmp_path / "x.JPEG"
    picture = Image.fromarray(_picture(60, 40))
    num_bad = 0
    for image_format in ("JPEG", "PNG", "WEBP", "BMP"):
        data = _encoded(picture, image_format)
        for _ in range(100):
            damaged = bytearray(data)
            for _ in range(generator.choice([1, 3, 10])):
                damaged[generator.randrange(len(data))] = generator.randrange(256)
            path.write_bytes(damaged)
            try:
                assert open_image(path).mode == "RGB"
            except BadImageError:
                num_bad += 1
    assert 100 < num_bad < 400
