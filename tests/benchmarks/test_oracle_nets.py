"""The comparison of the routes: its flags, and the table that it makes of the verifications."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.oracle_nets import NetsFlags, format_table, main, rows, write_results


def _truth(scale: float) -> dict[str, float]:
    names = ("relative_mse", "relative_var_error", "relative_rms_error", "var_bias")
    return {name: scale * (i + 1) for i, name in enumerate(names)}


def test_rows_are_what_the_verifications_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = NetsFlags(routes="cross_fit,nll", batch_size=10, mean_steps=3, var_steps=5)
    for route in flags.chosen:
        folder = Path(flags.experiment.log_dir(route))
        folder.mkdir(parents=True)
        scale = 0.01 if route.name == "nll" else 0.02
        content = {
            "truth": {"nets": _truth(scale), "samples": _truth(0.001)},
            "cost": {"nets": {"evaluations_per_image": 1}},
        }
        (folder / "results.json").write_text(json.dumps(content))
    found = rows(flags.experiment, flags.chosen)
    assert [row["route"] for row in found] == ["cross_fit", "nll", "samples"]
    # two folds and the mean net of the test, then the variance net; both nets' steps in one
    assert [row.get("training_images") for row in found] == [140, 80, None]
    assert [row["var_bias"] for row in found] == [0.08, 0.04, 0.004]
    table = format_table(found)
    assert (
        "| two nets, Itakura–Saito" not in table and "| the same, cross-fit of 2 | 140 |" in table
    )
    assert table.splitlines()[3].endswith("| 1 % | 2 % | 3 % | +4 % |")
    path = write_results(NetsFlags(name="x", output_dir=str(tmp_path / "out")), found)
    assert json.loads(path.read_text())["results"] == found
    assert path.with_suffix(".md").read_text(encoding="utf-8") == table


def test_intervals_have_columns_where_they_were_calibrated() -> None:
    row = {"title": "one net", "training_images": 8, "evaluations": 1, **_truth(0.01)}
    widths = {"raw_mean_width": 20.0, "mean_width": 25.0}
    calibrated = {**row, "raw_coverage": 0.861, "coverage": 0.927, **widths}
    lines = format_table([calibrated, {"title": "samples", **_truth(0.001)}]).splitlines()
    assert lines[2].endswith("| +4 % | 86.1 % | 92.7 % | 1.25 |")
    assert lines[3].endswith("| – | – | – |")
    assert len({line.count("|") for line in lines}) == 1


def test_unknown_route_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--routes", "best,nll"])
    assert stopped.value.code == 2
    assert "--routes best" in capsys.readouterr().err
