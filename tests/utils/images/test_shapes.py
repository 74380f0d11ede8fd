"""Crops that are not square: which pixels they are, at which scale, and what chance does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from utils.flags.groups import CropFlags
from utils.images.crops.cache import INDEX_FILE, crop_folder
from utils.images.crops.dataset import TestCrops, say_sizes, without_small
from utils.images.crops.patches import center_patch, random_patch, random_turn
from utils.images.crops.recipes import CenterCrop
from utils.images.files import ImageFacts, center_crop_arr, random_crop_arr
from utils.images.listing import Entry
from utils.process.errors import DataError


def _ramp(height: int, width: int) -> Image.Image:
    """Red is the row and green the column, so that each pixel tells its place."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([y, x, 0 * y], axis=2).astype(np.uint8))


def _middle(crop: NDArray[np.uint8], channel: int) -> float:
    return float(crop[..., channel].astype(float).mean())


@pytest.mark.parametrize(
    ("image", "size", "corner"),
    [
        ((96, 200), (96, 64), (0, 68)),  # as high as the image, the middle of its width
        ((200, 64), (96, 64), (52, 0)),
        ((96, 64), (96, 64), (0, 0)),
    ],
)
def test_crop_of_the_image_s_own_scale_is_its_pixels(
    image: tuple[int, int], size: tuple[int, int], corner: tuple[int, int]
) -> None:
    crop = center_crop_arr(_ramp(*image), size)
    assert crop.shape == (*size, 3)
    assert (crop[0, 0, 0], crop[0, 0, 1]) == corner
    assert (crop[-1, -1, 0], crop[-1, -1, 1]) == (corner[0] + size[0] - 1, corner[1] + size[1] - 1)


@pytest.mark.parametrize(
    ("image", "size", "scale"),
    [
        ((100, 200), (50, 25), 2.0),  # the height limits: all rows, 50 of 200 columns
        ((200, 100), (25, 50), 2.0),
        ((240, 240), (60, 20), 4.0),  # two halvings, without the bicubic step
        ((120, 250), (40, 80), 3.0),
        ((20, 50), (40, 20), 0.5),  # enlarged
    ],
)
def test_image_is_scaled_until_it_just_covers_the_crop(
    image: tuple[int, int], size: tuple[int, int], scale: float
) -> None:
    """A row more of the crop is `scale` rows of the image, and the middles are the same."""
    crop = center_crop_arr(_ramp(*image), size)
    assert crop.shape == (*size, 3)
    for axis, channel in ((0, 0), (1, 1)):
        line = np.take(crop[..., channel].astype(float), size[1 - axis] // 2, axis=1 - axis)
        slope = float(np.polyfit(np.arange(2, size[axis] - 2), line[2:-2], 1)[0])
        assert slope == pytest.approx(scale, rel=0.03)
        assert _middle(crop, channel) == pytest.approx((image[axis] - 1) / 2, abs=scale)


def test_square_of_two_equal_sides_is_the_square_of_one() -> None:
    image = _ramp(100, 180)
    assert np.array_equal(center_crop_arr(image, (40, 40)), center_crop_arr(image, 40))
    one, other = (random_crop_arr(image, size, np.random.default_rng(3)) for size in (40, (40, 40)))
    assert np.array_equal(one, other)


def test_random_crop_covers_the_said_share_and_every_place() -> None:
    """Of an image of the crop's own shape the crop holds between 0.8 and 1 of both sides."""
    image, places, shares = _ramp(200, 100), [], []
    for seed in range(200):
        crop = random_crop_arr(image, (80, 40), np.random.default_rng(seed)).astype(float)
        assert crop.shape == (80, 40, 3)
        # between the centres of the first and last pixel lies one less than all of them
        rows, columns = crop[-1, 20, 0] - crop[0, 20, 0], crop[40, -1, 1] - crop[40, 0, 1]
        assert rows == pytest.approx(2 * columns, abs=6)
        shares.append(rows / 199 * 80 / 79)
        places.append((crop[0, 20, 0], crop[40, 0, 1]))
    assert 0.78 < min(shares) < 0.83 and 0.97 < max(shares) < 1.02
    assert min(place[0] for place in places) <= 2 and max(place[0] for place in places) > 25
    assert max(place[1] for place in places) > 12


def test_patches_are_pixels_of_both_sides() -> None:
    image = _ramp(50, 40)
    patch = center_patch(image, (30, 10))
    assert np.array_equal(patch, np.asarray(image)[10:40, 15:25])
    tops, lefts = set(), set()
    for seed in range(300):
        drawn = random_patch(image, (30, 10), np.random.default_rng(seed))
        top, left = int(drawn[0, 0, 0]), int(drawn[0, 0, 1])
        assert np.array_equal(drawn, np.asarray(image)[top : top + 30, left : left + 10])
        tops.add(top)
        lefts.add(left)
    assert (min(tops), max(tops), min(lefts), max(lefts)) == (0, 20, 0, 30)


def test_turns_keep_the_shape() -> None:
    image = np.asarray(_ramp(6, 4))
    turned = [random_turn(image, np.random.default_rng(seed)) for seed in range(100)]
    num_turned = sum(bool((one == image[::-1, ::-1]).all()) for one in turned)
    num_kept = sum(bool((one == image).all()) for one in turned)
    assert num_turned + num_kept == 100 and 30 < num_kept < 70


def test_small_is_what_does_not_cover_the_crop() -> None:
    facts = {"a": ImageFacts(64, 96), "b": ImageFacts(96, 64), "c": ImageFacts(63, 200)}
    flags, told = CropFlags(data_dir="x", small_images="skip"), list[str]()
    assert without_small(facts, (96, 64), flags, told.append) == {"b", "c"}
    assert any("2 images are smaller than 96x64 pixels" in line for line in told)
    with pytest.raises(DataError, match=r"2 of 3 .* the 96x64 pixels of their crop: b, 96×64"):
        without_small(facts, (96, 64), CropFlags(data_dir="x", small_images="error"), print)


def test_cache_keeps_the_shape_apart_from_its_turn(tmp_path: Path) -> None:
    _ramp(100, 120).save(tmp_path / "a.png")
    entries = [Entry("a.png", 0)]
    flags = CropFlags(data_dir=str(tmp_path), cache_dir=str(tmp_path / "cache"))
    for size, name in (("32x16", "32x16x3_"), ("16x32", "16x32x3_"), (32, "32x3_")):
        for _ in range(2):  # cut, then read
            item = TestCrops.from_flags(entries, size, flags)[0]
            assert item is not None
            crop = item.image.numpy().transpose(1, 2, 0)
            assert np.array_equal(crop, CenterCrop(str(tmp_path), size).cut("a.png").pixels)
        (folder,) = (tmp_path / "cache").glob(f"{name}*")
        assert (folder / INDEX_FILE).exists()
    square = CenterCrop(str(tmp_path), 32)
    assert crop_folder(square, "c") == crop_folder(CenterCrop(str(tmp_path), (32, 32)), "c")


def test_log_says_what_becomes_of_the_middle_image() -> None:
    """The median scale is that of the side that limits the crop, not of the short one."""
    told: list[str] = []
    facts = [ImageFacts(200, 100), ImageFacts(80, 96), ImageFacts(64, 400)]  # width, height
    say_sizes(facts, (96, 64), 3, told.append)
    say_sizes([ImageFacts(64, 96)] * 2, (96, 64), 2, told.append)
    say_sizes([ImageFacts(40, 90)], (96, 64), 1, told.append)
    say_sizes([ImageFacts(70, 100)], (96, 64), 1, told.append, "native")
    assert "median 80×100: not scaled" in told[0] and "enlarged" in told[1]
    assert "patches of 96×64 pixels" in told[2] and len(told) == 3
