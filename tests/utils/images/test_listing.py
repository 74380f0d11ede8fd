"""Lists of images are the images; selections share their arrays, and another index is refused."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from utils.files.records import list_digest
from utils.images.listing import Entry, ImageList, Texts, index_of, is_listing, packed
from utils.untrusted.index import Index

ENTRIES = [
    Entry(f"n{i % 7}/größe_{i}" if i % 3 else f"n{i % 7}/{i}.png", i % 7, f"n{i % 7}")
    for i in range(9001)
]


def _index(names: Sequence[str], label: int = 3, group: str = "g") -> Index:
    arrays, words = index_of([(label, group, names)])
    return Index(arrays, words)


def test_list_holds_its_images_in_order() -> None:
    images = ImageList.of(ENTRIES)
    assert images == ENTRIES and images == ENTRIES and len(images) == len(ENTRIES)
    assert [entry.group for entry in images] == [entry.group for entry in ENTRIES]
    assert images[-1] == ENTRIES[-1] and images[4097] == ENTRIES[4097]
    assert images.names == [entry.name for entry in ENTRIES]
    assert images.labels.tolist() == [entry.y for entry in ENTRIES]
    assert ImageList.of(images) is images
    assert images != ENTRIES[:-1] and images[:2] != [ENTRIES[0], ENTRIES[2]]


@pytest.mark.parametrize("part", [slice(5, 60, 7), slice(None, None, -1), slice(0, 0)])
def test_slices_and_selections_are_those_of_a_python_list(part: slice) -> None:
    images = ImageList.of(ENTRIES)
    assert images[part] == ENTRIES[part] and images[part][1:9:2] == ENTRIES[part][1:9:2]
    assert images[part].labels.tolist() == [entry.y for entry in ENTRIES[part]]
    kept = images[part].keep(lambda name: name.endswith(".png"))
    assert kept == [entry for entry in ENTRIES[part] if entry.name.endswith(".png")]
    assert kept.names[::2] == [entry.name for entry in [*kept][::2]]
    assert images.take([7, 3, 7]) == [ENTRIES[7], ENTRIES[3], ENTRIES[7]]
    assert images.take(range(3, 9, 2)) == ENTRIES[3:9:2]


def test_first_and_last_of_classes_are_in_the_order_of_the_list() -> None:
    listed = [Entry("a", 1, "x"), Entry("b", 0, "y"), Entry("c", 1, "x"), Entry("d", 1, "z")]
    images = ImageList.of(listed)
    assert images.first_of_classes() == [listed[0], listed[1], listed[3]]
    assert images.last_of_classes() == [listed[1], listed[2], listed[3]]
    assert images[:0].first_of_classes() == []


def test_digest_is_that_of_names_and_labels_in_order() -> None:
    plain = [(entry.name, entry.y) for entry in ENTRIES]
    assert ImageList.of(ENTRIES).digest() == list_digest(plain)
    images = ImageList(_index([entry.name for entry in ENTRIES]))
    assert images.digest() == list_digest((entry.name, 3) for entry in ENTRIES)
    assert images[1:].digest() == list_digest((entry.name, 3) for entry in ENTRIES[1:])


def test_key_of_names_tells_selections_apart() -> None:
    names = ImageList.of(ENTRIES).names
    keys = {names.key, names[1:].key, ImageList.of(ENTRIES).take([1, 2]).names.key}
    assert len(keys) == 3 and names.key == ImageList.of(ENTRIES).names.key


def test_pickled_list_is_the_list() -> None:
    images = ImageList.of(ENTRIES)[3:700:3]
    again, names = pickle.loads(pickle.dumps((images, images.names)))
    assert again == images and names == images.names


@pytest.mark.parametrize("names", [["a/b", "c.d"], ["ü/é", "xx:y"], ["x" * 300, "日本"]])
def test_index_of_fit_names_is_one(names: list[str]) -> None:
    index = _index(names)
    assert is_listing(index) and ImageList(index) == [Entry(name, 3) for name in names]


@pytest.mark.parametrize(
    "name",
    ["../x", "a/..", "/etc", "C:x", "a\\b", "a\nb", "a\x7fb", "", ".", "a/", "a/.", "\udc80"],
)
@pytest.mark.parametrize("others", [[], ["fit"], ["größe"]])
def test_index_with_a_name_that_leads_astray_is_none(name: str, others: list[str]) -> None:
    assert not is_listing(_index([*others, name, *others]))


def _broken(name: str, value: Any) -> Index:
    index = _index(["ab", "cd", "é"])
    return Index({**index.arrays, name: np.asarray(value)}, index.words)


@pytest.mark.parametrize(
    "index",
    [
        _broken("ends", np.array([2, 1, 6])),
        _broken("ends", np.array([2, 4, 9])),
        _broken("ends", np.array([-2, 4, 6])),
        _broken("ends", np.array([2, 5, 6])),  # within a letter
        _broken("ends", np.array([2, 4, 6], np.int32)),
        _broken("codes", np.array([0, 1, 0], np.int32)),
        _broken("codes", np.array([0, -1, 0], np.int32)),
        _broken("codes", np.array([0, 0], np.int32)),
        _broken("labels", np.array([-1])),
        _broken("labels", np.zeros((1, 1), np.int64)),
        _broken("group_ends", np.array([7])),
        _broken("groups", np.array([0xFF], np.uint8)),
        _broken("more", np.array([0])),
        Index(_index(["ab"]).arrays, {}),
        _index([]),
    ],
)
def test_index_whose_parts_do_not_fit_is_none(index: Index) -> None:
    assert not is_listing(index)


def test_packed_texts_are_the_texts() -> None:
    texts = ["", "a", "\udcff", "日本語", ""]
    text, ends = packed(texts)
    assert Texts(Index({"names": text, "ends": ends}, {})) == texts
    assert [*Texts(Index({"names": text, "ends": ends}, {}))] == texts
