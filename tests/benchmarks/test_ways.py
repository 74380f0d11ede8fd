"""The benchmarks of other ways to run a network, and of what a machine can do, in small."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import limits, methods, nets, ways
from benchmarks.harness import Measurement, Variant
from models.blocks import AttentionBlock
from models.config import UNetConfig


def _record(folder: Path, part: str) -> dict[str, Any]:
    (path,) = folder.glob(f"{part}_*.json")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("net", ["tiny", "subpixel", "subpixel_variance", "subpixel_denoiser"])
def test_every_way_computes_the_same(tmp_path: Path, net: str) -> None:
    argv = [
        "--nets",
        net,
        "--side",
        "8",
        "--rounds",
        "1",
        "--compile",
        "False",
        "--output_dir",
        str(tmp_path),
    ]
    assert ways.main(argv) == 0
    record = _record(tmp_path, "ways")
    rows = {row["name"]: row for row in record["tables"][net]}
    assert {"plain eager", "project", "torch, channels last"} <= rows.keys()
    for name, row in rows.items():
        assert row["max_difference"] < (0.5 if name.endswith("bf16") else 1e-4), name
    (target, *_) = record["targets"]
    others = [row["median"] for name, row in rows.items() if not name.startswith("project")]
    assert target["value"] == pytest.approx(rows["project"]["median"] / min(others), rel=1)


def test_the_target_is_held_against_the_best_other_way() -> None:
    times = {
        "plain eager": [4.0],
        "project": [3.0],
        "OpenVINO": [2.0],
        "project, bf16": [1.2],
        "OpenVINO, bf16": [1.0],
    }
    measured = Measurement([Variant(name, lambda: None) for name in times], times, {})
    exact, half = ways.targets_of("net", measured)
    assert exact.value == pytest.approx(1.5)
    assert exact.note == "the best is OpenVINO"
    assert exact.is_met is False
    assert half.value == pytest.approx(1.2)
    assert half.note == "the best is OpenVINO, bf16"


def test_unknown_networks_are_refused() -> None:
    with pytest.raises(ValueError, match="--nets transformer"):
        ways.WaysFlags(nets="transformer")


def test_operations_of_layers_are_those_that_torch_counts() -> None:
    conv = torch.nn.Conv2d(8, 16, 3, padding=1)
    linear = torch.nn.Linear(8, 4)
    assert limits.operations_of(conv, torch.zeros(2, 16, 5, 7)) == 2 * 2 * 5 * 7 * 16 * 8 * 9
    assert limits.operations_of(linear, torch.zeros(3, 4)) == 2 * 3 * 4 * 8
    block = AttentionBlock(UNetConfig(image_size=8, channel_mult=(1, 2), num_heads=2), 32)
    x = torch.zeros(2, 32, 4, 4)
    # the counter knows no fused attention on a CPU
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        block(x)
    assert limits.operations_of(block, x) == counter.get_total_flops()


def test_layers_are_timed_once_and_the_rest_is_told(tmp_path: Path) -> None:
    argv = ["--net", "tiny", "--rounds", "1", "--output_dir", str(tmp_path)]
    assert limits.main(argv) == 0
    rows = {row["kind"]: row for row in _record(tmp_path, "limits")["layers"]}
    network = nets.upsampler("tiny")
    inside = {
        id(one)
        for block in network.modules()
        if isinstance(block, AttentionBlock)
        for one in block.modules()
    }
    norms = [one for one in network.modules() if isinstance(one, torch.nn.GroupNorm)]
    assert rows["group norm"]["calls"] == sum(id(one) not in inside for one in norms)
    whole = rows.pop("the pass")["seconds"]
    assert sum(row["seconds"] for row in rows.values()) == pytest.approx(whole)


def test_methods_make_images_of_one_size() -> None:
    for one in methods.methods(32):
        found = one.call()
        sides = found.size if one.name.startswith("bicubic") else tuple(found.shape[2:])
        assert sides == (32, 32), one.name
