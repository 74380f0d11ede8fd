"""Measured pairs: both sides of a crop come from the same place."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from sr_var.degrade.view import View
from sr_var.flags.scripts import DataFlags, MeanModelFlags, TestDataFlags
from utils.images.crops.dataset import CropDataset, TestCrops
from utils.images.crops.measured import PairSize
from utils.images.files import BadImageError
from utils.images.listing import Entry
from utils.process.errors import DataError

FACTOR, SMALL = 2, 8
LARGE = FACTOR * SMALL
HEIGHT, WIDTH = 25, 40  # of the measured image: an odd room, and no square
VIEW = View.of(
    MeanModelFlags(large_size=LARGE, small_size=SMALL, in_channels=1, degradation="measured")
)


def _gradient(height: int, width: int) -> NDArray[np.uint16]:
    """A value that tells the place: 256·row + column, in 16 bits."""
    return (256 * np.arange(height)[:, None] + np.arange(width)).astype(np.uint16)


def _write_pair(folder: Path, name: str = "a") -> dict[str, Any]:
    """The measured image tells its own place, the true one that of the block it lies in."""
    for side in ("true", "measured"):
        (folder / side).mkdir(exist_ok=True)
    small = _gradient(HEIGHT, WIDTH)
    large = small.repeat(FACTOR, axis=0).repeat(FACTOR, axis=1)
    Image.fromarray(large).save(folder / "true" / f"{name}.png")
    np.save(folder / "measured" / f"{name}.npy", small)
    return {
        "data_dir": str(folder / "true"),
        "pairs_dir": str(folder / "measured"),
        "crop": "native",
        "in_channels": 1,
        "value_range": "0,65535",
    }


def _values(image: torch.Tensor) -> NDArray[Any]:
    return np.rint((image[0, 0].numpy().astype(np.float64) + 1) / 2 * 65535).astype(int)


def _require_same_place(crop: torch.Tensor) -> NDArray[Any]:
    """Both sides; each measured pixel is that of the block of true ones at its place."""
    x, y = (_values(side) for side in VIEW.pair(crop[None], [0], torch.device("cpu")))
    assert x.shape == (SMALL, SMALL) and y.shape == (LARGE, LARGE)
    np.testing.assert_array_equal(y, x.repeat(FACTOR, axis=0).repeat(FACTOR, axis=1))
    return x


def test_tests_cut_at_the_centre_of_the_measured_image(tmp_path: Path) -> None:
    flags = DataFlags(**_write_pair(tmp_path))
    crops = TestCrops.from_flags([Entry("a.png", 0)], VIEW.large, flags, 1)
    item = crops[0]
    assert item is not None
    top, left = (HEIGHT - SMALL) // 2, (WIDTH - SMALL) // 2
    wanted = _gradient(HEIGHT, WIDTH)[top : top + SMALL, left : left + SMALL]
    np.testing.assert_array_equal(_require_same_place(item.image), wanted)


def test_trainings_cut_and_turn_both_in_the_same_way(tmp_path: Path) -> None:
    flags = DataFlags(**_write_pair(tmp_path), random_crop=True, random_flip=True, random_turn=True)
    crops = CropDataset([Entry("a.png", 0)], VIEW.large, flags, 0, 1)
    found = [_require_same_place(crops[position, position, 0].image) for position in range(40)]
    corners = {int(x.min()) for x in found}
    assert len(corners) > 30  # other places
    assert max(corner // 256 for corner in corners) <= HEIGHT - SMALL
    assert max(corner % 256 for corner in corners) <= WIDTH - SMALL
    steps = {(x[1, 0] - x[0, 0], x[0, 1] - x[0, 0]) for x in found}
    assert len(steps) == 8  # all mirror images and turns
    again = CropDataset([Entry("a.png", 0)], VIEW.large, flags, 0, 1)
    torch.testing.assert_close(again[7, 7, 0].image, crops[7, 7, 0].image)


def test_three_channels_of_8_bits(tmp_path: Path) -> None:
    for side, factor in (("true", 3), ("measured", 1)):
        (tmp_path / side).mkdir()
        rows, columns = np.mgrid[:9, :11]
        rgb = np.stack([rows, columns, rows + columns], axis=2).astype(np.uint8)
        image = Image.fromarray(rgb.repeat(factor, axis=0).repeat(factor, axis=1))
        image.save(tmp_path / side / ("a.bmp" if factor == 1 else "a.png"))
    folders = {"data_dir": str(tmp_path / "true"), "pairs_dir": str(tmp_path / "measured")}
    view = View.of(MeanModelFlags(large_size=15, small_size=5, degradation="measured"))
    crops = TestCrops.from_flags(
        [Entry("a.png", 0)], view.large, DataFlags(**folders, crop="native"), 3
    )
    item = crops[0]
    assert item is not None and item.image.dtype == torch.uint8
    x, y = view.pair(item.image[None], ["a.png"], torch.device("cpu"))
    whole = ((x[0] + 1) * 127.5).round().numpy()
    np.testing.assert_array_equal(whole[0], np.arange(2, 7)[:, None].repeat(5, axis=1))
    np.testing.assert_array_equal(whole[1], np.arange(3, 8)[None].repeat(5, axis=0))
    np.testing.assert_array_equal(whole[2], whole[0] + whole[1])
    torch.testing.assert_close(y, x.repeat_interleave(3, 2).repeat_interleave(3, 3))


@pytest.mark.parametrize("factor", [1, 4])
def test_another_factor_is_refused(tmp_path: Path, factor: int) -> None:
    flags = DataFlags(**_write_pair(tmp_path))
    with pytest.raises(DataError, match=r"a\.npy is 40×25, its true image 80×50"):
        TestCrops.from_flags([Entry("a.png", 0)], PairSize.over(16, factor), flags, 1)[0]


def test_nothing_is_put_in_the_place_of_what_was_measured(tmp_path: Path) -> None:
    both = _write_pair(tmp_path)
    entries = [Entry("a.png", 0)]
    with pytest.raises(DataError, match="give --pairs_dir"):
        TestCrops.from_flags(entries, VIEW.large, DataFlags(**{**both, "pairs_dir": ""}), 1)
    with pytest.raises(DataError, match="not trained on measured pairs"):
        TestCrops.from_flags(entries, LARGE, DataFlags(**both), 1)
    with pytest.raises(DataError, match="measured"):
        VIEW.x_of(torch.zeros(1, 3, LARGE, LARGE))
    with pytest.raises(DataError, match="1 of 2 images have no measured one"):
        TestCrops.from_flags([*entries, Entry("b.png", 0)], VIEW.large, DataFlags(**both), 1)
    for flags, other in ((DataFlags, {"crop": "resized"}), (TestDataFlags, {"cache_dir": "c"})):
        with pytest.raises(ValueError, match="--pairs_dir"):
            flags(**{**both, **other})


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (np.zeros((HEIGHT, WIDTH, 4), np.uint16), "4 channels, --in_channels is 1"),
        (np.zeros((HEIGHT, WIDTH), np.uint8), "--value_range is 0,65535"),
    ],
    ids=["channels", "depth"],
)
def test_a_measured_image_of_another_kind_is_refused(
    tmp_path: Path, other: NDArray[Any], told: str
) -> None:
    flags = DataFlags(**_write_pair(tmp_path))
    np.save(tmp_path / "measured" / "a.npy", other)
    with pytest.raises(BadImageError, match=f"measured/a.npy.*{told}"):
        TestCrops.from_flags([Entry("a.png", 0)], VIEW.large, flags, 1)[0]


def test_measured_images_of_their_own_kind_are_told_from_true_ones(tmp_path: Path) -> None:
    """Four channels in a range of their own, beside true images of one."""
    flags = DataFlags(**_write_pair(tmp_path))
    small = np.stack([_gradient(HEIGHT, WIDTH) / 65535 * (1 + c) for c in range(4)], axis=2)
    np.save(tmp_path / "measured" / "a.npy", small.astype(np.float32))
    sizes = {"large_size": LARGE, "small_size": SMALL, "in_channels": 1}
    view = View.of(MeanModelFlags(**sizes, degradation="measured:4@0,2"))
    item = TestCrops.from_flags([Entry("a.png", 0)], view.large, flags, 1)[0]
    assert item is not None
    x, y = view.pair(item.image[None], [0], torch.device("cpu"))
    assert x.shape == (1, 4, SMALL, SMALL) and y.shape == (1, 1, LARGE, LARGE)
    blocks = x[:, :1].repeat_interleave(FACTOR, 2).repeat_interleave(FACTOR, 3)
    torch.testing.assert_close(y, 2 * blocks + 1, atol=1e-5, rtol=0)
    torch.testing.assert_close(x[:, 3], 4 * x[:, 0] + 3, atol=1e-5, rtol=0)
    other = View.of(MeanModelFlags(**sizes, degradation="measured:2@0,2"))
    with pytest.raises(BadImageError, match="4 channels, --pairs_in_channels is 2"):
        TestCrops.from_flags([Entry("a.png", 0)], other.large, flags, 1)[0]
    far = View.of(MeanModelFlags(**sizes, degradation="measured:4@0,0.1"))
    with pytest.raises(BadImageError, match=r"--pairs_value_range is 0,0\.1"):
        TestCrops.from_flags([Entry("a.png", 0)], far.large, flags, 1)[0]


@pytest.mark.parametrize("words", ["measured:", "measured:0", "measured:3@", "measured:x@0,1"])
def test_words_of_no_pairs(words: str) -> None:
    with pytest.raises(ValueError, match="measured:CHANNELS@LOW,HIGH"):
        View.of(MeanModelFlags(large_size=8, small_size=8, degradation=words))


def test_loader_processes_know_the_factor(tmp_path: Path) -> None:
    size = pickle.loads(pickle.dumps(VIEW.large))
    assert (size, size.factor) == ((LARGE, LARGE), FACTOR)
    flags = DataFlags(**_write_pair(tmp_path))
    crops = CropDataset([Entry("a.png", 0)], VIEW.large, flags, 0, 1)
    again = pickle.loads(pickle.dumps(crops))
    torch.testing.assert_close(again[3, 0, 0].image, crops[3, 0, 0].image)


def test_small_pairs_are_not_enlarged(tmp_path: Path) -> None:
    flags = DataFlags(**_write_pair(tmp_path))
    with pytest.raises(DataError, match="never enlarged"):
        TestCrops.from_flags([Entry("a.png", 0)], PairSize.over(64, FACTOR), flags, 1)[0]


def test_two_measured_images_of_one_name(tmp_path: Path) -> None:
    flags = DataFlags(**_write_pair(tmp_path))
    np.save(tmp_path / "measured" / "b.npy", _gradient(4, 4))
    Image.fromarray(_gradient(4, 4)).save(tmp_path / "measured" / "b.png")
    with pytest.raises(DataError, match=r"b\.npy and b\.png"):
        TestCrops.from_flags([Entry("a.png", 0)], VIEW.large, flags, 1)
