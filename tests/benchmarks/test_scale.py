"""The measurement of long lists: every row works on a few images of its own making."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.scale import ROWS, Scale, ScaleFlags, main

FLAGS = {"num_images": 2000, "num_files": 8, "num_sampled": 3, "num_verified": 2, "num_samples": 4}


@pytest.mark.parametrize("name", sorted(ROWS))
def test_each_row_does_its_work_on_little_data(tmp_path: Path, name: str) -> None:
    scale = Scale(ScaleFlags(data_dir=str(tmp_path), **FLAGS))
    for part in (f"prepare_{name}", name):
        if part == name or hasattr(scale, part):
            found = getattr(scale, part)()
    if name in ("plain", "epoch"):
        assert len(found) == FLAGS["num_images"]
    elif name in ("first", "listed"):
        assert len(found[0]) == FLAGS["num_images"]
    elif name in ("crops", "cached", "reads"):
        assert len(found) == FLAGS["num_files"]
    elif name == "parts":
        assert not [*found]  # nothing is left to be drawn
    elif name in ("info", "unchecked"):
        assert (tmp_path / "lists" / "to_sample_data_info.pkl").exists()
    elif name in ("pictures", "moments", "many"):
        content = json.loads((tmp_path / "log_verified" / "results.json").read_text())
        counted = "num_sampled" if name == "many" else "num_verified"
        assert content["num_images"] == FLAGS[counted]


def test_rows_are_measured_in_processes_of_their_own(tmp_path: Path) -> None:
    words = [f"--{name}={value}" for name, value in FLAGS.items()]
    words += ["--data_dir", str(tmp_path / "data"), "--output_dir", str(tmp_path)]
    assert main([*words, "--only", "first"]) == 0
    (path,) = tmp_path.glob("scale_*.json")
    (row,) = json.loads(path.read_text())["results"]
    assert row["row"] == "first" and row["cpu"] > 0 and {"rss", "private", "peak"} < row.keys()
