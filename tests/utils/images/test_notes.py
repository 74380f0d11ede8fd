"""What becomes of images is counted: first of a kind at once, sums later, none twice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.tiny import photo
from utils.flags.groups import CropFlags, OrientationFlags, ReadingFlags
from utils.flags.training import TrainFlags
from utils.images.crops.dataset import (
    CropBatch,
    CropDataset,
    ImageNotes,
    Preparation,
    look_at,
    note_changes,
    note_of,
    note_of_left_out,
    say_sizes,
    train_crops,
    without_small,
)
from utils.images.files import ImageFacts
from utils.images.listing import Entry
from utils.process.errors import DataError

SIDE = 16
# name → width, height
SIZES = {"large.png": (40, 30), "small.png": (20, 12), "tiny.png": (9, 9), "even.png": (16, 16)}
ENTRIES = [Entry(name, i) for i, name in enumerate(SIZES)]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """An image of each size, the large one with an alpha channel."""
    for seed, (name, (width, height)) in enumerate(SIZES.items()):
        image = Image.fromarray(photo(seed, (height, width)))
        image.convert("RGBA" if name == "large.png" else "RGB").save(tmp_path / name)
    return tmp_path


def _facts(*sides: int) -> dict[str, ImageFacts]:
    return {f"{i}.png": ImageFacts(side, 2 * side) for i, side in enumerate(sides)}


def test_first_of_a_kind_is_told_at_once_and_sums_whenever_ten_times_more_were_seen() -> None:
    lines: list[str] = []
    counts = ImageNotes(lines.append, SIDE, 100)
    small = [note_of(f"{i}.png", ImageFacts(8, 9), SIDE, ReadingFlags()) for i in range(60)]
    counts.add(["", "", "", ""])
    assert lines == []
    counts.add([small[0], ""])
    assert len(lines) == 1 and "1 of 6 images" in lines[0] and "0.png, 8×9" in lines[0]
    for note in small[1:54]:
        counts.add([note])
    assert len(lines) == 1
    counts.add([small[54]])  # the sixtieth
    assert len(lines) == 2 and "55 of 60 images" in lines[1]
    counts.add([small[55] + "\nalpha\tb.png, 20×20"])
    assert len(lines) == 4 and any("1 of 61 images" in line and "alpha" in line for line in lines)


def test_images_that_come_again_are_not_counted_again() -> None:
    lines: list[str] = []
    counts = ImageNotes(lines.append, SIDE, 7)
    for i in range(20):
        small = note_of(f"{i}.png", ImageFacts(8, 9), SIDE, ReadingFlags())
        counts.add([small, ""])
    assert (
        "4 of 7 images" in lines[-1] and len(lines) == 2
    )  # the last batch of the pass counts whole


def test_images_left_out_in_favour_of_others_are_counted_once() -> None:
    lines: list[str] = []
    counts = ImageNotes(lines.append, SIDE, 6)
    left_out = [note_of_left_out(f"{i}.png", ImageFacts(8, 9)) for i in range(3)]
    for i in range(3):
        counts.add(["\n".join(left_out[i:]), ""])
    assert "3 images" in lines[-1] and "left out" in lines[-1] and len(lines) == 1


@pytest.mark.parametrize("apply_orientation", [False, True])
def test_orientation_is_told_where_it_is_not_applied(apply_orientation: bool) -> None:
    flags = OrientationFlags(apply_orientation)
    note = note_of("a.png", ImageFacts(20, 20, ("orientation", "alpha")), SIDE, flags)
    assert ("orientation" in note) is not apply_orientation and "alpha" in note


@pytest.mark.parametrize(
    ("sides", "num_images", "parts"),
    [
        ((300, 600, 400), 3, ["3 images", "400×800", "reduced"]),
        ((20, 30), 2, ["median 20×40", "enlarged"]),
        ((256,), 9, ["9 images", "1 looked at", "256×512", "not scaled"]),
    ],
)
def test_sizes_are_told_by_their_median(
    sides: Sequence[int], num_images: int, parts: list[str]
) -> None:
    lines: list[str] = []
    say_sizes(_facts(*sides).values(), 256, num_images, lines.append)
    (line,) = lines
    assert all(part in line for part in parts), line


def test_small_images_are_enlarged_left_out_or_an_error() -> None:
    lines: list[str] = []
    facts = _facts(20, 8, 16, 15)
    assert without_small(facts, SIDE, ReadingFlags(), lines.append) == set()
    assert "2 of 4 images" in lines[0] and "enlarged" in lines[0]
    assert without_small(facts, SIDE, ReadingFlags(small_images="skip"), lines.append) == {
        "1.png",
        "3.png",
    }
    assert "2 images" in lines[1] and "left out" in lines[1]
    with pytest.raises(DataError, match=r"2 of 4 .*1\.png, 8×16, 3\.png.*--small_images"):
        without_small(facts, SIDE, ReadingFlags(small_images="error"), lines.append)
    with pytest.raises(DataError, match="no image"):
        without_small(_facts(8), SIDE, ReadingFlags(small_images="skip"), lines.append)
    assert len(lines) == 2


def test_headers_of_damaged_and_missing_images_are_left_to_their_readers(images: Path) -> None:
    (images / "bad.png").write_bytes(b"no image")
    names = ["bad.png", *SIZES, "none.png"]
    found = look_at(names, str(images), OrientationFlags())
    assert {name: one.size for name, one in found.items()} == SIZES
    cut = (images / "large.png").read_bytes()[:300]
    (images / "cut.png").write_bytes(cut)
    assert "cut.png" in look_at(["cut.png"], str(images), OrientationFlags())
    assert look_at(["cut.png"], str(images), OrientationFlags(), is_decoding=True) == {}


def test_changes_are_told_whatever_the_size(images: Path) -> None:
    lines: list[str] = []
    note_changes(list(SIZES), str(images), OrientationFlags(), lines.append)
    assert len(lines) == 1 and "1 of 4 images" in lines[0] and "alpha" in lines[0]


def _flags(images: Path, **changes: Any) -> CropFlags:
    return CropFlags(data_dir=str(images), **changes)


@pytest.mark.parametrize("more", [{}, {"random_crop": True}, {"random_flip": True}, {"cache": ""}])
def test_training_item_says_what_became_of_its_image(
    images: Path, tmp_path: Path, more: dict[str, Any]
) -> None:
    if "cache" in more:
        more = {"cache_dir": str(tmp_path / "cache")}
    for _ in range(2):  # a cache is made, and found
        dataset = CropDataset(ENTRIES, SIDE, _flags(images, **more), 0)
        notes = [dataset[0, 0, i].notes for i in range(4)]
        assert notes == [
            "alpha\tlarge.png, 40×30",
            "small\tsmall.png, 20×12",
            "small\ttiny.png, 9×9",
            "",
        ]


@pytest.mark.parametrize("more", [{}, {"random_crop": True}, {"cache": ""}])
def test_small_training_image_is_replaced_by_the_next_large_one(
    images: Path, tmp_path: Path, more: dict[str, Any]
) -> None:
    if "cache" in more:
        more = {"cache_dir": str(tmp_path / "cache")}
    dataset = CropDataset(ENTRIES, SIDE, _flags(images, small_images="skip", **more), 0)
    item = dataset[0, 0, 1]
    assert item.label == 3 and item.bad == ()
    assert item.notes == "left out\tsmall.png, 20×12\nleft out\ttiny.png, 9×9"
    assert dataset[0, 0, 2].label == 3 and dataset[0, 0, 0].label == 0


def test_small_training_image_is_an_error_on_request(images: Path) -> None:
    dataset = CropDataset(ENTRIES, SIDE, _flags(images, small_images="error"), 0)
    assert dataset[0, 0, 0].label == 0
    with pytest.raises(DataError, match=r"small\.png .*20×12.*--small_images"):
        dataset[0, 0, 1]


def test_training_data_of_small_and_damaged_images_only_is_an_error(images: Path) -> None:
    (images / "bad.png").write_bytes(b"no image")
    entries = [*ENTRIES[1:3], Entry("bad.png", 0)]
    flags = _flags(images, small_images="skip", on_bad_image="skip")
    with pytest.raises(DataError, match=r"3 images .*16 pixels"):
        CropDataset(entries, SIDE, flags, 0)[0, 0, 0]


def _pair(batch: CropBatch) -> tuple[torch.Tensor, torch.Tensor]:
    return batch.image, batch.label


@pytest.mark.parametrize("num_workers", [0, 1])
def test_notes_come_with_the_batches(images: Path, num_workers: int) -> None:
    lines: list[str] = []
    flags = _flags(images, num_workers=num_workers)
    data = train_crops(
        ENTRIES, SIDE, flags, TrainFlags(batch_size=4), Preparation(_pair), lines.append
    )
    assert "4 images, median" in lines[0]
    image, label = next(data.batches(0))
    assert image.shape == (4, 3, SIDE, SIDE) and image.dtype == torch.uint8
    assert sorted(label.tolist()) == sorted(entry.y for entry in ENTRIES)
    assert any("2 of 4 images" in line and "16 pixels" in line for line in lines)
    assert any("1 of 4 images" in line and "alpha" in line for line in lines)


def test_few_headers_are_read_before_a_training(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []

    def counted(path: str, **flags: Any) -> ImageFacts:
        looked.append(path)
        return ImageFacts(20, 20)

    monkeypatch.setattr("utils.images.crops.dataset.image_facts", counted)
    entries = [Entry(f"{i}.png", 0) for i in range(5000)]
    train_crops(entries, SIDE, _flags(images), TrainFlags(), Preparation(_pair), lambda line: None)
    assert len(looked) == 200
