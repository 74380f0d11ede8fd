"""The measurement of the loader: every way is there, and the cache differs in nothing."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.loader import CACHE, PLAIN, main


def test_ways_are_compared_on_the_same_crops(tmp_path: Path) -> None:
    words = ["--num_images", "3", "--num_rounds", "1", "--size", "64"]
    assert main([*words, "--output_dir", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("loader_*.json")
    rows = {row["way"]: row for row in json.loads(path.read_text())["results"]}
    assert list(rows) == [PLAIN, CACHE]
    assert rows[PLAIN]["ratio"] == rows[PLAIN]["item_ratio"] == 1
    assert all(rows[way]["largest_difference"] == 0 for way in (PLAIN, CACHE))
    table = path.with_suffix(".md").read_text().splitlines()
    assert [line.split(" | ")[0] for line in table[2:]] == ["| plain", "| cache"]
