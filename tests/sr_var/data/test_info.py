"""The scan of a folder of images: names, labels, the split, damaged images, stop and go on."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import sr_var.data.info
from ddpm.info_dict import make_info
from sr_var.base_dataset import load_entries
from sr_var.data.info import write_info
from sr_var.data.split import split
from sr_var.flags.scripts import DataInfoFlags
from tests.reliability.disks import file_size_limit
from tests.tiny import CLASSES, TinyData, tree, write_photos
from utils.images.files import Decoded, open_image, read_image, resolve_image_path
from utils.images.folder import class_of, scan
from utils.process.errors import DataError, StorageError
from utils.process.stop import StopRequested

FILES = ("data_info.pkl", "train_data_info.pkl", "to_sample_data_info.pkl")
ALL_NAMES = sorted(name for _, names in CLASSES.values() for name in names)


def _flags(data_dir: Path, output_dir: Path, **changes: Any) -> DataInfoFlags:
    return DataInfoFlags(data_dir=str(data_dir), output_dir=str(output_dir), **changes)


def _write(flags: DataInfoFlags) -> list[str]:
    lines: list[str] = []
    write_info(flags, lines.append)
    return lines


def _read(folder: Path) -> list[dict[str, Any]]:
    return [pickle.loads((folder / file).read_bytes()) for file in FILES]


def _names(info: dict[str, Any]) -> list[str]:
    return sorted(name for entry in info.values() for name in entry["file_names"])


def _by_class(names: Iterable[str]) -> dict[str, str]:
    return {name: name.split("_")[0] for name in names}


def test_flat_imagenet_names_give_classes_labels_and_names_without_jpeg(
    tmp_path: Path, tiny_data: TinyData
) -> None:
    _write(_flags(tiny_data.data_dir, tmp_path, num_test_per_class=1))
    everything, train, test = _read(tmp_path)
    assert {key: entry["y"] for key, entry in everything.items()} == {
        "n01440764": 0,
        "n01443537": 1,
        "n01484850": 2,
    }
    for info in (everything, train, test):
        assert all(set(entry) == {"y", "file_names"} for entry in info.values())
        assert all(info[key]["y"] == everything[key]["y"] for key in info)
    assert _names(everything) == ALL_NAMES
    assert sorted(_names(train) + _names(test)) == ALL_NAMES
    assert [len(entry["file_names"]) for entry in test.values()] == [1, 1, 1]
    for file in FILES:
        assert (tmp_path / file).read_bytes()[:2] == b"\x80\x04"  # protocol 4


def test_written_dicts_are_what_the_scripts_read(tmp_path: Path, tiny_data: TinyData) -> None:
    _write(_flags(tiny_data.data_dir, tmp_path))
    for file, info in zip(FILES, _read(tmp_path), strict=True):
        entries = load_entries(str(tmp_path / file), str(tiny_data.data_dir))
        labels = {name: one["y"] for one in info.values() for name in one["file_names"]}
        assert labels and {entry.name: entry.y for entry in entries} == labels
        for entry in entries:
            assert open_image(resolve_image_path(tiny_data.data_dir, entry.name)).mode == "RGB"


def test_class_folders_give_classes_and_relative_names(tmp_path: Path) -> None:
    write_photos(tmp_path / "images", ["cat/a", "cat/b.png", "dog/deep/c", "dog/deep/d_1", "ant/e"])
    (tmp_path / "images" / "cat" / "notes.txt").touch()
    (tmp_path / "images" / "cat" / ".hidden.png").touch()
    names = scan(str(tmp_path / "images"), print)
    assert names == ["ant/e", "cat/a", "cat/b.png", "dog/deep/c", "dog/deep/d_1"]
    info = make_info(names, {name: class_of(name) for name in names})
    assert {key: entry["y"] for key, entry in info.items()} == {"ant": 0, "cat": 1, "deep": 2}
    assert info["cat"]["file_names"] == ["cat/a", "cat/b.png"]


def test_other_extensions_are_kept_and_every_name_finds_its_file(tmp_path: Path) -> None:
    files = ["a_1.JPEG", "a_2.jpeg", "a_3.jpg", "a_4.PNG", "a_5.webp", "a_6.bmp", "a_7.png.JPEG"]
    for file in files:
        kind = "PNG" if file.endswith("PNG") else None
        Image.new("RGB", (4, 4)).save(tmp_path / file, format=kind)
    names = scan(str(tmp_path), print)
    assert names == ["a_1", *files[1:]]
    assert [resolve_image_path(tmp_path, name) for name in names] == [
        str(tmp_path / file) for file in files
    ]


def test_linked_folders_are_entered_once(tmp_path: Path) -> None:
    write_photos(tmp_path / "real", ["x/a", "x/b"])
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "x").symlink_to(tmp_path / "real" / "x")
    (tmp_path / "real" / "x" / "loop").symlink_to(tmp_path / "images")
    assert scan(str(tmp_path / "images"), print) == ["x/a", "x/b"]
    assert scan(str(tmp_path / "images") + "/", print) == ["x/a", "x/b"]


@pytest.mark.parametrize("num", [1, 2, 3])
def test_split_takes_num_test_per_class_and_is_reproducible(tmp_path: Path, num: int) -> None:
    classes = _by_class([f"{key}_{i}" for key in "abc" for i in range(9)])
    flags = _flags(tmp_path, tmp_path, num_test_per_class=num)
    train, test = split(classes, flags)
    assert [sum(name.startswith(key) for name in test) for key in "abc"] == [num] * 3
    assert not set(train) & set(test) and sorted(train + test) == sorted(classes)
    assert split(classes, flags) == (train, test)
    other = split(classes, _flags(tmp_path, tmp_path, num_test_per_class=num, seed=1))
    assert other[1] != test


def test_choice_in_one_class_does_not_depend_on_another(tmp_path: Path) -> None:
    names = [f"{key}_{i}" for key in "ab" for i in range(9)]
    flags = _flags(tmp_path, tmp_path)
    small = split(_by_class(names), flags)[1]
    large = split(_by_class([*names, *[f"b_{i}" for i in range(9, 30)]]), flags)[1]
    assert [n for n in small if n[0] == "a"] == [n for n in large if n[0] == "a"]


def test_test_folder_is_the_test_set_and_no_class(tmp_path: Path) -> None:
    write_photos(tmp_path / "images", ["train/cat/a", "train/dog/b", "val/cat/c", "val/dog/d"])
    _write(_flags(tmp_path / "images", tmp_path, test_folder="val/"))
    _, train, test = _read(tmp_path)
    assert (_names(train), _names(test)) == (
        ["train/cat/a", "train/dog/b"],
        ["val/cat/c", "val/dog/d"],
    )
    assert train.keys() == test.keys() == {"cat", "dog"}


def test_test_folder_of_flat_names_takes_the_class_from_the_name(tmp_path: Path) -> None:
    write_photos(tmp_path / "images", ["train/cat_1", "train/dog_1", "test/cat_2"])
    _write(_flags(tmp_path / "images", tmp_path, test_folder="test"))
    assert _read(tmp_path)[0].keys() == {"cat", "dog"}


@pytest.mark.parametrize(
    "changes", [{"num_test_per_class": 0}, {"num_test_per_class": 99}, {"test_folder": "none"}]
)
def test_empty_side_of_the_split_is_an_error(
    tmp_path: Path, tiny_data: TinyData, changes: dict[str, Any]
) -> None:
    with pytest.raises(DataError, match="left for"):
        write_info(_flags(tiny_data.data_dir, tmp_path, **changes), lambda line: None)
    assert not set(FILES) & set(os.listdir(tmp_path))


def test_missing_and_empty_folders_and_nameless_classes_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a folder"):
        scan(str(tmp_path / "none"), print)
    with pytest.raises(DataError, match="no image"):
        scan(str(tmp_path), print)
    with pytest.raises(DataError, match="no class"):
        class_of("photo")


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A folder with one truncated image."""
    write_photos(tmp_path / "images", ALL_NAMES)
    path = tmp_path / "images" / "n01440764_18.JPEG"
    path.write_bytes(path.read_bytes()[:200])
    return tmp_path / "images"


def test_the_same_split_may_be_written_again(tmp_path: Path, tiny_data: TinyData) -> None:
    flags = _flags(tiny_data.data_dir, tmp_path)
    _write(flags)
    before = tree(tmp_path)
    assert sum("same list" in line for line in _write(flags)) == 3
    assert tree(tmp_path) == before
    (tmp_path / "train_data_info.pkl").unlink()  # a kill between two files
    _write(flags)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("more", "less", "num_test", "said"),
    [
        ([], 0, 2, ["3 images", " 0 would"]),
        (["d_0", "d_1"], 0, 1, ["0 images", " 2 would"]),
        ([], 1, 1, ["1 be gone"]),
        (["Z_0", "Z_1"], 0, 1, ["9 have another label"]),
    ],
)
def test_another_split_is_written_on_request_alone(
    tmp_path: Path, more: list[str], less: int, num_test: int, said: list[str]
) -> None:
    names = [f"{key}_{i}" for key in "abc" for i in range(3)]
    write_photos(tmp_path / "images", names)
    write_photos(tmp_path / "others", names[less:] + more)
    first = _flags(tmp_path / "images", tmp_path / "out", num_test_per_class=1)
    _write(first)
    before = tree(tmp_path / "out")
    other = _flags(tmp_path / "others", tmp_path / "out", num_test_per_class=num_test)
    with pytest.raises(DataError, match=".*".join([*said, "--overwrite True"])):
        write_info(other, lambda line: None)
    assert {file: tree(tmp_path / "out")[file] for file in FILES} == before
    lines = _write(replace(other, overwrite=True))
    assert any(all(part in line for part in said) for line in lines)
    assert _names(_read(tmp_path / "out")[0]) == scan(other.data_dir, print)


def test_another_seed_would_move_test_images_into_the_training(
    tmp_path: Path, tiny_data: TinyData
) -> None:
    first = _flags(tiny_data.data_dir, tmp_path)
    _write(first)
    _, train, test = _read(tmp_path)
    new_train, new_test = split(_by_class(ALL_NAMES), replace(first, seed=1))
    num = len({*_names(train)} & {*new_test}) + len({*_names(test)} & {*new_train})
    with pytest.raises(DataError, match=f"{num} images"):
        write_info(replace(first, seed=1), lambda line: None)
    assert num > 0


def test_a_kill_while_a_split_is_replaced_leaves_none_of_two_splits(
    tmp_path: Path, tiny_data: TinyData, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = _flags(tiny_data.data_dir, tmp_path)
    _write(flags)
    real, calls = sr_var.data.info.dump_pickle, list[Any]()

    def killed(value: Any, path: str) -> None:
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(value, path)

    monkeypatch.setattr(sr_var.data.info, "dump_pickle", killed)
    other = replace(flags, seed=1, overwrite=True)
    with pytest.raises(KeyboardInterrupt):
        write_info(other, lambda line: None)
    assert set(FILES) & set(os.listdir(tmp_path)) == {"data_info.pkl"}
    _write(replace(other, overwrite=False))
    assert _names(_read(tmp_path)[2]) == split(_by_class(ALL_NAMES), other)[1]


def test_a_list_that_cannot_be_read_is_not_replaced_in_silence(
    tmp_path: Path, tiny_data: TinyData
) -> None:
    (tmp_path / "train_data_info.pkl").write_bytes(b"another tool's")
    flags = _flags(tiny_data.data_dir, tmp_path)
    with pytest.raises(DataError, match=r"train_data_info\.pkl .*--overwrite True"):
        write_info(flags, lambda line: None)
    _write(replace(flags, overwrite=True))
    assert _names(_read(tmp_path)[0]) == ALL_NAMES


def test_damaged_image_is_an_error_that_names_it(tmp_path: Path, damaged: Path) -> None:
    with pytest.raises(DataError, match=r"1 images .*n01440764_18"):
        write_info(_flags(damaged, tmp_path / "out"), lambda line: None)
    assert not set(FILES) & set(os.listdir(tmp_path / "out"))


def test_damaged_image_is_left_out_and_counted_in_skip_mode(tmp_path: Path, damaged: Path) -> None:
    lines = _write(_flags(damaged, tmp_path / "out", on_bad_image="skip"))
    assert any("9 images" in line and "1 were" in line for line in lines)
    assert any("damaged" in line and "n01440764_18" in line for line in lines)
    assert all("n01440764_18" not in _names(info) for info in _read(tmp_path / "out"))


def test_mended_image_is_seen_to_be_whole(tmp_path: Path, damaged: Path) -> None:
    flags = _flags(damaged, tmp_path / "out")
    with pytest.raises(DataError):
        write_info(flags, lambda line: None)
    write_photos(damaged, ["n01440764_18"])
    _write(flags)
    assert _names(_read(tmp_path / "out")[0]) == ALL_NAMES


def test_image_damaged_since_the_last_finished_check_is_found(tmp_path: Path) -> None:
    write_photos(tmp_path / "images", ALL_NAMES)
    flags = _flags(tmp_path / "images", tmp_path / "out")
    _write(flags)
    assert sorted(os.listdir(tmp_path / "out")) == sorted(FILES)
    (tmp_path / "images" / "n01440764_18.JPEG").write_bytes(b"")
    with pytest.raises(DataError, match="n01440764_18"):
        write_info(flags, lambda line: None)


def test_unchecked_images_are_listed_as_they_are(tmp_path: Path, damaged: Path) -> None:
    _write(_flags(damaged, tmp_path / "out", check_images=False))
    assert _names(_read(tmp_path / "out")[0]) == ALL_NAMES


def test_stopped_check_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No image that was found whole is decoded again; another folder's images are."""
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / folder / "a_0.png")
        for i in range(1, 1500):
            os.link(tmp_path / folder / "a_0.png", tmp_path / folder / f"a_{i}.png")
    opened: list[str] = []
    stop_at = 300

    def counted(path: str, **flags: Any) -> Decoded:
        opened.append(path)
        if len(opened) == stop_at:
            signal.raise_signal(signal.SIGTERM)
        return read_image(path, **flags)

    monkeypatch.setattr(sr_var.data.info, "read_image", counted)
    out = tmp_path / "out"
    with pytest.raises(StopRequested, match=r"SIGTERM.*run again"):
        write_info(_flags(tmp_path / "one", out, num_threads=1), print)
    assert not set(FILES) & set(os.listdir(out))
    num_first = len(opened)
    assert stop_at <= num_first < 1500
    stop_at = -1
    _write(_flags(tmp_path / "one", out, num_threads=1))
    assert len(opened) == 1500 and len(set(opened)) == 1500
    assert len(_names(_read(out)[0])) == 1500

    stop_at = len(opened) + 300
    with pytest.raises(StopRequested):
        write_info(_flags(tmp_path / "one", out, num_threads=1), print)
    stop_at, num_before = -1, len(opened)
    _write(_flags(tmp_path / "two", out, num_threads=1))
    assert len(opened) == num_before + 1500


@pytest.mark.parametrize("change", ["file", "flag"])
def test_an_image_that_has_changed_since_a_stopped_check_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    write_photos(tmp_path / "images", ALL_NAMES)
    real, opened = read_image, list[str]()

    def stopping(path: str, **flags: Any) -> Decoded:
        opened.append(os.path.basename(path))
        if len(opened) == 1:
            signal.raise_signal(signal.SIGTERM)
        return real(path, **flags)

    monkeypatch.setattr(sr_var.data.info, "read_image", stopping)
    flags = _flags(tmp_path / "images", tmp_path / "out", num_threads=1)
    with pytest.raises(StopRequested):
        write_info(flags, lambda line: None)
    assert len(opened) == len(ALL_NAMES)
    opened[:] = [""]
    again = flags
    if change == "file":
        path = tmp_path / "images" / f"{ALL_NAMES[2]}.JPEG"
        path.write_bytes(path.read_bytes() + b"\0")
    else:
        again = replace(flags, apply_orientation=True)
    _write(again)
    assert len(opened) - 1 == (1 if change == "file" else len(ALL_NAMES))
    assert change == "flag" or opened[1] == f"{ALL_NAMES[2]}.JPEG"


@pytest.mark.parametrize("place", [0, 1])
def test_damaged_line_of_a_stopped_check_costs_that_image_another_look(
    tmp_path: Path, tiny_data: TinyData, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    opened: list[str] = []

    def counted(path: str, **flags: Any) -> Decoded:
        opened.append(os.path.basename(path))
        return read_image(path, **flags)

    monkeypatch.setattr(sr_var.data.info, "read_image", counted)
    marks = sr_var.data.info._marks(ALL_NAMES, _flags(tiny_data.data_dir, tmp_path))
    lines = [
        os.fsencode(f"{tiny_data.data_dir / name}\t{marks[name]}\t52x40") for name in ALL_NAMES
    ]
    lines[place] = lines[place][:-2] + b"\xff" + lines[place][-2:]
    (tmp_path / ".checked.txt").write_bytes(b"\n".join(lines) + b"\n/half")
    _write(_flags(tiny_data.data_dir, tmp_path))
    assert opened == [f"{ALL_NAMES[place]}.JPEG"]
    assert _names(_read(tmp_path)[0]) == ALL_NAMES


def test_dry_run_counts_and_writes_nothing(tmp_path: Path, tiny_data: TinyData) -> None:
    before = tree(tiny_data.data_dir)
    lines = _write(_flags(tiny_data.data_dir, tmp_path / "out", dry_run=True))
    assert any("3 classes" in line for line in lines)
    assert not (tmp_path / "out").exists() and tree(tiny_data.data_dir) == before


def test_disk_without_room_for_what_was_checked_is_named(
    tiny_data: TinyData, tmp_path: Path
) -> None:
    flags = DataInfoFlags(
        data_dir=str(tiny_data.data_dir), output_dir=str(tmp_path), check_images=True
    )
    with file_size_limit(100), pytest.raises(StorageError, match=r"\.checked\.txt.*MiB free"):
        write_info(flags, print)
    write_info(flags, print)
