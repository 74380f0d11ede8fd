"""sr_calibrate.py from end to end on results that are made by hand."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sr_var.calibrate import run as calibrate_run
from sr_var.calibrate.record import STD_FLOOR, read_calibration
from tests.sr_var.calibrate.made import (
    MEAN_SHA,
    SIDE,
    VAR_SHA,
    calibrate_argv,
    make_held_out,
    stamp,
)
from tests.sr_var.hand_made import MEAN_STEP, VAR_STEP, Results
from tests.tiny import done, run, tree
from utils.files.atomic import write_json_atomic
from utils.images.listing import Entry
from utils.process.errors import EXIT_DATA, EXIT_STOPPED, EXIT_USAGE
from utils.untrusted.pickles import load_array

NAMES = [f"image{i}.png" for i in range(20)]


def _found(made: Results) -> dict[str, Any]:
    text = (made.root / "out" / "calibration.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def _scores(made: Results, name: str) -> np.ndarray[Any, Any]:
    folder = made.root / "nets" / name
    mean = np.load(folder / f"high_res_mean_{MEAN_STEP}.npy").astype(np.float64)
    variance = load_array(folder / f"high_res_var_{VAR_STEP}.pkl", shape=(SIDE, SIDE, 3))
    image = np.asarray(Image.open(made.root / "images" / name), np.float64)
    return np.asarray(np.abs(image - mean) / np.sqrt(np.maximum(variance, STD_FLOOR**2)))


def test_factor_is_the_smallest_that_satisfies_the_inequality(tmp_path: Path) -> None:
    made = make_held_out(tmp_path, NAMES)
    said = done("sr_calibrate", calibrate_argv(made)).out
    found, n = _found(made), len(NAMES)
    scores = np.stack([_scores(made, name) for name in NAMES])

    def bound(factor: float) -> float:
        return float((n * (scores > factor).mean() + 1) / (n + 1))

    assert bound(found["factor"]) <= 0.1 < bound(found["factor"] / 1.002)
    assert 3.4 < found["factor"] < 4.2  # twice as wide as a normal law's, and a little for n
    assert (found["method"], found["level"], found["num_units"]) == ("conformal", 0.9, 20)
    assert "delta" not in found
    assert found["models"] == {"mean": [MEAN_SHA], "var": [VAR_SHA, MEAN_SHA]}
    told = found["found"]
    assert told["risk"] == pytest.approx((scores > found["factor"]).mean())
    assert told["normal_risk"] == pytest.approx((scores > 1.6449).mean(), abs=0.002)
    for part in ("20 images", "takes 9", f"λ = {found['factor']:.3f}", "calibration.json"):
        assert part in said


def test_risk_control_is_wider_and_says_what_is_needed(tmp_path: Path) -> None:
    made = make_held_out(tmp_path, [f"image{i}.png" for i in range(30)])
    done("sr_calibrate", calibrate_argv(made))
    conformal = _found(made)["factor"]
    said = done("sr_calibrate", calibrate_argv(made, method="risk_control")).out
    found = _found(made)
    assert found["factor"] > conformal and found["delta"] == 0.1
    assert "takes 22 where no pixel may lie outside, 134 where 5 % may" in said


@pytest.mark.parametrize(
    ("num_images", "changes", "needed"),
    [
        (8, {}, 9),
        (18, {"level": 0.95}, 19),
        (21, {"method": "risk_control"}, 22),
        (16, {"recalibrate_std": True}, 9),
    ],
)
def test_too_few_images_are_refused_with_the_number_that_is_needed(
    tmp_path: Path, num_images: int, changes: dict[str, Any], needed: int
) -> None:
    made = make_held_out(tmp_path, NAMES[:num_images] + ["x.png"] * (num_images == 21))
    outcome = run("sr_calibrate", calibrate_argv(made, **changes))
    assert outcome.code == EXIT_DATA and f"takes {needed};" in outcome.err
    assert "--data_info_dict_path" in outcome.err and not (tmp_path / "out").exists()


def test_tiles_of_a_photograph_are_one_unit_each_of_equal_weight(tmp_path: Path) -> None:
    """Nine photographs; the first has four tiles, whose shares outside are averaged first."""
    names = [f"cal/p{i}_00{k}.png" for i in range(9) for k in range(4 if i == 0 else 1)]
    made = make_held_out(tmp_path, names)
    said = done("sr_calibrate", calibrate_argv(made, level=0.8)).out
    found = _found(made)
    assert found["cluster"] == "photograph" and found["num_units"] == 9 and "9 photographs" in said
    by_unit: dict[str, list[float]] = {}
    for name in names:
        share = (_scores(made, name) > found["factor"]).mean()
        by_unit.setdefault(name[:6], []).append(float(share))
    risk = np.mean([np.mean(shares) for shares in by_unit.values()])
    assert found["found"]["risk"] == pytest.approx(risk) and risk <= 0.2 - 0.8 / 9
    assert {one["unit"] for one in found["images"]} == {f"cal/p{i}" for i in range(9)}
    outcome = run("sr_calibrate", calibrate_argv(made, level=0.95))
    assert outcome.code == EXIT_DATA and "9 photographs are too few" in outcome.err


def test_std_is_recalibrated_on_half_of_the_units(tmp_path: Path) -> None:
    made = make_held_out(tmp_path, NAMES, scale=2.0)
    done("sr_calibrate", calibrate_argv(made, recalibrate_std=True))
    calibration = read_calibration(str(tmp_path / "out" / "calibration.json"))
    assert calibration.num_units == 10 and len(calibration.images) == 20
    std = np.linspace(2.5, 7.5, 20)
    np.testing.assert_allclose(calibration.std(std), 2 * std, rtol=0.25)
    assert 1.4 < calibration.factor < 2.8


def test_results_of_one_network_are_calibrated_alike(tmp_path: Path) -> None:
    """Of a likelihood or a quantile net: its stamp stands for both."""
    made = make_held_out(tmp_path, NAMES)
    done("sr_calibrate", calibrate_argv(made))
    before = _found(made)
    for kind, step in (("mean", MEAN_STEP), ("var", VAR_STEP)):
        (made.root / "nets" / f".{kind}_{step}.json").unlink()
        write_json_atomic(made.root / "nets" / f".baseline_{step}.json", {"models": [VAR_SHA]})
    done("sr_calibrate", calibrate_argv(made))
    assert _found(made) == {**before, "models": {"mean": [VAR_SHA], "var": [VAR_SHA]}}


def test_running_again_gives_the_same_file_and_a_dry_run_none(tmp_path: Path) -> None:
    made = make_held_out(tmp_path, NAMES)
    assert "dry run" in done("sr_calibrate", calibrate_argv(made, dry_run=True)).out
    assert not (tmp_path / "out").exists()
    done("sr_calibrate", calibrate_argv(made, recalibrate_std=True))
    before = tree(tmp_path / "out")
    done("sr_calibrate", calibrate_argv(made, recalibrate_std=True, num_threads=2))
    assert tree(tmp_path / "out") == before


def test_a_signal_stops_between_two_images_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, read = make_held_out(tmp_path, NAMES), calibrate_run.load_net_result
    seen: list[str] = []

    def load(entry: Entry, *of: Any) -> Any:
        seen.append(entry.name)
        if len(seen) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return read(entry, *of)

    with monkeypatch.context() as patch:
        patch.setattr(calibrate_run, "load_net_result", load)
        outcome = run("sr_calibrate", calibrate_argv(made))
    assert outcome.code == EXIT_STOPPED and len(seen) < len(NAMES)
    assert not (tmp_path / "out").exists()
    done("sr_calibrate", calibrate_argv(made))


@pytest.mark.parametrize(
    ("changes", "flag"),
    [({"level": 1.0}, "--level"), ({"delta": 0}, "--delta"), ({"cluster": "tile"}, "--cluster")],
)
def test_bad_flags_are_usage_errors(tmp_path: Path, changes: dict[str, Any], flag: str) -> None:
    made = make_held_out(tmp_path, NAMES[:2])
    outcome = run("sr_calibrate", calibrate_argv(made, **changes))
    assert outcome.code == EXIT_USAGE and flag in outcome.err


def test_a_list_of_images_has_to_be_named() -> None:
    outcome = run("sr_calibrate", [])
    assert outcome.code == EXIT_USAGE and "--data_info_dict_path" in outcome.err


def test_results_that_are_missing_or_belong_to_two_nets_are_refused(tmp_path: Path) -> None:
    made = make_held_out(tmp_path, NAMES)
    missing = made.root / "nets" / NAMES[7] / f"high_res_var_{VAR_STEP}.pkl"
    content = missing.read_bytes()
    missing.unlink()
    outcome = run("sr_calibrate", calibrate_argv(made))
    assert outcome.code == EXIT_DATA and str(missing) in outcome.err
    missing.write_bytes(content)
    stamp(made, "c" * 64, VAR_SHA)
    (made.root / "nets" / f".var_{VAR_STEP}.json").write_text(
        json.dumps({"models": [VAR_SHA, MEAN_SHA]})
    )
    outcome = run("sr_calibrate", calibrate_argv(made))
    assert outcome.code == EXIT_DATA and "these means are of" in outcome.err
    assert not (tmp_path / "out").exists()


def test_a_std_without_any_sense_is_said(tmp_path: Path) -> None:
    made = make_held_out(tmp_path, NAMES)
    for name in NAMES[:10]:
        made.add_nets(name, np.full((SIDE, SIDE, 3), 1e6), np.zeros((SIDE, SIDE, 3)))
    outcome = run("sr_calibrate", calibrate_argv(made))
    assert outcome.code == EXIT_DATA and "50 % of the real values" in outcome.err
