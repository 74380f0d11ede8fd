"""What other tools put around a state_dict: a prefix before all names, or a dict that holds it."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import torch

# names of foreign files are anybody's: no deeper search than real wrappers ask for
_MAX_PARTS = 6
_MAX_CHARACTERS = 200
_MAX_DEPTH = 3
_MAX_SHOWN = 4
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

    Args:
        names: of the file.
        own: names of the network, all or some.

    Returns:
        a prefix such as ``module.`` or ``module._orig_mod.``; empty if there is none, if not all
        names have it, or if the file has the network's names as they are.
    """
    if any(name in own for name in names):
        return ""
    prefixes = _prefixes(names, own)
    prefix = prefixes.most_common(1)[0][0] if prefixes else ""
    return prefix if all(name.startswith(prefix) for name in names) else ""


def without_prefix(
    state: Mapping[str, torch.Tensor], own: Collection[str]
) -> Mapping[str, torch.Tensor]:
    """The state_dict without its :func:`wrapper_prefix`."""
    prefix = wrapper_prefix(state, own)
    return {name[len(prefix) :]: value for name, value in state.items()} if prefix else state


def describe_prefix(prefix: str) -> str:
    """The prefix and whose it is: ``'module.' (DistributedDataParallel or DataParallel)``."""
    makers = [maker for part, maker in _WRAPPERS.items() if part in prefix]
    return f"{prefix!r}" + (f" ({', '.join(makers)})" if makers else "")


def explain_partial_prefix(path: str, names: Collection[str], own: Collection[str]) -> str:
    """How to get the network out of a file that holds it under a prefix, beside other tensors.

    Empty if no prefix leads to all names of the network.
    """
    complete = [
        prefix
        for prefix, count in _prefixes(names, own).most_common(_MAX_SHOWN)
        if count == len(own)
    ]
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
    shown = ", ".join(
        f"{''.join(f'[{json.dumps(key)}]' for key in keys)} ({count} tensors)"
        for keys, count in found[:_MAX_SHOWN]
    )
    place = "".join(f"[{json.dumps(key)}]" for key in found[0][0])
    return f"it holds one under {shown}; take it out: {_one_line(path, place, 's')}"


def _one_line(path: str, place: str, kept: str) -> str:
    """A command that writes a part of a file to one of its own."""
    program = (
        f'import torch; s = torch.load({json.dumps(path)}, map_location="cpu", '
        f'weights_only=True){place}; torch.save({kept}, "model000000.pt")'
    )
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
