"""The four nets on the class law: the whole run in tiny, and the table by numbers made by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.class_gap import GapFlags, commands, format_table, main
from sr_var.base_dataset import load_entries
from sr_var.results.moments import load_truth
from tests.tiny import ROOT, done, words

SIZES = ("--num_crops", "6", "--num_test_crops", "2", "--num_samples", "40", "--steps", "2")
NETS = ("--width", "4", "--num_res_blocks", "1", "--large_size", "16", "--small_size", "4")


def test_the_whole_run_measures_both_pairs_against_their_own_law(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "demo").symlink_to(ROOT / "data" / "demo")
    assert main([*SIZES, *NETS, "--output_dir", str(tmp_path / "results")]) == 0
    (path,) = (tmp_path / "results").glob("class_gap_*.json")
    found = json.loads(path.read_text(encoding="utf-8"))["results"]
    images = load_entries("data/class_gap/to_sample_data_info.pkl", "data/class_gap/images")
    for kind in ("", "_given_class"):
        truths = [load_truth(f"outputs/oracle/class_gap{kind}/{one.name}", 16) for one in images]
        exact = float(np.mean([truth.variance for truth in truths if truth is not None]))
        assert found[kind]["exact"] == pytest.approx(exact, rel=1e-12)
        assert found[kind]["relative_mse"] > 0 and found[kind]["variance"] > 0
        results = json.loads(Path(f"logs/sr_compare/class_gap{kind}/results.json").read_text())
        told = results.get("class_cond", {"nets": False, "samples": False})
        assert told == {"nets": bool(kind), "samples": bool(kind)}
    gap = found[""]["exact"] - found["_given_class"]["exact"]
    assert found["gap"]["exact"] == pytest.approx(gap, rel=1e-9)
    assert path.with_suffix(".md").read_text(encoding="utf-8") == format_table(found)
    # the error budget draws from the law of the samples that it is given
    script, verify = commands(GapFlags(steps=2))[-1]
    assert script == "sr_var_verification.py"
    flags = dict(zip(verify[::2], verify[1::2], strict=True))
    own = {"--large_size": "16", "--num_samples": "40", "--log_dir": "logs/budget"}
    argv = [word for pair in {**flags, **own}.items() for word in pair]
    said = done("oracle_budget", [*argv, *words(timestep_respacing="logsnr10")]).out
    assert "know the class" not in said
    budget = json.loads(Path("logs/budget/budget.json").read_text(encoding="utf-8"))["budget"]
    rows = {row["row"]: row for row in budget}
    # a share of the variance, less the noise of 40 samples; of draws given X alone it is the gap's
    gap_share = found["gap"]["exact_between"] / found["_given_class"]["exact"]
    assert gap_share > 0.08
    error = rows["sampler with the exact denoiser"]["relative_mse"]
    assert isinstance(error, float) and abs(error) < gap_share / 3


def test_the_table_compares_nets_and_exact_values() -> None:
    own = {"relative_mse": 0.004, "relative_var_error": 0.05, "var_bias": 0.1}
    found = {
        "": {"variance": 110.0, "exact": 100.0, **own},
        "_given_class": {"variance": 81.0, "exact": 80.0, **own},
        "gap": {
            "variance": 29.0,
            "exact": 20.0,
            "error": 0.5,
            "between_means": 21.0,
            "exact_between": 20.0,
        },
    }
    lines = format_table(found).splitlines()
    assert lines[2] == "| nets given X | 110.00 | 100.00 | +10.0 % | 0.40 % | 5.0 % |"
    assert lines[4].endswith("| 29.00 | 20.00 | +45.0 % | – | 50 % |")
    assert lines[5].endswith("| 21.00 | 20.00 | +5.0 % | – | – |")


def test_impossible_sizes_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--num_classes", "1"])
    assert stopped.value.code == 2
    assert "--num_classes 1" in capsys.readouterr().err
