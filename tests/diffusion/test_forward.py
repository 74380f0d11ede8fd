"""The forward chain: its marginals and posteriors follow from its single steps."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from diffusion.forward import (
    ForwardProcess,
    eps_from_xstart,
    xstart_from_eps,
)
from diffusion.schedules import get_named_beta_schedule
from tests.diffusion.chains import standard_normal

SCHEDULES = [("linear", 1000), ("linear", 25), ("cosine", 100), ("cosine", 2), ("cosine", 1)]


@pytest.fixture(params=SCHEDULES, ids=str)
def process(request: pytest.FixtureRequest) -> ForwardProcess:
    return ForwardProcess(get_named_beta_schedule(*request.param))


def test_chain_of_single_steps_has_the_stated_marginals(process: ForwardProcess) -> None:
    x_start = torch.tensor([[0.7]]).expand(process.num_timesteps, 1)
    mean, variance, log_variance = process.q_mean_variance(
        x_start, torch.arange(process.num_timesteps)
    )
    chain_mean, chain_variance = 0.7, 0.0
    for t, beta in enumerate(process.coefficients.betas):
        # One step of q(x_t | x_{t-1}) = N(√(1 - beta) x_{t-1}, beta).
        chain_mean *= np.sqrt(1 - beta)
        chain_variance = (1 - beta) * chain_variance + beta
        assert mean[t].item() == pytest.approx(chain_mean, rel=1e-6)
        assert variance[t].item() == pytest.approx(chain_variance, rel=1e-6)
        assert log_variance[t].item() == pytest.approx(np.log(chain_variance), rel=1e-6, abs=1e-6)


def test_posterior_is_that_of_bayes_theorem(process: ForwardProcess) -> None:
    x_start, x_t = 0.7, -0.4
    c = process.coefficients
    previous, betas = np.append(1.0, c.alphas_cumprod[:-1])[1:], c.betas[1:]
    # x_{t-1} ~ N(√prev x_start, 1 - prev), and x_t | x_{t-1} ~ N(√(1 - beta) x_{t-1}, beta).
    precision = 1 / (1 - previous) + (1 - betas) / betas
    weighted = np.sqrt(previous) * x_start / (1 - previous) + np.sqrt(1 - betas) * x_t / betas
    mean = c.posterior_mean_coef1 * x_start + c.posterior_mean_coef2 * x_t
    np.testing.assert_allclose(c.posterior_variance[1:], 1 / precision, rtol=1e-9)
    np.testing.assert_allclose(mean[1:], weighted / precision, rtol=1e-9)
    # At t = 0 nothing is left to be guessed.
    assert mean[0] == pytest.approx(x_start, rel=1e-12)
    assert c.posterior_variance[0] == 0.0


def test_noised_examples_have_the_stated_mean_and_variance() -> None:
    process = ForwardProcess(get_named_beta_schedule("linear", 100))
    x_start, t = torch.full((2, 200_000), 0.5), torch.tensor([10, 60])
    x_t = process.q_sample(x_start, t, standard_normal(0, (2, 200_000)))
    mean, variance, _ = process.q_mean_variance(x_start, t)
    torch.testing.assert_close(x_t.mean(dim=1), mean[:, 0], atol=0.01, rtol=0)
    torch.testing.assert_close(x_t.var(dim=1), variance[:, 0], atol=0, rtol=0.02)


def test_conversions_undo_each_other() -> None:
    process = ForwardProcess(get_named_beta_schedule("linear", 50))
    t = torch.arange(50)
    x_start, eps = standard_normal(1, (2, 50, 3, 4, 4)).unbind(0)
    x_t = process.q_sample(x_start, t, eps)
    c = process.coefficients_at(t, 4)
    torch.testing.assert_close(eps_from_xstart(c, x_t, x_start), eps, atol=2e-4, rtol=1e-4)
    # What is left of the signal at the last step is 0.6 % of it.
    torch.testing.assert_close(xstart_from_eps(c, x_t, eps), x_start, atol=2e-4, rtol=1e-4)


def test_each_example_gets_the_coefficients_of_its_own_timestep(process: ForwardProcess) -> None:
    t = torch.tensor([process.num_timesteps - 1, 0, process.num_timesteps // 2])
    c = process.coefficients_at(t, 4)
    for name in ("betas", "sqrt_alphas_cumprod", "posterior_log_variance_clipped", "noise_mask"):
        column = getattr(c, name)
        assert column.shape == (3, 1, 1, 1)
        assert column.dtype == torch.float32
        expected = getattr(process.coefficients, name)[t]
        np.testing.assert_allclose(column.flatten(), expected, rtol=1e-7)


def test_chain_of_one_step_has_finite_coefficients() -> None:
    process = ForwardProcess([0.3])
    assert process.coefficients.posterior_log_variance_clipped.tolist() == [np.log(0.3)]
    assert process.coefficients.large_variance.tolist() == [0.3]


def test_noise_told_from_x_start_is_x_t_where_no_signal_is_left() -> None:
    process = ForwardProcess(get_named_beta_schedule("linear", 20))
    assert process.coefficients.alphas_cumprod[-1] == 0.0
    x_t, x_start = standard_normal(2, (2, 1, 3, 2, 2)).unbind(0)
    eps = eps_from_xstart(process.coefficients_at(torch.tensor([19]), 4), x_t, x_start)
    torch.testing.assert_close(eps, x_t)


@pytest.mark.parametrize("betas", [[], [0.0], [0.1, 1.1], [float("nan")], [[0.1]]], ids=str)
def test_betas_out_of_range_are_refused(betas: list[float]) -> None:
    with pytest.raises(ValueError, match="betas must"):
        ForwardProcess(betas)


def test_process_does_not_share_its_betas_with_the_caller() -> None:
    betas = get_named_beta_schedule("linear", 30)
    process = ForwardProcess(betas)
    betas[:] = 0.5
    assert process.coefficients.betas[0] < 0.1


def test_tables_first_used_in_inference_mode_still_serve_training() -> None:
    process = ForwardProcess(get_named_beta_schedule("linear", 30))
    x_start, t = torch.ones(2, 1, 2, 2, requires_grad=True), torch.tensor([3, 4])
    with torch.inference_mode():
        process.q_sample(x_start, t)
    process.q_sample(x_start, t).square().sum().backward()
    assert x_start.grad is not None


def test_process_can_be_copied() -> None:
    process = ForwardProcess(get_named_beta_schedule("linear", 30))
    x_start, t, noise = torch.ones(1, 1, 2, 2), torch.tensor([3]), torch.ones(1, 1, 2, 2)
    expected = process.q_sample(x_start, t, noise)
    assert torch.equal(copy.deepcopy(process).q_sample(x_start, t, noise), expected)
