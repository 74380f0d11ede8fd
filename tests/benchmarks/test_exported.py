"""The benchmark of exported networks, in small."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import exported


@pytest.mark.slow
def test_sizes_differences_and_seconds_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason=f"{name} is not installed (requirements-export.txt)")
    monkeypatch.setattr(exported, "SIDE", 8)
    argv = ["--nets", "subpixel", "--rounds", "1", "--output_dir", str(tmp_path)]
    assert exported.main(argv) == 0
    (path,) = tmp_path.glob("exported_*.json")
    record = json.loads(path.read_text(encoding="utf-8"))
    found = record["subpixel"]
    # fp32 weights, and a graph that is small beside them
    assert 4 * found["num_parameters"] < found["onnx_bytes"] < 5 * found["num_parameters"]
    assert all(value < 1e-5 for value in found["largest_difference"].values())
    names = [row["name"] for row in record["tables"]["subpixel"]]
    assert names == ["network", "torch.export", "onnxruntime"]


def test_unknown_networks_are_refused() -> None:
    with pytest.raises(ValueError, match="--nets transformer"):
        exported.ExportedFlags(nets="transformer")
