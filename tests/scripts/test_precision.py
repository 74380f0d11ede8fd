"""Trainings asked for fp16 on a CPU: in bf16 or fp32, by rule, and stored as they were asked."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import cpus
from tests.pipeline import Pipeline
from tests.scripts.runs import TRAININGS, flags_of
from tests.tiny import done, run, words
from utils.process.errors import EXIT_USAGE
from utils.untrusted.state_dict import read_torch_file

Weights = dict[str, torch.Tensor]


def _trained(pipeline: Pipeline, script: str, root: Path, **changes: Any) -> tuple[Weights, str]:
    said = done(script, words(flags_of(pipeline, script, root), **changes)).out
    newest = max((root / "save").glob("model*.pt"))
    return read_torch_file(str(newest)), said


def _are_equal(one: Weights, other: Weights) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("script", TRAININGS)
def test_a_training_in_fp16_is_one_in_bf16_where_the_cpu_is_fast_in_that(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    cpus.compute_on(cpus.SAPPHIRE_RAPIDS, monkeypatch)
    found, said = _trained(pipeline, script, tmp_path / "fp16", use_fp16=True)
    assert any("fp16" in line and "training in bf16" in line for line in said.splitlines())
    wanted, said = _trained(pipeline, script, tmp_path / "bf16", use_bf16=True)
    assert "notice: this CPU" not in said
    plain, _ = _trained(pipeline, script, tmp_path / "fp32")
    assert _are_equal(found, wanted) and not _are_equal(found, plain)


def test_a_training_asked_for_16_bits_goes_on_in_the_precision_of_another_cpu(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masters are fp32 everywhere, no loss scale is stored, and the flags stay as asked."""
    asked = {"use_fp16": True, "resume_checkpoint": "auto"}
    for step, cpu in enumerate((cpus.ZEN_4, cpus.AVX2, cpus.ZEN_4), start=1):
        with monkeypatch.context() as patched:
            cpus.compute_on(cpu, patched)
            weights, said = _trained(pipeline, "sr_mean_train", tmp_path, max_step=step, **asked)
        assert f"training in {'fp32' if cpu == cpus.AVX2 else 'bf16'}" in said
        assert {value.dtype for value in weights.values()} == {torch.float32}
    assert (tmp_path / "save" / "model000003.pt").exists()
    for path in (tmp_path / "save").glob("*.json"):
        assert "lg_loss_scale" not in path.read_text()
    stored = pickle.loads((tmp_path / "log" / "mean_model_args.pkl").read_bytes())
    assert stored["use_fp16"] is True
    flags = json.loads((tmp_path / "log" / "args.json").read_text())["flags"]
    assert flags["use_fp16"] is True and flags["use_bf16"] is False


def test_a_frozen_net_keeps_fp16_where_forward_passes_have_it(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _trained(pipeline, "sr_mean_train", tmp_path, use_fp16=True)
    test = {
        **flags_of(pipeline, "sr_mean_test", tmp_path),
        "log_dir": tmp_path / "log",
        "model_path": tmp_path / "save" / "model000001.pt",
    }
    for name, cpu in (("lacks", cpus.ZEN_4), ("has", cpus.SAPPHIRE_RAPIDS)):
        with monkeypatch.context() as patched:
            cpus.compute_on(cpu, patched)
            said = done("sr_mean_test", words(test, output_dir=tmp_path / name)).out
        assert (any("fp16" in line and "in fp32" in line for line in said.splitlines())) is (
            name == "lacks"
        )


def test_a_test_and_a_sampler_compute_as_their_own_flag_says(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpus.compute_on(cpus.ZEN_4, monkeypatch)
    for script, record in (("sr_mean_test", ""), ("ddpm_sr_sample", "log/args.json")):
        flags = flags_of(pipeline, script, tmp_path / script)
        said = done(script, words(flags, precision="auto", dry_run=not record)).out
        assert "notice: --precision auto: bf16" in said
        if record:
            stored = json.loads((tmp_path / script / record).read_text())["flags"]
            assert stored["use_bf16"] is True and stored["use_fp16"] is False
        outcome = run(script, words(flags, precision="bf16", use_fp16=True))
        assert outcome.code == EXIT_USAGE
        assert "--use_fp16 True and --precision bf16" in outcome.err


def test_samples_keep_the_kernels_that_they_began_with(pipeline: Pipeline, tmp_path: Path) -> None:
    flags = flags_of(pipeline, "ddpm_sr_sample", tmp_path)
    done("ddpm_sr_sample", words(flags, kernels="direct"))
    record = tmp_path / "out" / ".sampling.json"
    assert json.loads(record.read_text())["kernels"] == "direct"
    done("ddpm_sr_sample", words(flags, kernels="winograd"))
    assert json.loads(record.read_text())["kernels"] == "direct"
