"""export.py: a network of every task, in one file that is enough by itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sr_var import __version__
from tests.pipeline import Pipeline
from tests.tiny import Outcome, done, run, words
from utils.files.atomic import sha256_of
from utils.loops.checkpoint import manifest_beside
from utils.process.errors import EXIT_CHECKPOINT, EXIT_USAGE
from utils.untrusted.safe_tensors import read_metadata
from utils.untrusted.state_dict import read_state_dict
from weights.networks import kind_of, restore
from weights.source import read_source

_NETS = {"sr_mean": "mean net", "sr_var": "variance net", "ddpm_sr": "denoiser"}


def _silent(line: str) -> None: ...


def _export(path: Path, output: Path, **flags: Any) -> Outcome:
    return done(
        "export", words(model_path=path, output_path=output, log_dir=output.parent, **flags)
    )


@pytest.mark.parametrize("task", _NETS)
def test_the_file_alone_is_the_network_and_what_its_manifest_says(
    pipeline: Pipeline, tmp_path: Path, task: str
) -> None:
    path = max(pipeline.save_dir(task).glob("model*.pt"))
    output = tmp_path / "net.safetensors"
    _export(path, output)
    state, exported = read_state_dict(str(path)), read_state_dict(str(output))
    assert state.keys() == exported.keys()
    assert all(torch.equal(state[name], exported[name]) for name in state)
    there, here = manifest_beside(str(path)), manifest_beside(str(output))
    for part in ("network", "process", "data", "step", "origin"):
        assert here.get(part) == there.get(part)
    metadata = read_metadata(str(output))
    assert metadata["checkpoint_sha256"] == sha256_of(path)
    assert metadata["toolkit_version"] == __version__
    assert json.loads(metadata["network_flags"]) == there["network"]["flags"]
    assert metadata["network_class"] == there["network"]["class"]


@pytest.mark.parametrize("task", _NETS)
def test_the_network_of_either_file_computes_the_same(
    pipeline: Pipeline, tmp_path: Path, task: str
) -> None:
    path = max(pipeline.save_dir(task).glob("model*.pt"))
    output = tmp_path / "net.safetensors"
    _export(path, output)
    sources = [read_source(str(one), _silent) for one in (path, output)]
    assert sources[0].sha256 == sources[1].sha256
    assert kind_of(sources[1]).name.startswith(_NETS[task])
    nets = [restore(source, _silent) for source in sources]
    values = [list(net.state_dict().values()) for net in nets]
    assert all(torch.equal(a, b) for a, b in zip(*values, strict=True))


def test_an_output_of_another_format_is_a_slip(pipeline: Pipeline, tmp_path: Path) -> None:
    flags = {"model_path": pipeline.mean_model, "log_dir": tmp_path}
    outcome = run("export", words(flags, output_path=tmp_path / "net.pt"))
    assert outcome.code == EXIT_USAGE and "net.pt" in outcome.err
    assert run("export", []).code == EXIT_USAGE


def test_weights_of_nobody_are_refused(pipeline: Pipeline, tmp_path: Path) -> None:
    path = tmp_path / "model000001.pt"
    path.write_bytes(pipeline.mean_model.read_bytes())
    outcome = run("export", words(model_path=path, log_dir=tmp_path / "log"))
    assert outcome.code == EXIT_CHECKPOINT and "model000001.pt" in outcome.err
    assert not list(tmp_path.glob("*.safetensors"))


def test_a_folder_gets_a_file_of_the_name_that_others_expect(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    _export(pipeline.mean_model, tmp_path / "net")
    assert (tmp_path / "net" / "model.safetensors").is_file()
    _export(pipeline.mean_model, tmp_path / "dry", dry_run=True)
    assert not (tmp_path / "dry").exists()
