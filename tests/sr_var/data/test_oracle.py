"""The oracle as files: what is drawn is the law's, and everything can be made again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from oracle.law import block_sums, oracle_law
from sr_var.base_dataset import load_entries
from sr_var.data.oracle import (
    cut_low_res,
    label_of,
    law_of,
    plan_crops,
    split_photos,
    write_oracle,
)
from sr_var.degradation import area_downsample
from sr_var.flags.scripts import OracleDataFlags
from sr_var.results.moments import load_moments, load_truth
from tests.tiny import ROOT, run, tree, words, write_photos
from utils.images.pixels import bytes_to_image
from utils.process.errors import DataError

LARGE, SMALL, NUM_SAMPLES = 16, 4, 60


def _photos(folder: Path) -> Path:
    write_photos(folder, ["train/a_1", "train/a_2", "train/b_1.png", "test/c_1"])
    return folder


def _flags(root: Path, **changes: object) -> OracleDataFlags:
    flags = OracleDataFlags(
        data_dir=str(root / "photos"),
        output_dir=str(root / "data"),
        sample_dir=str(root / "exact"),
        log_dir=str(root / "log"),
        large_size=LARGE,
        small_size=SMALL,
        num_train_crops=5,
        num_draws=3,
        num_test_crops=2,
        num_samples=NUM_SAMPLES,
        num_threads=2,
    )
    return replace(flags, **changes)  # type: ignore[arg-type]


def _read(path: Path) -> NDArray[np.float64]:
    return np.asarray(Image.open(path).convert("RGB"), np.float64)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> OracleDataFlags:
    root = tmp_path_factory.mktemp("oracle")
    _photos(root / "photos")
    flags = _flags(root)
    write_oracle(flags, lambda line: None)
    return flags


def test_the_info_dicts_list_every_draw_and_split_by_photograph(written: OracleDataFlags) -> None:
    images = f"{written.output_dir}/images"
    train = load_entries(f"{written.output_dir}/train_data_info.pkl", images)
    test = load_entries(f"{written.output_dir}/to_sample_data_info.pkl", images)
    assert len(train) == 5 * 3 and len(test) == 2
    assert {entry.name.split("/")[1] for entry in train} == {"a", "b"}
    assert {entry.name.split("/")[1] for entry in test} == {"c"}
    for entry in [*train, *test]:
        assert Image.open(Path(images) / entry.name).size == (LARGE, LARGE)
    everything = load_entries(f"{written.output_dir}/data_info.pkl", images)
    assert {entry.name for entry in everything} == {entry.name for entry in [*train, *test]}


def test_images_to_calibrate_on_are_further_ones_of_the_test_photographs(tmp_path: Path) -> None:
    _photos(tmp_path / "photos")
    flags = _flags(tmp_path, num_calibration_crops=3)
    write_oracle(flags, lambda line: None)
    images = f"{flags.output_dir}/images"
    test, further = (
        load_entries(f"{flags.output_dir}/{name}_data_info.pkl", images)
        for name in ("to_sample", "calibration")
    )
    assert len(further) == 3 and {entry.name.split("/")[1] for entry in further} == {"c"}
    assert not {entry.name for entry in further} & {entry.name for entry in test}
    places = {_read(Path(images) / entry.name).tobytes() for entry in [*further, *test]}
    assert len(places) == 5
    assert not any((Path(flags.sample_dir) / entry.name).exists() for entry in further)
    everything = load_entries(f"{flags.output_dir}/data_info.pkl", images)
    assert {entry.name for entry in further} < {entry.name for entry in everything}


def test_area_of_a_picture_is_the_low_res_image_within_rounding(written: OracleDataFlags) -> None:
    test = load_entries(f"{written.output_dir}/to_sample_data_info.pkl", written.data_dir)
    for entry in test:
        picture = _read(Path(written.output_dir) / "images" / entry.name).astype(np.uint8)
        image = bytes_to_image(torch.from_numpy(picture.transpose(2, 0, 1).copy())[None])
        low_res = _read(Path(written.sample_dir) / entry.name / "low_res.png")
        area = (area_downsample(image, SMALL)[0].permute(1, 2, 0).numpy() + 1) * 127.5
        assert np.abs(area - low_res).max() < 0.5


def test_the_low_res_image_is_a_piece_of_the_photograph_at_half_contrast(
    written: OracleDataFlags,
) -> None:
    crop = plan_crops(split_photos(written, print)[1], written, "test")[1]
    low_res = cut_low_res(crop, written)
    photo = _read(Path(written.data_dir) / "test" / "c_1.JPEG")
    pieces = [
        np.rint(63.75 + 0.5 * photo[i : i + SMALL, j : j + SMALL])
        for i in range(photo.shape[0] - SMALL + 1)
        for j in range(photo.shape[1] - SMALL + 1)
    ]
    assert any(np.array_equal(piece, low_res) for piece in pieces)


def test_moments_on_disk_are_those_of_the_law_of_the_low_res_picture(
    written: OracleDataFlags,
) -> None:
    for entry in load_entries(f"{written.output_dir}/to_sample_data_info.pkl", written.data_dir):
        folder = Path(written.sample_dir) / entry.name
        law = law_of(_read(folder / "low_res.png").astype(np.uint8), 4)
        with np.load(folder / "exact_moments.npz") as exact:
            assert exact["mean"].shape == exact["variance"].shape == (LARGE, LARGE, 3)
            mean = (law.mean[0].permute(1, 2, 0).numpy() + 1) * 127.5
            assert np.allclose(exact["mean"], mean)
            std = law.variance.sqrt()[0].permute(1, 2, 0).numpy() * 127.5
            assert np.allclose(np.sqrt(exact["variance"]), std)
            exact_mean, exact_variance = exact["mean"], exact["variance"]
            kurtosis = exact["fourth_central_moment"] / exact_variance**2
            assert kurtosis.min() >= 1 and kurtosis.max() <= 3 + 1e-9
        drawn = load_moments(str(folder / "moments.npz"))
        assert drawn is not None and drawn.moments is not None
        assert len(drawn.indices) == NUM_SAMPLES
        z = (drawn.moments.mean - exact_mean) / np.sqrt(exact_variance / NUM_SAMPLES)
        assert 0.7 < float((z**2).mean()) < 1.3
        assert abs(float((drawn.moments.variance / exact_variance).mean()) - 1) < 0.1
        pictures = [_read(folder / "high_res_samples" / f"sample_{i}.png") for i in range(3)]
        assert not np.array_equal(pictures[0], pictures[1])


def test_a_second_run_and_a_run_on_one_thread_write_the_same_files(
    written: OracleDataFlags, tmp_path: Path
) -> None:
    before = {**tree(Path(written.output_dir)), **tree(Path(written.sample_dir))}
    write_oracle(written, lambda line: None)
    assert {**tree(Path(written.output_dir)), **tree(Path(written.sample_dir))} == before
    other = replace(
        written,
        output_dir=str(tmp_path / "data"),
        sample_dir=str(tmp_path / "exact"),
        num_threads=1,
    )
    write_oracle(other, lambda line: None)
    assert {**tree(Path(other.output_dir)), **tree(Path(other.sample_dir))} == before


def test_a_lost_picture_is_drawn_again(written: OracleDataFlags) -> None:
    before = tree(Path(written.output_dir))
    lost = sorted(Path(written.output_dir).rglob("*.png"))[3]
    lost.unlink()
    write_oracle(written, lambda line: None)
    assert tree(Path(written.output_dir)) == before


def test_another_seed_draws_other_images_and_needs_another_folder(
    written: OracleDataFlags,
) -> None:
    with pytest.raises(DataError, match="seed 1"):
        write_oracle(replace(written, seed=1), lambda line: None)


def test_a_replaced_photograph_does_not_join_the_images_of_the_old_one(tmp_path: Path) -> None:
    photos = _photos(tmp_path / "photos")
    write_oracle(_flags(tmp_path), lambda line: None)
    before = tree(tmp_path / "data")
    path = photos / "train" / "a_2.JPEG"
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    more = _flags(tmp_path, num_train_crops=6)
    with pytest.raises(DataError, match=r"train/a_2 .*--output_dir"):
        write_oracle(more, lambda line: None)
    assert tree(tmp_path / "data") == before
    write_photos(photos, ["train/a_1", "train/a_2"])  # the old ones
    write_oracle(more, lambda line: None)


@pytest.mark.parametrize("file", ["data_info.pkl", "to_sample_data_info.pkl"])
def test_lists_of_another_data_set_are_not_replaced(tmp_path: Path, file: str) -> None:
    _photos(tmp_path / "photos")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / file).write_bytes(b"a list")
    with pytest.raises(DataError, match=rf"{file} .*another data set"):
        write_oracle(_flags(tmp_path), lambda line: None)
    assert tree(tmp_path / "data") == {file: b"a list"} and not (tmp_path / "exact").exists()


def test_every_tenth_photograph_is_for_testing_without_a_test_folder(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", [f"a_{i:02d}" for i in range(12)])
    train, test = split_photos(_flags(tmp_path, test_folder=""), print)
    assert test == ["a_00", "a_10"] and len(train) == 10


@pytest.mark.parametrize("train_folder", ["train", "train/"])
def test_a_train_folder_leaves_out_the_photographs_beside_it(
    tmp_path: Path, train_folder: str
) -> None:
    write_photos(_photos(tmp_path / "photos"), ["calibration/d_1", "training/e_1"])
    assert len(split_photos(_flags(tmp_path), print)[0]) == 5
    flags = _flags(tmp_path, train_folder=train_folder)
    write_oracle(flags, lambda line: None)
    everything = load_entries(f"{flags.output_dir}/data_info.pkl", f"{flags.output_dir}/images")
    photos = {entry.name.rpartition("/")[2].split("_0")[0] for entry in everything}
    assert photos == {"a_1", "a_2", "b_1", "c_1"}
    with pytest.raises(DataError, match="--train_folder ''"):
        write_oracle(_flags(tmp_path), lambda line: None)


def test_a_train_folder_without_test_folder_keeps_every_tenth_apart(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", [f"some/a_{i:02d}" for i in range(12)])
    write_photos(tmp_path / "photos", ["other/b_1"])
    train, test = split_photos(_flags(tmp_path, test_folder="", train_folder="some"), print)
    assert test == ["other/b_1", "some/a_09"]
    assert len(train) == 11 and all(name.startswith("some/") for name in train)


@pytest.mark.parametrize("folder", ["trai", "photos/train", "test/c"])
def test_a_train_folder_that_is_not_there_is_a_data_error_that_names_it(
    tmp_path: Path, folder: str
) -> None:
    _photos(tmp_path / "photos")
    with pytest.raises(DataError, match=rf"--train_folder {folder} of --data_dir .*photos "):
        write_oracle(_flags(tmp_path, train_folder=folder), lambda line: None)
    assert not (tmp_path / "data").exists()


def test_bad_photographs_are_named(tmp_path: Path) -> None:
    photos = _photos(tmp_path / "photos")
    Image.new("RGB", (3, 40)).save(photos / "train" / "tiny_1.png")
    with pytest.raises(DataError, match=r"tiny_1\.png .*3×40.*--small_size 4"):
        write_oracle(_flags(tmp_path), lambda line: None)
    (photos / "train" / "tiny_1.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"tiny_1\.png"):
        write_oracle(_flags(tmp_path), lambda line: None)
    lines: list[str] = []
    write_oracle(_flags(tmp_path, on_bad_image="skip"), lines.append)
    assert any("left out" in line and "tiny_1.png" in line for line in lines)
    names = [e.name for e in load_entries(str(tmp_path / "data" / "data_info.pkl"), str(tmp_path))]
    assert names and not any("tiny" in name for name in names)


def test_a_split_without_test_photographs_is_refused(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", ["train/a_1"])
    with pytest.raises(DataError, match="test_folder 'test'"):
        write_oracle(_flags(tmp_path), lambda line: None)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"num_draws": 0}, "--num_draws 0"),
        ({"num_samples": 1}, "--num_samples 1"),
        ({"train_folder": "test"}, "--train_folder test is --test_folder too"),
        ({"train_folder": "a/", "test_folder": "/a"}, "--train_folder a/ is --test_folder too"),
        ({"large_size": 30, "small_size": 8}, "--large_size 30"),
        ({"large_size": 8, "small_size": 8}, "--large_size 8"),
    ],
)
def test_flags_that_make_no_data_set_are_usage_errors(
    changes: dict[str, object], part: str
) -> None:
    outcome = run("oracle_data", words(changes))
    assert outcome.code == 2 and part in outcome.err


def test_a_dry_run_of_the_script_writes_nothing(tmp_path: Path) -> None:
    flags = {"data_dir": ROOT / "data" / "demo", "output_dir": tmp_path / "data", "dry_run": True}
    outcome = run("oracle_data", words(flags, sample_dir=tmp_path / "s", log_dir=tmp_path / "l"))
    assert outcome.code == 0 and "grey levels" in outcome.out
    assert list(tmp_path.iterdir()) == []


def test_photographs_are_turned_on_request_into_folders_of_their_own(tmp_path: Path) -> None:
    _photos(tmp_path / "photos")
    path = tmp_path / "photos" / "test" / "c_1.JPEG"
    tag = Image.Exif()
    tag[0x0112] = 6
    with Image.open(path) as stored:
        stored.save(path, exif=tag)
    lines: list[str] = []
    flags = _flags(tmp_path)
    write_oracle(flags, lines.append)
    assert any("1 of 4 images" in line and "EXIF" in line for line in lines)
    turned = replace(flags, apply_orientation=True)
    with pytest.raises(DataError, match="--apply_orientation"):
        write_oracle(turned, lines.append)
    crop = plan_crops(["test/c_1"], flags, "test")[0]
    assert not np.array_equal(cut_low_res(crop, flags), cut_low_res(crop, turned))


@pytest.fixture(scope="module")
def of_classes(tmp_path_factory: pytest.TempPathFactory) -> OracleDataFlags:
    root = tmp_path_factory.mktemp("classes")
    _photos(root / "photos")
    flags = _flags(root, num_classes=3, num_train_crops=20, num_test_crops=6)
    write_oracle(flags, lambda line: None)
    return flags


def test_images_of_the_class_law_have_labels_and_are_drawn_from_their_own_law(
    of_classes: OracleDataFlags,
) -> None:
    images = f"{of_classes.output_dir}/images"
    lists = [f"{of_classes.output_dir}/{name}_data_info.pkl" for name in ("train", "to_sample")]
    entries = [entry for path in lists for entry in load_entries(path, images)]
    counts = [sum(entry.y == y for entry in entries) for y in range(3)]
    assert sum(counts) == 20 * 3 + 6 and min(counts) > 10  # binomial: 22 ± 3.8
    assert all(
        entry.group == f"class_{entry.y}" == f"class_{label_of(entry.name, of_classes)}"
        for entry in entries
    )
    # edges up or down: the class with the larger p has more of them up
    ups = []
    for entry in entries:
        image = bytes_to_image(
            torch.from_numpy(
                np.asarray(Image.open(f"{images}/{entry.name}")).transpose(2, 0, 1).copy()
            )
        ).double()[None]
        law = oracle_law(area_downsample(image, SMALL), LARGE // SMALL)
        polarity = block_sums(((image - law.base) * law.edge).sum(dim=1, keepdim=True), 4)
        p = law.probability
        ups.append((entry.y, float((polarity.gt(0).double() - p).mean() / p.minimum(1 - p).mean())))
    means = [np.mean([up for y, up in ups if y == label]) for label in range(3)]
    assert means[0] < -0.4 < means[1] < 0.4 < means[2]  # exactly ∓0.8 and 0 of min(p, 1 − p)


def test_both_folders_of_the_class_law_hold_their_own_moments(
    of_classes: OracleDataFlags,
) -> None:
    info = f"{of_classes.output_dir}/to_sample_data_info.pkl"
    folders = (of_classes.sample_dir, f"{of_classes.sample_dir}_given_class")
    for entry in load_entries(info, f"{of_classes.output_dir}/images"):
        low_res = _read(Path(folders[0], entry.name, "low_res.png")).astype(np.uint8)
        law = law_of(low_res, LARGE // SMALL)
        for folder, own in zip(folders, (law, law.given_class(entry.y, 3)), strict=True):
            truth = load_truth(f"{folder}/{entry.name}", LARGE)
            assert truth is not None
            exact = own.variance[0].numpy().transpose(1, 2, 0) * 127.5**2
            np.testing.assert_allclose(truth.variance, exact, rtol=1e-12)
            stored = load_moments(f"{folder}/{entry.name}/moments.npz")
            assert stored is not None and stored.moments is not None
            z = (stored.moments.mean - truth.mean) / np.sqrt(truth.variance / NUM_SAMPLES)
            assert np.abs(z).max() < 5.5  # of 768 values
    records = [json.loads(Path(one, ".sampling.json").read_text("utf-8")) for one in folders]
    assert [record["class_cond"] for record in records] == [False, True]


def test_the_class_law_needs_folders_of_its_own(of_classes: OracleDataFlags) -> None:
    for changes in ({"num_classes": 0}, {"num_classes": 2}):
        with pytest.raises(DataError, match="num_classes"):
            write_oracle(replace(of_classes, **changes), lambda line: None)
    with pytest.raises(DataError, match="class_cond"):
        swapped = {"sample_dir": of_classes.given_class_dir, "class_sample_dir": "elsewhere"}
        write_oracle(replace(of_classes, **swapped), lambda line: None)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_classes": 1},
        {"class_sample_dir": "x"},
        {"num_classes": 2, "sample_dir": "x", "class_sample_dir": "x/"},
    ],
)
def test_flags_that_make_no_class_law_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"--num_classes|--class_sample_dir"):
        OracleDataFlags(**changes)  # type: ignore[arg-type]
