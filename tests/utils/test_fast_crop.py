"""The crop that resizes only its own square, against the one that resizes the whole photograph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.tiny import ROOT
from utils.images.files import center_crop_arr, open_image, random_crop_arr

DEMO = ROOT / "data" / "demo"
MAX_SHARE = 2e-4


def _photograph(number: int, width: int, height: int) -> Image.Image:
    """Pieces of the demo's photographs side by side: (width, height), at full detail."""
    paths = sorted(DEMO.glob("*/*.JPEG"))
    picture = Image.new("RGB", (width, height))
    places = [(x, y) for y in range(0, height, 100) for x in range(0, width, 100)]
    for i, place in enumerate(places):
        picture.paste(open_image(paths[(17 * number + i) % len(paths)]), place)
    return picture


def _differences(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.int64]:
    assert one.shape == other.shape
    return np.abs(one.astype(np.int64) - other)


@pytest.mark.parametrize("shape", [(500, 375), (375, 500), (640, 427), (333, 251), (200, 200)])
@pytest.mark.parametrize("size", [64, 100, 256])
def test_fast_centre_crop_is_within_a_grey_level(shape: tuple[int, int], size: int) -> None:
    pictures = [_photograph(number, *shape) for number in range(6)]
    found = np.stack(
        [
            _differences(center_crop_arr(p, size), center_crop_arr(p, size, is_fast=True))
            for p in pictures
        ]
    )
    assert found.max() <= 1
    assert (found > 0).mean() < 5 * MAX_SHARE


def test_fast_crops_of_all_shapes_together_differ_in_very_few_values() -> None:
    generator = np.random.default_rng(0)
    num_different = num_values = 0
    for number in range(60):
        width, height = (int(side) for side in generator.integers(60, 700, 2))
        picture, size = _photograph(number, width, height), int(generator.integers(16, 200))
        found = _differences(
            center_crop_arr(picture, size), center_crop_arr(picture, size, is_fast=True)
        )
        assert found.max() <= 1, (width, height, size)
        num_different += int((found > 0).sum())
        num_values += found.size
    assert 0 < num_different < MAX_SHARE * num_values


@pytest.mark.parametrize("shape", [(90, 400), (100, 210), (61, 500)])
def test_fast_crop_of_a_very_tall_image_is_the_plain_one(shape: tuple[int, int]) -> None:
    """Pillow resizes the columns of such images first."""
    picture = _photograph(1, *shape)
    plain, fast = (center_crop_arr(picture, 48, is_fast=is_fast) for is_fast in (False, True))
    np.testing.assert_array_equal(plain, fast)


@pytest.mark.parametrize("shape", [(500, 375), (300, 480)])
def test_fast_random_crop_is_cut_at_the_same_place(shape: tuple[int, int]) -> None:
    picture = _photograph(2, *shape)
    for seed in range(12):
        plain, fast = (
            random_crop_arr(picture, 128, np.random.default_rng(seed), is_fast=is_fast)
            for is_fast in (False, True)
        )
        assert _differences(plain, fast).max() <= 1


def test_fast_crop_of_a_square_of_that_size_is_the_image(tmp_path: Path) -> None:
    picture = _photograph(3, 64, 64)
    crop = center_crop_arr(picture, 64, is_fast=True)
    np.testing.assert_array_equal(crop, np.asarray(picture))
