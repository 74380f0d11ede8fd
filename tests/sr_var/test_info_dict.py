"""Info dicts read back as what was written; other forms are refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddpm.info_dict import load_info_dict
from utils.process.errors import DataError
from utils.untrusted.pickles import dump_pickle


def test_info_dict_reads_labels_and_names_in_order(tmp_path: Path) -> None:
    names = ["n01440764/n01440764_10026", "a/b c.png", "./x.JPEG", "ünïcode"]
    content = {"tench": {"y": 0, "file_names": names}, "empty": {"y": 7, "file_names": []}}
    stored = {**content, "np": {"y": np.int64(3), "file_names": ("t",), "more": 1}}
    dump_pickle(stored, tmp_path / "data_info.pkl")
    loaded = load_info_dict(tmp_path / "data_info.pkl")
    assert loaded == {**content, "np": {"y": 3, "file_names": ["t"]}}
    assert list(loaded) == ["tench", "empty", "np"]
    assert type(loaded["np"]["y"]) is int


HOSTILE_NAMES = ["../x", "a/../../x", "..", "/etc/passwd", "C:x", "c:/x", "a\\b", "a\0b", "a\nb"]
HOSTILE_NAMES += ["", ".", "a/", "a/.", "\udc80", "//host/x", "a/..", 3, None, b"x", ["x"]]


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=ascii)
def test_name_that_could_lead_astray_is_an_error_with_file_class_and_value(
    tmp_path: Path, name: Any
) -> None:
    content = {"good": {"y": 0, "file_names": ["a"]}, "bad": {"y": 1, "file_names": ["b", name]}}
    dump_pickle(content, tmp_path / "info.pkl")
    with pytest.raises(DataError, match=r"info\.pkl.*'bad'.*file name") as caught:
        load_info_dict(tmp_path / "info.pkl")
    if isinstance(name, str):
        assert ascii(name) in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        [],
        {3: {"y": 0, "file_names": ["a"]}},
        {"c": ["a"]},
        {"c": {"y": 0}},
        {"c": {"file_names": ["a"]}},
        {"c": {"y": "0", "file_names": ["a"]}},
        {"c": {"y": True, "file_names": ["a"]}},
        {"c": {"y": -1, "file_names": ["a"]}},
        {"c": {"y": 0.0, "file_names": ["a"]}},
        {"c": {"y": 0, "file_names": "a"}},
    ],
    ids=repr,
)
def test_info_dict_of_another_form_is_an_error_that_shows_the_form(
    tmp_path: Path, content: Any
) -> None:
    dump_pickle(content, tmp_path / "info.pkl")
    with pytest.raises(DataError, match=r"info\.pkl.*expected .*file_names"):
        load_info_dict(tmp_path / "info.pkl")


@pytest.mark.parametrize("content", [{}, {"c": {"y": 0, "file_names": []}}])
def test_info_dict_without_images_is_an_error_with_a_remedy(tmp_path: Path, content: Any) -> None:
    dump_pickle(content, tmp_path / "info.pkl")
    with pytest.raises(DataError, match="no image"):
        load_info_dict(tmp_path / "info.pkl")


def test_info_dict_of_python_2_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "info.pkl"
    path.write_bytes(b"\x80\x02}U\x05tench}s.")
    with pytest.raises(ValueError, match="b'tench'"):
        load_info_dict(path)
