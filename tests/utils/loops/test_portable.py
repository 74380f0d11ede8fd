"""What a safetensors file says of its network is what the manifest said, or it is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from utils.files.atomic import sha256_of
from utils.loops.checkpoint import CheckpointStore, manifest_beside, step_of
from utils.loops.portable import manifest_in, metadata_of, weights_digest
from utils.process.errors import CheckpointError
from utils.untrusted.safe_tensors import write_safetensors

_MANIFEST: dict[str, Any] = {
    "step": 12,
    "origin": "ab",
    "network": {"class": "UNetModel", "flags": {"large_size": 32, "channel_mult": "1,2"}},
    "process": {"diffusion_steps": 100, "learn_sigma": True},
    "data": {"digest": "cd", "num_images": 7},
    "flags": {"log_dir": "/home/somebody/logs"},
    "state": {
        "position": 400,
        "lg_loss_scale": 20.0,
        "schedule_sampler": {"history": [[1.0]]},
        "classes": ["cät", "dog"],
        "mean_models": ["0" * 64],
    },
}
_DIGEST = "0123456789abcdef" * 4


def _write(path: Path, metadata: dict[str, str]) -> str:
    write_safetensors(str(path), {"w": torch.ones(2)}, metadata)
    return str(path)


def test_the_manifest_comes_back_without_what_is_of_the_training_alone(tmp_path: Path) -> None:
    path = _write(tmp_path / "net.safetensors", metadata_of(_MANIFEST, _DIGEST))
    found = manifest_in(path)
    for part in ("step", "origin", "network", "process", "data"):
        assert found[part] == _MANIFEST[part]
    assert found["state"] == {
        "classes": ["cät", "dog"],
        "mean_models": ["0" * 64],
    }
    assert manifest_beside(path) == found and "flags" not in found
    assert step_of(path) == 12
    assert b"somebody" not in Path(path).read_bytes()
    resolved = CheckpointStore("").resolve(path)
    assert resolved is not None and resolved.manifest == found and resolved.step == 12
    assert resolved.opt_path is None


def test_the_digest_of_the_weights_is_that_of_the_file_they_were_written_to_first(
    tmp_path: Path,
) -> None:
    path = _write(tmp_path / "net.safetensors", metadata_of(_MANIFEST, _DIGEST))
    assert weights_digest(path) == _DIGEST
    for foreign in ({}, {"checkpoint_sha256": "no digest"}, {"checkpoint_sha256": "x" * 64}):
        path = _write(tmp_path / "foreign000007.safetensors", foreign)
        assert weights_digest(path) == sha256_of(path)
        assert manifest_beside(path) == {} and step_of(path) == 7
    (tmp_path / "model.pt").write_bytes(b"x")
    assert weights_digest(str(tmp_path / "model.pt")) == sha256_of(tmp_path / "model.pt")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("network_flags", "[1]"),
        ("network_flags", "{"),
        ("network_flags", "[" * 100_000),
        ("state", "5"),
        ("process", '"x"'),
        ("data", "NaN"),
        ("step", "-1"),
        ("step", "1e3"),
        ("step", "9" * 30),
        ("step", "9" * 9999),
    ],
)
def test_damaged_metadata_is_refused_by_name(tmp_path: Path, name: str, text: str) -> None:
    metadata = {**metadata_of(_MANIFEST, _DIGEST), name: text}
    path = _write(tmp_path / "net.safetensors", metadata)
    with pytest.raises(
        CheckpointError, match=r"net\.safetensors: its metadata is damaged"
    ) as caught:
        manifest_in(path)
    assert len(str(caught.value)) < 1000
    assert manifest_beside(path) == {}  # who loads it says so
    with pytest.raises(CheckpointError):
        CheckpointStore("").resolve(path)


_TEXTS = st.text(max_size=20) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
).map(json.dumps)


@given(texts=st.dictionaries(st.sampled_from(sorted(metadata_of(_MANIFEST, _DIGEST))), _TEXTS))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_metadata_is_read_or_refused(tmp_path: Path, texts: dict[str, str]) -> None:
    path = _write(tmp_path / "net.safetensors", {**metadata_of(_MANIFEST, _DIGEST), **texts})
    try:
        manifest = manifest_in(path)
    except CheckpointError as error:
        assert path in str(error)
    else:
        assert isinstance(manifest.get("state", {}), dict)
    assert len(weights_digest(path)) == 64
