"""Looks through the pickle of a ``.pt`` file before torch reads it; builds nothing.

``torch.load`` with ``weights_only=True`` runs no code, but does any amount of work: a kilobyte of
tuples within tuples as a key of a dict, or in the text of an error, keeps it busy for years, and a
call of ``bytearray``, ``set`` or ``_codecs.encode`` makes gigabytes. So a file may say here only
what tensors, numbers and texts in dicts, lists and tuples need.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from utils.untrusted.pickle_arrays import PLAIN_TYPES, UnsafePickleError, brief
from utils.untrusted.pickle_machine import PickleMachine
from utils.untrusted.pickle_opcodes import Operation, run_pickle

# magic number, protocol, sizes of types, the object, keys of the storages
_NUM_PICKLES_BEFORE_ZIP = 5
_MAX_PICKLE_BYTES = 1 << 26
# torch looks through the text of its errors in quadratic time
_MAX_TEXT = 100
_NAMES = re.compile(r"collections\.OrderedDict|torch\.(_utils\.)?\w+")
_ORDERED_DICT = "collections.OrderedDict"
_REBUILD = frozenset(
    f"torch._utils._rebuild_{what}" for what in ("tensor", "tensor_v2", "tensor_v3", "parameter")
)


@dataclass(frozen=True, eq=False)
class _Name:
    """Something the file mentions by name: a type of storage, a dtype, a function."""

    name: str


@dataclass(frozen=True, eq=False)
class _Built:
    """A storage or a tensor."""


class _TensorMachine(PickleMachine):
    max_long_bytes = 10  # the magic number of files before zip

    def push_symbol(self, module: object, name: object) -> None:
        full = f"{module}.{name}" if type(module) is str and type(name) is str else ""
        if len(full) > _MAX_TEXT or not _NAMES.fullmatch(full):
            raise UnsafePickleError(
                f"it names {brief(full or module)}, which plain tensors do not need"
            )
        self.push(_Name(full))

    def reduce(self) -> None:
        args, function = self.pop(), self.pop()
        if type(function) is not _Name or type(args) is not tuple:
            raise UnsafePickleError(f"a call of {brief(function)} with {brief(args)}")
        if function.name in _REBUILD:
            self.push(_Built())
        elif function.name == _ORDERED_DICT and not args:
            self.push({})
        else:
            raise UnsafePickleError(f"a call of {function.name} that plain tensors do not need")

    def build(self) -> None:
        state = self.pop()
        if type(state) is not dict or type(self.top()) is not dict:
            raise UnsafePickleError(f"BUILD on {brief(self.top())}")

    def refer(self) -> None:
        """Replaces the description of a storage by the storage."""
        parts = self.pop()
        is_plain = type(parts) is tuple and all(map(_is_flat, parts)) and parts[:1] == ("storage",)
        if not is_plain:
            raise UnsafePickleError(f"a storage described by {brief(parts)}")
        self.push(_Built())


class _FirstMachine(_TensorMachine):
    """Reads a pickle that others follow."""

    def expect_end(self) -> None:
        pass


_STORAGES: Mapping[int, Operation] = MappingProxyType(
    {pickle.BINPERSID[0]: lambda machine: machine.refer()}  # type: ignore[attr-defined]
)


def check_tensor_pickle(data: bytes) -> None:
    """Refuses a pickle that does more than tensors need.

    Raises:
        UnsafePickleError: says what, and where.
    """
    run_pickle(_TensorMachine(data), _STORAGES)


def check_older_file(data: bytes) -> None:
    """The same for the pickles at the beginning of a file from before torch used zip archives.

    Raises:
        UnsafePickleError: as :func:`check_tensor_pickle`.
    """
    start = 0
    for _ in range(_NUM_PICKLES_BEFORE_ZIP):
        machine = _FirstMachine(data[start : start + _MAX_PICKLE_BYTES])
        run_pickle(machine, _STORAGES)
        start += machine.position


def _is_flat(value: object) -> bool:
    if type(value) is tuple:  # a part of a storage, before torch 0.4
        return not any(type(item) is tuple for item in value) and all(map(_is_flat, value))
    if isinstance(value, (str, bytes)):
        return len(value) <= _MAX_TEXT
    return type(value) in PLAIN_TYPES or type(value) is _Name
