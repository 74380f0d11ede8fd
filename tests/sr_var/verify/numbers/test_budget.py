"""The error budget: rows whose value is known, and the script from files to picture."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from sr_var.base_dataset import load_entries
from sr_var.degrade.language import Degradation
from sr_var.degrade.view import View
from sr_var.results.moments import Truth
from sr_var.verify.numbers.budget import (
    EXACT_SAMPLER,
    MEAN_NET,
    VAR_NET,
    VAR_NET_EXACT,
    Errors,
    Law,
    budget_rows,
    mean_net_errors,
    monte_carlo_errors,
    sampler_errors,
    var_net_errors,
)
from sr_var.verify.numbers.intervals import MIN_UNITS, every_one
from sr_var.verify.read.records import BudgetRow, read_budget
from sr_var.verify.show.pictures import draw_budget
from sr_var.verify.show.plots import _budget
from sr_var.verify.show.tables import budget_text
from tests.tiny import done, run, words, write_photos
from utils.metrics import Moments
from utils.script_util import defaults
from utils.sizes import Size
from utils.untrusted.pickles import dump_pickle

LARGE, SMALL, STEP, NUM_SAMPLES = 16, 4, 7, 40
SHAPE = (LARGE, LARGE, 3)


def _normal_truth(std: float, shape: tuple[int, ...] = (20, 20, 3)) -> Truth:
    ones = np.ones(shape)
    return Truth(128 * ones, std**2 * ones, 0 * ones, 3 * std**4 * ones)


def test_a_sampler_of_the_right_law_has_no_error_but_noise() -> None:
    truth, rng = _normal_truth(5.0), np.random.default_rng(0)
    repeats, n, size = 40, 12, truth.mean.size
    found = []
    for _ in range(repeats):
        samples = truth.mean + 5.0 * rng.standard_normal((n, *truth.mean.shape))
        found.append(sampler_errors(Moments.from_samples(samples), truth))
    noise = monte_carlo_errors(truth, n)
    # the raw errors are noise alone; corrected, a fiftieth of it is left
    assert abs(np.mean([errors.mean_square for errors in found])) < 0.02 * noise.mean_square
    assert abs(np.mean([errors.var_square for errors in found])) < 0.02 * noise.var_square
    assert np.mean([errors.var_sum for errors in found]) / size == pytest.approx(25, rel=0.01)


def test_a_sampler_that_is_off_shows_by_how_much() -> None:
    truth, rng = _normal_truth(5.0, (60, 60, 3)), np.random.default_rng(1)
    samples = 129 + 4.0 * rng.standard_normal((200, *truth.mean.shape))
    errors = sampler_errors(Moments.from_samples(samples), truth)
    assert errors.mean_square / truth.mean.size == pytest.approx(1, rel=0.02)
    assert errors.var_square / truth.mean.size == pytest.approx((25 - 16) ** 2, rel=0.02)


def test_monte_carlo_noise_of_a_normal_law_is_the_textbook_one() -> None:
    errors = monte_carlo_errors(_normal_truth(2.0, (1, 1, 1)), 100)
    assert errors.mean_square == pytest.approx(4 / 100)
    assert errors.var_square == pytest.approx(2 * 4**2 / 99)


def test_the_variance_net_is_not_blamed_for_the_mean_net() -> None:
    truth = _normal_truth(5.0, (4, 4, 3))
    mean = truth.mean + 3
    learned = truth.variance + 9  # what squared residuals of this mean net have as their mean
    assert mean_net_errors(mean, truth).mean_square == pytest.approx(9 * mean.size)
    own = var_net_errors(learned, truth.variance + (mean - truth.mean) ** 2)
    assert own.var_square == 0 and math.isnan(own.mean_square)
    assert var_net_errors(learned, truth.variance).var_square == pytest.approx(81 * mean.size)
    assert var_net_errors(-learned, truth.variance).var_sum == 0


def test_each_row_has_its_bias_against_its_own_target() -> None:
    truth = _normal_truth(5.0, (4, 4, 3))
    target = truth.variance + 9  # a mean net that is off by 3 grey levels
    found = {
        "own": var_net_errors(1.5 * target, target),
        "truth": var_net_errors(1.5 * target, truth.variance),
    }
    rows = {
        row["row"]: row
        for row in budget_rows([found] * 3, [Law.of(truth)] * 3, every_one(3, "image"))
    }
    assert rows["own"]["var_bias"] == pytest.approx(0.5)
    assert rows["truth"]["var_bias"] == pytest.approx(1.5 * (25 + 9) / 25 - 1)


def test_an_error_below_the_noise_keeps_its_sign_and_has_an_interval() -> None:
    truth, rng = _normal_truth(5.0, (4, 4, 3)), np.random.default_rng(0)
    size, laws = truth.mean.size, [Law.of(truth)] * MIN_UNITS
    squares = rng.normal(-1.0, 2.0, len(laws))  # of an estimate whose noise was taken off
    found = [{"net": Errors(size * x, size * x, size * 25, size * 25)} for x in squares]
    (row,) = budget_rows(found, laws, every_one(len(laws), "image"))
    assert row["relative_mse"] == pytest.approx(squares.mean() / 25)
    assert row["relative_var_error"] == pytest.approx(-math.sqrt(-squares.mean() / 25**2))
    low, high = row["intervals"]["relative_mse"]
    error = squares.std(ddof=1) / math.sqrt(len(squares)) / 25
    assert high - low == pytest.approx(2 * stats.t.ppf(0.975, len(laws) - 1) * error)
    root_low, root_high = row["intervals"]["relative_var_error"]
    assert root_low == pytest.approx(-math.sqrt(-low / 25)) and root_high == pytest.approx(
        math.copysign(math.sqrt(abs(high) / 25), high)
    )
    (line,) = budget_text([row]).splitlines()[2:3]
    shown = squares.mean() / 25 * 100
    assert f"{shown:.2f} [{100 * low:.2f}, {100 * high:.2f}]" in line and "0.00 %" not in line


def test_too_few_images_have_no_interval_in_the_budget() -> None:
    truth, num = _normal_truth(5.0, (4, 4, 3)), MIN_UNITS - 1
    found = [{"net": mean_net_errors(truth.mean + 1, truth)}] * num
    (row,) = budget_rows(found, [Law.of(truth)] * num, every_one(num, "image"))
    assert row["relative_mse"] == pytest.approx(1 / 25) and row["var_bias"] is None
    assert row["intervals"] == {"relative_mse": None, "relative_var_error": None, "var_bias": None}
    assert "[" not in budget_text([row]).splitlines()[2]


def test_bars_of_negative_errors_have_no_length(tmp_path: Path) -> None:
    rows: list[BudgetRow] = [
        {"row": "a", "relative_mse": -0.5, "relative_var_error": -0.2, "var_bias": None},
        {"row": "b", "relative_mse": 0.25, "relative_var_error": 0.1, "var_bias": None},
    ]
    page = _budget(rows)
    assert page is not None and "−50" in page.markup
    widths = [float(width) for width in re.findall(r'<rect [^>]*width="([\d.]+)"', page.markup)]
    assert widths[0] <= 1 < widths[1] and widths[2] <= 1 < widths[3]
    draw_budget(str(tmp_path / "budget.png"), rows)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An oracle data set, and nets that know the mean but take every std for 10 grey levels."""
    root = tmp_path_factory.mktemp("budget")
    _write_oracle(root)
    return {"root": root, "info": root / "data" / "to_sample_data_info.pkl"}


def _write_oracle(root: Path, **more: str) -> None:
    """The data set, by the flags of its size and `more`, and the nets."""
    write_photos(root / "photos", ["train/a_1", "test/c_1"])
    flags = {
        "data_dir": root / "photos",
        "output_dir": root / "data",
        "sample_dir": root / "exact",
        "log_dir": root / "log",
        "large_size": LARGE,
        "small_size": SMALL,
        "num_train_crops": 1,
        "num_test_crops": 2,
        "num_samples": NUM_SAMPLES,
        **more,
    }
    done("oracle_data", words(flags))
    _write_nets(root)


def _write_nets(root: Path) -> None:
    for entry in load_entries(str(root / "data" / "to_sample_data_info.pkl"), str(root)):
        folder = root / "nets" / entry.name
        folder.mkdir(parents=True)
        with np.load(root / "exact" / entry.name / "exact_moments.npz") as exact:
            np.save(folder / f"high_res_mean_{STEP}.npy", exact["mean"].astype(np.float32))
        dump_pickle(np.full(SHAPE, 100, np.float32), str(folder / f"high_res_var_{STEP}.pkl"))


def _write_observed(root: Path, degradation: str, seed: int = 0) -> dict[str, Path]:
    """The same where nets also see the image with noise, or in parts; `seed` is of the nets."""
    _write_oracle(root, degradation=degradation)
    stamp = {
        "values": {"in_channels": 3, "value_range": "0.0,255.0"},
        "degradation": degradation,
        "degradation_factor": LARGE // SMALL,
        "degradation_seed": seed,
    }
    for kind, models in (("mean", ["1" * 64]), ("var", ["2" * 64, "1" * 64])):
        content = json.dumps({"models": models, **stamp})
        (root / "nets" / f".{kind}_{STEP}.json").write_text(content)
    for entry in load_entries(str(root / "data" / "to_sample_data_info.pkl"), str(root)):
        small = Image.open(root / "exact" / entry.name / "low_res.png")
        small.resize((LARGE, LARGE), Image.Resampling.BILINEAR).save(
            root / "nets" / entry.name / "low_res.png"
        )
    return {"root": root, "info": root / "data" / "to_sample_data_info.pkl"}


def _words(files: dict[str, Path], log_dir: Path, **changes: object) -> list[str]:
    root = files["root"]
    return words(
        {
            "data_dir": root / "data" / "images",
            "data_info_dict_path": files["info"],
            "large_size": LARGE,
            "ddpm_sr_output_dir": root / "exact",
            "sr_model_output_dir": root / "nets",
            "mean_model_step": STEP,
            "var_model_step": STEP,
            "num_samples": NUM_SAMPLES,
            "timestep_respacing": "25",
            "sampler": "ancestral",
            "log_dir": log_dir,
        },
        changes,
    )


def test_the_script_prints_and_draws_the_rows(files: dict[str, Path], tmp_path: Path) -> None:
    outcome = done(
        "oracle_budget", _words(files, tmp_path, trained_output_dir=files["root"] / "exact")
    )
    rows = {row["row"]: row for row in read_budget(str(tmp_path))}
    assert list(rows) == [
        row["row"] for row in json.loads((tmp_path / "budget.json").read_text())["budget"]
    ]
    assert len(rows) == 6
    assert rows[EXACT_SAMPLER]["intervals"]["var_bias"] is None
    assert "95 % intervals take" in outcome.out
    assert rows[MEAN_NET]["relative_mse"] < 1e-9 and rows[MEAN_NET]["var_bias"] is None
    assert rows[VAR_NET]["relative_var_error"] == pytest.approx(
        rows[VAR_NET_EXACT]["relative_var_error"], rel=1e-4
    )
    assert rows[VAR_NET]["relative_var_error"] > 0.1
    # 25 ancestral steps are far from the law, exact samples are not
    assert abs(rows[EXACT_SAMPLER]["var_bias"]) > 0.05
    assert abs(rows["sampler with the trained denoiser"]["var_bias"]) < 0.05
    noise = rows[f"Monte-Carlo noise of {NUM_SAMPLES} exact samples"]
    assert noise["relative_mse"] == pytest.approx(1 / NUM_SAMPLES)
    assert budget_text(list(rows.values())) in outcome.out
    assert Image.open(tmp_path / "budget.png").size[0] == 1200


@pytest.mark.parametrize("degradation", ["area & noise:25", "area & mask:0.5"])
def test_the_sampler_is_given_what_nets_see_beside_the_low_res_image(
    degradation: str, tmp_path: Path
) -> None:
    files = _write_observed(tmp_path, degradation)
    found = {}
    for steps in ("logsnr4", "logsnr40"):
        argv = _words(files, tmp_path / steps, timestep_respacing=steps, sampler="dpmpp_2m")
        done("oracle_budget", argv)
        found[steps] = {row["row"]: row for row in read_budget(str(tmp_path / steps))}
        assert found[steps][MEAN_NET]["relative_mse"] < 1e-6
    few, many = (found[steps][EXACT_SAMPLER] for steps in ("logsnr4", "logsnr40"))
    # the more steps, the nearer is the sampler to the law given all that is seen
    assert abs(many["var_bias"]) < min(0.06, 0.5 * abs(few["var_bias"]))
    assert abs(many["relative_mse"]) < 0.01
    assert many["relative_var_error"] < 0.1
    if "mask" in degradation:
        _require_of_hidden_pixels(files["root"], degradation, found["logsnr4"][VAR_NET])


def _require_of_hidden_pixels(root: Path, degradation: str, row: BudgetRow) -> None:
    """The nets' 100 is held against the variance of pixels that the mask hides, and no others."""
    made = Degradation.parse(degradation, LARGE // SMALL)
    view, v = View.seeing((Size.of(LARGE), Size.of(SMALL)), made), []
    for entry in load_entries(str(root / "data" / "to_sample_data_info.pkl"), str(root)):
        hidden = view.hidden([entry.name])
        assert hidden is not None
        with np.load(root / "exact" / entry.name / "exact_moments.npz") as exact:
            v.append(exact["variance"][hidden[0, 0].numpy()])
    assert row["var_bias"] == pytest.approx(100 / np.concatenate(v).mean() - 1)


def test_nets_that_saw_something_else_than_the_exact_samples_are_refused(tmp_path: Path) -> None:
    files = _write_observed(tmp_path, "area & mask:0.5", seed=1)
    outcome = run("oracle_budget", _words(files, tmp_path / "log"))
    assert outcome.code == 3 and "observed.npy" in outcome.err and "--seed" in outcome.err
    for path in (tmp_path / "exact").rglob("observed.npy"):
        path.unlink()
    outcome = run("oracle_budget", _words(files, tmp_path / "log"))
    assert outcome.code == 3 and "low-res image alone" in outcome.err
    for path in (tmp_path / "nets").glob(".*.json"):
        content = json.loads(path.read_text())
        path.write_text(json.dumps({**content, "degradation": "area & blur:2"}))
    outcome = run("oracle_budget", _words(files, tmp_path / "log"))
    assert outcome.code == 3 and "area & blur:2" in outcome.err


def test_a_budget_of_other_nets_is_not_shown_beside_a_verification(
    files: dict[str, Path], tmp_path: Path
) -> None:
    nets = tmp_path / "nets"
    shutil.copytree(files["root"] / "nets", nets)

    def stamp(digit: str) -> None:
        for kind, models in (("mean", [digit * 64]), ("var", ["9" * 64, digit * 64])):
            (nets / f".{kind}_{STEP}.json").write_text(json.dumps({"models": models}))

    stamp("1")
    argv = _words(files, tmp_path / "log", sr_model_output_dir=nets)
    done("oracle_budget", argv)
    start = argv.index("--timestep_respacing")  # the verification has no sampler
    verification = argv[:start] + argv[start + 4 :]
    assert "notice: " not in done("sr_var_verification", verification).out
    page = tmp_path / "log" / "report.html"
    assert VAR_NET in page.read_text("utf-8")
    stamp("2")
    assert "budget.json" in done("sr_var_verification", verification).out
    assert VAR_NET not in page.read_text("utf-8")
    content = json.loads((tmp_path / "log" / "budget.json").read_text())
    del content["of"]  # of an earlier version
    (tmp_path / "log" / "budget.json").write_text(json.dumps(content))
    done("sr_var_verification", verification)
    assert VAR_NET in page.read_text("utf-8")


def test_samples_of_another_image_are_not_put_into_the_budget(
    files: dict[str, Path], tmp_path: Path
) -> None:
    trained = tmp_path / "trained"
    shutil.copytree(files["root"] / "exact", trained)
    for path in trained.rglob("low_res.png"):
        Image.new("RGB", (SMALL, SMALL), (9, 9, 9)).save(path)
    outcome = run("oracle_budget", _words(files, tmp_path / "log", trained_output_dir=trained))
    assert outcome.code == 3 and "trained" in outcome.err and "low_res.png" in outcome.err


def test_no_exact_moments_is_an_error_that_says_where_they_come_from(
    files: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(files["root"] / "exact", tmp_path / "exact")
    next((tmp_path / "exact").rglob("exact_moments.npz")).unlink()
    outcome = run("oracle_budget", _words(files, tmp_path, ddpm_sr_output_dir=tmp_path / "exact"))
    assert outcome.code == 3 and "oracle_data.py" in outcome.err


def test_fewer_samples_than_a_variance_of_variances_needs_are_refused(
    files: dict[str, Path], tmp_path: Path
) -> None:
    outcome = run("oracle_budget", _words(files, tmp_path, num_samples=3))
    assert outcome.code == 2 and "--num_samples 3" in outcome.err and "4" in outcome.err


def test_a_dry_run_writes_nothing(files: dict[str, Path], tmp_path: Path) -> None:
    outcome = done("oracle_budget", _words(files, tmp_path / "log", dry_run=True))
    assert MEAN_NET in outcome.out
    assert not (tmp_path / "log").exists()


def test_defaults_of_the_budget_are_flags_of_the_verification_and_more() -> None:
    from sr_var.flags.verify import BudgetFlags, VerificationFlags

    assert set(defaults(VerificationFlags)) < set(defaults(BudgetFlags))
