"""Lists of images of any length: a few arrays, out of which an image is made when it is asked for.

A list of a million strings takes 0.3 GB, and a forked process that counts its references copies it
page by page. Here all names are one text; what is selected of a list is places in it.
"""

from __future__ import annotations

import codecs
import functools
import hashlib
import itertools
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from utils.files.atomic import JsonObject
from utils.files.records import list_digest
from utils.files.storage import problem_with_name
from utils.untrusted.index import Index

T = TypeVar("T")
_CODEC = "utf-8", "surrogatepass"
_AT_ONCE = 4096
_BYTES_AT_ONCE = 1 << 20
_DIGEST = "digest"
NAMES, GROUPS = "names", "groups"
_ENDS = MappingProxyType({NAMES: "ends", GROUPS: "group_ends"})
# bytes that only few names have: DEL, backslash, colon; at the end of a name slash and dot
_SUSPECT, _NO_END = [0x7F, *b"\\:"], [*b"/."]
# where a text of names may be read, those of an ImageList or some of them
Places: TypeAlias = "range | NDArray[np.int64]"


@dataclass(frozen=True)
class Entry:
    """One image.

    Attributes:
        name: relative to `data_dir`; also its output folder.
        y: its label.
        group: name of its class.
    """

    name: str
    y: int
    group: str = field(default="", compare=False)


def packed(texts: Iterable[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Strings as one text and the places in it where each ends, (bytes,) and (n,)."""
    whole, lengths = bytearray(), []
    for text in texts:
        data = text.encode(*_CODEC)
        whole += data
        lengths.append(len(data))
    return np.frombuffer(whole, np.uint8), np.cumsum(lengths, dtype=np.int64)


class LazySequence(Sequence[T]):
    """Items that are made when they are asked for; equal to a list of equal ones."""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, (str, bytes)):
            return NotImplemented
        return len(self) == len(other) and all(map(operator.eq, self, other))

    def __repr__(self) -> str:
        return f"{type(self).__name__} of {len(self)}"


class Texts(LazySequence[str]):
    """Strings that `packed` has put into an index as `which`; all of them, or those at places."""

    def __init__(self, index: Index, which: str = NAMES, places: Places | None = None) -> None:
        self._index, self._which = index, which
        self._text: NDArray[np.uint8] = index.arrays[which]
        self._ends: NDArray[np.int64] = index.arrays[_ENDS[which]]
        self._places = range(len(self._ends)) if places is None else places

    def __reduce__(self) -> tuple[Any, ...]:
        return Texts, (self._index, self._which, self._places)

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Texts: ...
    def __getitem__(self, index: int | slice) -> str | Texts:
        if isinstance(index, slice):
            return Texts(self._index, self._which, self._places[index])
        place = int(self._places[index])
        begin = int(self._ends[place - 1]) if place else 0
        return self._text[begin : int(self._ends[place])].tobytes().decode(*_CODEC)

    @functools.cached_property
    def key(self) -> str:
        """A name of this text and of these places in it, in hexadecimal."""
        places = self._places
        parts = self._text, self._ends, np.asarray(places if isinstance(places, np.ndarray) else [])
        digest = hashlib.sha256(repr(places).encode() if isinstance(places, range) else b"")
        for part in parts:
            digest.update(np.ascontiguousarray(part).data)
        return digest.hexdigest()

    def __iter__(self) -> Iterator[str]:
        view = memoryview(self._text)  # type: ignore[arg-type]
        for start in range(0, len(self), _AT_ONCE):
            places = np.asarray(self._places[start : start + _AT_ONCE], np.int64)
            begins = np.where(places > 0, self._ends[places - 1], 0).tolist()
            for begin, end in zip(begins, self._ends[places].tolist(), strict=True):
                yield str(view[begin:end], *_CODEC)


class ImageList(LazySequence[Entry]):
    """Images in order, each an `Entry` when it is asked for.

    A slice, and what `take` and `keep` return, are lists that share its arrays. A process that
    receives one whose index is a file maps that.
    """

    def __init__(self, index: Index, places: Places | None = None) -> None:
        self._index = index
        self._places = range(self._num_in_all) if places is None else places
        self._names = Texts(index, NAMES, self._places)
        labels = index.arrays["labels"].tolist()
        self._classes = [*zip(labels, Texts(index, GROUPS), strict=True)]  # by code

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> ImageList:
        """The list of some images; one that is a list already as it is."""
        if isinstance(entries, ImageList):
            return entries
        codes: dict[tuple[int, str], int] = {}
        kept: list[int] = []

        def names() -> Iterator[str]:
            for entry in entries:
                kept.append(codes.setdefault((entry.y, entry.group), len(codes)))
                yield entry.name

        arrays = _arrays(names(), kept, codes)
        return cls(Index(arrays, {}))

    @classmethod
    def labelled(
        cls, names: Iterable[str], groups: Iterable[str], labels: Mapping[str, int]
    ) -> ImageList:
        """Images of these classes, whose labels are those of their names."""
        numbers = {group: code for code, group in enumerate(labels)}
        codes = [numbers[group] for group in groups]
        return cls(Index(_arrays(names, codes, ((y, group) for group, y in labels.items())), {}))

    def __reduce__(self) -> tuple[Any, ...]:
        return ImageList, (self._index, self._places)

    def _at(self, places: Places) -> ImageList:
        other = object.__new__(ImageList)
        other._index, other._classes, other._places = self._index, self._classes, places
        other._names = Texts(self._index, NAMES, places)
        return other

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> ImageList: ...
    def __getitem__(self, index: int | slice) -> Entry | ImageList:
        if isinstance(index, slice):
            return self._at(self._places[index])
        y, group = self._classes[self._index.arrays["codes"][self._places[index]]]
        return Entry(self._names[index], y, group)

    def __iter__(self) -> Iterator[Entry]:
        for name, code in zip(self._names, self._codes.tolist(), strict=True):
            yield Entry(name, *self._classes[code])

    @property
    def names(self) -> Texts:
        """Their names."""
        return self._names

    @property
    def labels(self) -> NDArray[np.int64]:
        """Their labels, (n,)."""
        return np.array([y for y, _ in self._classes], np.int64)[self._codes]

    @property
    def _codes(self) -> NDArray[np.int32]:
        """Which of the classes each is of, (n,)."""
        codes: NDArray[np.int32] = self._index.arrays["codes"]
        if isinstance(self._places, range):
            step = slice(self._places.start, self._places.stop, self._places.step)
            return (
                codes[step] if self._places.step > 0 else codes[np.asarray(self._places, np.int64)]
            )
        return codes[self._places]

    @property
    def _num_in_all(self) -> int:
        return len(self._index.arrays["ends"])

    def first_of_classes(self) -> list[Entry]:
        """The first image of each class that has one, in their order."""
        _, first = np.unique(self._codes, return_index=True)
        return [self[place] for place in np.sort(first).tolist()]

    def last_of_classes(self) -> list[Entry]:
        """The last image of each class that has one, in their order."""
        return self[::-1].first_of_classes()[::-1]

    def take(self, indices: Sequence[int] | NDArray[np.integer[Any]]) -> ImageList:
        """Those at some indices of this list, in that order."""
        if isinstance(indices, range) and indices.step > 0:
            return self[indices.start : indices.stop : indices.step]
        return self._at(np.asarray(self._places, np.int64)[np.asarray(indices, np.int64)])

    def keep(self, is_kept: Callable[[str], bool]) -> ImageList:
        """Those whose name is wanted, in their order."""
        flags = np.fromiter(map(is_kept, self._names), np.bool_, len(self))
        return self if flags.all() else self.take(np.flatnonzero(flags))

    def digest(self) -> JsonObject:
        """What tells these names and labels from others, as `list_digest`."""
        stored = self._index.words.get(_DIGEST)
        is_whole = isinstance(self._places, range) and self._places == range(self._num_in_all)
        if stored and is_whole:
            return {"digest": stored, "num_images": len(self)}
        return list_digest(zip(self._names, self.labels.tolist(), strict=True))


def _arrays(
    names: Iterable[str], codes: Sequence[int] | NDArray[Any], classes: Iterable[tuple[int, str]]
) -> dict[str, NDArray[Any]]:
    """What an `ImageList` reads; `names` are taken first."""
    text, ends = packed(names)
    known = [*classes]
    groups, group_ends = packed(group for _, group in known)
    return {
        "names": text,
        "ends": ends,
        "codes": np.array(codes, np.int32),
        "labels": np.array([y for y, _ in known], np.int64),
        "groups": groups,
        "group_ends": group_ends,
    }


def index_of(
    classes: Iterable[tuple[int, str, Sequence[str]]],
) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Arrays and words of an `Index`: of (label, class, names) one after another."""
    known = [*classes]
    codes = np.repeat(np.arange(len(known)), [len(names) for _, _, names in known])
    names = itertools.chain.from_iterable(names for _, _, names in known)
    arrays = _arrays(names, codes, ((y, group) for y, group, _ in known))
    digest = list_digest((name, y) for y, _, names in known for name in names)["digest"]
    return arrays, {_DIGEST: digest}


def is_listing(index: Index) -> bool:
    """Whether an index of anybody is one of images: its parts fit, and no name leads astray."""
    arrays = index.arrays
    kinds = {"names": "u1", "ends": "i8", "codes": "i4", "labels": "i8"}
    kinds |= {"groups": "u1", "group_ends": "i8"}
    if arrays.keys() != kinds.keys() or not index.words.get(_DIGEST):
        return False
    if any(arrays[name].dtype != kind or arrays[name].ndim != 1 for name, kind in kinds.items()):
        return False
    codes, labels, num = arrays["codes"], arrays["labels"], len(arrays["ends"])
    return (
        0 < num == len(codes)
        and len(labels) == len(arrays["group_ends"]) > 0
        and bool(codes.min() >= 0 and codes.max() < len(labels) and labels.min() >= 0)
        and _are_ends(arrays["ends"], len(arrays["names"]))
        and _are_ends(arrays["group_ends"], len(arrays["groups"]))
        and _is_text(Texts(index, GROUPS))
        and _are_fit(Texts(index), arrays["names"], arrays["ends"])
    )


def _are_ends(ends: NDArray[np.int64], num_bytes: int) -> bool:
    return bool(ends[0] >= 0 and ends[-1] == num_bytes and (ends[1:] >= ends[:-1]).all())


def _is_text(texts: Iterable[str]) -> bool:
    try:
        return all(text.encode() is not None for text in texts)
    except UnicodeError:
        return False


def _are_fit(names: Texts, text: NDArray[np.uint8], ends: NDArray[np.int64]) -> bool:
    """Whether all names are; one by one where any has what few have."""
    if _are_plain(text, ends):
        return True
    try:
        return all(problem_with_name(name) is None for name in names)
    except UnicodeError:
        return False


def _are_plain(text: NDArray[np.uint8], ends: NDArray[np.int64]) -> bool:
    """Whether no name has any letter, or place of one, that could be a problem; quick."""
    begins = np.concatenate([[0], ends[:-1]])
    if (begins == ends).any():
        return False
    firsts, lasts = text[begins], text[ends - 1]
    # a name that begins within a letter; one that is absolute, or names no file
    if (firsts & 0xC0 == 0x80).any() or (firsts == ord("/")).any() or np.isin(lasts, _NO_END).any():
        return False
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(text), _BYTES_AT_ONCE):
        part = text[start : start + _BYTES_AT_ONCE + 1]  # a letter more, for pairs of dots
        dots = part == ord(".")
        if (part < 0x20).any() or np.isin(part, _SUSPECT).any() or (dots[1:] & dots[:-1]).any():
            return False
        try:
            if not part.tobytes().isascii() or decoder.getstate()[0]:
                decoder.decode(part[:_BYTES_AT_ONCE].tobytes())
        except UnicodeDecodeError:
            return False
    return not decoder.getstate()[0]
