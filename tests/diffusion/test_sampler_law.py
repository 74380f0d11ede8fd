"""The law of the samples where it is known exactly: Gaussian data, with and without guidance."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffusion.process import GaussianDiffusion
from diffusion.samplers import SamplerOptions, gaussian_noise_fn, sample_loop
from tests.diffusion.chains import Chain, GaussianData, standard_normal

ANCESTRAL = SamplerOptions(clip_denoised=False)
DDIM = SamplerOptions(sampler="ddim", clip_denoised=False)
DDIM_NOISY = SamplerOptions(sampler="ddim", eta=1.0, clip_denoised=False)
ALL_OPTIONS = [ANCESTRAL, DDIM, DDIM_NOISY]
OPTION_NAMES = ["ancestral", "ddim", "ddim_noisy"]
MULTISTEP = [
    SamplerOptions(sampler=name, clip_denoised=False)
    for name in ("plms", "dpmpp_2m", "dpmpp_2m_sde")
]
EVERY_OPTION, EVERY_NAME = ALL_OPTIONS + MULTISTEP, [*OPTION_NAMES, "plms", "2m", "2m_sde"]

SHAPE = (4, 3, 64, 64)  # 49 152 values: the standard error of their std is 0.3 %


def draw(
    process: GaussianDiffusion,
    model: Callable[..., Tensor],
    options: SamplerOptions,
    shape: tuple[int, ...] = SHAPE,
) -> Tensor:
    generators = [torch.Generator().manual_seed(seed) for seed in range(shape[0])]
    x_T, noise_fn = gaussian_noise_fn(generators, shape, "cpu")
    return sample_loop(process, model, x_T, noise_fn, options)


@pytest.mark.parametrize("options", EVERY_OPTION, ids=EVERY_NAME)
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_exact_denoiser_gives_samples_of_the_data(schedule: str, options: SamplerOptions) -> None:
    data = GaussianData(mean=0.3, std=0.5)
    process = Chain(schedule, respacing="1000").build()
    samples = draw(process, data.denoiser(process), options, (4, 3, 32, 32))
    # Five standard errors of the mean of 12 288 values; of their std it is 0.6 %.
    assert samples.mean().item() == pytest.approx(0.3, abs=0.023)
    assert samples.std().item() == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize(
    ("options", "respacing", "share"),
    [
        (ANCESTRAL, "25", 0.35),
        (ANCESTRAL, "250", 0.78),
        (DDIM, "25", 0.47),
        (DDIM, "250", 0.87),
    ],
    ids=["ancestral25", "ancestral250", "ddim25", "ddim250"],
)
def test_few_steps_keep_the_known_share_of_a_small_std(
    options: SamplerOptions, respacing: str, share: float
) -> None:
    data = GaussianData(mean=0.3, std=5 / 127.5)
    process = Chain(respacing=respacing).build()
    samples = draw(process, data.denoiser(process), options)
    assert samples.mean().item() == pytest.approx(0.3, abs=0.002)
    assert samples.std().item() / data.std == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("options", ALL_OPTIONS, ids=OPTION_NAMES)
def test_std_of_the_samples_follows_the_linear_recursion_of_the_steps(
    options: SamplerOptions,
) -> None:
    data = GaussianData(mean=0.0, std=0.2)
    process = Chain(respacing="20").build()
    variance = 1.0
    for t in reversed(range(20)):
        alpha_bar = process.coefficients.alphas_cumprod[t]
        previous = process.coefficients.alphas_cumprod_prev[t]
        gain = math.sqrt(alpha_bar) * data.std**2 / (alpha_bar * data.std**2 + 1 - alpha_bar)
        noise_gain = (1 - math.sqrt(alpha_bar) * gain) / math.sqrt(1 - alpha_bar)
        fresh = 0.0 if options is DDIM else process.coefficients.posterior_variance[t]
        factor = math.sqrt(previous) * gain + math.sqrt(1 - previous - fresh) * noise_gain
        variance = factor**2 * variance + fresh
    samples = draw(process, data.denoiser(process), options)
    # Ancestral steps equal DDIM steps with all noise fresh: the posterior mean is that of both.
    assert samples.std().item() == pytest.approx(math.sqrt(variance), rel=0.01)


@pytest.mark.parametrize("options", EVERY_OPTION, ids=EVERY_NAME)
def test_guidance_by_an_exact_likelihood_samples_the_exact_posterior(
    options: SamplerOptions,
) -> None:
    data, observed, observed_std = GaussianData(mean=0.0, std=0.5), 0.6, 0.5
    process = Chain(respacing="500").build()
    alphas_cumprod = torch.zeros(1000)
    alphas_cumprod[torch.from_numpy(process.timestep_map)] = torch.from_numpy(
        process.coefficients.alphas_cumprod
    ).float()
    denoiser = data.denoiser(process)

    def cond_fn(x: Tensor, t: Tensor) -> Tensor:
        # observed | x_t ~ N(E[x_start | x_t], Var[x_start | x_t] + observed_std²).
        alpha_bar = alphas_cumprod[t].view(-1, 1, 1, 1)
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            mean = denoiser(x, t)
            total = alpha_bar * data.std**2 + 1 - alpha_bar
            variance = data.std**2 * (1 - alpha_bar) / total + observed_std**2
            log_likelihood = -0.5 * (observed - mean) ** 2 / variance
            return torch.autograd.grad(log_likelihood.sum(), x)[0]

    guided = SamplerOptions(
        sampler=options.sampler, eta=options.eta, clip_denoised=False, cond_fn=cond_fn
    )
    samples = draw(process, denoiser, guided, (1, 3, 64, 64))
    precision = 1 / data.std**2 + 1 / observed_std**2
    assert samples.mean().item() == pytest.approx(observed / observed_std**2 / precision, abs=0.015)
    assert samples.std().item() == pytest.approx(precision**-0.5, rel=0.03)


def test_samples_survive_the_deterministic_way_to_noise_and_back() -> None:
    data = GaussianData(mean=0.3, std=0.5)
    process = Chain(respacing="500").build()
    model = data.denoiser(process)
    x_start = 0.3 + 0.5 * standard_normal(1, (2, 3, 8, 8))
    x = x_start
    for t in range(process.num_timesteps - 1):
        rows = torch.full((2,), t)
        x = process.ddim_reverse_sample(model, x, rows, DDIM)["sample"]
    assert x.std().item() == pytest.approx(1.0, abs=0.1)
    # The first step of the way back goes from the last timestep, where the way there ended.
    back = sample_loop(process, model, x, lambda k: x, DDIM)
    torch.testing.assert_close(back, x_start, atol=0.03, rtol=0)
