"""Entries of an info dict, crops for training and tests, and what happens to damaged images."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from sr_var.base_dataset import existing_path, load_entries
from sr_var.data.pairs import crop_batches, load_regression_data, rank_batches
from sr_var.flags.scripts import DataFlags, MeanTrainFlags, TestDataFlags
from tests import tiny
from tests.tiny import LARGE, SMALL, TEST_NAMES, TinyData
from utils.images.crops.dataset import CropDataset, TestCrops
from utils.images.files import BadImageError, center_crop_arr, open_image
from utils.images.listing import Entry
from utils.process.errors import DataError
from utils.untrusted.pickles import dump_pickle

ENTRIES = [Entry(name, y) for y, names in tiny.CLASSES.values() for name in names]
CPU = torch.device("cpu")


def _flags(data: TinyData, **changes: object) -> DataFlags:
    base = DataFlags(data_dir=str(data.data_dir), data_info_dict_path=str(data.train_info))
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def _crop(data: TinyData, name: str) -> torch.Tensor:
    path = data.data_dir / (name if name.endswith(".png") else f"{name}.JPEG")
    array = center_crop_arr(open_image(path), LARGE)
    return torch.from_numpy(array.transpose(2, 0, 1).copy())


@pytest.fixture
def damaged_data(tmp_path: Path) -> TinyData:
    """The tiny data with one truncated training image and one test image that is no image."""
    data = TinyData.write(tmp_path / "images", tmp_path / "info")
    path = data.data_dir / "n01440764_18.JPEG"
    path.write_bytes(path.read_bytes()[:300])
    (data.data_dir / "n01443537_21.png").write_bytes(b"no image")
    return data


def test_entries_keep_the_order_and_the_labels_of_the_info_dict(tiny_data: TinyData) -> None:
    entries = load_entries(str(tiny_data.test_info), str(tiny_data.data_dir))
    assert entries == [Entry(TEST_NAMES[0], 0), Entry(TEST_NAMES[1], 1), Entry(TEST_NAMES[2], 4)]


def test_misnamed_data_folder_of_the_documents_is_found(
    tmp_path: Path,
    tiny_data: TinyData,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """``data/imagenet/`` stands for ``data/sr_imagenet/`` where only that exists."""
    monkeypatch.chdir(tmp_path)
    tiny.write_info(Path("data/sr_imagenet/info.pkl"), TEST_NAMES)
    assert len(load_entries("data/imagenet/info.pkl", str(tiny_data.data_dir))) == 3
    assert any(
        "data/imagenet/info.pkl" in line and "data/sr_imagenet/info.pkl" in line
        for line in capsys.readouterr().out.splitlines()
    )
    tiny.write_info(Path("data/imagenet/info.pkl"), TEST_NAMES[:1])
    assert len(load_entries("data/imagenet/info.pkl", str(tiny_data.data_dir))) == 1
    assert capsys.readouterr().out == ""


def test_missing_path_is_not_corrected_to_another_missing_one() -> None:
    assert existing_path("data/imagenet/none.pkl") == "data/imagenet/none.pkl"


def test_missing_data_folder_and_empty_dict_are_data_errors(
    tmp_path: Path, tiny_data: TinyData
) -> None:
    with pytest.raises(DataError, match="not a folder"):
        load_entries(str(tiny_data.test_info), str(tmp_path / "none"))
    for path, problem in ((tmp_path / "none.pkl", "does not exist"), (tmp_path, "is a folder")):
        with pytest.raises(DataError, match=rf"--data_info_dict_path {path} .*{problem}"):
            load_entries(str(path), str(tiny_data.data_dir))
    dump_pickle({"a": {"y": 0, "file_names": []}}, tmp_path / "empty.pkl")
    with pytest.raises(DataError, match="no image"):
        load_entries(str(tmp_path / "empty.pkl"), str(tiny_data.data_dir))


def test_training_crop_is_the_centre_crop_unless_asked_otherwise(tiny_data: TinyData) -> None:
    dataset = CropDataset(ENTRIES, LARGE, _flags(tiny_data), seed=0)
    assert len(dataset) == len(ENTRIES)
    for index, entry in enumerate(ENTRIES):
        item = dataset[(100 + index, 3, index)]
        assert torch.equal(item.image, _crop(tiny_data, entry.name))
        assert item.image.dtype == torch.uint8
        assert (item.label, item.position, item.bad) == (entry.y, 100 + index, ())


def test_augmentation_is_a_function_of_seed_epoch_and_index(tiny_data: TinyData) -> None:
    flags = _flags(tiny_data, random_crop=True, random_flip=True, random_turn=True)
    dataset = CropDataset(ENTRIES, LARGE, flags, seed=1)
    first = [dataset[(0, 0, i)].image for i in range(4)]
    again = [dataset[(7, 0, i)].image for i in reversed(range(4))]
    assert all(torch.equal(a, b) for a, b in zip(first, reversed(again), strict=True))
    assert not all(torch.equal(dataset[(0, 1, i)].image, first[i]) for i in range(4))
    other = CropDataset(ENTRIES, LARGE, flags, seed=2)
    assert not all(torch.equal(other[(0, 0, i)].image, first[i]) for i in range(4))


def test_flip_mirrors_about_half_of_the_images(tiny_data: TinyData) -> None:
    dataset = CropDataset(ENTRIES, LARGE, _flags(tiny_data, random_flip=True), seed=0)
    plain = _crop(tiny_data, ENTRIES[0].name)
    num_flipped = 0
    for epoch in range(40):
        crop = dataset[(0, epoch, 0)].image
        is_flipped = torch.equal(crop, plain.flip(2))
        assert is_flipped or torch.equal(crop, plain)
        num_flipped += is_flipped
    assert 10 <= num_flipped <= 30  # 20 expected, standard deviation 3.2


def test_turns_are_drawn_beside_the_mirror_and_leave_it_as_it_is(tiny_data: TinyData) -> None:
    flips, both = (
        CropDataset(ENTRIES, LARGE, _flags(tiny_data, random_flip=True, random_turn=turn), seed=0)
        for turn in (False, True)
    )
    counts = [0] * 4
    for epoch in range(80):
        plain, turned = (dataset[(0, epoch, 0)].image for dataset in (flips, both))
        (quarters,) = (k for k in range(4) if torch.equal(turned, plain.rot90(k, (1, 2))))
        counts[quarters] += 1
    assert min(counts) >= 10 and max(counts) <= 32  # 20 expected, standard deviation 3.9


def test_damaged_training_image_is_an_error_that_names_it(damaged_data: TinyData) -> None:
    dataset = CropDataset(ENTRIES, LARGE, _flags(damaged_data), seed=0)
    with pytest.raises(BadImageError, match=r"n01440764_18\.JPEG"):
        dataset[(0, 0, 1)]


def test_skipped_training_image_is_replaced_by_the_next_and_listed(damaged_data: TinyData) -> None:
    dataset = CropDataset(ENTRIES, LARGE, _flags(damaged_data, on_bad_image="skip"), seed=0)
    item = dataset[(0, 0, 1)]
    assert item.bad == ("n01440764_18",)
    assert torch.equal(item.image, _crop(damaged_data, ENTRIES[2].name))
    assert item.label == ENTRIES[2].y


def test_data_of_damaged_images_only_is_an_error_in_skip_mode_too(damaged_data: TinyData) -> None:
    bad = [Entry("n01440764_18", 0), Entry("n01443537_21.png", 1)]
    dataset = CropDataset(bad, LARGE, _flags(damaged_data, on_bad_image="skip"), seed=0)
    with pytest.raises(BadImageError):
        dataset[(0, 0, 0)]


def test_training_log_names_every_replaced_image(damaged_data: TinyData) -> None:
    lines: list[str] = []
    flags = _flags(damaged_data, on_bad_image="skip")
    data = load_regression_data(
        flags, (LARGE, SMALL), MeanTrainFlags(batch_size=7), CPU, lines.append
    )
    low_res, high_res = next(data.batches(0))
    assert low_res.shape == (7, 3, SMALL, SMALL) and high_res.shape == (7, 3, LARGE, LARGE)
    assert any("n01440764_18" in line for line in lines)


def test_missing_image_names_its_path(tiny_data: TinyData) -> None:
    crops = TestCrops([Entry("n01440764_none", 0)], LARGE, str(tiny_data.data_dir))
    with pytest.raises(FileNotFoundError, match=r"n01440764_none\.JPEG"):
        crops[0]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 20])
def test_test_batches_yield_every_image_once_and_in_order(
    tiny_data: TinyData, batch_size: int
) -> None:
    """The documents' loader gave the first batch twice."""
    flags = TestDataFlags(data_dir=str(tiny_data.data_dir))
    batches = list(crop_batches(rank_batches(ENTRIES, batch_size), flags, LARGE))
    names = [name for batch in batches for name in batch.name]
    assert names == [entry.name for entry in ENTRIES]
    assert len(batches) == -(-len(ENTRIES) // batch_size)
    labels = torch.cat([batch.label for batch in batches])
    assert labels.tolist() == [entry.y for entry in ENTRIES]
    crops = torch.cat([batch.image for batch in batches])
    for crop, entry in zip(crops, ENTRIES, strict=True):
        assert torch.equal(crop, _crop(tiny_data, entry.name))


def test_images_that_are_still_to_do_come_in_the_batches_of_a_run_without_a_break() -> None:
    batches = rank_batches(ENTRIES, 2)
    assert [entry for batch in batches for entry in batch] == ENTRIES
    assert rank_batches(ENTRIES, 2, [ENTRIES[3]]) == [batches[1]]
    assert rank_batches(ENTRIES, 2, [ENTRIES[0], ENTRIES[3]]) == batches[:2]
    assert rank_batches(ENTRIES, 2, []) == []


def test_time_to_list_test_images_is_linear(tiny_data: TinyData) -> None:
    """100 000 names are sharded in a moment; a list look-up per image would take minutes."""
    from utils.loops.data import shard_batches

    batches = shard_batches(100_000, 7)
    assert np.array_equal(np.concatenate(batches), np.arange(100_000))


@pytest.mark.parametrize("batch_size", [1, 3, 20])
def test_skipped_test_images_are_left_out_counted_and_listed(
    damaged_data: TinyData, batch_size: int, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = TestDataFlags(data_dir=str(damaged_data.data_dir), on_bad_image="skip")
    batches = list(crop_batches(rank_batches(ENTRIES, batch_size), flags, LARGE))
    names = [name for batch in batches for name in batch.name]
    bad = {"n01440764_18", "n01443537_21.png"}
    assert names == [entry.name for entry in ENTRIES if entry.name not in bad]
    said = capsys.readouterr().out
    assert any(
        "2 damaged" in line and "n01440764_18, n01443537_21.png" in line
        for line in said.splitlines()
    )


def test_damaged_test_image_is_an_error_that_names_it(damaged_data: TinyData) -> None:
    flags = TestDataFlags(data_dir=str(damaged_data.data_dir))
    with pytest.raises(BadImageError, match=r"n01440764_18\.JPEG"):
        list(crop_batches(rank_batches(ENTRIES, 4), flags, LARGE))


def test_augmentation_of_test_images_is_refused() -> None:
    for name in ("random_crop", "random_flip", "random_turn"):
        with pytest.raises(ValueError, match="for training"):
            TestDataFlags(**{name: True})
