"""The images that a net is judged on while it trains, and the metrics of one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sr_var.data.folds import CrossFit, FoldedInput
from sr_var.data.pairs import load_regression_data, regression_pair, split_off
from sr_var.data.validation import calibration_of, load_validation, psnr_of
from sr_var.flags.scripts import DataFlags, MeanTrainFlags
from sr_var.flags.validation import ValidationFlags
from sr_var.verify.numbers.calibration import calibrate
from tests.tiny import LARGE, SMALL, TEST_NAMES, TinyData, write_info
from utils import metrics
from utils.images.crops.dataset import TestCrops
from utils.images.listing import Entry
from utils.loops.validation import Validation
from utils.process.errors import DataError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TinyData:
    folder = tmp_path_factory.mktemp("tiny")
    return TinyData.write(folder / "images", folder / "info")


def _loaded(
    data: TinyData, lines: list[str] | None = None, cross_fit: CrossFit | None = None, **flags: Any
) -> Validation | None:
    train = {"val_data_info_dict_path": str(data.test_info)}
    train |= {name: flags.pop(name) for name in list(flags) if name.startswith("val_")}
    folder = {name: str(value) for name, value in data.train_flags.items()}
    data_flags = DataFlags(**{**folder, "random_crop": True, "random_flip": True, **flags})
    sizes, log = (LARGE, SMALL), (lines if lines is not None else []).append
    return load_validation(data_flags, sizes, MeanTrainFlags(**train), CPU, log, cross_fit)


# ---- which images


def test_without_flags_there_is_none(data: TinyData) -> None:
    assert _loaded(data, val_data_info_dict_path="") is None


def test_crops_are_those_of_the_tests_whatever_the_augmentation(data: TinyData) -> None:
    lines: list[str] = []
    found = _loaded(data, lines)
    assert found is not None and len(found.names) == len(TEST_NAMES)
    assert "3 images" in lines[-1] and str(data.test_info) in lines[-1]
    pairs = dict(found.pairs())
    again = dict(found.pairs())
    for place, name in enumerate(found.names):
        crop = TestCrops([Entry(name, 0)], LARGE, str(data.data_dir))[0]
        assert crop is not None
        expected = regression_pair(crop.image[None], SMALL, CPU)
        for part, other, wanted in zip(pairs[place], again[place], expected, strict=True):
            assert torch.equal(part, wanted) and torch.equal(other, wanted)


def test_a_share_is_left_out_of_the_training_and_validated_on(data: TinyData) -> None:
    flags = {"val_data_info_dict_path": "", "val_share": 0.4, "val_images": 0}
    found = _loaded(data, **flags)
    assert found is not None
    train = MeanTrainFlags(batch_size=1, val_share=0.4)
    folder = {name: str(value) for name, value in data.train_flags.items()}
    seen = load_regression_data(DataFlags(**folder), (LARGE, SMALL), train, CPU, [].append).dataset
    names = {entry.name for entry in seen.entries}  # type: ignore[attr-defined]
    left_out = {name.removesuffix(".JPEG") for name in found.names}
    assert left_out and names and not left_out & names and len(left_out | names) == 7


def test_a_share_does_not_depend_on_the_other_images() -> None:
    entries = [Entry(f"n{i}", 0) for i in range(100)]
    kept, held = split_off(entries, ValidationFlags(val_share=0.2))
    assert [*kept, *held] != entries and sorted(map(str, [*kept, *held])) == sorted(
        map(str, entries)
    )
    assert 10 < len(held) < 32
    _, held_of_few = split_off(entries[:50], ValidationFlags(val_share=0.2))
    assert held_of_few == [entry for entry in held if entry in entries[:50]]
    assert split_off(entries, ValidationFlags()) == (entries, [])


@pytest.mark.parametrize("share", [1e-9, 0.999999])
def test_one_image_at_least_is_on_each_side(share: float) -> None:
    entries = [Entry(f"n{i}", 0) for i in range(5)]
    kept, held = split_off(entries, ValidationFlags(val_share=share))
    assert (len(kept), len(held)) == ((4, 1) if share < 0.5 else (1, 4))
    with pytest.raises(DataError, match="--val_share"):
        split_off(entries[:1], ValidationFlags(val_share=share))


def test_the_number_of_images_is_limited_by_name(data: TinyData) -> None:
    every, two = _loaded(data, val_images=0), _loaded(data, val_images=2)
    assert every is not None and two is not None
    assert list(two.names) == list(every.names)[:2]
    assert every.state != two.state


@pytest.mark.parametrize("written", ["n01440764_3", "n01440764_3.JPEG"])
def test_images_that_are_trained_on_are_refused(
    data: TinyData, tmp_path: Path, written: str
) -> None:
    from utils.untrusted.pickles import dump_pickle

    path = tmp_path / "val.pkl"
    dump_pickle({"a": {"y": 0, "file_names": [TEST_NAMES[0], written]}}, path)
    with pytest.raises(DataError, match="1 of 2 images are trained on") as caught:
        _loaded(data, val_data_info_dict_path=str(path))
    assert str(path) in str(caught.value) and "--val_share" in str(caught.value)


def test_a_missing_list_names_its_flag(data: TinyData, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--val_data_info_dict_path"):
        _loaded(data, val_data_info_dict_path=str(tmp_path / "no.pkl"))


def test_a_damaged_image_is_an_error_at_the_start(tmp_path: Path) -> None:
    own = TinyData.write(tmp_path / "images", tmp_path / "info")
    (own.data_dir / f"{TEST_NAMES[0]}.JPEG").write_bytes(b"no image")
    with pytest.raises(DataError, match=TEST_NAMES[0]):
        _loaded(own, on_bad_image="skip")


def test_small_images_follow_their_flag(data: TinyData) -> None:
    with pytest.raises(DataError, match="small"):
        load_validation(
            DataFlags(
                data_dir=str(data.data_dir),
                small_images="error",
                data_info_dict_path=str(data.train_info),
            ),
            (64, 16),
            MeanTrainFlags(val_data_info_dict_path=str(data.test_info)),
            CPU,
            [].append,
        )


def test_with_a_cross_fit_each_image_meets_the_net_of_its_fold(data: TinyData) -> None:
    folds = CrossFit(3, "image")
    found = _loaded(data, cross_fit=folds)
    assert found is not None
    for place, (net_input, _) in found.pairs():
        assert isinstance(net_input, FoldedInput)
        expected = folds.fold_of(Entry(found.names[place].removesuffix(".JPEG"), 0))
        assert net_input.fold.tolist() == [expected]
    of_mean = _loaded(data, cross_fit=CrossFit(3, "image", left_out=1))
    assert of_mean is not None
    assert all(isinstance(pair[0], torch.Tensor) for _, pair in of_mean.pairs())


@pytest.mark.parametrize(
    "flags",
    [
        {"val_share": 1.0},
        {"val_share": -0.1},
        {"val_share": float("nan")},
        {"val_images": -1, "val_share": 0.1},
        {"val_interval": -1, "val_share": 0.1},
        {"val_interval": 5},
        {"val_share": 0.1, "val_data_info_dict_path": "x.pkl"},
    ],
)
def test_flags_that_no_run_could_use_are_refused(flags: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="--val_"):
        MeanTrainFlags(**flags)


def test_flags_of_the_training_are_still_checked() -> None:
    with pytest.raises(ValueError, match="--lr"):
        MeanTrainFlags(lr=-1.0)


# ---- the metrics


def test_calibration_is_that_of_the_verification() -> None:
    rng = np.random.default_rng(0)
    label, mean = rng.uniform(-1, 1, (2, 3, 8, 8))
    variance = rng.uniform(-0.05, 0.3, (3, 8, 8))  # some below the floor
    found = calibration_of(torch.tensor((label - mean) ** 2), torch.tensor(variance))
    grey_levels = (255 * (label + 1) / 2, 255 * (mean + 1) / 2, variance * 127.5**2)
    expected, _ = calibrate(*grey_levels)
    assert expected["num_floored"] > 0
    for key in ("z2", "nll"):
        assert float(found[key]) == pytest.approx(expected[key], rel=1e-12)


def test_psnr_is_that_of_the_verification() -> None:
    rng = np.random.default_rng(1)
    label, mean = rng.uniform(-1, 1, (2, 3, 8, 8))
    found = float(psnr_of(torch.tensor(mean), torch.tensor(label)))
    assert found == pytest.approx(metrics.psnr(label, mean, data_range=2.0), rel=1e-12)


def test_the_list_may_be_in_any_order(data: TinyData, tmp_path: Path) -> None:
    """Values are compared over runs only on the same images: the order in a file is none of it."""
    other = write_info(tmp_path / "val.pkl", list(reversed(TEST_NAMES)))
    one, two = _loaded(data), _loaded(data, val_data_info_dict_path=str(other))
    assert one is not None and two is not None and one.state == two.state
