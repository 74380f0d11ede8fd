"""The plan: multiplication of measured seconds, and a table that says what it multiplied."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sr_var import plan
from sr_var.flags.scripts import PlanFlags, SRDiffusionModelFlags
from sr_var.plan import Rates, net_hours, plan_rows, plan_verdict
from tests import cpus
from tests.tiny import DENOISER, LARGE, done, run, words
from utils.process.errors import EXIT_DATA

RATES = Rates(evaluation=0.5, mean_forward=0.1, mean_step=0.3, var_step=0.4)


def test_hours_are_evaluations_times_seconds_shared_by_the_devices() -> None:
    flags = PlanFlags(num_images=10, num_samples="20,101", sampling_steps="25", num_devices="1,4")
    rows = plan_rows(RATES, flags, 256)
    assert [(r["num_samples"], r["devices"]) for r in rows] == [
        (20, 1),
        (20, 4),
        (101, 1),
        (101, 4),
    ]
    assert rows[0]["evaluations"] == 10 * 20 * 25
    assert rows[0]["hours"] == pytest.approx(5000 * 0.5 / 3600)
    assert rows[1]["hours"] == pytest.approx(rows[0]["hours"] / 4)
    assert rows[1]["device_hours"] == rows[0]["device_hours"]


def test_accuracy_is_the_noise_of_that_many_samples() -> None:
    flags = PlanFlags(num_samples="101", sampling_steps="25", num_devices="1")
    (row,) = plan_rows(RATES, flags, 256)
    assert row["mean_error"] == pytest.approx(1 / 101)
    assert row["var_error"] == pytest.approx(0.02**0.5)


def test_disk_is_pictures_and_moments() -> None:
    flags = PlanFlags(num_images=1, num_samples="2", sampling_steps="25", num_devices="1")
    (row,) = plan_rows(RATES, flags, 100)
    assert row["disk_gb"] * 1e9 == pytest.approx(2 * 30_000 + 4 * 4 * 30_000)


def test_hours_of_the_nets_count_their_training_and_both_tests() -> None:
    flags = PlanFlags(num_images=36, mean_steps=100, var_steps=200, train_batch_size=10)
    found = net_hours(RATES, flags)
    assert found["mean_training"] == pytest.approx(100 * 10 * 0.3 / 3600)
    assert found["var_training"] == pytest.approx(200 * 10 * 0.4 / 3600)
    assert found["both_tests"] == pytest.approx(2 * 36 * 0.1 / 3600)


def test_script_times_prints_and_writes(tmp_path: Path) -> None:
    tiny: dict[str, Any] = {"net_channels": 8, "net_channel_mult": "1,2", "num_rounds": 1}
    said = done("sr_plan", words(DENOISER, tiny, log_dir=tmp_path)).out
    found = json.loads((tmp_path / "plan.json").read_text())
    assert len(found["sampling"]) == 2 * 2 * 2 and min(found["seconds"].values()) > 0
    assert "var: rel. rms" in said
    assert "images for a verdict within ±5 %" in said and found["verdict"]["margin"] == 0.05
    assert [need["num_samples"] for need in found["verdict"]["images"]] == [20, 100]


def test_networks_that_see_more_than_an_image_are_timed_with_it(tmp_path: Path) -> None:
    tiny: dict[str, Any] = {"net_channels": 8, "net_channel_mult": "1,2", "num_rounds": 1}
    seen = {"small_size": LARGE, "degradation": "mask:0.5+noise:5-50", "condition_on_level": True}
    done("sr_plan", words(DENOISER, tiny, seen, log_dir=tmp_path))
    found = json.loads((tmp_path / "plan.json").read_text())
    assert min(found["seconds"].values()) > 0


@pytest.mark.parametrize(
    ("small_size", "degradation", "grain"),
    [
        (16, "area", 4),
        (8, "area", 8),
        (64, "noise:25", 4),
        (64, "jpeg:30", 8),
        (64, "blur:6", 16),
        (8, "blur:1+bicubic", 8),
        (64, "measured:1", 4),
    ],
)
def test_a_verdict_counts_blocks_that_are_independent(
    small_size: int, degradation: str, grain: int
) -> None:
    """More pixels of X are no more independent places: as of `area` with blocks as large."""
    if "bicubic" in degradation:
        degradation = f"blur:1+bicubic:{64 // small_size}"
    sizes = {"large_size": 64, "small_size": small_size}
    network = SRDiffusionModelFlags(**sizes, degradation=degradation)
    said, plan = plan_verdict(PlanFlags(), network, None)
    assert plan["grain"] == grain
    area = SRDiffusionModelFlags(large_size=64, small_size=64 // grain)
    assert plan["images"] == plan_verdict(PlanFlags(), area, None)[1]["images"]
    assert ("a guess" in said) == (degradation != "area")


def test_a_pilot_is_read_before_anything_is_timed(tmp_path: Path) -> None:
    pilot = tmp_path / "results.json"
    part = {"value": 0.03, "standard_error": 0.0001}
    content = {"num_samples": 20, "clusters": {"kind": "class", "count": 16}}
    content["verdict"] = dict.fromkeys(("mean", "variance", "bias"), part)
    tiny = {"net_kind": "subpixel", "net_channels": 8, "net_res_blocks": 1, "num_rounds": 1}
    of = words(DENOISER, tiny, log_dir=tmp_path / "log", pilot=pilot)
    outcome = run("sr_plan", of)
    assert outcome.code == EXIT_DATA and "--pilot" in outcome.err and "timing" not in outcome.out
    pilot.write_text(json.dumps(content), encoding="utf-8")
    said = done("sr_plan", of).out
    assert "by the pilot of 16 classes and 20 samples" in said and "mean equivalent, 100" in said
    found = json.loads((tmp_path / "log" / "plan.json").read_text())["verdict"]["by_pilot"]
    assert len(found) == 2 * 3 and found[0]["verdict"] == "equivalent"


def test_nets_of_the_other_kind_are_timed(tmp_path: Path) -> None:
    tiny = {"net_kind": "subpixel", "net_channels": 8, "net_res_blocks": 1, "num_rounds": 1}
    said = done("sr_plan", words(DENOISER, tiny, log_dir=tmp_path)).out
    assert "a pass of the mean net" in said


@pytest.mark.parametrize(
    ("more", "part"),
    [
        ({"num_samples": "1"}, "--num_samples 1"),
        ({"sampling_steps": "x"}, "--sampling_steps 'x'"),
        ({"num_rounds": 0}, "--num_rounds 0"),
    ],
)
def test_wrong_count_is_refused(tmp_path: Path, more: dict[str, Any], part: str) -> None:
    outcome = run("sr_plan", words(DENOISER, more, log_dir=tmp_path))
    assert outcome.code == 2 and part in outcome.err


def test_trainings_are_timed_in_the_precision_that_they_would_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpus.compute_on(cpus.SAPPHIRE_RAPIDS, monkeypatch)
    trained: list[set[torch.dtype]] = []

    def train(net: torch.nn.Module, output: torch.Tensor, label: torch.Tensor) -> None:
        trained.append({parameter.dtype for parameter in net.parameters()})

    monkeypatch.setattr(plan, "_train", train)
    tiny: dict[str, Any] = {"net_channels": 8, "net_channel_mult": "1,2", "num_rounds": 1}
    said = done("sr_plan", words(DENOISER, tiny, log_dir=tmp_path, use_fp16=True)).out
    assert "training in bf16" in said and "computing in fp32" not in said
    assert trained == [{torch.float32, torch.bfloat16}] * 4
