"""Checks the zip archive of a `.pt` file before torch reads it.

torch ignores the CRCs, and reads directory and members with a library of its own. So an archive is
refused wherever that library and `zipfile` could see different members in it.
"""

from __future__ import annotations

import io
import pickle
import re
import struct
import zipfile
from dataclasses import dataclass
from types import MappingProxyType

from utils.process.errors import CheckpointError
from utils.untrusted.pickle_machine import PLAIN_TYPES, PickleMachine, UnsafePickleError, brief

# magic number, protocol, sizes of types, the object, keys of the storages
_NUM_PICKLES_BEFORE_ZIP = 5
_MAX_PICKLE_BYTES = 1 << 26
# torch looks through the text of its errors in quadratic time
_MAX_TEXT = 100
_NAMES = re.compile(r"collections\.OrderedDict|torch\.(_utils\.)?\w+")
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
    more = MappingProxyType(
        {pickle.BINPERSID: lambda m, _: m.refer()}  # type: ignore[attr-defined]
    )

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
        elif function.name == "collections.OrderedDict" and not args:
            self.push({})
        else:
            raise UnsafePickleError(f"a call of {function.name} that plain tensors do not need")

    def build(self) -> None:
        state = self.pop()
        if type(state) is not dict or type(self.top()) is not dict:
            raise UnsafePickleError(f"BUILD on {brief(self.top())}")

    def refer(self) -> None:
        """Replace the description of a storage by the storage."""
        parts = self.pop()
        is_plain = type(parts) is tuple and all(map(_is_flat, parts)) and parts[:1] == ("storage",)
        if not is_plain:
            raise UnsafePickleError(f"a storage described by {brief(parts)}")
        self.push(_Built())


def _is_flat(value: object) -> bool:
    if type(value) is tuple:  # a part of a storage, before torch 0.4
        return not any(type(item) is tuple for item in value) and all(map(_is_flat, value))
    if isinstance(value, (str, bytes)):
        return len(value) <= _MAX_TEXT
    return type(value) in PLAIN_TYPES or type(value) is _Name


_END, _END_64, _LOCATOR_64 = b"PK\5\6", b"PK\6\6", b"PK\6\7"
_END_BYTES, _END_64_BYTES, _LOCATOR_64_BYTES = 22, 56, 20
_PICKLE = "data.pkl"


def check_archive(data: bytes, path: str) -> None:
    """Check every CRC; the older, non-zip format has none.

    Raises:
        CheckpointError: empty, damaged, compressed, or not a single, plain archive.
    """
    if not data:
        raise CheckpointError(f"{path} is empty")
    if not data.startswith(b"PK"):
        return
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            problem = _problem(data, archive.infolist())
            damaged = None if problem else archive.testzip()
    except Exception as error:  # a damaged header can ask zipfile for anything
        raise CheckpointError(f"{path} is damaged ({str(error)[:200]})") from None
    if problem:
        raise CheckpointError(
            f"{path} is damaged or no checkpoint: {problem}; save it again as a plain state_dict "
            "of tensors"
        )
    if damaged is not None:
        raise CheckpointError(f"{path} is damaged (CRC of {damaged[:200]})")


def check_pickles(data: bytes, path: str) -> None:
    """Look through the pickles of a file whose archive was checked.

    Raises:
        CheckpointError: they hold more than plain tensors need.
    """
    try:
        if not data.startswith(b"PK"):
            start = 0
            for _ in range(_NUM_PICKLES_BEFORE_ZIP):
                machine = _TensorMachine(data[start : start + _MAX_PICKLE_BYTES])
                machine.run(is_last=False)
                start += machine.position
            return
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [
                name for name in archive.namelist() if name.lower().rpartition("/")[2] == _PICKLE
            ]
            for name in names:
                _TensorMachine(archive.read(name)).run()
    except UnsafePickleError as error:
        raise CheckpointError(unsafe(path, str(error))) from None
    if not names:
        raise CheckpointError(unsafe(path, f"it has no {_PICKLE}"))


def unsafe(path: str, reason: str) -> str:
    """The message for a file that is not of tensors only."""
    return (
        f"{path} is no checkpoint that can be loaded safely ({reason[:300]}); save it again as a "
        "plain state_dict of tensors"
    )


def _problem(data: bytes, members: list[zipfile.ZipInfo]) -> str:
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        # torch.save never does that, and a small file could unpack for hours
        return "its archive is compressed, as TorchScript's is"
    if not _has_one_directory(data):
        return "its directory is not where its end says"
    if sum(member.file_size for member in members) > len(data):
        return "its members overlap"
    # torch's library takes names of either case for the same
    if len({member.filename.lower() for member in members}) < len(members):
        return "it has two members of one name"
    return ""


def _has_one_directory(data: bytes) -> bool:
    """`zipfile` finds the directory by its length, torch by its offset: they must agree."""
    end = len(data) - _END_BYTES
    if data[end : end + 4] != _END:
        return False
    size, offset = struct.unpack_from("<2L", data, end + 12)
    locator = end - _LOCATOR_64_BYTES
    if data[max(locator, 0) : locator + 4] == _LOCATOR_64:
        end = locator - _END_64_BYTES
        (place,) = struct.unpack_from("<Q", data, locator + 8)
        if place != end or data[end : end + 4] != _END_64:
            return False
        size, offset = struct.unpack_from("<2Q", data, end + 40)
    return bool(offset + size == end)
