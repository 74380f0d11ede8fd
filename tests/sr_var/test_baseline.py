"""Baselines: what their outputs mean, their minimisers in the loop, quantile metrics, files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from oracle.law import oracle_law
from oracle.posterior import given_noisy, given_pixels
from sr_var.baseline import (
    BaselineTestLoop,
    BaselineTrainLoop,
    ExactQuantiles,
    baseline_result_folder,
    gaussian_outputs,
    normal_moments,
    quantile_errors,
    quantile_outputs,
    rearranged,
    report_quantiles,
    summarise_errors,
)
from sr_var.data.pairs import Photographs
from sr_var.degrade.view import View
from sr_var.flags.nets import BaselineModelFlags, BaselineTestFlags
from sr_var.losses import VARIANCE_FLOOR
from sr_var.mean_utils import mean_result_folder
from sr_var.script_util import create_baseline_model
from tests.sr_var.test_mean_utils import Table
from tests.tiny import LARGE, REGRESSION_NET
from utils.images.listing import Entry
from utils.images.pixels import image_to_255
from utils.process.errors import CheckpointError, DataError
from utils.sizes import Size
from utils.untrusted.pickles import load_array

DRAWS = torch.tensor([-0.9, -0.4, -0.1, 0.0, 0.05, 0.3, 0.35, 0.5, 0.8])
LABEL = DRAWS[:, None, None, None].expand(9, 3, 4, 4)
NUM_STEPS = 200
BATCH = torch.full((9, 3, 4, 4), 0.25)


def _noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["softplus", "exp"])
def test_gaussian_outputs_are_a_mean_and_a_variance_above_the_floor(kind: str) -> None:
    raw, offset = 100 * _noise(2, 6, 4, 4), _noise(2, 3, 4, 4, seed=1)
    raw[:, 3:] = raw[:, 3:].clamp(max=80)  # exp of more is no float32
    mean, variance = gaussian_outputs(raw, offset, kind)
    assert torch.equal(mean, raw[:, :3] + offset)
    assert variance.min() >= VARIANCE_FLOOR and bool(variance.isfinite().all())
    function = torch.exp if kind == "exp" else torch.nn.functional.softplus
    assert torch.equal(variance, function(raw[:, 3:]) + VARIANCE_FLOOR)
    assert torch.equal(gaussian_outputs(raw, None, kind)[0], raw[:, :3])


def test_quantile_outputs_are_an_image_a_level() -> None:
    raw, offset = _noise(2, 15, 4, 4), _noise(2, 3, 4, 4, seed=1)
    quantiles = quantile_outputs(raw, None, 5)
    assert quantiles.shape == (2, 5, 3, 4, 4)
    for level in range(5):
        assert torch.equal(quantiles[:, level], raw[:, 3 * level : 3 * level + 3])
    moved = quantile_outputs(raw, offset, 5)
    assert torch.equal(moved[:, 3], quantiles[:, 3] + offset)


def test_sorted_quantiles_cross_nowhere_and_are_no_further_from_the_truth() -> None:
    exact = torch.linspace(-1, 1, 5)[None, :, None, None, None].expand(2, 5, 3, 8, 8)
    learned = exact + _noise(2, 5, 3, 8, 8)
    ascending, share = rearranged(learned)
    assert (ascending.diff(dim=1) >= 0).all() and 0 < share < 1
    assert (ascending - exact).square().mean() < (learned - exact).square().mean()
    assert rearranged(ascending)[1] == 0
    assert rearranged(learned[:, :1])[1] == 0  # a single level crosses nothing


@pytest.mark.parametrize("levels", [(0.25, 0.75), (0.05, 0.25, 0.5, 0.75, 0.95), (0.1, 0.2, 0.9)])
def test_moments_from_quantiles_are_exact_for_a_normal_law(levels: tuple[float, ...]) -> None:
    mean, std = _noise(2, 3, 4, 4).double(), _noise(2, 3, 4, 4, seed=1).double().exp()
    law = torch.distributions.Normal(mean, std)
    quantiles = torch.stack([law.icdf(torch.tensor(t, dtype=torch.float64)) for t in levels], dim=1)
    found_mean, found_variance = normal_moments(quantiles, levels)
    torch.testing.assert_close(found_mean, mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found_variance, std.square(), rtol=1e-6, atol=1e-6)


def _trained(loop_flags: BaselineModelFlags, num_channels: int, lr: float) -> Tensor:
    """The table that the loop's own training ends with, for nine equally likely labels."""
    loop = BaselineTrainLoop(
        model=Table(torch.zeros(num_channels, 4, 4)),
        model_flags=loop_flags,
        data=[(BATCH, LABEL)],
        batch_size=9,
        lr=lr,
        lr_anneal_steps=NUM_STEPS,
        max_step=NUM_STEPS,
        log_interval=10_000,
    )
    loop.run_loop()
    return loop.model.value.detach()[None]


@pytest.mark.parametrize("objective", ["nll", "beta_nll"])
@pytest.mark.parametrize("is_residual", [False, True])
def test_likelihoods_train_to_mean_and_variance(objective: str, is_residual: bool) -> None:
    flags = BaselineModelFlags(objective=objective, predict_residual=is_residual)
    raw = _trained(flags, 6, lr=0.1)
    offset = BATCH[:1] if is_residual else None
    mean, variance = gaussian_outputs(raw, offset, "softplus")
    assert mean.mean().item() == pytest.approx(DRAWS.mean().item(), abs=2e-3)
    assert variance.mean().item() == pytest.approx(DRAWS.var(correction=0).item(), rel=5e-3)


def test_quantile_objective_trains_to_the_quantiles() -> None:
    """Of nine draws the τ-quantile is the ⌈9τ⌉-th."""
    flags = BaselineModelFlags(objective="quantile", quantiles="0.05,0.3,0.5,0.9")
    quantiles = quantile_outputs(_trained(flags, 12, lr=0.04), None, 4).mean(dim=(0, 2, 3, 4))
    expected = [DRAWS[math.ceil(9 * level) - 1].item() for level in flags.levels]
    assert quantiles.tolist() == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("objective", ["nll", "beta_nll", "quantile"])
def test_network_of_a_baseline_has_the_outputs_of_its_objective(objective: str) -> None:
    flags = {**REGRESSION_NET, "objective": objective, "predict_residual": True}
    model = create_baseline_model(**flags, quantiles="0.1,0.5,0.9")
    channels = 9 if objective == "quantile" else 6
    assert model(torch.zeros(1, 3, LARGE, LARGE)).shape == (1, channels, LARGE, LARGE)


@pytest.mark.parametrize("text", ["", "0.5,0.25", "0,0.5", "0.5,1", "0.5,0.5", "a", "0.1,,0.2"])
def test_levels_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        BaselineModelFlags(quantiles=text)


def test_coverage_and_rms_error_of_a_quantile_are_those_of_the_definition() -> None:
    label = np.array([1.0, 2.0, 3.0, 3.0])
    metrics = quantile_errors(np.array([2.0, 2.0, 2.0, 3.0]), label, np.array([2, 2, 2, 7]))
    assert metrics == {"coverage": (1 + 0.5 + 0 + 0.5) / 4, "rms_error": 2.0}
    assert quantile_errors(label, label, None) == {"coverage": 0.5}


def test_summary_averages_squared_errors_over_images() -> None:
    images = [{"0.5": {"coverage": 0.4, "rms_error": 3.0}}, {"0.5": {"coverage": 0.6}}]
    assert summarise_errors(images) == {"0.5": {"coverage": 0.5}}
    images[1]["0.5"]["rms_error"] = 4.0
    assert summarise_errors(images)["0.5"]["rms_error"] == pytest.approx(math.sqrt(12.5))


def test_exact_quantiles_cover_their_share_of_the_oracles_draws() -> None:
    """Draws of the law itself: each level's coverage is the level, and its error is 0."""
    low_res = 0.5 * _noise(1, 3, 16, 16).clamp(-1, 1).double()
    high_res = oracle_law(low_res, 4).sample(torch.Generator().manual_seed(1))
    levels = (0.05, 0.5, 0.75)
    quantiles = ExactQuantiles((Size.of(64), Size.of(16))).of(high_res[0], "a.png", levels)
    for place, level in enumerate(levels):
        quantile_255 = image_to_255(quantiles[place]).numpy()
        metrics = quantile_errors(quantile_255, image_to_255(high_res[0]).numpy(), quantile_255)
        assert metrics["coverage"] == pytest.approx(level, abs=0.02)  # 12288 values, dependent
        assert metrics["rms_error"] == 0


@pytest.mark.parametrize("degradation", ["area & noise:25", "area & mask:0.5"])
def test_exact_quantiles_are_given_what_the_networks_see(degradation: str, tmp_path: Path) -> None:
    low_res = 0.5 * _noise(1, 3, 16, 16).clamp(-1, 1).double()
    high_res = oracle_law(low_res, 4).sample(torch.Generator().manual_seed(1))
    sizes = {"large_size": 64, "small_size": 16, "network": "subpixel", "model_channels": 4}
    flags = BaselineModelFlags(**sizes, degradation=degradation, value_range="0,255")
    test = BaselineTestFlags(truth="oracle", seed=3, model_path="m.pt", output_dir=str(tmp_path))
    exact, levels = ExactQuantiles.of_test(flags, test), (0.25, 0.5, 0.75)
    assert exact is not None
    quantiles = exact.of(high_res[0], "a.npy", levels)
    alone = ExactQuantiles(flags.sizes).of(high_res[0], "a.npy", levels)
    # X as the networks see it: blocks of the whole image are channels of a pixel
    x = View.of(flags, 3).x_of(high_res, ["a.npy"])
    z = torch.nn.functional.pixel_shuffle(x[:, 3:51], 4)
    if x.shape[1] > 51:
        mask = torch.nn.functional.pixel_shuffle(x[:, 51:], 4)
        seen = (mask == 1).expand_as(z)[0]
        for quantile in quantiles:
            torch.testing.assert_close(quantile[seen], high_res[0][seen], rtol=0, atol=1e-9)
        law = given_pixels(oracle_law(low_res, 4), z, mask)
        is_fit = ~seen
    else:
        law = given_noisy(oracle_law(low_res, 4), z, 25 / 127.5)
        is_fit = torch.ones_like(z[0], dtype=torch.bool)
    for level, quantile in zip(levels, quantiles, strict=True):
        torch.testing.assert_close(quantile, law.quantile(level)[0], rtol=0, atol=1e-6)
        share = (high_res[0] <= quantile)[is_fit].double().mean()
        assert float(share) == pytest.approx(level, abs=0.03)
    assert float((quantiles[2] - quantiles[0]).mean()) < 0.8 * float((alone[2] - alone[0]).mean())


def test_exact_quantiles_of_8_bit_images_are_refused_where_more_is_seen(tmp_path: Path) -> None:
    sizes = {"large_size": 64, "small_size": 16, "network": "subpixel"}
    test = BaselineTestFlags(truth="oracle", model_path="m.pt", output_dir=str(tmp_path))
    for degradation, word in (("area & noise:25", "--value_range"), ("area & grey", "area & grey")):
        flags = BaselineModelFlags(**sizes, degradation=degradation)
        with pytest.raises(ValueError, match=word):
            baseline_result_folder(flags, test, 9)


def _loop(root: Path, value: Tensor, **flags: Any) -> BaselineTestLoop:
    model_flags = BaselineModelFlags(**flags)
    (root / "model000009.pt").touch()
    test = BaselineTestFlags(model_path=str(root / "model000009.pt"), output_dir=str(root / "out"))
    results = baseline_result_folder(model_flags, test, 9)
    results.pending([Entry("a", 0)])
    return BaselineTestLoop(
        model=Table(value),
        model_flags=model_flags,
        results=results,
        step=9,
        data=[
            (
                torch.zeros(1, 3, LARGE, LARGE),
                Photographs(["a"], torch.zeros(1, 3, LARGE, LARGE)),
            )
        ],
    )


def test_gaussian_results_have_the_names_and_units_of_the_two_nets(tmp_path: Path) -> None:
    value = _noise(6, LARGE, LARGE)
    _loop(tmp_path, value).run_loop()
    folder = tmp_path / "out" / "a"
    assert sorted(path.name for path in folder.iterdir()) == [
        "high_res_mean_9.npy",
        "high_res_mean_9.png",
        "high_res_std_9.npy",
        "high_res_std_9.png",
        "high_res_var_9.pkl",
        "low_res.png",
    ]
    mean, variance = gaussian_outputs(value[None], None, "softplus")
    found = np.load(folder / "high_res_mean_9.npy")
    np.testing.assert_allclose(found, (mean[0].permute(1, 2, 0) + 1) * 127.5, rtol=1e-6)
    found = load_array(folder / "high_res_var_9.pkl")
    np.testing.assert_allclose(found, variance[0].permute(1, 2, 0) * 127.5**2, rtol=1e-6)


def test_quantile_results_are_sorted_levels_with_their_coverage(tmp_path: Path) -> None:
    levels = torch.tensor([0.2, -0.3, 0.5])  # the first two cross
    value = levels.repeat_interleave(3)[:, None, None].expand(9, LARGE, LARGE)
    loop = _loop(tmp_path, value, objective="quantile", quantiles="0.1,0.5,0.9")
    loop.run_loop()
    folder = tmp_path / "out" / "a"
    for level, expected in zip(("0.1", "0.5", "0.9"), (-0.3, 0.2, 0.5), strict=True):
        found = np.load(folder / f"high_res_quantile_{level}_9.npy")
        assert found.shape == (LARGE, LARGE, 3)
        np.testing.assert_allclose(found, (expected + 1) * 127.5, rtol=1e-6)
    keys, means = loop.logger.take_means()
    assert dict(zip(keys, means.tolist(), strict=True)) == {"crossed_levels": 0.5}
    lines: list[str] = []
    entries = [Entry("a", 0), Entry("skipped", 0)]
    summary = report_quantiles(loop._results, entries, 9, lines.append)
    assert summary == {"0.1": {"coverage": 0.0}, "0.5": {"coverage": 1.0}, "0.9": {"coverage": 1.0}}
    assert lines[1] == "level 0.5: 1.0000 of the real values lie below"
    written = json.loads((tmp_path / "out" / "quantile_results_9.json").read_text())
    assert written == {"num_images": 1, "levels": summary}


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("{", r"a/quantile_errors_9\.json is damaged"),
        ("{}", r"a/quantile_errors_9\.json is damaged"),
        ('{"0.5": 1}', r"a/quantile_errors_9\.json is damaged"),
        ('{"0.5": {"coverage": "x"}}', r"a/quantile_errors_9\.json is damaged"),
        ('{"0.5": {"coverage": NaN}}', r"a/quantile_errors_9\.json is damaged"),
        ('{"0.5": {"coverage": 1, "rms_error": null}}', r"a/quantile_errors_9\.json is damaged"),
        ('{"0.4": {"coverage": 1}}', "not of one test"),
    ],
)
def test_damaged_metrics_of_an_image_are_a_data_error_that_names_them(
    tmp_path: Path, content: str, part: str
) -> None:
    value = torch.zeros(3, LARGE, LARGE)
    loop = _loop(tmp_path, value, objective="quantile", quantiles="0.5")
    loop.run_loop()
    whole = tmp_path / "out" / "a" / "quantile_errors_9.json"
    (tmp_path / "out" / "b").mkdir()
    (tmp_path / "out" / "b" / whole.name).write_bytes(whole.read_bytes())
    whole.write_text(content)
    with pytest.raises(DataError, match=part):
        report_quantiles(loop._results, [Entry("a", 0), Entry("b", 0)], 9, print)
    assert not (tmp_path / "out" / "quantile_results_9.json").exists()


def test_single_level_has_no_moments(tmp_path: Path) -> None:
    value = torch.zeros(3, LARGE, LARGE)
    _loop(tmp_path, value, objective="quantile", quantiles="0.5").run_loop()
    names = sorted(path.name for path in (tmp_path / "out" / "a").iterdir())
    assert names == ["high_res_quantile_0.5_9.npy", "low_res.png", "quantile_errors_9.json"]


@pytest.mark.parametrize("objective", ["nll", "quantile"])
def test_output_that_is_not_finite_is_never_written(tmp_path: Path, objective: str) -> None:
    loop = _loop(tmp_path, torch.full((6, LARGE, LARGE), math.nan), objective=objective)
    loop._model_flags = BaselineModelFlags(objective=objective, quantiles="0.25,0.75")
    with pytest.raises(CheckpointError, match="not finite"):
        loop.run_loop()
    assert not list(tmp_path.rglob("*.npy")) and not list(tmp_path.rglob("*.pkl"))


def test_results_of_equal_names_by_the_two_nets_are_not_mixed(tmp_path: Path) -> None:
    (tmp_path / "model000009.pt").touch()
    output_dir, model_path = str(tmp_path / "out"), str(tmp_path / "model000009.pt")
    test = BaselineTestFlags(model_path=model_path, output_dir=output_dir)
    folders = [
        baseline_result_folder(BaselineModelFlags(), test, 9),
        mean_result_folder(output_dir, 9, model_path),
    ]
    folders[0].pending([])
    with pytest.raises(DataError, match=r"\.baseline_9\.json"):
        folders[1].pending([])
    (tmp_path / "out" / ".baseline_9.json").unlink()
    folders[1].pending([])
    with pytest.raises(DataError, match="another folder"):
        folders[0].pending([])
