"""Reads state_dicts that anybody may have written, and checks them before a value is copied.

``torch.load`` runs with ``weights_only=True`` and never falls back; the archive's CRCs, which it
ignores, are checked first, and so is what its pickle does (``utils.untrusted.torch_files``). Which
set of files belongs together is the business of ``checkpoint``.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from utils.files.atomic import open_binary
from utils.process.errors import CheckpointError
from utils.untrusted.foreign_state import (
    describe_prefix,
    explain_nesting,
    explain_partial_prefix,
    without_prefix,
    wrapper_prefix,
)
from utils.untrusted.torch_files import check_archive, check_pickles, unsafe

SAFETENSORS = ".safetensors"
_MANY = 6

Log = Callable[[str], None]


def check_zip(path: str) -> None:
    """Checks every CRC of a ``.pt`` archive; the older, non-zip format has none to check.

    Raises:
        CheckpointError: if the file is missing, empty or damaged.
    """
    check_archive(_read_bytes(path), path)


def read_torch_file(path: str) -> Any:
    """Loads a ``.pt`` file of tensors and plain values on the CPU; nothing in it is executed.

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
    """Reads a state_dict, whoever wrote it, from a ``.pt`` or a ``.safetensors`` file.

    Returns:
        name → tensor on the CPU, dtypes as stored.

    Raises:
        CheckpointError: if it is missing, damaged, holds anything else, or needs a package that is
            not installed.
    """
    state = _read_safetensors(path) if path.endswith(SAFETENSORS) else read_torch_file(path)
    if not isinstance(state, Mapping) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in state.items()
    ):
        what_else = explain_nesting(path, state)
        raise CheckpointError(
            f"{path} is not a state_dict (a mapping of names to tensors)"
            + (f": {what_else}" if what_else else "")
        )
    return dict(state)


def load_state_dict(model: torch.nn.Module, path: str, log: Log = print) -> dict[str, torch.Tensor]:
    """Reads a state_dict and checks it against a model; the model is not touched.

    Returns:
        as :func:`check_state_dict`.

    Raises:
        CheckpointError: as :func:`read_state_dict` and :func:`check_state_dict`.
    """
    return check_state_dict(model, read_state_dict(path), path, log)


def check_state_dict(
    model: torch.nn.Module, state: Mapping[str, torch.Tensor], path: str, log: Log = print
) -> dict[str, torch.Tensor]:
    """Checks a state_dict against a model, whose values may not exist (device ``meta``).

    A prefix that a wrapper put before all names (``module.``) is taken off.

    Args:
        model: the network.
        state: name → tensor.
        path: of the file, for messages.
        log: receives one line if there was a prefix.

    Returns:
        name → fp32 tensor (integer buffers keep their dtype).

    Raises:
        CheckpointError: lists the missing, the unexpected and the mis-shaped keys, and what the
            model itself says about them (``explain_mismatch``), or names a non-finite tensor.
    """
    own = model.state_dict()
    prefix, held = wrapper_prefix(state, own), state
    state = without_prefix(state, own)
    differences = _differences(state, own)
    if any(differences):
        hint = explain_partial_prefix(path, held, own)
        explain = getattr(model, "explain_mismatch", None)
        if explain and not hint:
            hint = explain({key: tuple(value.shape) for key, value in state.items()})
        read_as = f" (read without the prefix {describe_prefix(prefix)})" if prefix else ""
        raise CheckpointError(_mismatch_message(path + read_as, *differences, hint))
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


def _differences(
    state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]
) -> tuple[list[str], list[str], dict[str, tuple[tuple[int, ...], tuple[int, ...]]]]:
    """Missing names, unexpected ones, and name → (shape in the file, shape in the model)."""
    misshaped = {
        key: (tuple(state[key].shape), tuple(own[key].shape))
        for key in own
        if key in state and state[key].shape != own[key].shape
    }
    missing = [key for key in own if key not in state]
    return missing, [key for key in state if key not in own], misshaped


def load_model(model: torch.nn.Module, path: str, log: Log = print) -> None:
    """Copies a checked state_dict into a model.

    Raises:
        CheckpointError: as :func:`load_state_dict`.
    """
    model.load_state_dict(load_state_dict(model, path, log))


def _read_safetensors(path: str) -> dict[str, torch.Tensor]:
    data = _read_bytes(path)
    try:
        from safetensors.torch import load
    except ImportError:
        raise CheckpointError(
            f"{path} needs the package safetensors: pip install safetensors, or save the network "
            "as a .pt state_dict"
        ) from None
    try:
        state: dict[str, torch.Tensor] = load(data)
    except Exception as error:  # whatever its reader trips over, it is the file that is bad
        reason = str(error).strip().split("\n")[0][:300]
        raise CheckpointError(f"{path} is damaged or no safetensors file ({reason})") from None
    return state


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
    if (
        tensor.is_nested
        or tensor.layout != torch.strided
        or tensor.device.type != "cpu"
        or tensor.is_quantized
    ):
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _mismatch_message(
    path: str,
    missing: list[str],
    unexpected: list[str],
    misshaped: dict[str, tuple[tuple[int, ...], tuple[int, ...]]],
    hint: str,
) -> str:
    lines = [f"{path} does not fit the model that the flags describe"]
    shapes = [f"{key} {there} instead of {here}" for key, (there, here) in misshaped.items()]
    for title, keys in (("missing", missing), ("unexpected", unexpected), ("shape", shapes)):
        if keys:
            more = f", and {len(keys) - _MANY} more" if len(keys) > _MANY else ""
            lines.append(f"  {title} ({len(keys)}): {', '.join(keys[:_MANY])}{more}")
    if hint:
        lines.append(f"  {hint}")
    return "\n".join(lines)


def _read_bytes(path: str) -> bytes:
    try:
        with open_binary(path) as file:
            return file.read()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from None
