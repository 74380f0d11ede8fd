"""Reads state_dicts that anybody may have written, and checks them before a value is copied.

`torch.load` runs with `weights_only=True` and never falls back. It ignores the CRCs of the zip
archive, and reads directory and members with a library of its own: CRCs are checked first, what
the pickles do as well, and an archive is refused wherever that library and `zipfile` could see
different members in it. Which set of files belongs together is the business of `checkpoint`.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import shlex
import struct
import zipfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch

from utils.files.atomic import open_binary
from utils.process.errors import CheckpointError
from utils.untrusted.pickle_machine import (
    PLAIN_TYPES,
    PickleMachine,
    UnsafePickleError,
    short_repr,
)
from utils.untrusted.safe_tensors import is_safetensors, read_safetensors

# names of foreign files are anybody's: no deeper search than real wrappers ask for
_MAX_PARTS = 6
_MAX_CHARACTERS = 200
_MAX_DEPTH = 3
_MAX_SHOWN = 4
_COMPUTATIONS = MappingProxyType({".onnx": "an ONNX model", ".pt2": "a program of torch.export"})
_WRAPPERS = MappingProxyType(
    {
        "module.": "DistributedDataParallel or DataParallel",
        "_orig_mod.": "torch.compile",
        "_forward_module.": "Lightning Fabric",
        "_fsdp_wrapped_module.": "FullyShardedDataParallel",
        "model.": "a module that holds the network, as of Lightning",
    }
)


def wrapper_prefix(names: Collection[str], own: Collection[str]) -> str:
    """What stands before every name of a file, and keeps the network's own from being found.

    A prefix such as `module.` or `module._orig_mod.`; empty if there is none, if not all names have
    it, or if the file has names of the network (all or some are `own`) as they are.
    """
    if any(name in own for name in names):
        return ""
    prefixes = _prefixes(names, own)
    prefix = prefixes.most_common(1)[0][0] if prefixes else ""
    return prefix if all(name.startswith(prefix) for name in names) else ""


def without_prefix(
    state: Mapping[str, torch.Tensor], own: Collection[str]
) -> Mapping[str, torch.Tensor]:
    """The state_dict without its `wrapper_prefix`."""
    prefix = wrapper_prefix(state, own)
    return {name[len(prefix) :]: value for name, value in state.items()} if prefix else state


def describe_prefix(prefix: str) -> str:
    """The prefix and whose it is: `'module.' (DistributedDataParallel or DataParallel)`."""
    makers = [maker for part, maker in _WRAPPERS.items() if part in prefix]
    return f"{prefix!r}" + (f" ({', '.join(makers)})" if makers else "")


def explain_partial_prefix(path: str, names: Collection[str], own: Collection[str]) -> str:
    """How to get the network out of a file that holds it under a prefix, beside other tensors.

    Empty if no prefix leads to all names of the network.
    """
    found = _prefixes(names, own).most_common(_MAX_SHOWN)
    complete = [prefix for prefix, count in found if count == len(own)]
    if not complete or wrapper_prefix(names, own):
        return ""
    shown = " and ".join(f"{prefix!r}" for prefix in complete)
    prefix = json.dumps(complete[0])
    kept = f"{{k[{len(complete[0])}:]: v for k, v in s.items() if k.startswith({prefix})}}"
    return (
        f"all names of the network are there behind {shown}, beside other tensors; take it out: "
        f"{_one_line(path, '', kept)}"
    )


def explain_nesting(path: str, content: Any) -> str:
    """What a file that is no state_dict holds, and how to get a state_dict out of it.

    Empty if no state_dict is found inside.
    """
    if not isinstance(content, Mapping):
        return ""
    if {"state", "param_groups"} <= content.keys():
        return "it is the state of an optimizer: name the file of the network"
    found = sorted(_state_dicts(content, set()), key=lambda item: -item[1])
    if not found:
        others = [str(key) for key, value in content.items() if not _is_entry(key, value)]
        if len(others) == len(content):
            return ""
        kept = "{k: v for k, v in s.items() if torch.is_tensor(v)}"
        shown = ", ".join(map(repr, others[:_MAX_SHOWN]))
        return (
            f"beside tensors it holds {shown[:200]}; leave those out: {_one_line(path, '', kept)}"
        )
    places = ["".join(f"[{json.dumps(key)}]" for key in keys) for keys, _ in found]
    counts = zip(places, found[:_MAX_SHOWN], strict=False)
    shown = ", ".join(f"{place} ({count} tensors)" for place, (_, count) in counts)
    return f"it holds one under {shown}; take it out: {_one_line(path, places[0], 's')}"


def _one_line(path: str, place: str, kept: str) -> str:
    """A command that writes a part of a file to one of its own."""
    load = f'torch.load({json.dumps(path)}, map_location="cpu", weights_only=True){place}'
    if is_safetensors(path):
        load = f"__import__('safetensors.torch').torch.load_file({json.dumps(path)})"
    program = f'import torch; s = {load}; torch.save({kept}, "model000000.pt")'
    return f"python -c {shlex.quote(program)}"


def _prefixes(names: Collection[str], own: Collection[str]) -> Counter[str]:
    """Prefix → how many names of the file are one of the network's behind it."""
    found: Counter[str] = Counter()
    for name in names:
        start = 0
        for _ in range(_MAX_PARTS):
            start = name.find(".", start) + 1
            if not 0 < start <= _MAX_CHARACTERS:
                break
            if name[start:] in own:
                found[name[:start]] += 1
    return found


def _is_entry(key: object, value: object) -> bool:
    return isinstance(key, str) and isinstance(value, torch.Tensor)


def _state_dicts(
    content: Mapping[Any, Any], seen: set[int], keys: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], int]]:
    """(keys that lead there, number of tensors) of every dict of names to tensors inside."""
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Mapping) or id(value) in seen:
            continue
        seen.add(id(value))
        place = (*keys, key[:_MAX_CHARACTERS])
        if value and all(map(_is_entry, value, value.values())):
            yield place, len(value)
        elif len(place) < _MAX_DEPTH:
            yield from _state_dicts(value, seen, place)


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
                f"it names {short_repr(full or module)}, which plain tensors do not need"
            )
        self.push(_Name(full))

    def reduce(self) -> None:
        args, function = self.pop(), self.pop()
        if type(function) is not _Name or type(args) is not tuple:
            raise UnsafePickleError(f"a call of {short_repr(function)} with {short_repr(args)}")
        if function.name in _REBUILD:
            self.push(_Built())
        elif function.name == "collections.OrderedDict" and not args:
            self.push({})
        else:
            raise UnsafePickleError(f"a call of {function.name} that plain tensors do not need")

    def build(self) -> None:
        state = self.pop()
        if type(state) is not dict or type(self.top()) is not dict:
            raise UnsafePickleError(f"BUILD on {short_repr(self.top())}")

    def refer(self) -> None:
        """Replace the description of a storage by the storage."""
        parts = self.pop()
        is_plain = type(parts) is tuple and all(map(_is_flat, parts)) and parts[:1] == ("storage",)
        if not is_plain:
            raise UnsafePickleError(f"a storage described by {short_repr(parts)}")
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


_MANY = 6

Log = Callable[[str], None]


def refuse_computation(path: str) -> None:
    """Raise CheckpointError for a file, by its name, that holds what a network computes."""
    kind = _COMPUTATIONS.get(os.path.splitext(path)[1].lower())
    if kind:
        raise CheckpointError(
            f"{path} is {kind}: it holds what a network computes, not the network; name the .pt or "
            ".safetensors file that it was made of"
        )


def check_zip(path: str) -> None:
    """Check every CRC of a `.pt` archive; the older, non-zip format has none to check."""
    check_archive(_read_bytes(path), path)


def read_torch_file(path: str) -> Any:
    """Load a `.pt` file of tensors and plain values on the CPU; nothing in it is executed.

    Raises:
        CheckpointError: if it is missing, damaged, or holds anything else.
    """
    if os.environ.get("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "") not in ("", "0"):
        raise CheckpointError(
            "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is set: it would let checkpoints run code; unset it"
        )
    data = _read_bytes(path)
    check_archive(data, path)
    check_pickles(data, path)
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever torch's reader trips over, it is the file that is bad
        raise CheckpointError(unsafe(path, str(error).strip().split("\n")[0])) from None
    if not all(map(_is_plain, _tensors_in(content))):
        raise CheckpointError(
            f"{path} holds a tensor that is not a plain one (sparse, quantized, without values, or "
            "larger than what is stored of it); save it again as a plain state_dict of tensors"
        )
    return content


def read_state_dict(path: str) -> dict[str, torch.Tensor]:
    """Read a state_dict, whoever wrote it, from a `.pt` or a `.safetensors` file.

    Returns:
        name → tensor on the CPU, dtypes as stored.

    Raises:
        CheckpointError: if it is missing, damaged, or holds anything else.
    """
    refuse_computation(path)
    state = read_safetensors(path) if is_safetensors(path) else read_torch_file(path)
    if not isinstance(state, Mapping) or not all(map(_is_entry, state, state.values())):
        what_else = explain_nesting(path, state)
        what = f"{path} is not a state_dict (a mapping of names to tensors)"
        raise CheckpointError(f"{what}: {what_else}" if what_else else what)
    return dict(state)


def load_state_dict(model: torch.nn.Module, path: str, log: Log = print) -> dict[str, torch.Tensor]:
    """`check_state_dict` of a file; the model is not touched."""
    return check_state_dict(model, read_state_dict(path), path, log)


def check_state_dict(
    model: torch.nn.Module, state: Mapping[str, torch.Tensor], path: str, log: Log = print
) -> dict[str, torch.Tensor]:
    """Check a state_dict against a model, whose values may not exist (device `meta`).

    A prefix that a wrapper put before all names (`module.`) is taken off, and told.

    Returns:
        name → fp32 tensor (integer buffers keep their dtype).

    Raises:
        CheckpointError: lists the missing, the unexpected and the mis-shaped keys, and what the
            model itself says about them (`explain_mismatch`), or names a non-finite tensor.
    """
    own = model.state_dict()
    prefix, held = wrapper_prefix(state, own), state
    state = without_prefix(state, own)
    differences = _differences(state, own)
    if differences:
        hint = explain_partial_prefix(path, held, own)
        explain = getattr(model, "explain_mismatch", None)
        if explain and not hint:
            hint = explain({key: tuple(value.shape) for key, value in state.items()})
        read_as = f" (read without the prefix {describe_prefix(prefix)})" if prefix else ""
        what = f"{path}{read_as} does not fit the model that the flags describe"
        hints = [f"  {hint}"] if hint else []
        raise CheckpointError("\n".join([what, *differences, *hints]))
    for key, value in state.items():
        if value.is_floating_point() != own[key].is_floating_point():
            raise CheckpointError(
                f"{path}: {key} has dtype {value.dtype}, expected {own[key].dtype}"
            )
    loaded = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    for key, value in loaded.items():  # after the cast, which overflows where fp32 ends
        if not bool(torch.isfinite(value).all()):
            raise CheckpointError(f"{path}: {key} holds values that are not finite")
    if prefix:
        log(f"notice: all names in {path} begin with {describe_prefix(prefix)}; read without it")
    return loaded


def load_model(model: torch.nn.Module, path: str, log: Log = print) -> None:
    """Copy the state_dict in a file into a model, checked; see `check_state_dict`."""
    model.load_state_dict(load_state_dict(model, path, log))


def _tensors_in(content: Any) -> Iterator[torch.Tensor]:
    """Every tensor in dicts, lists and tuples, however deep and even if one contains itself."""
    pending, seen = [content], set()
    while pending:
        value = pending.pop()
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (dict, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            pending += value.values() if isinstance(value, dict) else value


def _is_plain(tensor: torch.Tensor) -> bool:
    if tensor.is_nested or tensor.layout != torch.strided or tensor.is_quantized:
        return False
    if tensor.device.type != "cpu":
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _differences(state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> list[str]:
    """The missing names, the unexpected ones and the mis-shaped ones, a line each."""
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    lines = []
    for title, keys in (("missing", missing), ("unexpected", unexpected), ("shape", shapes)):
        if keys:
            more = f", and {len(keys) - _MANY} more" if len(keys) > _MANY else ""
            lines.append(f"  {title} ({len(keys)}): {', '.join(keys[:_MANY])}{more}")
    return lines


def _read_bytes(path: str) -> bytes:
    try:
        with open_binary(path) as file:
            return file.read()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from None
