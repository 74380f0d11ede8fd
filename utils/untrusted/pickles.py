"""Pickle files from anybody's hands, read without being able to execute anything.

Not for checkpoints (`torch.load` with `weights_only=True` reads those). `load_pickle` yields plain
values (dict, list, tuple, str, bytes, int, float, bool, None), numpy arrays and numpy scalars, or
raises `UnsafePickleError`. What else a file must hold belongs to the task that reads it.

How a pickle is kept from doing harm is told in `utils.untrusted.pickle_machine`.
"""

from __future__ import annotations

import os
import pickle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utils.files.atomic import StrPath, read_up_to, write_bytes_atomic
from utils.process.errors import DataError
from utils.untrusted.pickle_machine import (
    PLAIN_TYPES,
    PickleMachine,
    UnsafePickleError,
    short_repr,
)

MAX_DEPTH = 32
MAX_ITEMS = 10_000_000


MAX_BYTES = 1 << 28
WRITE_PROTOCOL = 4

_REMEDY = (
    "Only plain Python values and numpy arrays of numbers are read, whole and in protocol 0 to 5. "
    "If the file is damaged, get it again; if you trust its maker, let them save it anew as dicts, "
    "lists and numeric arrays"
)


def load_pickle(path: StrPath, *, max_bytes: int = MAX_BYTES) -> Any:
    """Read a pickle of plain values and numeric arrays, local or remote, protocols 0 to 5.

    Arrays come in native byte order, writable, with their shape and memory order; byte arrays and
    the strings of Python 2 (protocols 1 and 2) come as `bytes`.

    A file of more than `max_bytes` is refused before it is read.

    Raises:
        FileNotFoundError: nothing is there.
        UnsafePickleError: the file is too large, damaged, or holds anything else; names the file,
            what offends and where, and the remedy.
    """
    return loads_pickle(read_pickle(path, max_bytes=max_bytes), name=os.fspath(path))


def read_pickle(path: StrPath, *, max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes of a pickle, for `loads_pickle`; an UnsafePickleError of a larger file."""
    data = read_up_to(path, max_bytes + 1)
    if len(data) > max_bytes:
        raise UnsafePickleError(
            f"{os.fspath(path)}: larger than {max_bytes} bytes; split it or pass a larger max_bytes"
        )
    return data


def loads_pickle(data: bytes, *, name: str = "pickle") -> Any:
    """What the bytes of a whole pickle, called `name` in errors, describe; see `load_pickle`."""
    try:
        value = PickleMachine(data).run()
        _extent(value, 0, {})
    except UnsafePickleError as error:
        raise UnsafePickleError(f"{name}: refused: {error}. {_REMEDY}") from None
    return value


def _extent(value: Any, depth: int, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """Return the number of items of a value, shared ones counted each time, and its height.

    `depth` is that of the value in the whole, `known` are the extents of containers by identity.

    Raises:
        UnsafePickleError: a constructor or an unfinished array stands where a value should; nested
            too deeply, in particular a container within itself; or too many items.
    """
    kind = type(value)
    if kind in PLAIN_TYPES or isinstance(value, (np.ndarray, np.generic)):
        return 1, 0
    if kind not in (list, tuple, dict):
        raise UnsafePickleError(f"{short_repr(value)} stands where a value should")
    if depth > MAX_DEPTH:
        raise UnsafePickleError(f"nested more than {MAX_DEPTH} levels deep, or within itself")
    if id(value) not in known:
        size, height = 1 + len(value), 1
        for child in value.values() if kind is dict else value:
            if type(child) in PLAIN_TYPES:
                continue
            items, levels = _extent(child, depth + 1, known)
            size, height = size + items, max(height, 1 + levels)
            if size > MAX_ITEMS:
                raise UnsafePickleError(
                    f"more than {MAX_ITEMS} items, shared ones counted each time"
                )
        known[id(value)] = size, height
    size, height = known[id(value)]
    if depth + height > MAX_DEPTH:
        raise UnsafePickleError(f"nested more than {MAX_DEPTH} levels deep")
    return size, height


def dump_pickle(value: Any, path: StrPath) -> None:
    """Replace `path` by a pickle of `value` (protocol 4), complete or not at all.

    Raises:
        UnsafePickleError: `load_pickle` would not read it back; nothing is written.
        StorageError: see `atomic_write`.
    """
    data = pickle.dumps(value, protocol=WRITE_PROTOCOL)
    loads_pickle(data, name=f"value for {os.fspath(path)}")
    write_bytes_atomic(path, data)


def load_array(path: StrPath, shape: tuple[int, ...] | None = None) -> NDArray[Any]:
    """Read a pickle that holds one array of finite numbers, of this shape if one is given.

    Raises:
        UnsafePickleError: see `load_pickle`.
        DataError: not an array, another shape, booleans, or values that are not finite.
    """
    array = load_pickle(path)
    if not isinstance(array, np.ndarray):
        raise DataError(f"{os.fspath(path)}: holds {short_repr(array)} where an array should be")
    if shape is not None and array.shape != shape:
        raise DataError(
            f"{os.fspath(path)}: array of shape {array.shape}, expected {shape}; was it made with "
            "another image size?"
        )
    if array.dtype.kind not in "iuf" or not np.isfinite(array).all():
        raise DataError(
            f"{os.fspath(path)}: array of dtype {array.dtype} that is not made of finite numbers; "
            "make it again"
        )
    return array
