"""The measurements of loading: every way is there, and none differs in what it loads."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import degrading
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


def test_degraded_images_are_compared_wherever_they_are_made(tmp_path: Path) -> None:
    words = ["--num_images", "4", "--batch_size", "2", "--size", "32", "--workers", "1"]
    once = ["--rounds", "1", "--degradations", "poisson:30", "--output_dir", str(tmp_path)]
    assert degrading.main([*words, *once]) == 0
    (path,) = tmp_path.glob("degrading_*.json")
    whole, own = json.loads(path.read_text())["tables"].values()
    names = [f"poisson:30, 1 loading, {where}" for where in (degrading.HERE, degrading.THERE)]
    assert [row["name"] for row in whole] == names
    assert [row["name"] for row in own] == names
    assert whole[1]["max_difference"] == 0
