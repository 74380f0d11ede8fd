"""The losses beside the squared error: their minimisers on laws that can be written down."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from sr_var.losses import VARIANCE_FLOOR, beta_nll, itakura_saito, pinball

# nine draws of one pixel; squared residuals from far below to far above the floor
DRAWS = torch.tensor([-0.9, -0.4, -0.1, 0.0, 0.001, 0.05, 0.3, 0.5, 0.8], dtype=torch.float64)


def _gradient(loss: Callable[[Tensor], Tensor], at: float) -> float:
    value = torch.tensor(at, dtype=torch.float64, requires_grad=True)
    loss(value).backward()
    assert value.grad is not None
    return value.grad.item()


@pytest.mark.parametrize("loss", [mse_loss, itakura_saito])
def test_both_losses_of_a_variance_are_least_at_the_mean_squared_residual(
    loss: Callable[[Tensor, Tensor], Tensor],
) -> None:
    """For equally likely residuals the gradient is 0 at E r², falls before and rises behind it."""
    squared = DRAWS.square()
    minimiser = squared.mean().item()

    def of(value: Tensor) -> Tensor:
        return loss(value.expand_as(squared), squared)

    assert _gradient(of, minimiser) == pytest.approx(0, abs=1e-12)
    assert _gradient(of, minimiser * 0.9) < -1e-3 and _gradient(of, minimiser * 1.1) > 1e-3


def test_tables_trained_with_either_loss_hold_the_mean_squared_residual_of_their_input() -> None:
    """Two inputs with two laws: a table of two entries learns both, by quasi-Newton steps."""
    squared = torch.stack([DRAWS.square(), 0.01 * DRAWS.square()])  # (2 inputs, 9 draws)
    expected = squared.mean(dim=1)
    for loss in (mse_loss, itakura_saito):
        table = torch.full((2,), 0.5, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [table],
            max_iter=200,
            tolerance_grad=1e-13,
            tolerance_change=1e-15,
            line_search_fn="strong_wolfe",
        )

        def closure(table=table, optimizer=optimizer, loss=loss) -> Tensor:  # type: ignore
            optimizer.zero_grad()
            value = loss(table.exp()[:, None].expand_as(squared), squared)
            value.backward()
            return value

        for _ in range(5):
            optimizer.step(closure)
        torch.testing.assert_close(table.detach().exp(), expected, rtol=1e-3, atol=0)


def test_itakura_saito_depends_on_ratios_alone_far_above_its_floor() -> None:
    v, r2, scale = torch.tensor([0.2, 0.5]), torch.tensor([0.3, 0.1]), 0.25
    change = itakura_saito(scale * v, scale * r2) - itakura_saito(v, r2)
    assert change.item() == pytest.approx(math.log(scale), abs=1e-3)


def test_itakura_saito_stays_finite_where_variance_and_residual_are_zero() -> None:
    for squared in (0.0, 4.0):
        v = torch.zeros(3, requires_grad=True)
        loss = itakura_saito(v, torch.full((3,), squared))
        loss.backward()
        assert math.isfinite(loss.item()) and v.grad is not None and bool(v.grad.isfinite().all())
        # nothing is stuck at the floor: the gradient points to the residual from there, too
        assert bool((v.grad == 0).all() if squared == 0 else (v.grad < 0).all())


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_gradient_of_every_beta_is_zero_at_mean_and_variance_and_nowhere_near(beta: float) -> None:
    m = DRAWS.mean().item()
    v = DRAWS.var(correction=0).item()

    def of_mean(mean: Tensor, variance: float = v) -> Tensor:
        return beta_nll(mean.expand_as(DRAWS), torch.full_like(DRAWS, variance), DRAWS, beta)

    def of_variance(variance: Tensor) -> Tensor:
        return beta_nll(torch.full_like(DRAWS, m), variance.expand_as(DRAWS), DRAWS, beta)

    assert _gradient(of_mean, m) == pytest.approx(0, abs=1e-12)
    assert _gradient(of_variance, v) == pytest.approx(0, abs=1e-12)
    assert _gradient(of_mean, m + 0.1) > 1e-3 and _gradient(of_mean, m - 0.1) < -1e-3
    assert _gradient(of_variance, 1.2 * v) > 1e-3 and _gradient(of_variance, 0.8 * v) < -1e-3


def test_beta_one_gives_the_mean_the_gradient_of_the_squared_error() -> None:
    variance = torch.linspace(0.1, 2, 9, dtype=torch.float64)
    gradients = []
    for loss in (lambda m: beta_nll(m, variance, DRAWS, 1.0), lambda m: mse_loss(m, DRAWS) / 2):
        mean = torch.zeros(9, dtype=torch.float64, requires_grad=True)
        loss(mean).backward()
        gradients.append(mean.grad)
    torch.testing.assert_close(*gradients)


def test_likelihood_is_that_of_the_normal_law_up_to_a_constant() -> None:
    mean, variance = 0.1 * DRAWS, DRAWS.square() + 0.1
    law = torch.distributions.Normal(mean, variance.sqrt())
    expected = -law.log_prob(DRAWS).mean() - 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(beta_nll(mean, variance, DRAWS, 0.0), expected)


@pytest.mark.parametrize("level", [0.05, 0.3, 0.5, 0.9])
def test_pinball_loss_is_least_at_the_quantile(level: float) -> None:
    """Nine equally likely draws: the τ-quantile is the ⌈9τ⌉-th, and the only minimiser."""
    label = DRAWS.reshape(9, 1, 1, 1)
    losses = [
        pinball(draw.expand(9, 1, 1, 1, 1), label, [level]).item()
        for draw in DRAWS  # piecewise linear: its minimum is at a draw
    ]
    place = math.ceil(9 * level) - 1
    assert losses[place] == min(losses) and losses.count(losses[place]) == 1


def test_pinball_loss_averages_over_the_levels() -> None:
    label = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    quantiles = torch.randn(2, 2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    both = pinball(quantiles, label, [0.25, 0.75])
    single = [pinball(quantiles[:, i : i + 1], label, [t]) for i, t in enumerate((0.25, 0.75))]
    torch.testing.assert_close(both, (single[0] + single[1]) / 2)
    median = pinball(quantiles[:, :1], label, [0.5])
    torch.testing.assert_close(median, (quantiles[:, 0] - label).abs().mean() / 2)


def test_floor_is_the_variance_of_rounding_to_grey_levels() -> None:
    offsets = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000 - 0.5  # grey levels
    assert pytest.approx(offsets.square().mean().item(), rel=1e-6) == VARIANCE_FLOOR * 127.5**2
