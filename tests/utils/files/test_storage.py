"""Folders that cannot be made: the error says what is in the way, and what to do."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from utils.files.storage import make_folder
from utils.process.errors import StorageError


def test_folder_is_made_with_those_above_it_and_may_be_there_already(tmp_path: Path) -> None:
    for _ in range(2):
        make_folder(str(tmp_path / "a" / "b"))
    assert (tmp_path / "a" / "b").is_dir()


def _message(folder: str, flag: str = "--log_dir") -> str:
    with pytest.raises(StorageError) as caught:
        make_folder(folder, flag)
    return str(caught.value)


def test_file_in_the_way_is_named(tmp_path: Path) -> None:
    file, below = tmp_path / "file", tmp_path / "file" / "a" / "b"
    file.touch()
    assert _message(str(file)).startswith(f"--log_dir {file} is a file")
    assert _message(str(file), "").startswith(f"{file} is a file")
    message = _message(str(below))
    assert message.startswith(f"--log_dir {below} ") and f" {file} is a file" in message


def test_link_to_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "none")
    assert f"{tmp_path}/link is a link" in _message(f"{tmp_path}/link")


def test_place_where_no_folder_can_be_is_named() -> None:
    assert "--log_dir /proc/none/a" in _message("/proc/none/a")


def test_link_to_a_folder_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    make_folder(str(tmp_path / "link" / "a"))
    assert (tmp_path / "there" / "a").is_dir()


def test_full_disk_is_named_where_a_folder_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, **options: bool) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    monkeypatch.setattr(os, "makedirs", refuse)
    with pytest.raises(StorageError, match=rf"{tmp_path}/a/b.*free in {tmp_path}"):
        make_folder(str(tmp_path / "a" / "b"))
