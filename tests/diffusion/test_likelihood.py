"""Bits per dimension in cases where they are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion.process import ModelMeanType
from tests.diffusion.chains import Chain, standard_normal

SHAPE = (3, 2, 4, 4)


def levels(seed: int) -> Tensor:
    """Return inner 8-bit levels in [-1, 1]."""
    grey = torch.randint(1, 255, SHAPE, generator=torch.Generator().manual_seed(seed))
    return grey.float() / 127.5 - 1.0


def test_prior_term_is_the_divergence_from_the_standard_normal() -> None:
    process = Chain("cosine", 100, "7").build()
    x_start = levels(0)
    alpha_bar = process.alphas_cumprod[-1]
    mean_square = alpha_bar * x_start.double().square().flatten(1).mean(1)
    nats = 0.5 * (mean_square + (1 - alpha_bar) - 1 - math.log(1 - alpha_bar))
    torch.testing.assert_close(
        process.prior_bpd(x_start).double(), nats / math.log(2), rtol=1e-4, atol=1e-8
    )


def test_bits_of_a_network_that_knows_the_image_are_those_of_the_decoder_alone() -> None:
    process = Chain(num_steps=100, respacing="10").build()
    x_start = levels(1)
    bpd = process.calc_bpd_loop(lambda x, t: x_start, x_start)
    # The decoder's Gaussian sits on the right level, with the variance of t = 1.
    std = math.sqrt(process.posterior_variance[1])
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
    bpd = process.calc_bpd_loop(lambda x, t: x_start + 0.1, x_start)
    t = np.arange(9, 0, -1)
    shift = 0.1 * process.posterior_mean_coef1[t]
    expected = shift**2 / (2 * process.posterior_variance[t]) / math.log(2)
    np.testing.assert_allclose(bpd["vb"][:, :-1], np.tile(expected, (3, 1)), rtol=1e-3)
    np.testing.assert_allclose(bpd["xstart_mse"], 0.01, rtol=1e-4)


def test_clamp_is_applied_when_asked_for() -> None:
    process = Chain(num_steps=100, respacing="10").build()
    x_start = levels(3)
    clipped = process.calc_bpd_loop(lambda x, t: 5 * torch.ones_like(x), x_start)
    raw = process.calc_bpd_loop(lambda x, t: 5 * torch.ones_like(x), x_start, clip_denoised=False)
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

    low_res = torch.zeros(SHAPE)
    process.calc_bpd_loop(model, levels(4), model_kwargs={"low_res": low_res}, noise_fn=noise_fn)
    assert timesteps == process.timestep_map[::-1].tolist()
    assert asked_for == list(range(10))


def test_bits_record_no_gradients() -> None:
    process = Chain(num_steps=100, respacing="5").build()
    scale = torch.ones(1, requires_grad=True)
    bpd = process.calc_bpd_loop(lambda x, t: scale * x, levels(5))
    assert not bpd["total_bpd"].requires_grad


def test_bound_does_not_depend_on_the_seed_when_the_network_knows_the_image() -> None:
    process = Chain(num_steps=100, respacing="5").build()
    x_start = levels(6)
    totals = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        totals.append(process.calc_bpd_loop(lambda x, t: x_start, x_start)["total_bpd"])
    assert totals[0].tolist() == pytest.approx(totals[1].tolist(), abs=1e-6)
