"""What guidance samples, where the law of every class is known."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import pytest
import torch
from torch import Tensor

from diffusion.guidance import classifier_free, classifier_gradient
from diffusion.process import GaussianDiffusion
from diffusion.samplers import SamplerOptions, sample_loop
from diffusion.types import ModelMeanType, ModelVarType, StepOptions
from tests.diffusion.chains import Chain, GaussianClasses, standard_normal


def build(**changes: Any) -> tuple[GaussianDiffusion, GaussianClasses]:
    chain = Chain(respacing="200", mean_type=ModelMeanType.EPSILON)
    process = dataclasses.replace(chain, **changes).build()
    return process, GaussianClasses(process)


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_an_exact_classifier_guides_as_the_exact_conditional_network_does(scale: float) -> None:
    """eps_y = eps - √(1 - alpha_bar)·∇log p(y | x_t), so both are one and the same at any scale."""
    process, data = build()
    x, t = standard_normal(0, (4, 2, 1, 1)).double(), torch.tensor([0, 20, 100, 199])
    y = torch.tensor([0, 1, 1, 0])
    null = torch.full_like(y, data.NULL)
    model = classifier_free(data.eps, scale, data.NULL)
    free = process.denoise(model, x, t, StepOptions(clip_denoised=False, model_kwargs={"y": y}))
    guided = process.denoise(
        functools.partial(data.eps, y=null),
        x,
        t,
        StepOptions(clip_denoised=False, cond_fn=classifier_gradient(data.logits, scale, labels=y)),
    )
    # Tables on the device are float32, and the last step keeps 0.6 % of the signal.
    torch.testing.assert_close(guided, free, atol=2e-4, rtol=1e-4)


def draw_class_one(var_type: ModelVarType, sampler: str, *, is_free: bool) -> Tensor:
    """Return 8192 samples of the class with mean 0.5, guided at scale 1 by one of the two ways."""
    process, data = build(var_type=var_type)
    x_T = standard_normal(4, (8192, 1, 1, 1))
    y = torch.ones(8192, dtype=torch.int64)
    generator = torch.Generator().manual_seed(5)
    model: Any = classifier_free(data.eps, 1.0, data.NULL)
    options = SamplerOptions(sampler=sampler, clip_denoised=False, model_kwargs={"y": y})
    if not is_free:
        model = functools.partial(data.eps, y=torch.full_like(y, data.NULL))
        cond_fn = classifier_gradient(data.logits, 1.0, labels=y)
        options = dataclasses.replace(options, cond_fn=cond_fn, model_kwargs=None)
    return sample_loop(
        process, model, x_T, lambda k: torch.randn(x_T.shape, generator=generator), options
    )


@pytest.mark.parametrize("sampler", ["ancestral", "ddim"])
@pytest.mark.parametrize("is_free", [False, True])
def test_guidance_of_scale_one_samples_the_class(is_free: bool, sampler: str) -> None:
    samples = draw_class_one(ModelVarType.FIXED_LARGE, sampler, is_free=is_free)
    # Standard errors are 0.003 and 0.002; the steps themselves change this std by 2 to 3 %.
    assert samples.mean().item() == pytest.approx(0.5, abs=0.012)
    assert samples.std().item() == pytest.approx(GaussianClasses.STD, rel=0.05)


def test_a_classifier_pulls_too_little_on_ancestral_steps_of_small_variance() -> None:
    """The shift is variance times gradient, and at the last steps little of beta is left of it."""
    short = draw_class_one(ModelVarType.FIXED_SMALL, "ancestral", is_free=False)
    assert 0.46 < short.mean().item() < 0.49
    free = draw_class_one(ModelVarType.FIXED_SMALL, "ancestral", is_free=True)
    assert free.mean().item() == pytest.approx(0.5, abs=0.012)


def test_a_gaussian_classifier_shifts_standard_normal_data_by_the_known_amount() -> None:
    """x ~ N(0, 1), y | x ~ N(x, s²): x | y ~ N(y/(1 + s²), s²/(1 + s²)).

    y takes values on a grid so fine that the softmax over it is the density of
    y | x_t ~ N(√alpha_bar x_t, s² + 1 - alpha_bar).
    """
    process, data = build(var_type=ModelVarType.FIXED_LARGE)
    noise_std, grid = 0.5, torch.arange(-28, 29) / 4.0
    chosen = int((grid == 1.0).nonzero())

    def classifier(x: Tensor, t: Tensor) -> Tensor:
        alpha_bar = data.alphas_cumprod[t].to(x)[:, None]
        distance = grid - alpha_bar.sqrt() * x.flatten(1)
        return -0.5 * distance.square() / (noise_std**2 + 1 - alpha_bar)

    def model(x: Tensor, t: Tensor) -> Tensor:
        return (1 - data.alphas_cumprod[t].to(x)).sqrt().view(-1, 1, 1, 1) * x

    x_T = standard_normal(6, (4096, 1, 1, 1))
    generator = torch.Generator().manual_seed(7)
    cond_fn = classifier_gradient(classifier, 1.0, labels=torch.full((4096,), chosen))
    samples = sample_loop(
        process,
        model,
        x_T,
        lambda k: torch.randn(x_T.shape, generator=generator),
        SamplerOptions(clip_denoised=False, cond_fn=cond_fn),
    )
    # Standard errors are 0.007 and 0.005.
    assert samples.mean().item() == pytest.approx(1 / (1 + noise_std**2), abs=0.03)
    std = noise_std / (1 + noise_std**2) ** 0.5
    assert samples.std().item() == pytest.approx(std, rel=0.04)
