"""The measurement of predictions: every network and tile has its row."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.prediction import main


def test_every_tile_has_its_row(tmp_path: Path) -> None:
    words = ["--megapixels", "0.02", "--tiles", "16,auto", "--threads", "1"]
    assert main([*words, "--output_dir", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("prediction_*.json")
    rows = json.loads(path.read_text())["results"]
    assert [row["tile"] for row in rows] == ["16", "auto"]
    assert {row["result"] for row in rows} == {"176×116"}
    assert all(row["seconds"] > 0 and 50 < row["peak_mib"] < 4000 for row in rows)
    table = path.with_suffix(".md").read_text().splitlines()
    assert [line.split(" | ")[0] for line in table[2:]] == ["| small"] * 2
