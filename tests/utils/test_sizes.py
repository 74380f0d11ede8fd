"""Sizes: what a flag's text means, how it is stored, and which factors there are."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from utils.files.records import stored_value
from utils.process.errors import CheckpointError
from utils.script_util import FlagParser, flag, flags_of, from_args, make_parser
from utils.sizes import Size, require_sizes, require_whole_factor


@dataclass(frozen=True)
class Flags:
    """Two sizes."""

    large_size: int | str = flag(256, "high-res", is_size=True)
    small_size: int | str = flag(64, "low-res", is_size=True)

    def __post_init__(self) -> None:
        require_sizes(self, "large_size", "small_size")
        require_whole_factor(self)


def _parser() -> FlagParser:
    return make_parser(None, sizes=Flags)


@pytest.mark.parametrize(
    ("text", "stored"),
    [("64", 64), ("1e2", 100), ("64x64", 64), ("96x64", "96x64"), (" 96 × 064 ", "96x64")],
)
def test_flag_is_a_number_for_squares_and_a_text_for_others(text: str, stored: Any) -> None:
    found = _parser().parse_args(["--large_size", text]).large_size
    assert found == stored and type(found) is type(stored)
    assert Size.of(found).stored == found == json.loads(json.dumps(found))


def test_height_comes_first() -> None:
    size = Size.of("96x64")
    assert (size.height, size.width) == (96, 64) == size == Size.of((96, 64))
    assert (size.short_side, str(size), size.plain) == (64, "96x64", (96, 64))
    assert (Size.of(64).plain, str(Size.of(64)), Size.of(64)) == (64, "64", (64, 64))


@pytest.mark.parametrize(
    "text", ["96x", "x64", "0x64", "96x0", "64x96x3", "96x-64", "axb", "9.5x4", "2000000x4", "big"]
)
def test_no_size_is_refused_with_flag_value_and_remedy(
    capsys: pytest.CaptureFixture[str], text: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        _parser().parse_args([f"--large_size={text}"])
    told = capsys.readouterr().err.splitlines()[-1]
    assert "--large_size" in told and repr(text) in told
    assert "96x64" in told or "at least 1 pixel" in told


@pytest.mark.parametrize("value", [0, -4, "0x64", "64x96x3"])
def test_dataclass_refuses_it_too(value: int | str) -> None:
    with pytest.raises(ValueError, match=f"--small_size .*{value}"):
        Flags(small_size=value)


@pytest.mark.parametrize(
    ("large", "small", "factor"),
    [(64, 16, 4), ("32x16", "8x4", 4), ("96x64", "96x64", 1), ("32x16", "16x8", 2)],
)
def test_factor_is_that_of_both_sides(large: Any, small: Any, factor: int) -> None:
    assert Size.of(large).factor_over(small) == factor
    assert require_whole_factor(Flags(large, small)) == factor


@pytest.mark.parametrize(
    ("large", "small", "remedy"),
    [
        ("32x16", 8, "--large_size 32"),  # 4 in height, 2 in width
        ("32x16", "16x4", "--large_size 32x8"),
        ("32x16", "4x8", "--large_size 32x64"),
        ("33x16", "8x4", "--large_size 32x16"),
        (16, 32, "--large_size 32"),
    ],
)
def test_other_factors_name_both_flags_and_a_size_that_would_do(
    capsys: pytest.CaptureFixture[str], large: Any, small: Any, remedy: str
) -> None:
    words = [f"--large_size={large}", f"--small_size={small}"]
    with pytest.raises(SystemExit, match="2"):
        from_args(Flags, _parser().parse_args(words))
    told = capsys.readouterr().err
    assert f"--large_size {large}" in told and f"--small_size {small}" in told and remedy in told
    would = told.split("--large_size ")[-1].strip()
    assert Size.of(would if "x" in would else int(would)).factor_over(small)


@pytest.mark.parametrize("value", [64, "96x64"])
def test_stored_size_is_taken_from_a_checkpoint(value: Any) -> None:
    assert stored_value(flags_of(Flags)[0], value, "manifest") == value


@pytest.mark.parametrize("value", ["64x64", "96x", "096x64", "0x4", True, 4.0, [96, 64], "64"])
def test_other_values_of_a_checkpoint_are_refused(value: Any) -> None:
    with pytest.raises(CheckpointError, match="--large_size"):
        stored_value(flags_of(Flags)[0], value, "manifest")
