"""Single steps of the reverse chain, and their guidance."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion.process import GaussianDiffusion
from diffusion.types import ModelMeanType, ModelVarType, StepOptions
from tests.diffusion.chains import Chain, standard_normal

SHAPE = (5, 2, 3, 3)
T = torch.tensor([0, 1, 10, 25, 49])
X, X_START, NOISE, VALUES = standard_normal(0, (4, *SHAPE)).unbind(0)
CHAIN = Chain(respacing="50")
UNCLIPPED = StepOptions(clip_denoised=False)


def build(**changes: Any) -> GaussianDiffusion:
    return dataclasses.replace(CHAIN, **changes).build()


def constant(*parts: Tensor) -> Any:
    """Return a network that returns these parts of its output for every input."""
    return lambda x, t: torch.cat(parts, dim=1)


# -- Steps


def test_last_step_adds_no_noise() -> None:
    process, t = build(var_type=ModelVarType.FIXED_LARGE), torch.zeros(5, dtype=torch.int64)
    for step in (process.p_sample, process.ddim_sample):
        samples = [step(constant(X_START), X, t, noise)["sample"] for noise in (NOISE, VALUES)]
        assert torch.equal(samples[0], samples[1])


def test_ancestral_step_has_the_mean_and_variance_of_the_reverse_chain() -> None:
    process = build()
    p = process.p_mean_variance(constant(X_START), X, T)
    samples = [process.p_sample(constant(X_START), X, T, z)["sample"] for z in (0 * X, 0 * X + 1)]
    torch.testing.assert_close(samples[0], p["mean"])
    torch.testing.assert_close(
        (samples[1] - samples[0])[1:], p["variance"].sqrt()[1:], rtol=1e-3, atol=1e-6
    )


def test_ddim_step_keeps_the_digits_of_float32() -> None:
    """Also where x_t is nearly x_start, and the noise is a small difference of the two."""
    process = build(respacing="1000")
    t = torch.tensor([0, 1, 3, 500, 999])
    sample = process.ddim_sample(constant(X_START), X, t, None, UNCLIPPED)["sample"]
    shape = (-1, *[1] * (X.ndim - 1))
    level = torch.tensor(process.coefficients.alphas_cumprod)[t].view(shape)  # float64
    following = torch.tensor(process.coefficients.alphas_cumprod_prev)[t].view(shape)
    eps = (X.double() - level.sqrt() * X_START) / (1 - level).sqrt()
    expected = following.sqrt() * X_START + (1 - following).sqrt() * eps
    torch.testing.assert_close(sample.double(), expected, rtol=2e-7, atol=1e-6)


def test_ddim_step_with_all_noise_fresh_is_the_ancestral_step() -> None:
    process = build()
    ancestral = process.p_sample(constant(X_START), X, T, NOISE)
    ddim = process.ddim_sample(constant(X_START), X, T, NOISE, StepOptions(eta=1.0))
    # 1 - alpha_bar of the first step is 1e-4, of which float32 resolves 6e-4.
    torch.testing.assert_close(ddim["sample"], ancestral["sample"], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("schedule", "respacing"), [("linear", "2"), ("cosine", "2"), ("cosine", "3")]
)
def test_ddim_step_is_finite_where_rounding_leaves_no_old_noise(
    schedule: str, respacing: str
) -> None:
    process = build(schedule=schedule, respacing=respacing)
    t = torch.arange(process.num_timesteps)
    rows = slice(process.num_timesteps)
    options = StepOptions(eta=1.0)
    out = process.ddim_sample(constant(X_START[rows]), X[rows], t, NOISE[rows], options)
    assert out["sample"].isfinite().all()


def test_reverse_ddim_step_undoes_a_ddim_step_when_the_noise_is_known() -> None:
    process = build(mean_type=ModelMeanType.EPSILON)
    t = T[:-1]
    x = process.q_sample(X_START, T, NOISE)[:-1]
    model = constant(NOISE[:-1])
    up = process.ddim_reverse_sample(model, x, t, UNCLIPPED)["sample"]
    down = process.ddim_sample(model, up, t + 1, None, UNCLIPPED)["sample"]
    torch.testing.assert_close(down, x, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        up, process.q_sample(X_START, T + 1 - (T == 49).long(), NOISE)[:-1], rtol=1e-4, atol=1e-4
    )


def test_noise_that_is_not_given_comes_from_the_global_generator() -> None:
    process = build()
    for step, eta in ((process.p_sample, 0.0), (process.ddim_sample, 0.5)):
        options = StepOptions(eta=eta)
        torch.manual_seed(3)
        expected = step(constant(X_START), X, T, torch.randn_like(X), options)["sample"]
        torch.manual_seed(3)
        assert torch.equal(step(constant(X_START), X, T, options=options)["sample"], expected)


def test_options_that_a_step_cannot_follow_are_refused() -> None:
    process = build()
    with pytest.raises(ValueError, match=r"eta=0\.5 belongs to DDIM"):
        process.p_sample(constant(X_START), X, T, NOISE, StepOptions(eta=0.5))
    with pytest.raises(ValueError, match=r"got 1\.5"):
        StepOptions(eta=1.5)


# -- Guidance


def test_guidance_shifts_an_ancestral_mean_by_variance_times_gradient() -> None:
    process = build(var_type=ModelVarType.FIXED_LARGE)
    plain = process.p_sample(constant(X_START), X, T, NOISE)
    with_gradient = StepOptions(cond_fn=lambda x, t: VALUES)
    guided = process.p_sample(constant(X_START), X, T, NOISE, with_gradient)
    variance = process.p_mean_variance(constant(X_START), X, T)["variance"]
    torch.testing.assert_close(guided["sample"], plain["sample"] + variance * VALUES)
    assert torch.equal(guided["pred_xstart"], plain["pred_xstart"])


def test_guidance_shifts_the_noise_of_a_ddim_step() -> None:
    process = build(mean_type=ModelMeanType.EPSILON)
    x = process.q_sample(X_START, T, NOISE)
    noise_std = np.sqrt(1 - process.coefficients.alphas_cumprod)
    scale = torch.from_numpy(noise_std).float()[T].view(-1, 1, 1, 1)
    with_gradient = dataclasses.replace(UNCLIPPED, cond_fn=lambda x, t: VALUES)
    guided = process.ddim_sample(constant(NOISE), x, T, None, with_gradient)
    shifted = process.ddim_sample(constant(NOISE - scale * VALUES), x, T, None, UNCLIPPED)
    torch.testing.assert_close(guided["sample"], shifted["sample"], rtol=1e-3, atol=1e-3)


def test_guidance_gets_the_timesteps_and_the_conditioning_of_the_network() -> None:
    calls: list[tuple[list[int], dict[str, Any]]] = []

    def cond_fn(x: Tensor, t: Tensor, **model_kwargs: Any) -> Tensor:
        calls.append((t.tolist(), model_kwargs))
        return torch.zeros_like(x)

    process = build()
    mapped = process.timestep_map[T].tolist()
    options = StepOptions(cond_fn=cond_fn)
    labelled = dataclasses.replace(options, model_kwargs={"y": 3})
    for step in (process.p_sample, process.ddim_sample):
        step(constant(X_START), X, T, NOISE, options)
        step(lambda x, t, y: X_START, X, T, NOISE, labelled)
    assert calls == 2 * [(mapped, {}), (mapped, {"y": 3})]
