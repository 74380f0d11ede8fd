"""docs/limits.md says what the code refuses: every figure, every name, and nothing left out."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.tiny import ROOT
from utils.files.storage import problem_with_name

PAGE = (ROOT / "docs" / "limits.md").read_text(encoding="utf-8")
_UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_LIMIT = re.compile(r"_?(MAX|MOST|LARGEST|FORMATS|IMAGE_EXTENSIONS)(_[A-Z_]+)?")
# names of constants in these modules that refuse nothing
_NO_LIMITS = {
    "utils.untrusted.pickle_machine._MAX_REASON",  # of a message
    # of the search for a hint
    *(f"utils.untrusted.state_dict._MAX_{of}" for of in ("PARTS", "CHARACTERS", "DEPTH", "SHOWN")),
}
_SPOKEN = {
    "<NUL>": "\0",
    "<newline>": "\n",
    "<tab>": "\t",
    "<byte FF>": "\udcff",
    "<empty>": "",
}


def _rows(title: str) -> list[list[str]]:
    """The cells of the table below a heading, without its own head."""
    section = PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    assert len(rows) > 3, title
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def _value(text: str) -> Any:
    """What a cell of limits means: ``512 MiB``, ``2^20``, ``10 000``, or a list of words."""
    power = re.fullmatch(r"(\d+)\^(\d+)", text)
    if power:
        return int(power[1]) ** int(power[2])
    number = re.fullmatch(r"(?:at least )?([\d ]*\d)(?: (\w+))?", text)
    if number:
        return int(number[1].replace(" ", "")) * _UNITS.get(number[2] or "", 1)
    return tuple(text.split(", "))


def _module_and_name(dotted: str) -> tuple[Any, list[str]]:
    parts = dotted.split(".")
    for end in range(len(parts) - 1, 0, -1):
        try:
            return importlib.import_module(".".join(parts[:end])), parts[end:]
        except ModuleNotFoundError:
            continue
    raise AssertionError(f"no module {dotted}")


SIZES = [(row[1], row[2].strip("`"), row[3]) for row in _rows("Sizes and formats")]


@pytest.mark.parametrize(("limit", "constant", "code"), SIZES, ids=lambda cell: cell)
def test_every_limit_is_the_one_of_the_code(limit: str, constant: str, code: str) -> None:
    found, names = _module_and_name(constant)
    for name in names:
        found = getattr(found, name)
    wanted = _value(limit)
    assert (float(wanted) if isinstance(found, float) else wanted) == found
    assert set(code.split(", ")) <= {"2", "3", "4"}


def test_no_limit_of_these_modules_is_left_out() -> None:
    listed = {constant for _, constant, _ in SIZES}
    modules = {_module_and_name(constant)[0] for constant in listed}
    for module in modules:
        for name in vars(module):
            # the module's own, not what it imports
            is_own = re.search(rf"^{name}\b.* = ", _source(module), re.MULTILINE) is not None
            if _LIMIT.fullmatch(name) and is_own:
                assert f"{module.__name__}.{name}" in listed | _NO_LIMITS


def _source(module: Any) -> str:
    with open(module.__file__, encoding="utf-8") as file:
        return file.read()


def _names(column: int) -> Iterator[str]:
    for row in _rows("Names"):
        for spoken in re.findall(r"`([^`]+)`", row[column]):
            for word, letter in _SPOKEN.items():
                spoken = spoken.replace(word, letter)
            yield spoken


@pytest.mark.parametrize("name", list(_names(1)), ids=ascii)
def test_a_name_that_the_page_refuses_is_refused(name: str) -> None:
    assert problem_with_name(name) is not None


@pytest.mark.parametrize("name", list(_names(2)), ids=ascii)
def test_a_name_that_the_page_takes_is_taken(name: str) -> None:
    assert problem_with_name(name) is None


def test_what_is_refused_whatever_its_size_has_its_test() -> None:
    for row in _rows("Whatever its size"):
        assert set(row[1].split(", ")) <= {"0", "2", "3", "4"}
        assert (ROOT / row[3].strip("`")).is_file(), row[3]
