"""Patches at an image's own resolution: whole pixels of the file, where the seed says."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from tests.tiny import photo
from utils.flags.groups import NATIVE, CropFlags, Reading
from utils.images.crops.dataset import CropDataset, TestCrops
from utils.images.crops.patches import center_patch, random_patch
from utils.images.files import center_crop_arr, random_crop_arr
from utils.images.listing import Entry
from utils.process.errors import DataError
from utils.seeds import item_rng

SIZE = 16
NAMES = ["a.png", "b.png"]
ENTRIES = [Entry(name, i) for i, name in enumerate(NAMES)]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two images, larger than the patches and of other shapes."""
    folder = tmp_path / "images"
    folder.mkdir()
    for seed, (name, size) in enumerate(zip(NAMES, [(40, 52), (70, 33)], strict=True)):
        Image.fromarray(photo(seed, size)).save(folder / name)
    return folder


def _flags(images: Path, **changes: Any) -> CropFlags:
    return CropFlags(**{"data_dir": str(images), "crop": NATIVE, **changes})


def _pixels(images: Path, name: str) -> NDArray[np.uint8]:
    return np.asarray(Image.open(images / name))


def _hwc(image: torch.Tensor) -> NDArray[np.uint8]:
    return image.numpy().transpose(1, 2, 0)


def test_center_patch_is_the_pixels_of_the_file() -> None:
    pixels = photo(0, (41, 52))
    patch = center_patch(Image.fromarray(pixels), SIZE)
    np.testing.assert_array_equal(patch, pixels[12:28, 18:34])
    whole = photo(1, (SIZE, SIZE))
    np.testing.assert_array_equal(center_patch(Image.fromarray(whole), SIZE), whole)


def test_random_patches_are_pixels_of_the_file_at_every_place_alike() -> None:
    """Each pixel says where it is, so that a patch tells its corner."""
    rows, columns = np.mgrid[:19, :22]
    pixels = np.stack([rows, columns, 0 * rows], axis=-1).astype(np.uint8)
    image, corners = Image.fromarray(pixels), Counter[tuple[int, int]]()
    rng = np.random.default_rng(0)
    for _ in range(2800):
        patch = random_patch(image, SIZE, rng)
        top, left = int(patch[0, 0, 0]), int(patch[0, 0, 1])
        np.testing.assert_array_equal(patch, pixels[top : top + SIZE, left : left + SIZE])
        corners[top, left] += 1
    assert set(corners) == {(top, left) for top in range(4) for left in range(7)}
    # 100 expected: five standard deviations
    assert min(corners.values()) > 50 and max(corners.values()) < 150


@pytest.mark.parametrize("size", [(9, 40), (40, 9), (15, 15)])
def test_smaller_images_are_enlarged_as_without_patches(size: tuple[int, int]) -> None:
    image = Image.fromarray(photo(0, size))
    expected = center_crop_arr(image, SIZE)
    np.testing.assert_array_equal(center_patch(image, SIZE), expected)
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(random_patch(image, SIZE, rng), expected)


def test_training_cuts_other_places_in_each_epoch_and_the_same_for_a_key(images: Path) -> None:
    data = CropDataset(ENTRIES, SIZE, _flags(images), seed=0)
    patches = [_hwc(data[0, epoch, 0].image) for epoch in range(6)]
    assert len({patch.tobytes() for patch in patches}) > 3
    again = CropDataset(ENTRIES, SIZE, _flags(images), seed=0)
    # a place in the stream is no part of the choice
    np.testing.assert_array_equal(_hwc(again[77, 2, 0].image), patches[2])
    other = CropDataset(ENTRIES, SIZE, _flags(images), seed=1)
    assert any((_hwc(other[0, e, 0].image) != patches[e]).any() for e in range(6))
    windows = np.lib.stride_tricks.sliding_window_view(
        _pixels(images, "a.png"), (SIZE, SIZE), axis=(0, 1)
    )
    for patch in patches:
        assert (windows == patch.transpose(2, 0, 1)).all(axis=(2, 3, 4)).any()


def test_flip_and_random_crop_go_with_it(images: Path) -> None:
    plain = CropDataset(ENTRIES, SIZE, _flags(images), seed=0)
    cropped = CropDataset(ENTRIES, SIZE, _flags(images, random_crop=True), seed=0)
    flipped = CropDataset(ENTRIES, SIZE, _flags(images, random_flip=True), seed=0)
    num_mirrored = 0
    for epoch in range(20):
        image = plain[0, epoch, 0].image
        assert torch.equal(cropped[0, epoch, 0].image, image)
        other = flipped[0, epoch, 0].image
        num_mirrored += torch.equal(other, image.flip(-1))
        assert torch.equal(other, image) or torch.equal(other, image.flip(-1))
    assert 3 < num_mirrored < 17


def test_tests_take_the_centre_and_small_images_are_as_their_flag_says(images: Path) -> None:
    crops = TestCrops.from_flags(ENTRIES, SIZE, _flags(images))
    for i, name in enumerate(NAMES):
        item = crops[i]
        assert item is not None
        expected = center_patch(Image.open(images / name), SIZE)
        np.testing.assert_array_equal(_hwc(item.image), expected)
    size = 36  # b.png is 33 pixels wide
    skipping = CropDataset(ENTRIES, size, _flags(images, small_images="skip"), seed=0)
    item = skipping[0, 0, 1]
    assert item.name == "a.png" and "left out" in item.notes
    refusing = CropDataset(ENTRIES, size, _flags(images, small_images="error"), seed=0)
    with pytest.raises(DataError, match=r"b\.png is 33×70"):
        refusing[0, 0, 1]
    enlarging = CropDataset(ENTRIES, size, _flags(images), seed=0)
    assert "small" in enlarging[0, 0, 1].notes


def test_cache_keeps_patches_apart_from_crops(images: Path, tmp_path: Path) -> None:
    class TestFlags(CropFlags):
        is_training = False

    cache = {"data_dir": str(images), "cache_dir": str(tmp_path / "cache")}
    found = {}
    for crop in ("resized", NATIVE):
        for _ in range(2):  # made, and found
            crops = TestCrops.from_flags(ENTRIES, SIZE, TestFlags(crop=crop, **cache))
            item = crops[0]
            assert item is not None
            found[crop] = _hwc(item.image)
    image = Image.open(images / "a.png")
    np.testing.assert_array_equal(found[NATIVE], center_patch(image, SIZE))
    np.testing.assert_array_equal(found["resized"], center_crop_arr(image, SIZE))
    assert len(list((tmp_path / "cache").iterdir())) == 2


class Deep(CropFlags):
    """Images in their own numbers, from 0 to 65535."""

    values_range = (0.0, 65535.0)


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    """Two images of 16 bits and four channels, all of whose values differ."""
    folder = tmp_path / "arrays"
    folder.mkdir()
    for name, (height, width) in zip(["a.npy", "b.npy"], [(20, 23), (31, 18)], strict=True):
        values = np.random.default_rng(0).permutation(65536)[: height * width * 4]
        np.save(folder / name, values.reshape(height, width, 4).astype(np.uint16))
    return folder


DEEP_ENTRIES = [Entry("a.npy", 0), Entry("b.npy", 1)]


def _deep(image: torch.Tensor) -> NDArray[np.uint16]:
    """The values of the file, (H, W, C), of a crop in 255ths of its range."""
    values = image.numpy().transpose(1, 2, 0).astype(np.float64) * 257
    np.testing.assert_allclose(values, np.rint(values), atol=0.01)
    return np.rint(values).astype(np.uint16)


def test_patches_of_four_channels_of_16_bits_are_the_values_of_the_file(
    arrays: Path, tmp_path: Path
) -> None:
    pixels = np.load(arrays / "a.npy")
    for cache_dir in ("", str(tmp_path / "cache"), str(tmp_path / "cache")):  # made, and found

        class Tested(Deep):
            is_training = False

        flags = Tested(data_dir=str(arrays), crop=NATIVE, cache_dir=cache_dir)
        item = TestCrops.from_flags(DEEP_ENTRIES, SIZE, flags, 4)[0]
        assert item is not None
        np.testing.assert_array_equal(_deep(item.image), pixels[2:18, 3:19])
    resized = Tested(data_dir=str(arrays), cache_dir=cache_dir)
    item = TestCrops.from_flags(DEEP_ENTRIES, SIZE, resized, 4)[0]
    assert item is not None and item.image.shape == (4, SIZE, SIZE)
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_training_patches_of_16_bits_are_cut_and_turned_as_one_in_all_channels(
    arrays: Path,
) -> None:
    windows = np.lib.stride_tricks.sliding_window_view(
        np.load(arrays / "a.npy"), (SIZE, SIZE), axis=(0, 1)
    ).transpose(0, 1, 3, 4, 2)  # (rows, columns, H, W, C)
    flags = Deep(data_dir=str(arrays), crop=NATIVE, random_turn=True)
    data = CropDataset(DEEP_ENTRIES, SIZE, flags, 0, 4)
    found = Counter[tuple[int, ...]]()
    for epoch in range(40):
        patch = _deep(data[0, epoch, 0].image)
        for turns in range(4):
            is_there = (windows == np.rot90(patch, -turns)).all(axis=(2, 3, 4))
            found.update((turns, *place) for place in np.argwhere(is_there).tolist())
    assert sum(found.values()) == 40  # each at one place, turned in one way
    assert {turns for turns, _, _ in found} == set(range(4))
    assert len({(top, left) for _, top, left in found}) > 10


def test_flip_of_deep_crops_is_not_tied_to_their_scale(arrays: Path) -> None:
    """As for 8 bits, the draws of the crop are spent once, not by channel or not at all."""
    flags = {"data_dir": str(arrays), "random_crop": True}
    plain = CropDataset(DEEP_ENTRIES, SIZE, Deep(**flags), 0, 4)
    flipped = CropDataset(DEEP_ENTRIES, SIZE, Deep(**flags, random_flip=True), 0, 4)
    for epoch in range(12):
        rng = _after_crop(arrays / "a.npy", item_rng(0, epoch, 0))
        image = plain[0, epoch, 0].image
        expected = image.flip(-1) if rng.random() < 0.5 else image
        assert torch.equal(flipped[0, epoch, 0].image, expected)


def _after_crop(path: Path, rng: np.random.Generator) -> np.random.Generator:
    channel = np.load(path)[..., 0].astype(np.float32)
    random_crop_arr(Image.fromarray(channel), SIZE, rng)
    return rng


def test_training_on_patches_from_a_cache_is_refused(images: Path) -> None:
    with pytest.raises(ValueError, match=r"--cache_dir c .*--crop native"):
        _flags(images, cache_dir="c")


def test_grey_patches_have_one_channel(images: Path) -> None:
    crops = TestCrops.from_flags(ENTRIES, SIZE, _flags(images), num_channels=1)
    item = crops[0]
    assert item is not None and item.image.shape == (1, SIZE, SIZE)
    grey = Image.fromarray(center_patch(Image.open(images / "a.png"), SIZE)).convert("L")
    np.testing.assert_array_equal(item.image[0].numpy(), np.asarray(grey))


def test_listing_tells_patches_from_crops(images: Path) -> None:
    native = CropDataset(ENTRIES, SIZE, _flags(images), seed=0).listing()
    resized = CropDataset(ENTRIES, SIZE, _flags(images, crop="resized"), seed=0).listing()
    assert {key for key in native if native[key] != resized[key]} == {"crop"}


def test_record_of_a_reading_says_what_is_not_as_by_default() -> None:
    assert Reading().record() == {} and Reading.parse({"models": []}) == Reading()
    reading = Reading(crop=NATIVE, apply_orientation=True)
    assert reading.record() == {"crop": "native", "apply_orientation": True}
    assert Reading.parse(reading.record()) == reading
    assert Reading.parse({"crop": ["nonsense"]}) == Reading()
