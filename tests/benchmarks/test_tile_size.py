"""The measurement of tiles: the whole image, every tile and the corner have their row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.tile_size import main


@pytest.mark.slow
def test_every_tile_is_held_against_the_whole(tmp_path: Path) -> None:
    words = ["--mean_steps", "1", "--var_steps", "1", "--tiles", "16", "--num_images", "2"]
    words += ["--sides", "20,24", "--work_dir", str(tmp_path / "work")]
    assert main([*words, "--output_dir", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("tile_size_*.json")
    whole, tile, corner = json.loads(path.read_text())["results"]
    assert (whole["tile"], tile["tile"], corner["tile"]) == ("whole", 16, "corner")
    assert whole["rms_difference"] == whole["largest"] == 0 < tile["rms_difference"]
    assert tile["psnr"] == pytest.approx(whole["psnr"], abs=3) and whole["images"] == 2
    assert corner["rms_difference"] < 0.5 * corner["rms_error_of_whole"]
    table = path.with_suffix(".md").read_text().splitlines()
    assert [line.split(" | ")[0] for line in table[2:4]] == ["| whole", "| 16"]
