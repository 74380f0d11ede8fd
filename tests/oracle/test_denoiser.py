"""The exact denoiser: against brute force, at both ends, and inside the ancestral sampler."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal as Normal

from diffusion.process import GaussianDiffusion
from diffusion.samplers import SamplerOptions, sample_loop
from diffusion.schedules import get_named_beta_schedule
from diffusion.spacing import space_timesteps
from diffusion.types import LossType, ModelMeanType, ModelVarType
from oracle.denoiser import (
    ExactDenoiser,
    posterior_mean_of_y,
    posterior_variance_of_y,
    score_of,
)
from oracle.law import OracleLaw, oracle_law
from tests.oracle.photos import low_res_images

LEVELS = pytest.mark.parametrize("alpha_bar", [0.9999, 0.99, 0.9, 0.5, 0.05])


def _covariance(law: OracleLaw) -> Tensor:
    """Of Y given the polarity, of one low-res pixel: a vector of C·f² values."""
    factor, channels = law.factor, law.base.shape[1]
    size = factor**2
    projection = torch.eye(size, dtype=torch.float64) - 1.0 / size
    sigma = law.sigma.flatten()[0]
    return torch.block_diag(*[sigma**2 * projection] * channels)


def _polarities(law: OracleLaw, alpha_bar: float) -> list[tuple[Tensor, Tensor, Normal]]:
    """Of either polarity: its probability, the mean of Y, and the normal law of x_t."""
    cov_y = _covariance(law)
    cov_x = alpha_bar * cov_y + (1 - alpha_bar) * torch.eye(len(cov_y), dtype=torch.float64)
    edge, p = law.edge.expand_as(law.base).flatten(), law.probability.flatten()[0]
    means = [(p, law.base.flatten() + edge), (1 - p, law.base.flatten() - edge)]
    return [(prior, mean, Normal(alpha_bar**0.5 * mean, cov_x)) for prior, mean in means]


def _brute_force(law: OracleLaw, x_t: Tensor, alpha_bar: float) -> tuple[Tensor, Tensor]:
    """Mean and variance of Y given x_t by conditioning the joint normal law for either polarity.

    One low-res pixel at f = 2: Y and x_t are vectors of C·f² values.
    """
    cov_y, weights, means = _covariance(law), [], []
    for prior, mean_y, law_x in _polarities(law, alpha_bar):
        gain = alpha_bar**0.5 * cov_y @ torch.linalg.inv(law_x.covariance_matrix)
        weights.append(prior * law_x.log_prob(x_t.flatten()).exp())
        means.append(mean_y + gain @ (x_t.flatten() - alpha_bar**0.5 * mean_y))
    weight = torch.stack(weights) / sum(weights)
    mean = (weight[:, None] * torch.stack(means)).sum(dim=0)
    within = torch.diagonal(cov_y - alpha_bar**0.5 * gain @ cov_y)
    between = (weight[:, None] * (torch.stack(means) - mean) ** 2).sum(dim=0)
    return mean.reshape(law.base.shape), (within + between).reshape(law.base.shape)


def _one_block(row: int, column: int) -> OracleLaw:
    """One low-res pixel out of the law of an image."""
    law = oracle_law(low_res_images(1, 6), 2)
    high = (..., slice(2 * row, 2 * row + 2), slice(2 * column, 2 * column + 2))
    low = (..., slice(row, row + 1), slice(column, column + 1))
    return OracleLaw(law.base[high], law.edge[high], law.sigma[high], law.probability[low])


@LEVELS
def test_the_denoiser_is_the_conditional_mean_by_brute_force(alpha_bar: float) -> None:
    generator = torch.Generator().manual_seed(4)
    for row, column in itertools.product((0, 2), (1, 3)):
        law = _one_block(row, column)
        noise = torch.randn(law.base.shape, generator=generator, dtype=torch.float64)
        x_t = alpha_bar**0.5 * law.sample(generator) + (1 - alpha_bar) ** 0.5 * noise
        mean, variance = _brute_force(law, x_t, alpha_bar)
        level = torch.tensor(alpha_bar, dtype=torch.float64)
        assert torch.allclose(posterior_mean_of_y(law, x_t, level), mean, atol=1e-10)
        assert torch.allclose(posterior_variance_of_y(law, x_t, level), variance, atol=1e-10)


@LEVELS
def test_its_score_is_the_gradient_of_the_exact_log_density(alpha_bar: float) -> None:
    """Tweedie's formula against central differences of the log density of the mixture.

    Steps of h = 10⁻³ of the noise's std leave (h²/6)·third derivative, 10⁻⁶ of the score, and
    rounding of 10⁻¹⁶·|log p|/h, 10⁻¹⁰ of it.
    """
    generator = torch.Generator().manual_seed(8)
    for row, column in itertools.product((0, 2), (1, 3)):
        law = _one_block(row, column)
        noise = torch.randn(law.base.shape, generator=generator, dtype=torch.float64)
        x_t = alpha_bar**0.5 * law.sample(generator) + (1 - alpha_bar) ** 0.5 * noise
        parts = _polarities(law, alpha_bar)
        step = 1e-3 * (1 - alpha_bar) ** 0.5 * torch.eye(x_t.numel(), dtype=torch.float64)

        def log_density(x: Tensor, parts: list[tuple[Tensor, Tensor, Normal]] = parts) -> Tensor:
            terms = [prior.log() + law_x.log_prob(x) for prior, _, law_x in parts]
            return torch.logsumexp(torch.stack(terms), dim=0)

        above, below = (log_density(x_t.flatten() + sign * step) for sign in (1, -1))
        gradient = (above - below) / (2 * step.diagonal())
        level = torch.tensor(alpha_bar, dtype=torch.float64)
        score = score_of(posterior_mean_of_y(law, x_t, level), x_t, level)
        assert torch.allclose(score.flatten(), gradient, rtol=0, atol=1e-5 * float(score.norm()))


def test_without_noise_it_returns_the_image_and_with_noise_alone_the_mean() -> None:
    low_res = low_res_images(2, 5)
    law = oracle_law(low_res, 4)
    draw = law.sample(torch.Generator().manual_seed(5))
    nearly_one = torch.tensor(1 - 1e-12, dtype=torch.float64)
    assert torch.allclose(posterior_mean_of_y(law, draw, nearly_one), draw, atol=1e-8)
    nothing = torch.zeros((), dtype=torch.float64)
    x_t = torch.randn(draw.shape, dtype=torch.float64)
    assert torch.allclose(posterior_mean_of_y(law, x_t, nothing), law.mean, atol=1e-12)
    assert torch.allclose(posterior_variance_of_y(law, x_t, nothing), law.variance, atol=1e-12)


@LEVELS
def test_its_answers_average_to_the_mean_and_no_other_estimate_has_less_error(
    alpha_bar: float,
) -> None:
    law = oracle_law(low_res_images(1, 4), 4)
    wide = OracleLaw(*(part.repeat(8_000, 1, 1, 1) for part in vars(law).values()))
    generator = torch.Generator().manual_seed(6)
    draw = wide.sample(generator)
    noise = torch.empty_like(draw).normal_(generator=generator)
    x_t = alpha_bar**0.5 * draw + (1 - alpha_bar) ** 0.5 * noise
    level = torch.tensor(alpha_bar, dtype=torch.float64)
    answer = posterior_mean_of_y(wide, x_t, level)
    bias = (answer - law.mean).mean(dim=0) / (law.variance / 8_000).sqrt()
    assert bias.abs().max() < 5
    error = (answer - draw).square().mean()
    assert torch.isclose(error, posterior_variance_of_y(wide, x_t, level).mean(), rtol=0.03)
    for factor in (0.8, 1.2):  # any other multiple of what it adds to the mean is worse
        other = law.mean + factor * (answer - law.mean)
        assert (other - draw).square().mean() > error - 1e-12


def _process_and_model(num_steps: int, law: OracleLaw) -> tuple[GaussianDiffusion, Any]:
    """The ancestral chain on ``num_steps`` of 1000, with the exact mean and variance of each step.

    Var[x_{t-1} | x_t] = posterior variance + c² Var[Y | x_t], c the weight of x_start in the step.
    """
    betas = get_named_beta_schedule("cosine", 1000)
    table = torch.from_numpy(np.cumprod(1 - betas))
    process = GaussianDiffusion(
        betas=betas,
        use_timesteps=space_timesteps(1000, str(num_steps)),
        model_mean_type=ModelMeanType.START_X,
        model_var_type=ModelVarType.LEARNED,
        loss_type=LossType.MSE,
    )
    denoiser = ExactDenoiser(table, law.factor)
    steps = {int(t): i for i, t in enumerate(process.timestep_map)}

    def model(x: Tensor, t: Tensor) -> Tensor:
        i = steps[int(t[0])]
        weight = process.coefficients.posterior_mean_coef1[i]
        variance = weight**2 * posterior_variance_of_y(law, x, table[t])
        variance = variance + process.coefficients.posterior_variance[i]
        return torch.cat([denoiser(x, t, low_res=law), variance.log()], dim=1)

    return process, model


def test_the_ancestral_sampler_with_it_reproduces_the_moments() -> None:
    law = oracle_law(low_res_images(1, 3), 4)
    num = 1500
    wide = OracleLaw(*(part.float().repeat(num, 1, 1, 1) for part in vars(law).values()))
    process, model = _process_and_model(100, wide)
    generator = torch.Generator().manual_seed(7)
    x_T = torch.randn(wide.base.shape, generator=generator)
    samples = sample_loop(
        process,
        model,
        x_T,
        lambda k: torch.randn(x_T.shape, generator=generator),
        SamplerOptions(clip_denoised=False),
    ).double()
    mean_error = (samples.mean(dim=0) - law.mean) / (law.variance / num).sqrt()
    assert mean_error.square().mean() < 1.5
    ratio = samples.var(dim=0) / law.variance
    assert abs(float(ratio.mean()) - 1) < 0.03
    assert ratio.std() < 1.5 * (2 / num) ** 0.5
    # two polarities, not a normal law in between: the fourth moment is far below 3 Var²
    edges = law.edge[0, 0].abs() > law.noise_variance[0, 0].sqrt()
    fourth = (samples - samples.mean(dim=0)).pow(4).mean(dim=0) / samples.var(dim=0) ** 2
    exact = (law.fourth_central_moment / law.variance**2)[0, :, edges]
    assert edges.any() and (exact < 2.8).any()
    assert (fourth[:, edges] - exact).abs().mean() < 0.3


def test_timesteps_are_those_of_the_longer_chain_and_must_be_whole() -> None:
    table = torch.linspace(0.999, 0.01, 10, dtype=torch.float64)
    denoiser = ExactDenoiser(table, 4)
    low_res = low_res_images(2, 4)
    law = oracle_law(low_res, 4)
    x_t = torch.randn(law.base.shape, dtype=torch.float64)
    out = denoiser(x_t, torch.tensor([2, 7]), low_res=low_res)
    assert torch.equal(out, denoiser(x_t, torch.tensor([2, 7]), low_res=law))
    assert torch.allclose(out, posterior_mean_of_y(law, x_t, table[[2, 7]]))
    with pytest.raises(TypeError, match="rescale_timesteps"):
        denoiser(x_t, torch.tensor([2.0, 7.0]), low_res=law)
