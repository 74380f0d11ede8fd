"""The page for users of other tools names flags that are there, and leaves none of theirs out."""

from __future__ import annotations

import importlib
import re
from functools import cache

import pytest

from tests.scripts.seed_commands import blocks, python_commands
from tests.tiny import ROOT

PAGE = (ROOT / "docs" / "from_other_tools.md").read_text(encoding="utf-8")
KINDS = {"same", "other name", "not needed", "missing"}
_OURS = re.compile(r"`([a-z_]+)((?: --[a-z_0-9]+(?: [A-Za-z]\w*)?)+)`")
SCRIPTS = ("image_train", "image_sample", "image_nll", "classifier_train", "ddpm_sr_train")
SCRIPTS += ("ddpm_sr_sample", "image_eval")


def _rows() -> list[tuple[str, str, str]]:
    """Theirs, what it is, ours, of every table of flags."""
    rows = []
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and len(cells) == 3 and cells[0] != "theirs":
            rows.append((cells[0], cells[1], cells[2]))
    return rows


@cache
def _flags(script: str) -> frozenset[str]:
    parser = importlib.import_module(script).create_parser()
    return frozenset(option for action in parser._actions for option in action.option_strings)


def test_every_row_says_what_a_flag_is() -> None:
    rows = _rows()
    assert len(rows) > 60
    assert {kind for _, kind, _ in rows} == KINDS
    assert all(theirs and ours for theirs, _, ours in rows)


@pytest.mark.parametrize("row", _rows(), ids=lambda row: row[0])
def test_ours_are_flags_of_the_script_that_is_named(row: tuple[str, str, str]) -> None:
    theirs, kind, ours = row
    named = {(script, flag) for script, flags in _OURS.findall(ours) for flag in flags.split()}
    named = {(script, flag) for script, flag in named if flag.startswith("--")}
    if kind in ("same", "other name") and not theirs.startswith("`OPENAI"):
        assert named
    for script, flag in named:
        assert flag in _flags(script), f"{script} has no {flag}"
    if kind == "same" and "--" in theirs:
        for flag in re.findall(r"--\w+", theirs):
            assert any(flag == own for _, own in named), f"{flag} is not among {sorted(named)}"


def test_every_script_of_ours_that_a_command_names_exists() -> None:
    for script in re.findall(r"`[^`]*?python (\w+)\.py", PAGE):
        ours = (ROOT / f"{script}.py").exists()
        assert ours or script in ("train", "generate", "evaluator")


@pytest.mark.parametrize(
    "block", [name for name in blocks() if name.startswith("image/")], ids=lambda name: name
)
def test_every_flag_of_a_documented_command_has_a_row(block: str) -> None:
    theirs = {flag for row in _rows() for flag in re.findall(r"--\w+", row[0])}
    for _, words in python_commands(blocks()[block]):
        given = {word for word in words if word.startswith("--")}
        assert given <= theirs


def _whole_commands() -> list[tuple[str, str]]:
    """Ours, that stand in full."""
    found = re.findall(r"`(?:python|torchrun --nproc_per_node \d) (\w+)\.py ([^`…]*)`", PAGE)
    return [(script, words) for script, words in found if (ROOT / f"{script}.py").exists()]


@pytest.mark.parametrize(("script", "text"), _whole_commands(), ids=lambda part: part[:30])
def test_the_parsers_take_our_commands(script: str, text: str) -> None:
    assert importlib.import_module(script).create_parser().parse_args(text.split())
