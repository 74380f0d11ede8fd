"""Different names stay different as names of files, and none is too long for a file system."""

from __future__ import annotations

import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.files.storage import MAX_NAME_BYTES, flat_name, number_name, tag_name

# of few letters, so that names nearly collide
NAMES = st.text("_/a~", max_size=12) | st.text(max_size=300)


@pytest.mark.parametrize(
    ("name", "flat"),
    [
        ("n01440764_7", "n01440764_7.png"),
        ("a/b/c", "a__b__c.png"),
        ("train/cat/1.png", "train__cat__1.png.png"),
        ("é" * 120, "é" * 120 + ".png"),
    ],
)
def test_ordinary_name_only_loses_its_slashes(name: str, flat: str) -> None:
    assert flat_name(name, ".png") == flat


@pytest.mark.parametrize(
    "names",
    [
        ("a/b/c", "a__b/c", "a__b__c", "a/b__c"),
        ("a_/b", "a/_b", "a___b"),
        ("x" * 300, "x" * 301, "x" * 300 + "/"),
        ("x" * 200 + "/" + "y" * 200, "x" * 200 + "/" + "y" * 201),
    ],
)
def test_names_that_would_become_one_are_told_apart(names: tuple[str, ...]) -> None:
    flat = [flat_name(name, ".png") for name in names]
    assert len(set(flat)) == len(names)
    told_apart = [name.removesuffix(".png") for name in flat if "~" in name]
    assert told_apart and not {flat_name(name, ".png") for name in told_apart} & set(flat)


@given(one=NAMES, other=NAMES)
def test_two_names_never_become_one_and_every_one_fits(one: str, other: str) -> None:
    assert (flat_name(one) == flat_name(other)) == (one == other)
    for name in (one, other):
        flat = flat_name(name, ".png")
        assert "/" not in flat and len(os.fsencode(flat)) <= MAX_NAME_BYTES


def test_tags_that_tensorboard_makes_one_are_told_apart() -> None:
    assert tag_name("a/b-1.png") == "a/b-1.png"
    assert len({tag_name(name) for name in ("a b", "a_b", "a(b", "a\udce9b")}) == 4


@given(st.floats(0, 1), st.floats(0, 1))
def test_numbers_of_two_files_differ_like_the_numbers(one: float, other: float) -> None:
    assert (number_name(one) == number_name(other)) == (
        struct.pack("d", one) == struct.pack("d", other)
    )
    assert float(number_name(one)) == one


def test_ordinary_number_is_short() -> None:
    assert [number_name(value) for value in (0.5, 1.0, 0.05, 0.1234567)] == [
        "0.5",
        "1",
        "0.05",
        "0.1234567",
    ]
