"""Weights in one file that needs nothing beside it: what a manifest says, as its metadata.

Whoever reads a manifest beside a .pt file (`checkpoint.manifest_beside`) gets the same out of such
a file. Of a training's state only what tells of the network goes along: optimizer, loss scale and
the place in the data stay, so no training goes on from it. torch is not imported.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from utils.files.atomic import JsonObject, sha256_of
from utils.files.records import Settings, parse_json, shown
from utils.process.errors import CheckpointError
from utils.untrusted.safe_tensors import is_safetensors, read_metadata

_DIGEST, _STEP, _CLASS, _FLAGS = "checkpoint_sha256", "step", "network_class", "network_flags"
# parts of a manifest that are kept as JSON texts of their own
_PARTS = ("process", "data", "state")
_OF_TRAINING = frozenset(
    {
        *("position", "schedule_sampler", "kernels"),
        *("num_skipped", "num_skipped_in_row", "lg_loss_scale"),
    }
)
_MOST_STEPS = 1 << 63
_HEXADECIMAL = frozenset("0123456789abcdef")


def metadata_of(manifest: Settings, sha256: str) -> dict[str, str]:
    """What tells of a network, as strings; `sha256` is that of the checkpoint's file."""
    content: JsonObject = json.loads(json.dumps(dict(manifest)))
    network = content.get("network", {})
    state = content.get("state", {})
    content["state"] = {key: value for key, value in state.items() if key not in _OF_TRAINING}
    parts = {name: json.dumps(content[name]) for name in _PARTS if content.get(name)}
    return {
        "format": "pt",  # what the library's readers ask for
        _CLASS: str(network.get("class", "")),
        _FLAGS: json.dumps(network.get("flags", {})),
        **parts,
        _STEP: str(content.get("step", 0)),
        "origin": str(content.get("origin", "")),
        _DIGEST: sha256,
    }


def manifest_in(path: str) -> JsonObject:
    """What the metadata of a safetensors file says, as a manifest; empty if it is not of ours.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    metadata = read_metadata(path)
    if _CLASS not in metadata:
        return {}
    try:
        found: JsonObject = {"state": {}}
        found |= {name: _object(metadata[name]) for name in _PARTS if name in metadata}
        flags = _object(metadata[_FLAGS])
        if metadata[_CLASS]:
            found["network"] = {"class": metadata[_CLASS], "flags": flags}
        if metadata.get("origin"):
            found["origin"] = metadata["origin"]
        step = int(metadata[_STEP])
        if not 0 <= step < _MOST_STEPS:
            raise ValueError(f"step {shown(step)}")
        return {**found, "step": step}
    except (ValueError, LookupError) as error:
        raise CheckpointError(
            f"{path}: its metadata is damaged ({error!r}); export the network again"
        ) from None


def weights_digest(path: str) -> str:
    """The sha256 of the file that the weights were written to first, their name in every record.

    That of a .pt file itself; of a safetensors file that was made of one, the one that it names.

    Raises:
        CheckpointError: a safetensors file is damaged.
    """
    named = read_metadata(path).get(_DIGEST, "") if is_safetensors(path) else ""
    is_digest = len(named) == 64 and _HEXADECIMAL.issuperset(named)
    return named if is_digest else sha256_of(path)


def _object(text: str) -> Mapping[str, object]:
    content = parse_json(text)
    if not isinstance(content, dict):
        raise ValueError("no JSON object")
    return content
