"""Likelihood terms against torch's distributions, and bits per dimension where they are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from diffusion.bound import (
    approx_standard_normal_cdf,
    calc_bpd_loop,
    discretized_gaussian_log_likelihood,
    mean_flat,
    normal_kl,
    prior_bpd,
)
from diffusion.types import ModelMeanType, StepOptions
from tests.diffusion.chains import Chain, standard_normal

SHAPE = (3, 2, 4, 4)


def levels(seed: int) -> Tensor:
    """Return inner 8-bit levels in [-1, 1]."""
    grey = torch.randint(1, 255, SHAPE, generator=torch.Generator().manual_seed(seed))
    return grey.float() / 127.5 - 1.0


# -- Terms of Gaussians and of 8-bit images


def test_kl_is_that_of_two_gaussians() -> None:
    mean1, logvar1, mean2, logvar2 = standard_normal(0, (4, 5, 6)).unbind(0)
    expected = kl_divergence(
        Normal(mean1, (0.5 * logvar1).exp()), Normal(mean2, (0.5 * logvar2).exp())
    )
    torch.testing.assert_close(normal_kl(mean1, logvar1, mean2, logvar2), expected)


def test_kl_takes_numbers_for_any_but_one_argument() -> None:
    logvar = standard_normal(1, (7,))
    expected = kl_divergence(Normal(0.5, 1.0), Normal(torch.zeros(7), (0.5 * logvar).exp()))
    torch.testing.assert_close(normal_kl(0.5, 0.0, 0.0, logvar), expected)


def test_cdf_approximation_is_within_its_stated_error() -> None:
    x = torch.linspace(-6, 6, 2001, dtype=torch.float64)
    exact = 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    error = (approx_standard_normal_cdf(x) - exact).abs().max()
    assert 1e-4 < error < 3e-4


@pytest.mark.parametrize(("mean", "std"), [(0.1, 0.3), (-1.2, 0.05), (0.9, 2.0)])
def test_probabilities_of_all_levels_sum_to_one(mean: float, std: float) -> None:
    all_levels = torch.linspace(-1, 1, 256, dtype=torch.float64)
    log_probabilities = discretized_gaussian_log_likelihood(
        all_levels,
        means=torch.full_like(all_levels, mean),
        log_scales=torch.full_like(all_levels, std).log(),
    )
    # Up to the floor of 1e-12 for each level.
    assert log_probabilities.exp().sum().item() == pytest.approx(1.0, abs=1e-9)


def test_narrow_gaussian_on_a_level_has_a_finite_likelihood_everywhere() -> None:
    x = torch.tensor([0.0, 1.0], requires_grad=True)
    log_scales = torch.full((2,), -20.0, requires_grad=True)
    result = discretized_gaussian_log_likelihood(x, means=torch.zeros(2), log_scales=log_scales)
    torch.testing.assert_close(result, torch.tensor([0.0, math.log(1e-12)]))
    result.sum().backward()
    assert log_scales.grad is not None
    assert log_scales.grad.isfinite().all()


def test_mean_flat_keeps_the_first_axis() -> None:
    x = standard_normal(2, (3, 2, 4, 5))
    torch.testing.assert_close(mean_flat(x), torch.stack([row.mean() for row in x]))


# -- The bound


def test_prior_term_is_the_divergence_from_the_standard_normal() -> None:
    process = Chain("cosine", 100, "7").build()
    x_start = levels(0)
    alpha_bar = process.coefficients.alphas_cumprod[-1]
    mean_square = alpha_bar * x_start.double().square().flatten(1).mean(1)
    nats = 0.5 * (mean_square + (1 - alpha_bar) - 1 - math.log(1 - alpha_bar))
    torch.testing.assert_close(
        prior_bpd(process, x_start).double(), nats / math.log(2), rtol=1e-4, atol=1e-8
    )


def test_bits_of_a_network_that_knows_the_image_are_those_of_the_decoder_alone() -> None:
    process = Chain(num_steps=100, respacing="10").build()
    x_start = levels(1)
    bpd = calc_bpd_loop(process, lambda x, t: x_start, x_start)
    # The decoder's Gaussian sits on the right level, with the variance of t = 1.
    std = math.sqrt(process.coefficients.posterior_variance[1])
    decoder = -math.log2(math.erf(1 / 255 / std / math.sqrt(2)))
    assert bpd["vb"].shape == (3, 10)
    # The cdf is approximated to 3e-4.
    np.testing.assert_allclose(bpd["vb"][:, -1], decoder, rtol=5e-3)
    np.testing.assert_allclose(bpd["vb"][:, :-1], 0.0, atol=1e-6)
    torch.testing.assert_close(bpd["total_bpd"], bpd["vb"].sum(1) + bpd["prior_bpd"])
    np.testing.assert_allclose(bpd["xstart_mse"], 0.0)
    np.testing.assert_allclose(bpd["mse"], 0.0, atol=1e-6)


def test_term_of_a_wrong_prediction_is_its_error_in_units_of_the_posterior() -> None:
    process = Chain(num_steps=100, respacing="10").build()
    x_start = 0.5 * levels(2)
    bpd = calc_bpd_loop(process, lambda x, t: x_start + 0.1, x_start)
    t = np.arange(9, 0, -1)
    shift = 0.1 * process.coefficients.posterior_mean_coef1[t]
    expected = shift**2 / (2 * process.coefficients.posterior_variance[t]) / math.log(2)
    np.testing.assert_allclose(bpd["vb"][:, :-1], np.tile(expected, (3, 1)), rtol=1e-3)
    np.testing.assert_allclose(bpd["xstart_mse"], 0.01, rtol=1e-4)


def test_clamp_is_applied_when_asked_for() -> None:
    process = Chain(num_steps=100, respacing="10").build()
    x_start = levels(3)
    fives = 5 * torch.ones(SHAPE)
    clipped = calc_bpd_loop(process, lambda x, t: fives, x_start)
    raw = calc_bpd_loop(process, lambda x, t: fives, x_start, StepOptions(clip_denoised=False))
    expected = (1.0 - x_start).square().flatten(1).mean(1)
    torch.testing.assert_close(clipped["xstart_mse"][:, 0], expected)
    assert (raw["total_bpd"] > clipped["total_bpd"]).all()


def test_terms_run_from_the_noisiest_timestep_and_take_their_noise_in_this_order() -> None:
    process = Chain(num_steps=100, respacing="10", mean_type=ModelMeanType.EPSILON).build()
    timesteps: list[int] = []
    asked_for: list[int] = []

    def model(x: Tensor, t: Tensor, low_res: Tensor) -> Tensor:
        timesteps.append(int(t[0]))
        return low_res

    def noise_fn(k: int) -> Tensor:
        asked_for.append(k)
        return standard_normal(k, SHAPE)

    options = StepOptions(model_kwargs={"low_res": torch.zeros(SHAPE)})
    calc_bpd_loop(process, model, levels(4), options, noise_fn)
    assert timesteps == process.timestep_map[::-1].tolist()
    assert asked_for == list(range(10))


def test_bits_record_no_gradients() -> None:
    process = Chain(num_steps=100, respacing="5").build()
    scale = torch.ones(1, requires_grad=True)
    bpd = calc_bpd_loop(process, lambda x, t: scale * x, levels(5))
    assert not bpd["total_bpd"].requires_grad


def test_bound_does_not_depend_on_the_seed_when_the_network_knows_the_image() -> None:
    process = Chain(num_steps=100, respacing="5").build()
    x_start = levels(6)
    totals = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        totals.append(calc_bpd_loop(process, lambda x, t: x_start, x_start)["total_bpd"])
    assert totals[0].tolist() == pytest.approx(totals[1].tolist(), abs=1e-6)
