"""Trainings side by side: what is read is what was logged, and the table says it."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sr_var.compare import (
    Curve,
    _panels,
    different_flags,
    draw_runs,
    read_runs,
    table,
    table_text,
    write_table,
)
from tests.tiny import done, run, tree
from utils.logger import RunLogger
from utils.process.errors import EXIT_DATA, EXIT_USAGE, DataError

Values = Mapping[str, Mapping[int, float]]
MEAN: Values = {
    "loss": {step: 1.0 / step for step in range(10, 110, 10)},
    "samples_per_second": {step: 20.0 + step for step in range(10, 110, 10)},
    "val/loss": {50: 0.3, 100: 0.4},
    "val/psnr": {50: 25.0, 100: 24.0},
}
VARIANCE: Values = {
    "loss": {10: -1.0, 20: -2.0},
    "val/loss": {20: -1.5},
    "val/nll": {20: 4.0},
    "val/z2": {20: 1.25},
}


def log(folder: Path, values: Values, flags: dict[str, Any] | None = None, after: int = 0) -> str:
    """Writes the curves as a training does; one that was resumed at a step makes it the last."""
    logger = RunLogger(str(folder), is_quiet=True)
    if after:
        logger.forget_after(after)
    for step in sorted({step for curve in values.values() for step in curve}):
        logger.scalars({tag: c[step] for tag, c in values.items() if step in c}, step)
    if flags is not None:
        logger.write_args({"flags": flags, "command": ["x"]}, "args_sr_mean_train.json")
    logger.close()
    return str(folder)


# ---- curves


def test_the_end_is_the_mean_of_the_last_tenth_of_the_steps() -> None:
    curve = Curve(np.arange(0.0, 101.0), np.arange(0.0, 101.0))
    assert curve.end == 95.0
    assert Curve(np.array([5.0]), np.array([3.0])).end == 3.0


def test_the_best_is_the_first_of_equals() -> None:
    curve = Curve(np.array([1.0, 2, 3, 4]), np.array([2.0, 1, 3, 1]))
    assert curve.best(is_more_better=False) == (2, 1.0)
    assert curve.best(is_more_better=True) == (3, 3.0)


@pytest.mark.parametrize("number", [1, 19, 20, 1001])
def test_smoothing_is_the_mean_of_a_tenth_of_the_points(number: int) -> None:
    noise = np.random.default_rng(0).normal(size=number)
    smooth, half = Curve(np.arange(float(number)), noise).smoothed(), number // 20
    for place in {0, number // 2, number - 1}:
        around = noise[max(place - half, 0) : place + half + 1]
        assert smooth[place] == pytest.approx(around.mean(), abs=1e-12)
    if number < 20:
        np.testing.assert_allclose(smooth, noise, atol=1e-12)


# ---- reading


def test_what_was_logged_is_read(tmp_path: Path) -> None:
    (found,) = read_runs([log(tmp_path / "a", MEAN, {"lr": 0.1})])
    assert found.name == "a" and found.steps == 100 and found.flags == {"lr": 0.1}
    for tag, values in MEAN.items():
        assert found.curves[tag].steps.tolist() == list(values)
        np.testing.assert_allclose(found.curves[tag].values, list(values.values()), rtol=1e-6)


def test_steps_that_a_resumed_run_made_anew_count_once(tmp_path: Path) -> None:
    log(tmp_path, {"loss": {1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0}})
    log(tmp_path, {"loss": {3: 30.0, 4: 40.0, 5: 50.0}}, after=2)
    (found,) = read_runs([str(tmp_path)])
    assert found.curves["loss"].steps.tolist() == [1, 2, 3, 4, 5]
    assert found.curves["loss"].values.tolist() == [1, 2, 30, 40, 50]


def test_values_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    values = {"loss": {1: 1.0, 2: math.nan, 3: math.inf, 4: 2.0}, "val/loss": {1: math.nan}}
    (found,) = read_runs([log(tmp_path, values)])
    assert found.curves["loss"].steps.tolist() == [1, 4] and "val/loss" not in found.curves


def test_names_are_as_long_as_it_takes_to_tell_runs_apart(tmp_path: Path) -> None:
    folders = [log(tmp_path / name, MEAN) for name in ("x/run", "y/run", "y/other")]
    assert [one.name for one in read_runs(folders[1:])] == ["run", "other"]
    assert [one.name for one in read_runs(folders)] == ["x/run", "y/run", "y/other"]


def test_flags_are_those_of_the_training_not_of_a_later_script(tmp_path: Path) -> None:
    log(tmp_path, MEAN, {"lr": 0.1})
    (tmp_path / "args.json").write_text(json.dumps({"flags": {"batch_size": 7}}))
    (found,) = read_runs([str(tmp_path)])
    assert found.flags == {"lr": 0.1}
    (tmp_path / "args_sr_mean_train.json").write_text("[1")
    assert read_runs([str(tmp_path)])[0].flags == {}


def test_a_file_that_a_kill_cut_off_is_read_up_to_there(tmp_path: Path) -> None:
    log(tmp_path, MEAN)
    (path,) = tmp_path.glob("events*")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    (found,) = read_runs([str(tmp_path)])
    assert 0 < len(found.curves["loss"].steps) < 10


@pytest.mark.parametrize("content", [None, b"", b"no events at all " * 10])
def test_a_folder_without_curves_is_named(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "events.out.tfevents.1.host").write_bytes(content)
    with pytest.raises(DataError, match="no curve") as caught:
        read_runs([str(tmp_path)])
    assert str(tmp_path) in str(caught.value)


def test_a_folder_that_is_none_or_named_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a folder"):
        read_runs([str(tmp_path / "no")])
    (tmp_path / "b").symlink_to(tmp_path / "a")
    folder = log(tmp_path / "a", MEAN)
    with pytest.raises(DataError, match="twice"):
        read_runs([folder, str(tmp_path / "b")])


# ---- the table


def test_the_table_has_last_and_best_values_of_what_each_run_has(tmp_path: Path) -> None:
    runs = read_runs([log(tmp_path / "mean", MEAN), log(tmp_path / "var", VARIANCE)])
    heads, (one, two) = table(runs)
    first, second = (dict(zip(heads, row, strict=True)) for row in (one, two))
    assert first["run"] == "mean" and first["steps"] == "100" and first["images/s"] == "75"
    assert first["loss, end"] == f"{(1 / 100 + 1 / 100) / 2:.4g}"
    assert first["val/loss, last"] == "0.4" and first["val/loss, best"] == "0.3"
    place = heads.index("val/psnr, best")
    assert one[place : place + 2] == ["25", "50"]
    assert second["val/psnr, last"] == "" and second["images/s"] == ""
    assert second["val/z2, last"] == "1.25" and first["val/z2, last"] == ""
    assert "val/z2, best" not in heads
    write_table(str(tmp_path / "runs.csv"), runs)
    with open(tmp_path / "runs.csv", newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [heads, one, two]


def test_flags_that_differ_are_told_but_no_folders(tmp_path: Path) -> None:
    flags = {"lr": 0.1, "seed": 0, "log_dir": "a", "model_save_dir": "a"}
    folders = [
        log(tmp_path / "a", MEAN, flags),
        log(tmp_path / "b", MEAN, {**flags, "lr": 0.2, "log_dir": "b", "loss": "x" * 100}),
    ]
    runs = read_runs(folders)
    found = different_flags(runs)
    assert found.keys() == {"lr", "loss"} and found["lr"] == ["0.1", "0.2"]
    assert found["loss"][0] == "-" and len(found["loss"][1]) == 60
    assert "--lr: 0.1 | 0.2" in table_text(runs)
    assert different_flags(read_runs([folders[0], log(tmp_path / "c", MEAN)])) == {}


# ---- the picture


def test_each_run_has_a_colour_in_every_panel_that_knows_it(tmp_path: Path) -> None:
    folders = [log(tmp_path / "mean", MEAN), log(tmp_path / "var", VARIANCE)]
    path = tmp_path / "runs.png"
    draw_runs(str(path), read_runs(folders))
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    height, width = pixels.shape[:2]
    assert width > 1000 and height > 900
    for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):
        assert (pixels == colour).all(axis=2).sum() > 100


def test_losses_of_different_objectives_have_panels_of_their_own(tmp_path: Path) -> None:
    flags: list[dict[str, Any]] = [{}, {"loss": "itakura_saito"}, {"objective": "nll", "loss": "x"}]
    runs = read_runs([log(tmp_path / str(i), MEAN, one) for i, one in enumerate(flags)])
    assert [run.objective for run in runs] == ["", "itakura_saito", "nll"]
    own = [(tag, run.objective) for run in runs for tag in ("loss", "val/loss")]
    assert _panels(runs) == [*own, ("val/psnr", None)]
    assert _panels(runs[:1]) == [("loss", None), ("val/loss", None), ("val/psnr", None)]
    draw_runs(str(tmp_path / "runs.png"), runs)


def test_many_runs_and_curves_of_one_point_are_drawn(tmp_path: Path) -> None:
    folders = [log(tmp_path / f"run {i}", {"loss": {1: float(i)}}) for i in range(9)]
    path = tmp_path / "runs.png"
    draw_runs(str(path), read_runs(folders))
    with Image.open(path) as image:
        assert image.width > 600


# ---- the script


def test_the_script_takes_folders_as_words(tmp_path: Path) -> None:
    folders = [log(tmp_path / "mean", MEAN), log(tmp_path / "var", VARIANCE)]
    out = tmp_path / "out"
    said = done("sr_compare_runs", [folders[0], "--log_dir", str(out), folders[1]]).out
    assert "val/z2, last" in said and str(out / "runs.png") in said
    assert {"runs.png", "runs.csv", "logs.txt", "args.json"} <= set(tree(out))
    one = json.loads((out / "args.json").read_text())["flags"]["log_dirs"]
    assert one == ",".join(folders)
    config = tmp_path / "compare.yaml"
    config.write_text(f"log_dirs: [{folders[0]}, {folders[1]}]\nlog_dir: {tmp_path / 'again'}\n")
    done("sr_compare_runs", ["--config", str(config)])
    for name in ("runs.csv", "runs.png"):
        assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes()


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    argv = [log(tmp_path / "mean", MEAN), "--log_dir", str(tmp_path / "out"), "--dry_run", "True"]
    assert "val/psnr" in done("sr_compare_runs", argv).out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("code", "part", "argv"),
    [
        (EXIT_USAGE, "log folders", []),
        (EXIT_USAGE, "--logdir", ["a", "--logdir", "b"]),
        (EXIT_DATA, "no/such", ["no/such"]),
    ],
)
def test_what_cannot_be_compared_is_refused(
    tmp_path: Path, code: int, part: str, argv: list[str]
) -> None:
    outcome = run("sr_compare_runs", [*argv, "--log_dir", str(tmp_path / "out")])
    assert outcome.code == code and part in outcome.err and "Traceback" not in outcome.err
