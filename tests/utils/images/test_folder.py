"""What a listing of images leaves out, tells and refuses; where labels come from."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from utils.images.folder import class_of, other_reading, scan
from utils.process.errors import DataError

NOT_UTF8 = b"caf\xe9_1.png"


def _touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def _scan(folder: Path, **rules: Any) -> tuple[list[str], str]:
    """The names, and what is said."""
    lines: list[str] = []
    return scan(str(folder), lines.append, **rules), "\n".join(lines)


@pytest.mark.parametrize(
    "folder",
    [".ipynb_checkpoints", ".thumbnails", ".Trash-1000", "__MACOSX", "@eaDir", "lost+found"],
)
def test_hidden_folder_is_no_class_and_is_told(tmp_path: Path, folder: str) -> None:
    _touch(tmp_path, "cat/1.png", f"{folder}/1.png", f"{folder}/deep/2.png", f"cat/{folder}/3.png")
    names, said = _scan(tmp_path)
    assert names == ["cat/1.png"]
    assert repr(folder) in said and repr(f"cat/{folder}") in said and "deep" not in said


def test_hidden_root_is_listed(tmp_path: Path) -> None:
    assert _scan(_touch(tmp_path / ".images", "cat/1.png"))[0] == ["cat/1.png"]


def test_hidden_images_are_counted(tmp_path: Path) -> None:
    names, said = _scan(_touch(tmp_path, "a_1.png", "._a_1.png", ".b_1.jpg", ".DS_Store"))
    assert names == ["a_1.png"] and "hidden: 2" in said and "endings" not in said


def test_files_with_other_endings_are_counted_in_one_line(tmp_path: Path) -> None:
    _touch(tmp_path, "a_1.png", "a_2.gif", "x/a_3.GIF", "a_4.tif", "a_5.jfif", "README", "b.\n")
    names, said = _scan(tmp_path)
    assert names == ["a_1.png"]
    (line,) = (line for line in said.split("\n") if "endings" in line)
    assert "6 files" in line and "(.gif 2, .jfif 1, .tif 1, no ending 2)" in line


def test_folder_of_images_only_says_nothing(tmp_path: Path) -> None:
    assert _scan(_touch(tmp_path, "a/1.png", "b/2.JPEG"))[1] == ""


def test_folder_without_images_is_told(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    _, said = _scan(_touch(tmp_path, "a/x/1.png", "b/2.gif"))
    assert "'b', 'c'" in said


def test_no_image_at_all_says_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--data_dir .*no image.*\.gif 1"):
        _scan(_touch(tmp_path, "a.gif"))


def test_folder_that_cannot_be_listed_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root, permissions do not count: the refusal is made up."""
    _touch(tmp_path, "a/1.png", "b/1.png")
    listed = os.scandir

    def refusing(path: str) -> Any:
        if os.path.basename(path) == "a":
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", refusing)
    for on_bad_image in ("error", "skip"):
        with pytest.raises(DataError, match=rf"--data_dir.*'{tmp_path}/a'"):
            _scan(tmp_path, on_bad_image=on_bad_image)


@pytest.mark.parametrize("target", ["gone", "b"])
def test_link_to_nothing_that_may_stand_for_a_class_is_an_error(
    tmp_path: Path, target: str
) -> None:
    _touch(tmp_path, "a/1.png")
    (tmp_path / "b").symlink_to(target)
    with pytest.raises(DataError, match=rf"{tmp_path}/b' .*link"):
        _scan(tmp_path)


def test_link_to_nothing_in_place_of_an_image_is_left_to_its_reader(tmp_path: Path) -> None:
    _touch(tmp_path, "a/1.png")
    (tmp_path / "a" / "2.png").symlink_to("gone")
    (tmp_path / "a" / "3.png").symlink_to("3.png")
    (tmp_path / "a" / ".#lock").symlink_to("user@host")
    assert _scan(tmp_path)[0] == ["a/1.png", "a/2.png", "a/3.png"]


def test_link_to_a_folder_that_is_listed_already_is_told(tmp_path: Path) -> None:
    _touch(tmp_path, "a/1.png")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    names, said = _scan(tmp_path)
    assert names == ["a/1.png"] and "'a/loop'" in said


def _make(path: bytes) -> None:
    try:
        with open(path, "wb"):
            pass
    except OSError:
        pytest.skip("this file system takes no such name")


@pytest.mark.skipif(sys.getfilesystemencoding() != "utf-8", reason="names are of another encoding")
@pytest.mark.parametrize(
    ("name", "problem"),
    [(NOT_UTF8, "not UTF-8"), (b"a\n_1.png", "line break"), (b"a\\_1.png", "\\")],
)
def test_name_that_cannot_be_written_down_is_an_error_or_left_out(
    tmp_path: Path, name: bytes, problem: str
) -> None:
    _touch(tmp_path, "a_1.png", "a_2.png")
    _make(os.fsencode(tmp_path) + b"/" + name)
    with pytest.raises(DataError) as caught:
        _scan(tmp_path, on_bad_image="error")
    told = str(caught.value)
    assert repr(os.fsdecode(name)) in told and problem in told
    assert "rename" in told and "--on_bad_image skip" in told
    told.encode()  # whoever prints it need not escape anything
    with pytest.raises(DataError) as caught:
        _scan(tmp_path)
    assert "--on_bad_image" not in str(caught.value)  # where there is no such flag
    names, said = _scan(tmp_path, on_bad_image="skip")
    assert names == ["a_1.png", "a_2.png"]
    assert (
        any("1 images" in line and "unfit" in line for line in said.splitlines())
        and repr(os.fsdecode(name)) in said
    )


@pytest.mark.parametrize(
    ("name", "source", "expected"),
    [
        ("a/b/c_1.png", "auto", "b"),
        ("c_1.png", "auto", "c"),
        ("a/b/c_1.png", "name", "c"),
        ("b/1.png", "folder", "b"),
    ],
)
def test_class_is_read_off_the_folder_or_the_name(name: str, source: str, expected: str) -> None:
    assert class_of(name, source) == expected
    assert class_of(f"test/{name}", source, has_split_folder=True) == expected


@pytest.mark.parametrize(
    ("name", "source"), [("1.png", "auto"), ("a/1.png", "name"), ("a_1.png", "folder")]
)
def test_name_without_a_class_is_an_error(name: str, source: str) -> None:
    with pytest.raises(DataError, match=rf"{name} .*\({source}\)"):
        class_of(name, source)


CAMERA = ["cat/IMG_1", "cat/DSC_2", "dog/IMG_3", "dog/DSC_4"]


@pytest.mark.parametrize(("source", "other"), [("name", "folder"), ("folder", "name")])
def test_two_readings_of_the_labels_are_shown_with_their_counts(source: str, other: str) -> None:
    classes = [class_of(name, source) for name in CAMERA]
    (line,) = other_reading(CAMERA, classes, source)
    assert "'IMG' 2" in line and "'cat' 2" in line and "2 classes" in line
    assert f"--label_from {other}" in line and f"--label_from {source}" in line


def test_folders_that_become_one_class_are_named() -> None:
    names = [
        f"{key}/{key}_{i}" for key in ("golden_retriever", "golden_eagle", "cat") for i in (1, 2)
    ]
    (line,) = other_reading(names, [class_of(name, "name") for name in names], "name")
    assert "'golden_eagle'" in line and "'golden_retriever'" in line and "'golden'" in line


AGREEING = [
    (["n01/n01_1", "n02/n02_1"], "name"),
    (["n01/n01_1", "n02/n02_1"], "folder"),
    (["cat_1", "dog_1"], "name"),  # no folders
    (["train/cat_1", "train/dog_1"], "name"),  # one folder says nothing
    (["cat/1", "dog/2"], "folder"),  # names say nothing
    (["cat/img_1", "dog/img_2"], "folder"),
]


@pytest.mark.parametrize(("names", "source"), AGREEING)
def test_readings_that_agree_or_say_nothing_are_not_mentioned(
    names: list[str], source: str
) -> None:
    assert other_reading(names, [class_of(name, source) for name in names], source) == []
