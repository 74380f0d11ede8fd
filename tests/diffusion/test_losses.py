"""Training losses: what each type adds up, and what its gradients reach."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from diffusion.losses import training_losses
from diffusion.process import GaussianDiffusion
from diffusion.types import LossType, ModelMeanType, ModelVarType, PredictionLoss
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


@pytest.mark.parametrize("mean_type", list(ModelMeanType))
def test_squared_error_of_a_perfect_prediction_is_nothing(mean_type: ModelMeanType) -> None:
    process = build(mean_type=mean_type)
    perfect = {
        ModelMeanType.START_X: X_START,
        ModelMeanType.EPSILON: NOISE,
    }[mean_type]
    losses = training_losses(process, constant(perfect), X_START, T, noise=NOISE)
    assert set(losses) == {"loss", "mse"}
    assert (losses["mse"] == 0).all()
    off = training_losses(process, constant(perfect + 0.5), X_START, T, noise=NOISE)
    torch.testing.assert_close(off["loss"], torch.full((5,), 0.25))


@pytest.mark.parametrize(
    ("loss", "direct"),
    [
        (PredictionLoss.L1, torch.nn.L1Loss(reduction="none")),
        (PredictionLoss.HUBER, torch.nn.HuberLoss(reduction="none")),
        (PredictionLoss.SMOOTH_L1, torch.nn.SmoothL1Loss(reduction="none")),
        (PredictionLoss.MSE, torch.nn.MSELoss(reduction="none")),
    ],
)
@pytest.mark.parametrize("var_type", [ModelVarType.FIXED_LARGE, ModelVarType.LEARNED_RANGE])
def test_other_losses_of_the_prediction_are_those_of_torch(
    loss: PredictionLoss, direct: Any, var_type: ModelVarType
) -> None:
    process = build(mean_type=ModelMeanType.EPSILON, prediction_loss=loss, var_type=var_type)
    parts = [2 * X] if var_type is ModelVarType.FIXED_LARGE else [2 * X, VALUES.tanh()]
    losses = training_losses(process, constant(*parts), X_START, T, noise=NOISE)
    expected = direct(2 * X, NOISE).flatten(1).mean(dim=1)
    torch.testing.assert_close(losses[loss.value], expected)
    torch.testing.assert_close(losses["loss"], expected + losses.get("vb", torch.zeros(5)))


@pytest.mark.parametrize("loss_type", [LossType.MSE, LossType.RESCALED_MSE])
def test_bound_of_a_hybrid_loss_trains_the_variance_alone(loss_type: LossType) -> None:
    prediction, values = X_START.clone().requires_grad_(), VALUES.tanh().requires_grad_()
    process = build(var_type=ModelVarType.LEARNED_RANGE, loss_type=loss_type)
    losses = training_losses(process, constant(prediction, values), NOISE, T, noise=X)
    bound_gradients = torch.autograd.grad(
        losses["vb"].sum(), (prediction, values), retain_graph=True, allow_unused=True
    )
    assert not bound_gradients[0].any()
    assert bound_gradients[1].abs().sum() > 0
    error_gradients = torch.autograd.grad(
        losses["mse"].sum(), (prediction, values), allow_unused=True
    )
    assert error_gradients[0].abs().sum() > 0
    assert error_gradients[1] is None or not error_gradients[1].any()
    torch.testing.assert_close(losses["loss"], losses["mse"] + losses["vb"])


def test_rescaled_losses_differ_by_their_stated_factors() -> None:
    def losses(loss_type: LossType) -> dict[str, Tensor]:
        process = build(var_type=ModelVarType.LEARNED_RANGE, loss_type=loss_type)
        return training_losses(process, constant(X, VALUES), X_START, T, noise=NOISE)

    bound = losses(LossType.KL)["loss"]
    torch.testing.assert_close(losses(LossType.MSE)["vb"], bound)
    torch.testing.assert_close(losses(LossType.RESCALED_KL)["loss"], 50 * bound)
    torch.testing.assert_close(losses(LossType.RESCALED_MSE)["vb"], 50 / 1000 * bound)


def test_bound_trains_a_prediction_beyond_the_range_of_images() -> None:
    prediction = torch.full_like(X, 3.0).requires_grad_()
    process = build(loss_type=LossType.KL)
    training_losses(process, constant(prediction), X_START, T, noise=NOISE)["loss"].sum().backward()
    assert prediction.grad is not None
    assert (prediction.grad[1:] > 0).all()


def test_training_losses_leave_their_arguments_as_they_are() -> None:
    process = build(var_type=ModelVarType.LEARNED_RANGE)
    copies = [v.clone() for v in (X_START, T, NOISE)]
    training_losses(process, constant(X, VALUES), X_START, T, noise=NOISE)
    for before, after in zip(copies, (X_START, T, NOISE), strict=True):
        assert torch.equal(before, after)
