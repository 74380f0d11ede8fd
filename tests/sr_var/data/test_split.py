"""Photographs without a class, and the ways to say which images are for testing."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import sr_var.data.info
from sr_var.data.info import write_info
from sr_var.data.split import NO_CLASS, classes, split
from sr_var.flags.scripts import DataInfoFlags
from tests.tiny import run, tree, write_photos
from utils.process.errors import DataError
from utils.untrusted.pickles import load_pickle

NAMES = [f"img{i:03d}.png" for i in range(400)]
PHOTOS = ["IMG_1.png", "IMG_2.png", "beach.png", "DSC004.png", "my holiday.png"]


def _flags(**changes: Any) -> DataInfoFlags:
    return DataInfoFlags(**{"data_dir": "photos", **changes})


def _split(names: list[str], **changes: Any) -> tuple[list[str], list[str]]:
    return split(dict.fromkeys(names, NO_CLASS), _flags(**changes))


def _write(folder: Path, **changes: Any) -> tuple[list[dict[str, Any]], list[str]]:
    lines: list[str] = []
    flags = _flags(data_dir=str(folder / "photos"), output_dir=str(folder / "out"), **changes)
    write_info(flags, lines.append)
    files = ("data_info.pkl", "train_data_info.pkl", "to_sample_data_info.pkl")
    return [pickle.loads((folder / "out" / file).read_bytes()) for file in files], lines


def _listed(info: dict[str, Any]) -> list[str]:
    return sorted(name for entry in info.values() for name in entry["file_names"])


# ---- classes ----


def test_flat_folder_of_photographs_needs_no_class(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", PHOTOS)
    (everything, train, test), said = _write(tmp_path, test_share=0.4)
    assert everything == {NO_CLASS: {"y": 0, "file_names": sorted(PHOTOS)}}
    assert sorted(_listed(train) + _listed(test)) == sorted(PHOTOS)
    assert any(line.startswith("notice: 3 of 5 file names show no class") for line in said)
    assert any(line.startswith("no classes: ") for line in said)


def test_none_asks_for_no_class_whatever_names_and_folders_show() -> None:
    said: list[str] = []
    for names in (PHOTOS, ["a/x_1", "b/y_2"], ["n01440764_1", "n01440764_2"]):
        found = classes(names, _flags(label_from="none"), said.append)
        assert found == dict.fromkeys(names, NO_CLASS)
    assert said == []


def test_names_that_all_show_a_class_have_it_as_before() -> None:
    assert classes(["cat_1", "dog_2"], _flags(), print) == {"cat_1": "cat", "dog_2": "dog"}


def test_stray_file_beside_imagenet_names_does_not_take_their_labels() -> None:
    with pytest.raises(DataError, match=r"1 of 3 .*'stray'.*--label_from none"):
        classes(["n01440764_1", "n01443537_1", "stray"], _flags(), print)


@pytest.mark.parametrize("source", ["auto", "folder"])
def test_stray_file_beside_class_folders_stays_an_error(source: str) -> None:
    with pytest.raises(
        DataError, match=r"1 of 3 images show no class \('stray'.* give --label_from none"
    ):
        classes(["cat/1", "dog/1", "stray"], _flags(label_from=source), print)


def test_test_folder_of_photographs_is_no_class_either() -> None:
    found = classes(["train/a", "test/b"], _flags(test_folder="test"), lambda line: None)
    assert set(found.values()) == {NO_CLASS}


# ---- shares ----


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_share_is_met_on_average_and_follows_the_seed(share: float) -> None:
    train, test = _split(NAMES, test_share=share)
    assert sorted(train + test) == NAMES and not set(train) & set(test)
    # four standard deviations of a binomial count
    assert abs(len(test) - share * 400) < 4 * (400 * share * (1 - share)) ** 0.5
    assert _split(NAMES, test_share=share) == (train, test)
    assert _split(NAMES, test_share=share, seed=1)[1] != test


def test_more_images_and_another_order_move_no_image_of_a_share() -> None:
    _, few = _split(NAMES[:200], test_share=0.2)
    _, many = _split(NAMES[::-1], test_share=0.2)
    assert few == [name for name in many if name in NAMES[:200]]


def test_larger_share_keeps_the_test_images_of_a_smaller_one() -> None:
    small, large = (set(_split(NAMES, test_share=share)[1]) for share in (0.1, 0.3))
    assert small < large


@pytest.mark.parametrize("share", [1e-6, 0.999999])
def test_each_side_has_an_image_however_small_the_share(share: float) -> None:
    train, test = _split(NAMES[:5], test_share=share)
    assert min(len(train), len(test)) == 1


def test_folders_stay_together_where_they_are_drawn() -> None:
    names = [f"scene{i}/{j}" for i in range(60) for j in range(4)]
    train, test = _split(names, test_share=0.3, split_by="folder")
    sides = [{name.partition("/")[0] for name in side} for side in (train, test)]
    assert not sides[0] & sides[1] and all(sides)
    assert 4 * len(sides[1]) == len(test)
    with pytest.raises(DataError, match=r"one folder.*--split_by file"):
        _split(NAMES, test_share=0.3, split_by="folder")


def test_folder_for_testing_only_has_no_training_list_and_may_be_written_again(
    tmp_path: Path,
) -> None:
    write_photos(tmp_path / "photos", PHOTOS)
    (everything, train, test), said = _write(tmp_path, test_share=1)
    assert train == {} and test == everything
    assert any("nothing is left to train on" in line for line in said)
    before = tree(tmp_path / "out")
    assert sum("same list" in line for line in _write(tmp_path, test_share=1)[1]) == 3
    assert tree(tmp_path / "out") == before


# ---- lists ----


def test_list_names_the_test_images_with_or_without_extension(tmp_path: Path) -> None:
    path = tmp_path / "test.txt"
    path.write_bytes("\ufeff# mine\r\na/x.JPEG\r\n\r\n./a/y\nz.png".encode())
    names = ["a/x", "a/y", "b/w", "z.png"]
    flags = {"split_by": "list", "test_list": str(path)}
    assert _split(names, **flags) == (["b/w"], ["a/x", "a/y", "z.png"])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"x\nnone\nnor this\n", r"2 of 3 lines .*'none', 'nor this'"),
        (b"\xff\xfe", "no text in UTF-8"),
        (b"# nothing\n", "0 for testing"),
        (None, "cannot be read"),
    ],
)
def test_list_that_cannot_be_used_is_an_error(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    path = tmp_path / "test.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=words):
        _split(["x", "y"], split_by="list", test_list=str(path))


def test_list_may_name_a_damaged_image_that_is_left_out(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", PHOTOS)
    (tmp_path / "photos" / "beach.png").write_bytes(b"x")
    (tmp_path / "test.txt").write_text("beach.png\nIMG_1.png\n")
    flags = {"split_by": "list", "test_list": str(tmp_path / "test.txt")}
    (_, train, test), _ = _write(tmp_path, on_bad_image="skip", **flags)
    assert _listed(test) == ["IMG_1.png"] and "beach.png" not in _listed(train)


# ---- flags, order of work, summary ----


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--test_share", "1.5"], "--test_share 1.5 must be from 0 to 1"),
        (["--test_share", "nan"], "--test_share nan must be from 0 to 1"),
        (["--split_by", "folder"], "--split_by folder needs a --test_share"),
        (["--split_by", "list"], "belong together"),
        (["--test_list", "x.txt"], "belong together"),
        (["--test_share", "0.2", "--test_folder", "test"], "say both what to test on"),
    ],
)
def test_flags_that_contradict_each_other_are_refused(argv: list[str], words: str) -> None:
    said = run("sr_data_info", argv)
    assert said.code == 2 and words in said.err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"label_from": "name"}, "3 of 5 images show no class"),
        ({"label_from": "none", "num_test_per_class": 0}, "0 for testing"),
        ({"split_by": "list", "test_list": "missing.txt"}, "cannot be read"),
    ],
)
def test_what_cannot_be_is_said_before_an_image_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], words: str
) -> None:
    write_photos(tmp_path / "photos", PHOTOS)

    def never(path: str, **flags: Any) -> None:
        raise AssertionError(f"{path} was decoded")

    monkeypatch.setattr(sr_var.data.info, "read_image", never)
    with pytest.raises(DataError, match=words):
        _write(tmp_path, **changes)
    assert not (tmp_path / "out").exists()


def test_another_split_is_refused_before_an_image_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_photos(tmp_path / "photos", PHOTOS)
    _write(tmp_path, test_share=0.4)
    before = tree(tmp_path / "out")
    monkeypatch.setattr(sr_var.data.info, "read_image", None)
    with pytest.raises(DataError, match="holds another split"):
        _write(tmp_path, test_share=1)
    assert tree(tmp_path / "out") == before


def test_summary_says_sizes_lists_and_how_many_images_are_small(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for i, size in enumerate([(40, 30), (200, 100), (64, 64), (70, 300)]):
        Image.new("RGB", size).save(tmp_path / "photos" / f"{i}.png")
    _, said = _write(tmp_path, large_size=64, test_share=0.5)
    told = "\n".join(said)
    assert "short sides from 30 to 100 pixels, median 64; 1 of 4 images are smaller than" in told
    for file in ("data_info.pkl", "train_data_info.pkl", "to_sample_data_info.pkl"):
        num = len(_listed(load_pickle(str(tmp_path / "out" / file))))  # type: ignore[arg-type]
        assert f"{file}: {num} images" in told


def test_summary_of_patches_counts_those_that_the_images_hold(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for i, size in enumerate([(40, 30), (200, 100), (64, 64), (70, 300)]):
        Image.new("RGB", size).save(tmp_path / "photos" / f"{i}.png")
    _, said = _write(tmp_path, large_size=64, test_share=0.5, crop="native")
    told = "\n".join(said)
    assert "4 images, median 64×64: patches of 64×64 pixels at their own resolution" in told
    assert "reduced" not in told and "1 of 4 images are smaller than" in told
    assert "8 patches of 64×64 pixels lie side by side in 3 images" in told
    assert "with --crop native, too" in told


def test_photographs_without_a_share_are_told_of_it(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", PHOTOS)
    (_, _, test), said = _write(tmp_path)
    assert len(_listed(test)) == 2
    assert any("--test_share 0.2 tests on a fifth" in line for line in said)
