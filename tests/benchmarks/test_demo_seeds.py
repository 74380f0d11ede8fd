"""The table of what the demo reached: medians, bounds, and what breaks them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.demo_seeds import TARGETS, main
from sr_var.demo.commands import CPU, ITAKURA_SAITO
from utils.process.errors import DataError


def _write(folder: str, results: dict[str, Any]) -> None:
    Path(folder).mkdir(parents=True)
    Path(folder, "results.json").write_text(json.dumps(results), encoding="utf-8")


def _demo(seed: int, z2: float, gain: float) -> None:
    kinds = {
        "nets": {"z2": z2, "coverage_95": 0.94, "nll": 3.0},
        "samples": {"z2": 3.0, "coverage_95": 0.8, "nll": 4.0},
    }
    psnr = {"psnr_net": 24.0 + gain, "psnr_bilinear": 24.0, "psnr_samples": 24.5}
    photos = {"calibration": kinds, "high_res": psnr, "var": {"num_negative": 0}}
    photos["ceiling"] = {"disattenuated": 0.75}
    of_nets = {"relative_mse": 0.02, "relative_var_error": 0.05}
    truth = {"nets": of_nets, "samples": {"relative_mse": 0.01, "relative_var_error": 0.11}}
    preset = CPU.with_seed(seed)
    _write(preset.log_dir, photos)
    _write(preset.oracle.log_dir(ITAKURA_SAITO), {"truth": truth})


def test_medians_are_held_against_their_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for seed, z2, gain in ((0, 1.1, 1.5), (1, 1.2, 1.0), (2, 9.0, 1.1)):
        _demo(seed, z2, gain)
    assert main([]) == 0
    rows = {
        line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]]
        for line in capsys.readouterr().out.splitlines()
    }
    assert rows["error² / variance, nets"] == ["1.1", "1.2", "9", "1.2", "≥ 0.7 ≤ 1.5", "yes"]
    assert rows["mean net over bilinear, dB"][-3:] == ["1.1", "≥ 1.2", "**no**"]
    # where the bound is a figure of the same runs
    assert rows["negative log-likelihood, nats"][-3:] == ["3", "≤ 4", "yes"]
    assert rows["oracle, mean: squared error / variance"][-3:] == ["0.02", "≤ 0.01", "**no**"]
    assert rows["95 % intervals hold, samples"][-2:] == ["", ""]
    assert len(rows) == len(TARGETS) + 2


def test_a_demo_that_has_not_ended_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"demo_seed4/results\.json.*--seed 4"):
        main(["--seeds", "4"])
