"""What a list of images finds in a crop cache, as arrays that later runs of this list map.

The lines of the cache's own index are the truth; what is kept of them here is named by their
sha256 and by the list, and is made again when either is another one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from utils.files.atomic import sha256_of
from utils.images.folder import Stamp
from utils.images.listing import Texts
from utils.untrusted.index import Index, find_index, kept_index
from utils.untrusted.safe_tensors import SUFFIX

# smaller indexes are read in a moment
INDEXED_BYTES = 1 << 20
# images of a list that are compared with their files at the start, spread over it
NUM_COMPARED = 1024
_FORMAT, _NUM_ROWS, _STAMPS = 1, "num_rows", "stamps"
_KINDS = MappingProxyType({"rows": "i8", "crcs": "u4", _STAMPS: "i8", "facts": "u1"})
StampsOf: TypeAlias = Callable[[Sequence[str]], NDArray[np.int64]]


class Record(NamedTuple):
    """A line of a crop cache's index, behind the image's name.

    Attributes:
        row: of the crop; -1: the image is damaged.
        crc: CRC-32 of the crop's bytes.
        stamp: of the image's file.
        facts: what the file says (`ImageFacts`).
    """

    row: int
    crc: int
    stamp: Stamp
    facts: str


class CachedRecords:
    """The records of a list of images, by their places in it.

    Attributes:
        rows, crcs: (n,).
        num_rows: crops in the data file that count.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        self.rows: NDArray[np.int64] = index.arrays["rows"]
        self.crcs: NDArray[np.uint32] = index.arrays["crcs"]
        self.num_rows = int(index.words[_NUM_ROWS])

    def __reduce__(self) -> tuple[Any, ...]:
        return CachedRecords, (self._index,)

    def stamp(self, place: int) -> Stamp:
        """That of a record."""
        size, changed = self._index.arrays[_STAMPS][place].tolist()
        return size, changed

    def are_unchanged(self, names: Texts, stamps_of: StampsOf) -> bool:
        """Whether some images and all damaged ones are what they were; `stamps_of` asks for them.

        So data that were unpacked again are found at the start, and a damaged image that was mended
        gets its crop. All others are compared by who reads them.
        """
        some = range(0, len(names), max(1, len(names) // NUM_COMPARED))
        damaged = np.flatnonzero(self.rows < 0).tolist()
        return all(
            np.array_equal(
                self._index.arrays[_STAMPS][places], stamps_of([*map(names.__getitem__, places)])
            )
            for places in (some, damaged)
        )

    def facts(self, place: int) -> str:
        """Those of a record."""
        line: bytes = self._index.arrays["facts"][place].tobytes()
        return line.rstrip(b"\0").decode()


def find_records(
    folder: str, index_file: str, names: Texts, stamps_of: StampsOf, *, takes_damaged: bool
) -> CachedRecords | None:
    """What an earlier run of the list has kept, unless an image is seen to be another one.

    None as well of other lines, and where damaged images, which are not taken, are to be tried
    again. `stamps_of` gives those of some images' files; see `CachedRecords.are_unchanged`.
    """
    if not _is_large(index_file):
        return None
    index = find_index([_place(folder, names)], _key(sha256_of(index_file), names))
    if index is None or not is_of_records(index, len(names)):
        return None
    records = CachedRecords(index)
    is_usable = takes_damaged or bool((records.rows >= 0).all())
    return records if is_usable and records.are_unchanged(names, stamps_of) else None


def keep_records(
    folder: str,
    index_file: str,
    digest: str,
    names: Texts,
    num_rows: int,
    record_of: Callable[[str], Record],
) -> CachedRecords:
    """The records of a list, kept for its later runs where the index is large.

    `digest` is the sha256 of the lines that `record_of` has read.
    """

    def make() -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
        return arrays_of([record_of(name) for name in names]), {_NUM_ROWS: str(num_rows)}

    if not _is_large(index_file):
        return CachedRecords(Index(*make()))
    places, key = [_place(folder, names)], _key(digest, names)
    fits = partial(is_of_records, num=len(names))
    return CachedRecords(kept_index(places, key, make, fits))


def _is_large(path: str) -> bool:
    return os.path.exists(path) and os.path.getsize(path) >= INDEXED_BYTES


def _key(digest: str, names: Texts) -> str:
    return f"crop index {digest} of {names.key}, format {_FORMAT}"


def _place(folder: str, names: Texts) -> str:
    return os.path.join(folder, "lists", f"{names.key[:16]}{SUFFIX}")


def arrays_of(records: Sequence[Record]) -> dict[str, NDArray[Any]]:
    """What is kept of the records of a list."""
    num, facts = len(records), np.array([record.facts for record in records], np.bytes_)
    return {
        "rows": np.fromiter((record.row for record in records), np.int64, num),
        "crcs": np.fromiter((record.crc for record in records), np.uint32, num),
        _STAMPS: np.array([record.stamp for record in records], np.int64).reshape(num, 2),
        "facts": facts.view(np.uint8).reshape(num, -1),
    }


def is_of_records(index: Index, num: int) -> bool:
    """Whether an index of anybody is one of so many records."""
    arrays = index.arrays
    if arrays.keys() != _KINDS.keys() or not index.words.get(_NUM_ROWS, "").isdecimal():
        return False
    if any(len(arrays[name]) != num or arrays[name].dtype != _KINDS[name] for name in _KINDS):
        return False
    shapes = [arrays[name].shape[1:] for name in ("rows", "crcs", _STAMPS)]
    rows, num_rows = arrays["rows"], int(index.words[_NUM_ROWS])
    is_shaped = shapes == [(), (), (2,)] and arrays["facts"].ndim == 2
    return is_shaped and bool((rows >= -1).all() and (rows < num_rows).all())
