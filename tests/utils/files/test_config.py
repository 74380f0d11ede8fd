"""Files of flags: what is written is what is read, and a file of anybody does no harm."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.files.config import MAX_CONFIG_BYTES, config_text, read_config


def _file(folder: Path, text: str | bytes, name: str = "run.yaml") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize(
    ("written", "word"),
    [
        ("1e-4", "1e-4"),
        ("off", "off"),
        ("yes", "yes"),
        ("True", "True"),
        ("16,8", "16,8"),
        ("[16, 8]", "16,8"),
        ("\n  - 16\n  - 8", "16,8"),
        ("'a b'  # a remark", "a b"),
        ("-1,1", "-1,1"),
        ("", ""),
        ("0x10", "0x10"),
        ("2026-01-01", "2026-01-01"),
        ("*", None),
    ],
)
def test_a_value_of_yaml_is_the_text_that_was_written(
    tmp_path: Path, written: str, word: str | None
) -> None:
    path = _file(tmp_path, f"flag: {written}\n")
    if word is None:
        with pytest.raises(ValueError, match="no YAML"):
            read_config(path)
        return
    assert read_config(path).words == {"flag": word}


def test_values_of_json_are_words_of_a_command_line(tmp_path: Path) -> None:
    content = {"lr": 1e-4, "steps": 3, "flip": True, "name": "a", "mult": [1, 2.5, "x"]}
    path = _file(tmp_path, json.dumps(content), "run.JSON")
    words = {"lr": "0.0001", "steps": "3", "flip": "True", "name": "a", "mult": "1,2.5,x"}
    assert read_config(path).words == words and not read_config(path).is_record


def test_the_record_of_a_run_is_known_by_its_form(tmp_path: Path) -> None:
    content = {"flags": {"lr": 0.5}, "command": ["python", "x.py"], "device": "cpu"}
    record = read_config(_file(tmp_path, json.dumps(content), "args_x.json"))
    assert record.is_record and record.words == {"lr": "0.5"}
    assert not read_config(_file(tmp_path, "flags: 3\ncommand: go")).is_record


@pytest.mark.parametrize("text", ["", "\n", "# lr: 3\n", "---\n", "{}"])
def test_a_file_of_comments_holds_no_flags(tmp_path: Path, text: str) -> None:
    assert read_config(_file(tmp_path, text)).words == {}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.yaml", "lr"),
        ("a.yaml", "- lr: 3"),
        ("a.yaml", "lr: {a: 1}"),
        ("a.yaml", "lr: [[1]]"),
        ("a.yaml", "a: 1\n b: 2\n"),
        ("a.yaml", "[a, b]: 1"),
        ("a.yaml", "a: 1\n---\nb: 2\n"),
        ("a.yaml", b"a: \xff\xfe\x00"),
        ("a.yaml", b"a: b\x00c"),
        ("a.yaml", "lr: !!python/object/apply:os.system ['true']\n" + "x" * 3),
        ("a.yaml", "a: &a [*a]"),
        ("a.yaml", "a: " + "[" * 5000),
        ("a.yaml", "a: 1\n" * MAX_CONFIG_BYTES),
        ("a.json", ""),
        ("a.json", "null"),
        ("a.json", "[1]"),
        ("a.json", '{"lr": null}'),
        ("a.json", '{"lr": {"a": 1}}'),
        ("a.json", '{"lr": 1'),
        ("a.json", "[" * 200_000),
    ],
)
def test_what_holds_no_flags_is_refused_with_a_short_reason(
    tmp_path: Path, name: str, text: str | bytes
) -> None:
    path, started = _file(tmp_path, text, name), time.monotonic()
    with pytest.raises(ValueError) as caught:
        read_config(path)
    assert len(str(caught.value)) < 200 and "\n" not in str(caught.value)
    assert time.monotonic() - started < 10


def test_aliases_of_aliases_fill_no_memory(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 30)]
    with pytest.raises(ValueError, match="a1"):
        read_config(_file(tmp_path, "\n".join(lines)))


def test_yaml_runs_nothing(tmp_path: Path) -> None:
    there = tmp_path / "ran"
    path = f"!!python/object/apply:pathlib.Path [{there}]"
    with contextlib.suppress(ValueError):
        read_config(_file(tmp_path, f"lr: !!python/object/apply:pathlib.Path.touch [{path}]"))
    assert not there.exists()


def test_a_missing_file_is_an_error_of_the_disk(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_config(tmp_path / "none.yaml")


@given(
    st.one_of(
        st.text(max_size=40),
        st.booleans(),
        st.integers(-(1 << 63), 1 << 63),
        st.floats(allow_nan=False),
    )
)
def test_what_is_printed_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, value: Any
) -> None:
    text = config_text("x.py", {"group": [("flag", value, True), ("other", value, False)]})
    path = _file(tmp_path_factory.mktemp("text"), text.encode("utf-8", "surrogatepass"))
    (found,) = read_config(path).words.items()
    assert found[0] == "flag"
    if isinstance(value, str):
        assert found[1] == value
    elif isinstance(value, bool):
        assert found[1] == str(value).lower()
    else:
        assert type(value)(found[1]) == value
