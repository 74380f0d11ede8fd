"""What a network's output means: the mean and variance of a reverse step, and x_start."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion.forward import posterior_mean
from diffusion.process import GaussianDiffusion
from diffusion.schedules import get_named_beta_schedule
from diffusion.types import LossType, ModelMeanType, ModelVarType, StepOptions
from tests.diffusion.chains import Chain, standard_normal

SHAPE = (5, 2, 3, 3)
T = torch.tensor([0, 1, 10, 25, 49])
X, X_START, NOISE, VALUES = standard_normal(0, (4, *SHAPE)).unbind(0)
CHAIN = Chain(respacing="50")


def build(**changes: Any) -> GaussianDiffusion:
    return dataclasses.replace(CHAIN, **changes).build()


def constant(*parts: Tensor) -> Any:
    """Return a network that returns these parts of its output for every input."""
    return lambda x, t: torch.cat(parts, dim=1)


def test_both_predictions_of_the_same_thing_give_the_same_step() -> None:
    process = build()
    eps = NOISE
    x = process.q_sample(X_START, T, eps)
    c = process.coefficients_at(T, 4)
    predictions = {
        ModelMeanType.START_X: X_START,
        ModelMeanType.EPSILON: eps,
    }
    for mean_type, prediction in predictions.items():
        out = build(mean_type=mean_type).p_mean_variance(
            constant(prediction), x, T, StepOptions(clip_denoised=False)
        )
        # The last step keeps 0.6 % of the signal, which amplifies rounding by 160.
        torch.testing.assert_close(out["pred_xstart"], X_START, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(out["mean"], posterior_mean(c, X_START, x), rtol=1e-4, atol=1e-5)


def test_learned_range_runs_from_the_posterior_variance_to_beta() -> None:
    process = build(var_type=ModelVarType.LEARNED_RANGE)
    ones = torch.ones_like(X)
    low = process.p_mean_variance(constant(X_START, -ones), X, T)
    high = process.p_mean_variance(constant(X_START, ones), X, T)
    middle = process.p_mean_variance(constant(X_START, 0 * ones), X, T)
    fixed_small = build().p_mean_variance(constant(X_START), X, T)
    torch.testing.assert_close(low["log_variance"], fixed_small["log_variance"])
    betas = torch.from_numpy(process.coefficients.betas).float()[T].view(-1, 1, 1, 1)
    torch.testing.assert_close(high["variance"], betas.expand_as(X))
    geometric_mean = (low["variance"] * high["variance"]).sqrt()
    torch.testing.assert_close(middle["variance"], geometric_mean)


def test_fixed_large_variance_is_beta_but_at_the_first_timestep() -> None:
    process = build(var_type=ModelVarType.FIXED_LARGE)
    out = process.p_mean_variance(constant(X_START), X, T)
    c = process.coefficients
    expected = np.append(c.posterior_variance[1], c.betas[1:])[T]
    np.testing.assert_allclose(out["variance"][:, 0, 0, 0], expected, rtol=1e-6)
    torch.testing.assert_close(out["log_variance"], out["variance"].log(), rtol=1e-5, atol=1e-5)


def test_fixed_small_variance_is_nothing_at_the_first_timestep() -> None:
    out = build().p_mean_variance(constant(X_START), X, T)
    assert (out["variance"][0] == 0).all()
    torch.testing.assert_close(out["log_variance"][1:], out["variance"][1:].log())
    assert out["log_variance"][0].isfinite().all()


def test_learned_log_variance_is_taken_as_it_is() -> None:
    out = build(var_type=ModelVarType.LEARNED).p_mean_variance(constant(X_START, VALUES), X, T)
    torch.testing.assert_close(out["log_variance"], VALUES)
    torch.testing.assert_close(out["variance"], VALUES.exp())


def test_denoised_fn_comes_before_the_clamp() -> None:
    options = StepOptions(denoised_fn=lambda x: 10 * x)
    out = build().p_mean_variance(constant(X_START), X, T, options)
    torch.testing.assert_close(out["pred_xstart"], (10 * X_START).clamp(-1, 1))


def test_all_outputs_have_the_shape_of_x_for_every_variance_type() -> None:
    for var_type in ModelVarType:
        model = constant(X_START, VALUES) if var_type.is_learned() else constant(X_START)
        out = build(var_type=var_type).p_mean_variance(model, X, T)
        assert {name: value.shape for name, value in out.items()} == dict.fromkeys(
            ("mean", "variance", "log_variance", "pred_xstart"), torch.Size(SHAPE)
        )


@pytest.mark.parametrize("var_type", [ModelVarType.FIXED_SMALL, ModelVarType.LEARNED_RANGE])
def test_output_of_the_wrong_shape_is_refused_with_the_flag_to_check(
    var_type: ModelVarType,
) -> None:
    is_learned = var_type is ModelVarType.LEARNED_RANGE
    model = constant(X_START) if is_learned else constant(X_START, VALUES)
    with pytest.raises(ValueError, match=r"\(5, . 3, 3\)|learn_sigma"):
        build(var_type=var_type).p_mean_variance(model, X, T)


def test_model_kwargs_reach_the_network() -> None:
    def model(x: Tensor, t: Tensor, y: Tensor, scale: float) -> Tensor:
        return scale * x + y.view(-1, 1, 1, 1)

    y = torch.arange(5.0)
    out = build().p_mean_variance(
        model, X, T, StepOptions(clip_denoised=False, model_kwargs={"y": y, "scale": 2.0})
    )
    torch.testing.assert_close(out["pred_xstart"], 2 * X + y.view(-1, 1, 1, 1))


def test_half_precision_output_gives_a_sample_of_the_precision_of_x() -> None:
    out = build(var_type=ModelVarType.LEARNED_RANGE).p_sample(
        constant(X_START.bfloat16(), VALUES.bfloat16()), X, T, NOISE
    )
    assert {value.dtype for value in out.values()} == {torch.float32}


def test_noise_prediction_is_refused_on_a_chain_that_ends_without_signal() -> None:
    betas = get_named_beta_schedule("linear", 20)
    kinds = {"model_var_type": ModelVarType.FIXED_SMALL, "loss_type": LossType.MSE}
    with pytest.raises(ValueError, match=r"20 steps.*ends without signal.*predict_xstart"):
        GaussianDiffusion(betas=betas, model_mean_type=ModelMeanType.EPSILON, **kinds)
    process = GaussianDiffusion(betas=betas, model_mean_type=ModelMeanType.START_X, **kinds)
    out = process.ddim_sample(constant(X_START[:1]), X[:1], torch.tensor([19]))
    assert out["sample"].isfinite().all()
