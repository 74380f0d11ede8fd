"""The process against the numbers of the reference implementation, every key of its files."""

from __future__ import annotations

import functools
import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion.bound import calc_bpd_loop, discretized_gaussian_log_likelihood, normal_kl
from diffusion.forward import posterior_mean
from diffusion.losses import training_losses
from diffusion.process import GaussianDiffusion
from diffusion.samplers import SamplerOptions, sample_loop
from diffusion.schedules import get_named_beta_schedule
from diffusion.spacing import space_timesteps
from diffusion.timesteps import LossSecondMomentResampler
from diffusion.types import LossType, ModelMeanType, ModelVarType, StepOptions
from tests.diffusion.chains import Chain
from tests.golden_recipe import GOLDENS_DIR, gauss, image

# Relative and absolute. All but one of the values are met to the bit on the CPU this was written
# on, the other to 6e-8.
TOLERANCE = 1e-5
# The reference tells the noise from x_start with a loss of digits and is 3.5e-5 off its own
# value in float64, which these steps meet to 2e-7 (test_process.py).
DDIM_TOLERANCE = 4e-5
# At t = 0 a network that is far off puts pixels where float32 probabilities have a step of 6e-8,
# which other kernels of tanh and exp round differently.
FLOAT32_LIKELIHOOD_TOLERANCE = 0.05

SHAPE = (4, 3, 4, 4)
PROCESS = dict(np.load(GOLDENS_DIR / "process.npz"))
HELPERS = dict(np.load(GOLDENS_DIR / "helpers.npz"))
SCHEDULES = dict(np.load(GOLDENS_DIR / "schedules.npz"))
SPACINGS = json.loads((GOLDENS_DIR / "space_timesteps.json").read_text())

CHAINS = {
    "p1000_250": ("linear", 1000, "250"),
    "p100_cos_ddim10": ("cosine", 100, "ddim10"),
    "loop20": ("linear", 1000, "20"),
}


def tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array)


X = tensor(gauss("proc:x", SHAPE))
X_START = tensor(image("proc:x0", SHAPE))
NOISE = tensor(gauss("proc:noise", SHAPE))
BIAS = tensor(gauss("proc:bias", SHAPE))
STEP_NOISE = tensor(gauss("noise:step:0", SHAPE))


def build(prefix: str, loss: str = "MSE") -> GaussianDiffusion:
    """Build the process of a key that starts with chain/mean type/variance type[/...]."""
    chain, mean_type, var_type, *rest = prefix.split("/")
    schedule, num_steps, respacing = CHAINS[chain]
    return Chain(
        schedule,
        num_steps,
        respacing,
        ModelMeanType[mean_type],
        ModelVarType[var_type],
        LossType[loss],
        rescale_timesteps="rescale1" in rest,
    ).build()


def with_variance(process: GaussianDiffusion, prediction: Tensor, variance: Tensor) -> Tensor:
    if process.model_var_type.is_learned():
        return torch.cat([prediction, variance], dim=1)
    return prediction


def golden_model(process: GaussianDiffusion) -> Any:
    def model(x: Tensor, t: Tensor) -> Tensor:
        cosine = torch.cos(t.float() / 100).view(-1, 1, 1, 1)
        return with_variance(process, 0.1 * x * cosine + 0.01 * BIAS, 0.05 * x)

    return model


def nearly_right_model(process: GaussianDiffusion) -> Any:
    right = {
        ModelMeanType.EPSILON: NOISE + 0.05 * BIAS,
        ModelMeanType.START_X: X_START + 0.002 * BIAS,
    }

    def model(x: Tensor, t: Tensor) -> Tensor:
        prediction = right[process.model_mean_type]
        return with_variance(process, prediction, 0.3 * torch.tanh(BIAS))

    return model


def timesteps_of(process: GaussianDiffusion) -> Tensor:
    return torch.tensor([0, 1, process.num_timesteps // 2, process.num_timesteps - 1])


@functools.cache
def network_free_case(chain: str) -> dict[str, Tensor]:
    process = build(f"{chain}/EPSILON/FIXED_SMALL")
    t = timesteps_of(process)
    names = ("mean", "variance", "log_variance")
    marginal = process.q_mean_variance(X_START, t)
    c = process.coefficients_at(t, X.ndim)
    posterior = (
        posterior_mean(c, X_START, X),
        c.posterior_variance.expand_as(X),
        c.posterior_log_variance_clipped.expand_as(X),
    )
    return {
        "q_sample": process.q_sample(X_START, t, NOISE),
        **{f"q_mean_variance.{n}": v for n, v in zip(names, marginal, strict=True)},
        **{f"q_posterior.{n}": v for n, v in zip(names, posterior, strict=True)},
    }


@functools.cache
def network_case(prefix: str, group: str) -> dict[str, Tensor]:
    """Compute the outputs of one method; `group` is the part of the key before its last dot."""
    kind, _, loss = group.partition("loss_")
    process = build(prefix, loss or "MSE")
    t = timesteps_of(process)
    model = golden_model(process)
    if loss:
        model = nearly_right_model(process) if kind == "near_" else model
        return training_losses(process, model, X_START, t, noise=NOISE)
    if group.startswith("pmv_"):
        return process.p_mean_variance(model, X, t, StepOptions(group == "pmv_clip"))
    if group == "p_sample":
        return process.p_sample(model, X, t, noise=STEP_NOISE)
    if group == "ddim_reverse":
        return process.ddim_reverse_sample(model, X, t)
    if group.startswith("ddim_eta"):
        eta = float(group.removeprefix("ddim_eta"))
        return process.ddim_sample(model, X, t, STEP_NOISE, StepOptions(eta=eta))
    raise AssertionError(f"no rule computes {prefix}/{group}")


def loop_case(prefix: str, group: str) -> dict[str, Tensor]:
    process = build(prefix)
    if group == "bpd":
        model = nearly_right_model(process)
        return calc_bpd_loop(
            process,
            model,
            X_START,
            noise_fn=lambda k: tensor(gauss(f"noise:bpd:{k}", SHAPE)),
        )
    sample = sample_loop(
        process,
        golden_model(process),
        X,
        lambda k: tensor(gauss(f"noise:loop:{k}", SHAPE)),
        SamplerOptions(sampler={"p_loop": "ancestral"}[group], clip_denoised="clip1" in prefix),
    )
    return {"sample": sample}


def computed(key: str) -> Tensor:
    prefix, _, leaf = key.rpartition("/")
    if "/" not in prefix:
        return network_free_case(prefix)[leaf]
    group, _, name = leaf.rpartition(".")
    case = loop_case if prefix.startswith("loop") else network_case
    return case(prefix, group)[name]


@pytest.mark.parametrize("key", sorted(PROCESS))
def test_process_agrees_with_the_reference(key: str) -> None:
    value, expected = computed(key).numpy(), PROCESS[key]
    assert value.shape == expected.shape
    if "/loss_" in key and not key.endswith("mse"):
        np.testing.assert_allclose(value[0], expected[0], rtol=FLOAT32_LIKELIHOOD_TOLERANCE)
        value, expected = value[1:], expected[1:]
    tolerance = DDIM_TOLERANCE if key.endswith("ddim_eta0.0.sample") else TOLERANCE
    np.testing.assert_allclose(value, expected, rtol=tolerance, atol=tolerance)


def schedule_value(key: str) -> np.ndarray:
    name, _, column = key.partition(".")
    column = column.removesuffix(".sub50")
    if name == "spaced250":
        spaced = Chain(mean_type=ModelMeanType.EPSILON).build()
        source = spaced if column == "timestep_map" else spaced.coefficients
        return np.asarray(getattr(source, column))
    if column.startswith("betas_"):
        return get_named_beta_schedule(name, int(column.removeprefix("betas_")))
    process = Chain(name, respacing="1000").build()
    values = np.asarray(getattr(process.coefficients, column))
    return values[SCHEDULES["sub50_index"]] if key.endswith(".sub50") else values


@pytest.mark.parametrize("key", sorted(set(SCHEDULES) - {"sub50_index"}))
def test_float64_tables_agree_with_the_reference(key: str) -> None:
    # Respacing turns betas into alpha_bar and back, which costs up to 4e-13 of a small beta.
    np.testing.assert_allclose(schedule_value(key), SCHEDULES[key], rtol=2e-12, atol=0)


@pytest.mark.parametrize("entry", SPACINGS, ids=lambda e: f"{e['section_counts']}"[:20])
def test_kept_timesteps_agree_with_the_reference(entry: dict[str, Any]) -> None:
    arguments = entry["num_timesteps"], entry["section_counts"]
    if "error" not in entry:
        assert sorted(space_timesteps(*arguments)) == entry["result"]
        return
    expected_type = {"ValueError": ValueError, "TypeError": TypeError}[entry["error"]]
    with pytest.raises(expected_type) as caught:
        space_timesteps(*arguments)
    assert type(caught.value) is expected_type
    if "divide section" in entry["message"]:
        assert entry["message"] in str(caught.value)


def test_kl_agrees_with_the_reference() -> None:
    mean1, mean2 = (tensor(gauss(f"loss:m{i}", (3, 4))) for i in (1, 2))
    logvar1, logvar2 = (0.3 * tensor(gauss(f"loss:lv{i}", (3, 4))) for i in (1, 2))
    kl = normal_kl(mean1, logvar1, mean2, logvar2)
    kl_to_standard = normal_kl(mean1, logvar1, 0.0, 0.0)
    np.testing.assert_allclose(kl, HELPERS["normal_kl"], rtol=TOLERANCE)
    np.testing.assert_allclose(kl_to_standard, HELPERS["normal_kl_scalar"], rtol=TOLERANCE)


def test_discretised_likelihood_agrees_with_the_reference() -> None:
    x = image("loss:x", (3, 64))
    x[:, :4] = [-1.0, 1.0, 0.9991, -0.9991]
    log_scales = gauss("loss:log_scales", (3, 64)) - 2.0
    log_scales[:, 4] = -7.0  # so narrow that the floor of 1e-12 is reached in every row
    means = tensor(0.5 * gauss("loss:means", (3, 64)))
    result = discretized_gaussian_log_likelihood(
        tensor(x), means=means, log_scales=tensor(log_scales)
    )
    expected = HELPERS["dgll"]
    # A probability is a difference of two float32 numbers of order 1.
    np.testing.assert_allclose(result.exp(), np.exp(expected), rtol=0, atol=3e-7)
    is_likely = expected > np.log(1e-3)
    assert is_likely.sum() > 60
    np.testing.assert_allclose(result[is_likely], expected[is_likely], rtol=1e-4)


def test_loss_aware_weights_agree_with_the_reference() -> None:
    expected = HELPERS["lsmr.weights_warm"]
    sampler = LossSecondMomentResampler(expected.size)
    np.testing.assert_array_equal(sampler.weights(), HELPERS["lsmr.weights_cold"])
    # The losses behind the reference weights, up to their scale, with the uniform part taken off.
    losses = torch.from_numpy((expected - 0.001 / expected.size) / 0.999)
    for _ in range(10):
        sampler.update_with_all_losses(torch.arange(expected.size), 7.0 * losses)
    np.testing.assert_allclose(sampler.weights(), expected, rtol=1e-12)


def test_every_helper_of_the_reference_has_a_test() -> None:
    own = {"normal_kl", "normal_kl_scalar", "dgll", "lsmr.weights_cold", "lsmr.weights_warm"}
    networks = {key for key in HELPERS if key.startswith("timestep_embedding.")}
    assert set(HELPERS) == own | networks
