"""Reads and writes safetensors files; nothing of a file is trusted before it is checked.

A file is the length of its header (8 bytes, little endian), the header (JSON: name → dtype, shape
and place of a tensor; `__metadata__` → strings), and the tensors' bytes, which fill the rest
without gaps. Source: the description of the format at github.com/huggingface/safetensors.

Neither a CRC nor a digest belongs to the format. Files of this toolkit keep one of the tensors'
bytes in the metadata (`TENSORS_KEY`), which is checked where it is there. Headers and arrays of
numpy are read and written without torch.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from utils.files.atomic import CHUNK_BYTES, StrPath, atomic_write, open_binary
from utils.files.records import parse_json, shown
from utils.files.storage import size_of
from utils.process.errors import CheckpointError

if TYPE_CHECKING:
    import torch

SUFFIX = ".safetensors"
METADATA = "__metadata__"
TENSORS_KEY = "tensors_sha256"
MAX_HEADER_BYTES = 1 << 24
_LENGTH_BYTES, _MAX_DIMS, _MAX_VALUES = 8, 16, 1 << 48
# dtype → (name in torch, bytes of a value)
_DTYPES = {
    "F64": ("float64", 8),
    "I64": ("int64", 8),
    "U64": ("uint64", 8),
    "F32": ("float32", 4),
    "I32": ("int32", 4),
    "U32": ("uint32", 4),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "I16": ("int16", 2),
    "U16": ("uint16", 2),
    "I8": ("int8", 1),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
    "F8_E4M3": ("float8_e4m3fn", 1),
    "F8_E5M2": ("float8_e5m2", 1),
}


@dataclass(frozen=True)
class _Entry:
    """One tensor: its dtype by the format's name, its shape, and where its bytes begin and end."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """What a file says of itself: its tensors in the order of their bytes, and the metadata."""

    entries: Mapping[str, _Entry]
    metadata: Mapping[str, str]


def is_safetensors(path: StrPath) -> bool:
    """Whether a path is that of a safetensors file, by its name."""
    return os.fspath(path).endswith(SUFFIX)


def read_metadata(path: str) -> dict[str, str]:
    """The metadata of a file, whose tensors are not looked at; errors as `read_safetensors`."""
    with _faults(path), open_binary(path) as file:
        return dict(_read_header(file, size_of(path)).metadata)


def read_safetensors(path: str) -> dict[str, torch.Tensor]:
    """Name → tensor on the CPU, dtypes as stored, of a local or remote file.

    Raises:
        CheckpointError: it is missing, cut off, damaged, or not of the format; names the reason.
    """
    import torch

    state, digest = {}, hashlib.sha256()
    with _faults(path), open_binary(path) as file:
        header = _read_header(file, size_of(path))
        for name, entry in header.entries.items():
            data = bytearray(_read_exactly(file, entry.end - entry.begin))
            digest.update(data)
            dtype = getattr(torch, _DTYPES[entry.dtype][0])
            flat = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
            state[name] = flat.reshape(entry.shape)
        if header.metadata.get(TENSORS_KEY, digest.hexdigest()) != digest.hexdigest():
            raise ValueError("the sha256 of its tensors differs from the one that it names")
    return state


def map_safetensors(path: str) -> tuple[dict[str, NDArray[Any]], Mapping[str, str]]:
    """Name → read-only array in the mapped memory of a local file, and its metadata.

    Processes that map one file share its memory. The digest of the arrays must be there, and is
    checked once, by reading past the map.

    Raises:
        CheckpointError: as `read_safetensors`; also for a dtype that numpy lacks.
    """
    with _faults(path), open_binary(path) as file:
        header = _read_header(file, size_of(path))
        begin, digest = file.tell(), hashlib.sha256()
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
        if header.metadata.get(TENSORS_KEY) != digest.hexdigest():
            raise ValueError("the sha256 of its tensors is not the one that it names")
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        found = {}
        for name, entry in header.entries.items():
            dtype = np.dtype(_DTYPES[entry.dtype][0])  # a TypeError of 8-bit floats
            count = math.prod(entry.shape)
            flat = np.frombuffer(memory, dtype, count, begin + entry.begin) if count else None
            found[name] = (np.empty(0, dtype) if flat is None else flat).reshape(entry.shape)
    return found, header.metadata


def write_safetensors(
    path: str, state: Mapping[str, torch.Tensor | NDArray[Any]], metadata: Mapping[str, str]
) -> None:
    """Write tensors or arrays and metadata atomically; the metadata gains their digest.

    Larger values come first, so that all lie at multiples of their size.

    Raises:
        CheckpointError: the format has no such dtype.
        StorageError: as `atomic_write`.
    """
    known = {name: (dtype, size) for dtype, (name, size) in _DTYPES.items()}
    described: dict[str, tuple[str, int]] = {}
    for name, value in state.items():
        dtype = str(value.dtype).removeprefix("torch.")
        if dtype not in known:
            raise CheckpointError(f"{name} is of dtype {dtype}, which {SUFFIX} files cannot hold")
        described[name] = known[dtype]
    order = sorted(state, key=lambda name: (-described[name][1], name))
    content: dict[str, Any] = {}
    digest, begin = hashlib.sha256(), 0
    for name in order:
        data = _bytes_of(state[name])
        digest.update(data)
        content[name] = {
            "dtype": described[name][0],
            "shape": list(state[name].shape),
            "data_offsets": [begin, begin + len(data)],
        }
        begin += len(data)
    told = {**metadata, TENSORS_KEY: digest.hexdigest()}
    text = json.dumps({METADATA: told, **content}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _LENGTH_BYTES)
    with atomic_write(path) as file:
        file.write(len(text).to_bytes(_LENGTH_BYTES, "little") + text)
        for name in order:
            file.write(_bytes_of(state[name]))


def _bytes_of(value: torch.Tensor | NDArray[Any]) -> memoryview:
    if isinstance(value, np.ndarray):
        return np.ascontiguousarray(value).reshape(-1).view(np.uint8).data
    import torch

    flat = value.detach().cpu().contiguous().reshape(-1)
    data: memoryview = flat.view(torch.uint8).numpy().data
    return data


class _faults:
    """Lets whatever a `with` block trips over become a CheckpointError that names the file."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, CheckpointError):
            return
        if isinstance(error, OSError):
            reason = error.strerror or error
            raise CheckpointError(f"cannot read {self._path}: {reason}") from None
        if isinstance(error, (ValueError, TypeError, OverflowError, RecursionError)):
            raise CheckpointError(
                f"{self._path} is damaged or no safetensors file ({str(error)[:300]})"
            ) from None


def _read_exactly(file: IO[bytes], num_bytes: int) -> bytes:
    data = file.read(num_bytes)
    if len(data) != num_bytes:
        raise ValueError("it ends too early")
    return data


def _read_header(file: IO[bytes], file_bytes: int) -> Header:
    """The header of an open file, checked against the file's size; ValueError if it is none."""
    length = int.from_bytes(_read_exactly(file, _LENGTH_BYTES), "little")
    if length > min(MAX_HEADER_BYTES, file_bytes - _LENGTH_BYTES):
        raise ValueError(
            f"its header would have {length} bytes; the file has {file_bytes}, and at most "
            f"{MAX_HEADER_BYTES} are read"
        )
    content = parse_json(_read_exactly(file, length), object_pairs_hook=_without_twins)
    if not isinstance(content, dict):
        raise ValueError("its header is no JSON object")
    metadata = content.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ValueError("its metadata is not of strings")
    found = {name: _entry(name, value) for name, value in content.items()}
    entries = dict(sorted(found.items(), key=lambda item: (item[1].begin, item[1].end)))
    end = 0
    for name, entry in entries.items():
        if entry.begin != end:
            raise ValueError(f"{shown(name)} does not begin where the tensor before it ends")
        end = entry.end
    if _LENGTH_BYTES + length + end != file_bytes:
        raise ValueError(
            f"by its header it has {_LENGTH_BYTES + length + end} bytes, there are {file_bytes}"
        )
    return Header(entries, metadata)


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("its header has two entries of one name")
    return content


def _entry(name: str, value: Any) -> _Entry:
    """One entry of the header, checked; ValueError says what is wrong with it."""
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{shown(name)} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise ValueError(
            f"{shown(name)} is of dtype {shown(dtype)}, known are {', '.join(_DTYPES)}"
        )
    if not _are_sizes(shape) or len(shape) > _MAX_DIMS:
        raise ValueError(f"{shown(name)} has the shape {shown(shape)}")
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"{shown(name)} lies at {shown(offsets)}")
    if math.prod(filter(None, shape)) > _MAX_VALUES:
        raise ValueError(f"{shown(name)} has the shape {shown(shape)}, too large for any memory")
    num_bytes = math.prod(shape) * _DTYPES[dtype][1]
    if offsets[1] - offsets[0] != num_bytes:
        raise ValueError(
            f"{shown(name)} has {offsets[1] - offsets[0]} bytes instead of {num_bytes}"
        )
    return _Entry(dtype, tuple(shape), offsets[0], offsets[1])


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(one) is int and 0 <= one < 1 << 63 for one in value)
