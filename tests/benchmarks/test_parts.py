"""Every part runs on networks of no size and leaves its record; no test says how fast."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import (
    all_parts,
    convolutions,
    end_to_end,
    forward,
    peers,
    ranks,
    sample_writing,
    sampling_loop,
    startup,
    train_step,
    verification,
)
from benchmarks.harness import Measurement, TimingFlags, Variant
from sr_var.demo.commands import CPU as DEMO
from tests.processes import run_script
from tests.reliability.extent import extent, is_full
from tests.tiny import ROOT, run
from tests.utils.processes import Child

ONE = ["--rounds", "1"]


def _record(folder: Path, part: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(all_parts.newest(folder, part).read_text(encoding="utf-8"))
    return found


def _rows(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for table in record["tables"].values() for row in table}


@pytest.mark.slow
def test_forward_compares_plain_and_project_in_fp32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "tune_allocator", lambda: True)  # it cannot be undone
    words = ["--net", "tiny", "--memory", "False", "--device", "cpu", "--threads", "1"]
    assert forward.main([*ONE, *words, "--output_dir", str(tmp_path)]) == 0
    record = _record(tmp_path, "forward")
    rows = _rows(record)
    for name in (forward.STOCK, forward.PLAIN, forward.PROJECT, forward.DIRECT):
        assert rows[name]["max_difference"] < 1e-4
    assert record["operations"] > 0 and record["share"] > 0


def test_convolutions_compare_all_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolutions, "tune_allocator", lambda: True)
    monkeypatch.setattr(convolutions, "SHAPES", ((2, 32, 8),))
    monkeypatch.setattr(convolutions, "ATTENTIONS", ((2, 16, 2, 8),))
    assert convolutions.main([*ONE, "--output_dir", str(tmp_path)]) == 0
    tables = _record(tmp_path, "convolutions")["tables"]
    assert len(tables) == 6
    for row in itertools.chain(*tables.values()):
        assert row["max_difference"] < (0.1 if row["name"].startswith("bf16") else 1e-4), row


def test_operations_of_the_published_upsampler_are_those_of_the_documents() -> None:
    assert forward.count_operations(forward.ForwardFlags()) == pytest.approx(1.263e12, rel=1e-3)


def test_sampling_loops_agree_without_the_peer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling_loop, "tune_allocator", lambda: True)
    words = ["--sides", "16", "--pixels", "512", "--width", "8", "--peer", "False"]
    words += ["--device", "cpu", "--stand_in", "False"]
    assert sampling_loop.main([*ONE, *words, "--output_dir", str(tmp_path)]) == 0
    record = _record(tmp_path, "sampling_loop")
    rows = _rows(record)
    assert rows["ancestral: plain"]["max_difference"] < 1e-4
    assert rows["ddim: plain"]["max_difference"] < 1e-4
    assert all(0 < share < 1 for share in record["shares_16"].values())


def test_missing_peer_is_refused_with_the_file_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling_loop, "has_diffusers", lambda: False)
    with pytest.raises(ValueError, match=r"requirements-bench\.txt"):
        sampling_loop.main(ONE)


@pytest.mark.skipif(not peers.has_diffusers(), reason="diffusers is optional")
@pytest.mark.parametrize("sampler", peers.SAMPLERS)
def test_peer_takes_the_projects_steps(sampler: str) -> None:
    flags = sampling_loop.LoopFlags(rounds=1, pixels=512, width=8)
    loops = sampling_loop.Loops(16, flags, torch.device("cpu"))
    samples = {v.name: v.call() for v in loops.variants() if v.name.startswith(sampler)}
    project = samples[f"{sampler}: project"].value
    difference = (samples[f"{sampler}: diffusers"].value - project).abs().max()
    # without a clamp the samples of a network of no training may be large
    assert difference < 1e-4 * max(1.0, project.std())


def test_training_steps_end_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_step, "tune_allocator", lambda: True)
    monkeypatch.setattr(train_step, "DEMO", replace(DEMO, batch_size=2))
    words = ["--side", "16", "--width", "16", "--batch_size", "2", "--microbatch", "1"]
    words += ["--device", "cpu", "--compile", "False"]
    assert train_step.main([*ONE, *words, "--output_dir", str(tmp_path)]) == 0
    record = _record(tmp_path, "train_step")
    for net, table in zip(train_step.CASES, record["tables"].values(), strict=True):
        rows = {row["name"]: row for row in table}
        assert rows[train_step.VARIANCE]["max_difference"] is None
        # AdamW's first step is the learning rate, in a direction that is rounding where there is
        # none; bf16 rounds the weights themselves, too
        exact = [train_step.PROJECT, "plain, channels last"]
        exact += [train_step.DIRECT] if net == "unet" else []
        for name in exact:
            assert rows[name]["max_difference"] < 2 * train_step.LR, (net, name)
        rates = record["rates"][net]
        assert rates.keys() == rows.keys()
        for name, rate in rates.items():
            share = rate["outside_of_convolutions"]
            assert share is None if name == train_step.VARIANCE else 0 < share < 1
            assert rate["images_a_second"] == pytest.approx(2 / rows[name]["median"])


def test_share_outside_of_convolutions_is_that_of_the_rest() -> None:
    x = torch.zeros(4, 16, 32, 32)
    conv = torch.nn.Conv2d(16, 16, 3)
    assert train_step.share_outside(lambda: x.exp().sum()) == 1
    assert train_step.share_outside(lambda: conv(x).sum().backward()) < 0.9


def test_best_way_of_bf16_may_be_an_exact_one() -> None:
    times = {
        "plain": [2.0],
        "plain, bf16 autocast": [3.0],
        "project": [1.0],
        "project, bf16": [4.0],
    }
    measured = Measurement([Variant(name, lambda: None) for name in times], times, {})
    exact, half = train_step.targets_of("subpixel", measured, torch.device("cpu"))
    assert exact.value == pytest.approx(0.5) and exact.is_met
    assert half.value == pytest.approx(2.0) and half.note == "the best is plain"


@pytest.mark.slow
def test_help_and_first_steps_are_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "_import_torch", lambda: None)
    scripts, real = ["sr_mean_train.py", "image_sample.py"][: extent(1, 2)], startup.first_steps
    monkeypatch.setattr(startup, "first_steps", lambda folder: real(folder)[: len(scripts)])
    words = ["--scripts", "sr_mean_train.py", "--output_dir", str(tmp_path)]
    assert startup.main([*ONE, *words]) == 0
    rows = _rows(_record(tmp_path, "startup"))
    assert "sr_mean_train.py" in rows
    for script in scripts:
        to_step = rows[f"{script}: to the first step"]
        assert 0 < rows[f"{script}: {startup.IMPORTS}"]["median"] < to_step["median"]


def test_script_that_takes_no_step_is_an_error_with_its_words() -> None:
    step = startup.FirstStep("image_sample.py", "ddpm.sampling:Sampler", "_draw", ["--nonsense"])
    with pytest.raises(ValueError, match="unknown flag --nonsense"):
        startup.run_to_first_step(step)


class _Forked:
    """In the place of ``subprocess.Popen``: a script in a process that has torch already."""

    def __init__(self, command: Sequence[str], env: dict[str, str], **options: Any) -> None:
        self._child = Child(run_script, Path(command[1]).stem, list(command[2:]), env)
        self.returncode: int | None = None

    def communicate(self) -> tuple[str, str]:
        self.returncode = self._child.exit_code()
        return "", ""


@pytest.mark.slow
def test_two_processes_draw_the_same_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By processes that import torch themselves where the long forms run."""
    if not is_full():
        pipes = {"DEVNULL": subprocess.DEVNULL, "PIPE": subprocess.PIPE}
        monkeypatch.setattr(ranks, "subprocess", SimpleNamespace(Popen=_Forked, **pipes))
    words = ["--num_samples", "4", "--batch_size", "2", "--num_steps", "2", "--side", "16"]
    words += ["--width", "8", "--output_dir", str(tmp_path)]
    assert ranks.main([*ONE, *words]) == 0
    rows = _rows(_record(tmp_path, "ranks"))
    assert rows["whole script, 2 processes"]["max_difference"] == 0


def test_every_way_to_mean_and_variance_finds_the_same(tmp_path: Path) -> None:
    words = ["--num_samples", "5", "--large_size", "16", "--threads", "2"]
    assert verification.main([*ONE, *words, "--output_dir", str(tmp_path)]) == 0
    record = _record(tmp_path, "verification")
    rows = _rows(record)
    names = [verification.ONE_THREAD, verification.MORE_THREADS.format(2)]
    names += [verification.STORED, verification.TWO_ARRAYS]
    # they meet in float32: of the finished moments file, and of the comparison
    assert all(rows[name]["max_difference"] < 1e-5 for name in names)
    assert {*names, verification.PLAIN} == record["peak_bytes"].keys()
    assert {verification.FROM_PICTURES, verification.FROM_MOMENTS} <= rows.keys()


def test_samples_are_the_same_wherever_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_writing, "tune_allocator", lambda: True)
    words = ["--num_samples", "18", "--batch_size", "2", "--large_size", "16"]
    words += ["--device_seconds", "0.001", "--output_dir", str(tmp_path)]
    assert sample_writing.main([*ONE, *words]) == 0
    record = _record(tmp_path, "sample_writing")
    rows = _rows(record)
    assert len(rows) == 4 and {row["max_difference"] for row in rows.values()} == {0}
    assert all(0 < share < 1 for share in record["shares"].values())


def _fake_scripts(root: Path, monkeypatch: pytest.MonkeyPatch, last_code: int) -> None:
    """Scripts that leave what the chain reads, and no more."""
    results = root / "results.json"
    cost = {"samples": {"seconds_per_image": 6.0}, "nets": {"seconds_per_image": 0.5}}
    results.write_text(json.dumps({"num_images": 2, "cost": cost}), encoding="utf-8")
    log = "logs/sr_compare/chain"
    lines = {
        end_to_end.SAMPLING: f"os.makedirs('{log}'); shutil.copy(r'{results}', '{log}')",
        end_to_end.TESTS: f"sys.stderr.write('no room'); sys.exit({last_code})",
    }
    for name, line in lines.items():
        (root / name).write_text(f"import os, shutil, sys\n{line}\n", encoding="utf-8")
    monkeypatch.setattr(end_to_end, "ROOT", root)
    commands = [(name, []) for name in lines]
    monkeypatch.setattr(end_to_end, "photograph_commands", lambda preset: commands)


def test_chain_times_every_script_and_starts_each_round_in_an_empty_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fake_scripts(tmp_path, monkeypatch, 0)
    assert end_to_end.main(["--rounds", "2", "--output_dir", str(tmp_path)]) == 0
    record = _record(tmp_path, "end_to_end")
    rows = _rows(record)
    assert rows[end_to_end.PASSES]["ratio"] == 12 and rows[end_to_end.SAMPLES]["median"] == 6
    assert all(rows[name]["num_rounds"] == 2 for name in rows)
    parts = [rows[name]["median"] for name in (end_to_end.SAMPLING, end_to_end.TESTS)]
    assert 0 < sum(parts) < 2 * rows[end_to_end.WHOLE]["median"]
    assert record["targets"][0]["value"] == 12


def test_script_of_the_chain_that_fails_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fake_scripts(tmp_path, monkeypatch, 3)
    with pytest.raises(ValueError, match=r"sr_var_test\.py .* 3: no room"):
        end_to_end.main([*ONE, "--output_dir", str(tmp_path)])


@pytest.mark.slow
def test_whole_experiment_runs_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each script in a process of its own where the long forms run, else in this one."""

    def run_here(command: Sequence[str], cwd: Path, **options: Any) -> Any:
        with monkeypatch.context() as patched:
            patched.chdir(cwd)
            module = Path(command[1]).relative_to(ROOT).with_suffix("")
            outcome = run(".".join(module.parts), command[2:])
        return subprocess.CompletedProcess(command, outcome.code, outcome.out, outcome.err)

    if not is_full():
        monkeypatch.setattr(end_to_end, "subprocess", SimpleNamespace(run=run_here))
    words = ["--max_step", "1", "--num_samples", "4", "--width", "8"]
    assert end_to_end.main([*ONE, *words, "--output_dir", str(tmp_path)]) == 0
    record = _record(tmp_path, "end_to_end")
    scripts = [name for name in _rows(record) if name.endswith(".py")]
    assert len(scripts) == 10 and "sr_var_verification.py" in scripts
    assert all(0 < share < 1 for share in record["share_outside_networks"].values())


def test_short_form_has_every_part_and_unknown_ones_are_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = all_parts.AllFlags(short=True)
    for part in flags.parts.split(","):
        words = flags.command(part)
        assert words[1:3] == ["-m", f"benchmarks.{part}"] and "--rounds" in words
    with pytest.raises(SystemExit):
        all_parts.main(["--parts", "backward"])
    assert "--parts backward" in capsys.readouterr().err


def test_targets_are_left_open_where_nothing_was_measured() -> None:
    measured = Measurement([], {}, {})
    targets = forward.targets_of(measured, torch.device("cpu"), None, {})
    assert {target.is_met for target in targets} == {None}
    assert TimingFlags().rounds >= 1
