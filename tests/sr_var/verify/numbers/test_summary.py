"""``results.json`` and the table: sections, types, order of work, exact law."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sr_var.verify.numbers import intervals
from sr_var.verify.numbers.calibration import ause, calibrate, ence
from sr_var.verify.numbers.summary import flat_metrics, scatter_per_image
from tests.sr_var.hand_made import SHAPE, Results, flat
from utils.untrusted.pickles import load_array

NUM_IMAGES, NUM_SAMPLES = 5, 6
CALIBRATED = {"z2", "nll", "crps", "interval_score_90", "ence", "ause"}
CALIBRATED |= {"spread_skill_ratio", "spread_skill_slope"}
CALIBRATED |= {f"coverage_{p}" for p in (50, 68, 90, 95)}


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Results:
    """Five images of a known law, one of them with float moments; nets a little off.

    Five are taken for enough of an interval.
    """
    monkeypatch.setattr(intervals, "MIN_UNITS", NUM_IMAGES)
    made, rng = Results(tmp_path), np.random.default_rng(0)
    for i in range(NUM_IMAGES):
        name = f"image{i}.png"
        mean, std = rng.uniform(60, 190, SHAPE), rng.uniform(2, 8, SHAPE)
        made.add_image(name, high_res_255=120)
        samples = mean + std * rng.standard_normal((NUM_SAMPLES, *SHAPE))
        made.add_samples(name, samples, has_moments=i == 1)
        made.add_nets(name, mean + 1.0, std**2 * rng.uniform(0.8, 1.3, SHAPE))
    return made


def _verify(results: Results, **changes: Any) -> tuple[dict[str, Any], str]:
    lines = results.verify(**{"num_samples": NUM_SAMPLES, "num_panels": 0, **changes})
    found = json.loads((results.root / "log" / "results.json").read_text(encoding="utf-8"))
    return found, "\n".join(lines)


def _add_truth(results: Results, name: str, variance: float = 25.0) -> None:
    arrays = {"mean": flat(100.0), "variance": flat(variance), "third_central_moment": flat(0)}
    path = results.root / "samples" / name / "exact_moments.npz"
    np.savez(path, **arrays, fourth_central_moment=flat(3 * variance**2))


def test_results_hold_every_section_with_its_keys(results: Results) -> None:
    found, _ = _verify(results)
    assert {"mean", "var", "high_res", "edges", "ceiling", "calibration", "consistency"} < set(
        found
    )
    assert {"relative_floor", "relative_mse", "floor_mse"} <= set(found["mean"])
    errors = {"squared_error", "floor_squared_error", "corrected_squared_error"}
    assert errors | {"relative_squared_error", "relative_bias"} <= set(found["var"])
    assert set(found["ceiling"]) == {
        of + name for of in ("", "std_") for name in ("correlation", "reliability", "disattenuated")
    }
    keys = {"z2", "nll", "coverage_50", "coverage_68", "coverage_90", "coverage_95", "ence"}
    keys |= {"sharpness_mean_std", "interval_score_90", "ause", "num_floored"}
    for route in ("nets", "samples"):
        assert keys <= set(found["calibration"][route])
        assert set(found["curves"][route]) == {"reliability", "coverage", "sparsification"}
    assert set(found["consistency"]["nets"]) == {"mean_rms"}
    assert set(found["consistency"]["samples"]) == {"mean_rms", "block_mean_std"}
    assert found["cost"]["nets"]["evaluations_per_image"] == 2
    assert found["cost"]["samples"]["evaluations_per_image"] is None
    assert found["cost"]["samples"]["seconds_per_image"] is None
    assert "truth" not in found


def test_intervals_enclose_the_metrics_and_have_dotted_names(results: Results) -> None:
    found, _ = _verify(results)
    there = found["intervals"]
    assert {"mean.mse", "mean.relative_mse", "var.std_error", "var.relative_bias"} <= set(there)
    assert {"calibration.nets.z2", "consistency.nets.mean_rms"} <= set(there)
    for name, interval in there.items():
        value: Any = found
        for key in name.split("."):
            value = value[key]
        if interval is None:
            assert value is None, name
        else:
            assert interval[0] <= value <= interval[1], name
    assert not any(name.endswith("ence") for name in there)


def test_too_few_images_have_estimates_and_are_told_how_many_it_takes(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    many, _ = _verify(results)
    assert many["clusters"] == {
        "kind": "image",
        "count": NUM_IMAGES,
        "needed": NUM_IMAGES,
        "text": "The 95 % intervals are over 5 images.",
    }
    monkeypatch.setattr(intervals, "MIN_UNITS", NUM_IMAGES + 1)
    few, said = _verify(results)
    assert few["intervals"] == {} and few["verdict"]["mean"]["interval"] is None
    assert few["verdict"]["mean"]["verdict"] is None
    assert few["mean"] == many["mean"] and few["calibration"] == many["calibration"]
    assert "No verdict: it takes 6 images, here are 5. Estimates: mean off by" in said
    assert "95 %" not in said.splitlines()[1]


def test_images_of_a_class_are_one_unit_on_request(results: Results) -> None:
    """All five are of one class of the info dict, which is too few."""
    found, said = _verify(results, cluster="class")
    assert found["clusters"]["kind"] == "class" and found["clusters"]["count"] == 1
    assert found["intervals"] == {} and "it takes 5 classes, here are 1" in said


def test_relative_metrics_are_ratios_of_sums_over_images(results: Results) -> None:
    found, _ = _verify(results)
    mean_k2 = found["mean"]["floor_mse"] * NUM_SAMPLES
    expected = found["mean"]["corrected_mse"] / mean_k2
    assert found["mean"]["relative_mse"] == pytest.approx(expected, rel=1e-12)


def test_bytes_do_not_depend_on_threads_or_on_running_again(results: Results) -> None:
    contents = []
    for num_threads in (1, 3, 3):
        _verify(results, num_threads=num_threads)
        files = ("results.json", "results.csv")
        contents.append([(results.root / "log" / name).read_bytes() for name in files])
    assert contents[0] == contents[1] == contents[2]


def test_seed_moves_the_scatter_alone(results: Results) -> None:
    one, two = (_verify(results, seed=seed)[0] for seed in (0, 1))
    assert one["mean"] == two["mean"] and one["calibration"] == two["calibration"]
    assert one["intervals"] == two["intervals"] and one["scatter"] != two["scatter"]


def test_calibration_of_all_images_is_that_of_their_pixels_together(results: Results) -> None:
    found, _ = _verify(results)
    means, variances = [], []
    for i in range(NUM_IMAGES):
        folder = results.root / "nets" / f"image{i}.png"
        means.append(np.load(folder / "high_res_mean_70.npy").astype(float))
        variances.append(load_array(folder / "high_res_var_50.pkl", shape=SHAPE).astype(float))
    mean, v = np.stack(means), np.stack(variances)
    expected, sums = calibrate(np.full_like(mean, 120), mean, v)
    nets = found["calibration"]["nets"]
    for key in ("z2", "nll", "coverage_68", "interval_score_90", "sharpness_mean_std"):
        assert nets[key] == pytest.approx(expected[key], rel=1e-9), key
    assert nets["ence"] == pytest.approx(ence(sums)) and nets["ause"] == pytest.approx(ause(sums))
    assert sum(found["curves"]["nets"]["reliability"]["count"]) == pytest.approx(v.size)


def test_scatter_has_both_routes_and_at_most_4000_pixels(results: Results) -> None:
    scatter = _verify(results)[0]["scatter"]
    assert len(scatter["std_nets"]) == len(scatter["std_samples"]) == 4000
    assert min(scatter["std_nets"]) > 1 and max(scatter["std_nets"]) < 10
    assert [scatter_per_image(n) for n in (1, 2000, 4000, 50_000)] == [4000, 2, 1, 1]


def test_margin_decides_the_verdict(results: Results) -> None:
    found, said = _verify(results, margin=0.9)
    assert found["verdict"]["margin"] == 0.9
    assert found["verdict"]["mean"]["verdict"] == "equivalent"
    assert found["verdict"]["bias"]["verdict"] == "equivalent"
    assert "equivalent" in said
    found, _ = _verify(results, margin=1e-6)
    assert found["verdict"]["mean"]["verdict"] == "different"  # off by a grey level
    low, high = found["verdict"]["mean"]["interval"]
    assert low < found["verdict"]["mean"]["value"] < high


def test_margin_without_a_meaning_is_refused_by_name() -> None:
    for margin in (-0.1, 1.0, math.nan):
        with pytest.raises(ValueError, match=r"--margin"):
            Results(Path()).flags(margin=margin)


def test_single_image_has_no_interval(tmp_path: Path) -> None:
    made = Results(tmp_path)
    made.add_image("a.png")
    samples = 100 + np.random.default_rng(0).normal(0, 5, (NUM_SAMPLES, *SHAPE))
    made.add_samples("a.png", samples, has_moments=True)
    made.add_nets("a.png", flat(100.0), flat(25.0))
    found, said = _verify(made)
    assert found["intervals"] == {} and found["verdict"]["mean"]["interval"] is None
    assert f"it takes {intervals.MIN_UNITS} images, here are 1" in said


def test_table_is_short_narrow_and_ends_in_the_verdict(results: Results) -> None:
    for i in range(NUM_IMAGES):
        _add_truth(results, f"image{i}.png")
    lines = _verify(results)[1].strip().splitlines()
    end = next(i for i, line in enumerate(lines) if line.startswith("metrics:"))
    assert max(map(len, lines[:end])) <= 100
    assert lines[0].split()[-6:] == ["nets", "samples", "good", "nets,", "95", "%"]
    table = lines[: next(i for i, line in enumerate(lines) if line.startswith("good: "))]
    assert len(table) <= 25
    rows = [line for line in table[1:] if line.startswith("  ")]
    # label, value, maybe that of the samples, what is good, maybe an interval
    assert len(rows) >= 15 and all(row[67:76].strip() for row in rows), rows
    assert any(line.startswith("The nets' intervals ") for line in lines)
    assert any(line.startswith("Nets and samples, margin") for line in lines)


def test_the_full_table_holds_all_metrics_of_the_short_one_and_more(results: Results) -> None:
    short, full = (_verify(results, full_table=is_full)[1] for is_full in (False, True))
    log = (results.root / "log" / "logs.txt").read_text(encoding="utf-8")
    for row in ("normalised squared error", "reliability of the samples' variance", "(std error)"):
        assert row in full and row not in short and row in log
    table = full.partition("metrics:")[0].splitlines()
    assert max(map(len, table)) <= 100
    assert "The nets' intervals " in full and "The nets' intervals " in short


def test_truth_is_used_when_every_image_has_it(results: Results) -> None:
    for i in range(NUM_IMAGES - 1):
        _add_truth(results, f"image{i}.png")
    found, said = _verify(results)
    assert "truth" not in found and any(
        "4 of 5 images" in line and "exact_moments.npz" in line for line in said.splitlines()
    )
    _add_truth(results, f"image{NUM_IMAGES - 1}.png")
    found, said = _verify(results)
    truth = found["truth"]
    assert set(truth) == {"nets", "samples", "expected", "text"}
    assert truth["expected"]["relative_mse"] == pytest.approx(1 / NUM_SAMPLES)
    assert "Two forward passes" in truth["text"] and "exact samples" in said
    for part in ("mean", "variance"):
        name = f"equivalent_samples_{part}"
        assert truth["expected"][name] == pytest.approx(NUM_SAMPLES)
        low, high = found["intervals"][f"truth.nets.{name}"]
        assert low <= truth["nets"][name] <= high
    assert "truth.nets.relative_mse" in found["intervals"]
    assert "calibration.samples.ause" in found["intervals"]
    header = (results.root / "log" / "results.csv").read_text().splitlines()[0]
    assert "truth.nets.relative_mse" in header and header.startswith("name,mean.mse,mean.psnr")


def test_too_few_samples_have_no_ceiling_and_say_so(results: Results) -> None:
    found, said = _verify(results, num_samples=2)
    assert found["ceiling"]["reliability"] is None
    assert found["var"]["corrected_squared_error"] is None
    assert "notice: no ceiling" in said


def test_tensorboard_gets_scalars_only() -> None:
    summary = {
        "num_images": 3,
        "mean": {"mse": 1.0, "psnr": math.inf},
        "calibration": {"nets": {"z2": 2.0}},
        "cost": {"samples": {"steps": None}},
        "truth": {"text": "words", "nets": {"var_bias": 0.1}},
        "curves": {"nets": {"coverage": {"nominal": [0.1]}}},
        "intervals": {"mean.mse": [0, 1]},
    }
    expected = {"mean.mse": 1.0, "calibration.nets.z2": 2.0, "truth.nets.var_bias": 0.1}
    assert flat_metrics(summary) == expected


def test_calibration_stands_beside_that_of_exact_laws(results: Results) -> None:
    found, said = _verify(results, full_table=True)
    reference = found["reference"]
    assert set(reference) == {"nets", "samples", "curves", "sampler_law"}
    assert set(reference["sampler_law"]) < CALIBRATED
    for route in ("nets", "samples"):
        assert set(reference[route]) == CALIBRATED
        assert set(reference["curves"][route]) == {"reliability", "coverage", "sparsification"}
    assert reference["nets"]["z2"] == 1 and reference["nets"]["coverage_95"] == pytest.approx(0.95)
    assert reference["samples"]["z2"] == pytest.approx(5 / 3)  # (n − 1)/(n − 3) of 6 samples
    row = next(line for line in said.splitlines() if "mean squared z-score" in line)
    z2 = {route: found["calibration"][route]["z2"] for route in ("nets", "samples")}
    assert row.split()[3:7] == [f"{z2['nets']:.4g}", "1", f"{z2['samples']:.4g}", "1.667"]


def test_where_the_law_is_known_its_own_reference_is_shown(results: Results) -> None:
    for i in range(NUM_IMAGES):
        _add_truth(results, f"image{i}.png")
    found, said = _verify(results, full_table=True)
    known = found["reference"]["known_law"]
    assert set(known) == {"nets", "samples"}
    assert all(set(known[route]) == CALIBRATED for route in known)
    # N(100, 25): a normal law, of which no draw is needed
    assert known["nets"]["z2"] == pytest.approx(1)
    assert known["nets"]["crps"] == pytest.approx(5 / math.sqrt(math.pi))
    row = next(line for line in said.splitlines() if "CRPS" in line)
    assert row.split()[4] == "2.821"


def test_a_law_that_is_known_for_some_images_is_no_reference(results: Results) -> None:
    _add_truth(results, "image0.png")
    assert "known_law" not in _verify(results)[0]["reference"]


def test_without_pictures_there_are_no_ranks_and_a_notice_says_so(tmp_path: Path) -> None:
    made, rng = Results(tmp_path), np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        made.add_image(name)
        samples = 100 + rng.normal(0, 5, (NUM_SAMPLES, *SHAPE))
        folder = made.add_samples(name, samples, has_moments=True)
        made.add_nets(name, flat(100.0), flat(25.0))
        if name == "a.png":
            (folder / "high_res_samples" / "sample_2.png").unlink()
    found, said = _verify(made)
    assert "ranks" not in found and "notice: no ranks" in said
    assert set(found["pit"]) == {"nets", "samples"}
