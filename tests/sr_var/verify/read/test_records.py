"""A mean is judged with a variance made on it, both with their own image; costs are as recorded."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sr_var.flags.verify import BudgetFlags, VerificationFlags
from sr_var.verify.numbers.budget import error_budget
from sr_var.verify.read.images import load_image_data
from sr_var.verify.read.records import (
    command_of,
    cost,
    num_steps,
    provenance,
    read_budget,
    require_one_origin,
)
from sr_var.verify.run import verify_all
from tests.sr_var.hand_made import MEAN_STEP, SIZE, VAR_STEP, Results, make_results
from tests.tiny import tree
from utils.images.listing import Entry
from utils.logger import RunLogger
from utils.process.errors import DataError

ONE, OTHER, VAR = "1" * 64, "2" * 64, "3" * 64
A = Entry("a.png", 0)


@pytest.fixture
def results(tmp_path: Path) -> Results:
    """Three images of another tool: no folder has a record."""
    return make_results(tmp_path)


def _stamp(results: Results, kind: str, step: int, *models: str) -> Path:
    path = results.root / "nets" / f".{kind}_{step}.json"
    path.write_text(json.dumps({"models": models}))
    return path


def _verify(results: Results) -> str:
    lines: list[str] = []
    logger = RunLogger(is_quiet=True)
    logger.info = lines.append  # type: ignore[method-assign]
    verify_all(results.flags(num_samples=4), logger)
    return "\n".join(lines)


def test_variance_of_another_mean_is_refused_by_both_judges(results: Results) -> None:
    mean = _stamp(results, "mean", MEAN_STEP, ONE)
    variance = _stamp(results, "var", VAR_STEP, VAR, OTHER)
    before = tree(results.root)
    for judge in (
        lambda: _verify(results),
        lambda: error_budget(BudgetFlags(**vars(results.flags())), print),
    ):
        with pytest.raises(DataError) as error:
            judge()
        for part in (str(mean), str(variance), ONE[:12], OTHER[:12], "--mean_model_path"):
            assert part in str(error.value)
    assert tree(results.root) == before


def test_results_that_belong_together_or_do_not_say_are_judged(results: Results) -> None:
    _verify(results)  # no stamp at all
    mean = _stamp(results, "mean", MEAN_STEP, ONE)
    _verify(results)  # one of two
    _stamp(results, "var", VAR_STEP, VAR, ONE)
    assert "notice: the variances" not in _verify(results)
    mean.unlink()
    _verify(results)


def test_one_net_of_all_images_may_stand_in_for_those_of_the_folds(results: Results) -> None:
    _stamp(results, "mean", MEAN_STEP, ONE)
    _stamp(results, "var", VAR_STEP, VAR, OTHER, VAR)
    said = _verify(results)
    assert "2 folds" in said and ONE[:12] in said and OTHER[:12] in said


def test_a_baseline_is_judged_with_its_own_variance_alone(results: Results) -> None:
    _stamp(results, "baseline", VAR_STEP, ONE)
    _stamp(results, "mean", MEAN_STEP, OTHER)
    with pytest.raises(DataError, match=rf"\.baseline_{VAR_STEP}\.json"):
        _verify(results)
    (results.root / "nets" / f".mean_{MEAN_STEP}.json").unlink()
    _stamp(results, "baseline", MEAN_STEP, ONE)
    _verify(results)


def test_average_of_several_nets_beside_a_variance_on_one_of_them_is_told(
    results: Results,
) -> None:
    lines: list[str] = []
    _stamp(results, "mean", MEAN_STEP, ONE, OTHER)
    _stamp(results, "var", VAR_STEP, VAR, ONE, OTHER)
    require_one_origin(results.flags(), lines.append)
    assert lines == []
    _stamp(results, "var", VAR_STEP, VAR, ONE)
    require_one_origin(results.flags(), lines.append)
    assert len(lines) == 1 and "average of 2 nets" in lines[0]


def test_damaged_stamp_is_named(results: Results) -> None:
    _stamp(results, "mean", MEAN_STEP, ONE).write_text('{"models": [5]}')
    _stamp(results, "var", VAR_STEP, VAR, ONE)
    with pytest.raises(DataError, match=rf"\.mean_{MEAN_STEP}\.json"):
        _verify(results)


def _low_res(results: Results, kind: str, level: int, size: int) -> None:
    picture = Image.fromarray(np.full((size, size, 3), level, np.uint8))
    picture.save(results.root / kind / "a.png" / "low_res.png")


@pytest.mark.parametrize("kind", ["samples", "nets"])
def test_results_of_an_image_that_was_replaced_are_refused(results: Results, kind: str) -> None:
    """The photograph is flat, of level 100."""
    flags = results.flags(num_samples=4)
    (results.root / "samples" / ".sampling.json").write_text("{}")
    _stamp(results, "mean", MEAN_STEP, ONE)
    sizes = {"samples": SIZE // 4, "nets": SIZE}
    for folder, size in sizes.items():
        _low_res(results, folder, 101, size)
    load_image_data(A, flags)
    _low_res(results, kind, 105, sizes[kind])
    with pytest.raises(DataError, match=rf"{kind}/a\.png/low_res\.png.*5\.0"):
        load_image_data(A, flags)
    record = {"samples": "samples/.sampling.json", "nets": f"nets/.mean_{MEAN_STEP}.json"}[kind]
    (results.root / record).unlink()
    load_image_data(A, flags)  # of another tool


def test_nets_that_saw_a_low_res_image_of_another_size_are_refused(results: Results) -> None:
    """A step of 100 grey levels, upsampled from 2 and from 4 pixels."""
    step = np.zeros((SIZE, SIZE, 3), np.uint8)
    step[:, SIZE // 2 :] = 100
    Image.fromarray(step).save(results.root / "images" / "a.png")
    _stamp(results, "mean", MEAN_STEP, ONE)
    data = load_image_data(A, results.flags(num_samples=4))
    picture = Image.fromarray(np.rint(data.bilinear).astype(np.uint8))
    picture.save(results.root / "nets" / "a.png" / "low_res.png")
    load_image_data(A, results.flags(num_samples=4))
    _low_res(results, "samples", 0, SIZE // 2)
    with pytest.raises(DataError, match=r"nets/a\.png/low_res\.png"):
        load_image_data(A, results.flags(num_samples=4))


def test_cost_follows_from_the_samplers_settings(tmp_path: Path) -> None:
    settings = {
        "diffusion_steps": 1000,
        "noise_schedule": "linear",
        "timestep_respacing": "250",
        "sampler": "ancestral",
    }
    path = tmp_path / ".sampling.json"
    path.write_text(json.dumps(settings))
    flags = VerificationFlags(
        ddpm_sr_output_dir=str(tmp_path), sr_model_output_dir=str(tmp_path), num_samples=100
    )
    expected = {"steps": 250, "evaluations_per_image": 25_000, "seconds_per_image": None}
    assert cost(flags)["samples"] == expected
    for respacing, steps in (("", 1000), ("ddim50", 50), ("10,10,10", 30), ("logsnr25", 25)):
        path.write_text(json.dumps({**settings, "timestep_respacing": respacing}))
        assert num_steps(str(tmp_path)) == steps
    for content in ("{", "[1]", "{}", '{"diffusion_steps": "x", "timestep_respacing": ""}'):
        path.write_text(content)
        assert num_steps(str(tmp_path)) is None
    elsewhere = dataclasses.replace(flags, ddpm_sr_output_dir=str(tmp_path / "none"))
    assert cost(elsewhere)["samples"]["evaluations_per_image"] is None


def test_cost_in_seconds_is_what_the_runs_left(tmp_path: Path) -> None:
    flags = VerificationFlags(
        ddpm_sr_output_dir=str(tmp_path), sr_model_output_dir=str(tmp_path), num_samples=100
    )
    for path, seconds in (
        (tmp_path / ".seconds.json", 4.0),
        (tmp_path / f".seconds_var_{flags.var_model_step}.json", 1.0),
        (tmp_path / f".seconds_baseline_{flags.var_model_step}.json", 0.5),
    ):
        path.write_text(json.dumps({"seconds": seconds, "num_items": 8, "device": "cpu"}))
    found = cost(flags)
    assert found["samples"]["seconds_per_image"] == 50.0
    assert found["nets"] == {"evaluations_per_image": 2, "seconds_per_image": 0.125}
    (tmp_path / f".baseline_{flags.var_model_step}.json").write_text("{}")
    assert cost(flags)["nets"] == {"evaluations_per_image": 1, "seconds_per_image": 0.0625}


def test_evaluations_are_those_of_all_nets_that_the_variance_test_runs(results: Results) -> None:
    """K mean nets and the variance net with --cross_fit K."""
    flags = results.flags(num_samples=0)
    assert cost(flags)["nets"]["evaluations_per_image"] == 2  # no stamp
    for folds in (1, 2, 5):
        _stamp(results, "var", VAR_STEP, VAR, *(f"{k}" * 64 for k in range(folds)))
        assert cost(flags)["nets"]["evaluations_per_image"] == folds + 1


def test_provenance_is_what_is_recorded(results: Results) -> None:
    flags = results.flags(num_samples=4)
    found = dict(provenance(flags))
    assert found["mean net"] == found["variance net"] == found["samples"] == ["no record"]
    _stamp(results, "mean", MEAN_STEP, ONE)
    _stamp(results, "var", VAR_STEP, VAR, ONE)
    settings = {"model_sha256": OTHER, "sampler": "ddim", "timestep_respacing": "25", "seed": 3}
    (results.root / "samples" / ".sampling.json").write_text(json.dumps(settings))
    found = dict(provenance(flags))
    assert (found["mean net"], found["variance net"]) == ([ONE], [VAR])
    assert found["samples"] == [OTHER, "ddim, 25 steps, seed 3"]
    assert "mean nets that it was made on" not in found
    _stamp(results, "var", VAR_STEP, VAR, ONE, OTHER)
    assert dict(provenance(flags))["mean nets that it was made on"] == [ONE, OTHER]
    assert "samples" not in dict(provenance(results.flags(num_samples=0)))


def test_command_is_that_of_the_runs_record(tmp_path: Path) -> None:
    assert command_of(str(tmp_path)) == []
    args = {
        "command": ["/opt/venv/bin/python", "sr_var_verification.py", "--log_dir", "a b"],
        "started": "2026-01-02T03:04:05+0000",
        "git_revision": "f" * 40,
        "versions": {"torch": "2"},
    }
    (tmp_path / "args.json").write_text(json.dumps(args))
    found = dict(command_of(str(tmp_path)))
    assert found["command"] == ["python sr_var_verification.py --log_dir 'a b'"]
    assert found["date"] == [args["started"]] and found["software"][1] == "torch 2"
    (tmp_path / "args.json").write_text('{"command": 3}')
    assert command_of(str(tmp_path)) == []


def test_row_of_a_budget_without_a_name_is_left_out(tmp_path: Path) -> None:
    rows = [{"row": 0.5, "relative_mse": 0.1}, {"row": "mean net", "relative_mse": 0.1}]
    (tmp_path / "budget.json").write_text(json.dumps({"budget": rows}))
    assert [row["row"] for row in read_budget(str(tmp_path))] == ["mean net"]
