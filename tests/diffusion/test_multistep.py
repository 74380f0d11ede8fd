"""Steps that look back: the published formulas, their orders of convergence, and their limits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.exact_problems import GaussianProblem, exact_model
from benchmarks.fidelity import linear_std
from diffusion.forward import Float64Array
from diffusion.process import GaussianDiffusion
from diffusion.samplers import (
    ADAMS_BASHFORTH,
    SAMPLERS,
    SamplerOptions,
    gaussian_noise_fn,
    sample_loop,
    sample_loop_progressive,
    std_share_of_last_jump,
)
from diffusion.types import LossType, ModelMeanType, ModelVarType
from tests.diffusion.chains import Chain, standard_normal

NEW = ["plms", "dpm_solver_2", "dpmpp_2m", "dpmpp_3m", "dpmpp_2m_sde"]
SHAPE = (2, 3, 4, 4)


def options_of(sampler: str, **more: Any) -> SamplerOptions:
    return SamplerOptions(sampler=sampler, **{"clip_denoised": False, **more})


def network(x: Tensor, t: Tensor) -> Tensor:
    return 0.4 * x.tanh() + 1e-4 * t.view(-1, 1, 1, 1)


def run_steps(
    process: GaussianDiffusion, model: Callable[..., Tensor], options: SamplerOptions
) -> tuple[Tensor, list[dict[str, Tensor]], list[Tensor]]:
    """x_T, what each step gave, and the noise that was offered to it."""
    x_T = standard_normal(0, SHAPE).double()
    noises = [standard_normal(k + 1, SHAPE).double() for k in range(process.num_timesteps)]
    steps = list(sample_loop_progressive(process, model, x_T, noises.__getitem__, options))
    return x_T, steps, noises


def signal_and_noise(process: GaussianDiffusion) -> tuple[Float64Array, Float64Array, Float64Array]:
    """α, σ and λ = log(α/σ) at t = 0 ... T-1."""
    alphas_cumprod = process.coefficients.alphas_cumprod
    alpha, sigma = np.sqrt(alphas_cumprod), np.sqrt(1.0 - alphas_cumprod)
    return alpha, sigma, np.log(alpha / sigma)


# -- The formulas


@pytest.mark.parametrize("respacing", ["6", "4,1,1", "10"])
@pytest.mark.parametrize("sampler", ["dpmpp_2m", "dpmpp_2m_sde"])
def test_steps_are_those_of_the_published_solver(sampler: str, respacing: str) -> None:
    process = Chain(respacing=respacing).build()
    alpha, sigma, lam = signal_and_noise(process)
    x, steps, noises = run_steps(process, network, options_of(sampler))
    num_steps = process.num_timesteps
    for k, step in enumerate(steps[:-1]):
        t = num_steps - 1 - k
        h, data = lam[t - 1] - lam[t], step["pred_xstart"]
        difference = torch.zeros_like(x)
        if k:
            r = (lam[t] - lam[t + 1]) / h
            difference = (data - steps[k - 1]["pred_xstart"]) / r
        if sampler == "dpmpp_2m":
            x = sigma[t - 1] / sigma[t] * x - alpha[t - 1] * math.expm1(-h) * (
                data + difference / 2
            )
        else:
            fresh = -math.expm1(-2 * h)
            x = sigma[t - 1] / sigma[t] * math.exp(-h) * x + alpha[t - 1] * fresh * (
                data + difference / 2
            )
            x = x + sigma[t - 1] * math.sqrt(fresh) * noises[k]
        torch.testing.assert_close(step["sample"], x, rtol=1e-4, atol=1e-5)
        x = step["sample"]


@pytest.mark.parametrize("respacing", ["6", "4,1,1", "10", "2"])
def test_steps_of_order_3_integrate_a_parabola_in_log_snr_exactly(respacing: str) -> None:
    """x_{t-1} = (σ'/σ) x + σ' ∫ e^λ D(λ) dλ, for D the parabola of the predictions so far."""
    process = Chain(respacing=respacing).build()
    _, sigma, lam = signal_and_noise(process)
    x, steps, _ = run_steps(process, network, options_of("dpmpp_3m"))
    places, weights = np.polynomial.legendre.leggauss(12)
    for k, step in enumerate(steps[:-1]):
        t = process.num_timesteps - 1 - k
        known = [one["pred_xstart"] for one in steps[max(k - 2, 0) : k + 1]][::-1]
        nodes = [lam[t + i] for i in range(len(known))]
        integral = torch.zeros_like(x)
        for place, weight in zip(places, weights, strict=True):
            at = 0.5 * (lam[t - 1] - lam[t]) * (place + 1) + lam[t]
            for i, value in enumerate(known):
                others = [node for j, node in enumerate(nodes) if j != i]
                share = math.prod((at - node) / (nodes[i] - node) for node in others)
                integral += 0.5 * (lam[t - 1] - lam[t]) * weight * math.exp(at) * share * value
        x = sigma[t - 1] / sigma[t] * x + sigma[t - 1] * integral
        torch.testing.assert_close(step["sample"], x, rtol=1e-4, atol=1e-4)
        x = step["sample"]


@pytest.mark.parametrize("respacing", ["2", "3", "6", "7", "4,2,5"])
def test_pairs_of_steps_are_those_of_the_published_solver(respacing: str) -> None:
    """x_s to x_t over u, with r the share of the pair's log-SNR that lies before u."""
    process = Chain(respacing=respacing).build()
    alpha, sigma, lam = signal_and_noise(process)
    _, steps, _ = run_steps(process, network, options_of("dpm_solver_2"))
    ends = [step["sample"] for step in steps]
    s = process.num_timesteps - 1
    lone = s % 2
    starts = [standard_normal(0, SHAPE).double(), *ends]  # starts[k] is what step k begins with
    for k in range(lone, len(steps) - 1, 2):
        s = process.num_timesteps - 1 - k
        x, h = starts[k], lam[s - 2] - lam[s]
        r = (lam[s - 1] - lam[s]) / h
        eps = (x - alpha[s] * steps[k]["pred_xstart"]) / sigma[s]
        u = alpha[s - 1] / alpha[s] * x - sigma[s - 1] * math.expm1(r * h) * eps
        torch.testing.assert_close(ends[k], u, rtol=1e-4, atol=1e-4)
        eps_u = (u - alpha[s - 1] * steps[k + 1]["pred_xstart"]) / sigma[s - 1]
        combined = eps + (eps_u - eps) / (2 * r)
        end = alpha[s - 2] / alpha[s] * x - sigma[s - 2] * math.expm1(h) * combined
        torch.testing.assert_close(ends[k + 1], end, rtol=1e-4, atol=2e-4)


def test_pairs_cover_all_steps_but_the_last_and_one_at_the_start_of_an_even_number() -> None:
    for respacing in ("6", "7"):
        process = Chain(respacing=respacing).build()
        x, steps, _ = run_steps(process, network, options_of("dpm_solver_2"))
        of_first_order = []
        for k, step in enumerate(steps):
            t = torch.full((SHAPE[0],), process.num_timesteps - 1 - k)
            c = process.coefficients_at(t, x.ndim)
            ddim = c.ddim_coef1 * step["pred_xstart"] + c.ddim_coef2 * x
            of_first_order.append(torch.allclose(step["sample"], ddim, rtol=1e-5, atol=1e-5))
            x = step["sample"]
        first_of_pairs = [True, False]
        expected = {"6": [True, *first_of_pairs * 2, True], "7": [*first_of_pairs * 3, True]}
        assert of_first_order == expected[respacing]


def test_linear_multisteps_combine_the_noise_of_up_to_four_steps() -> None:
    process = Chain(respacing="8").build()
    alpha, sigma, _ = signal_and_noise(process)
    x, steps, _ = run_steps(process, network, options_of("plms"))
    eps: list[Tensor] = []
    for k, step in enumerate(steps[:-1]):
        t = process.num_timesteps - 1 - k
        eps.insert(0, (x - alpha[t] * step["pred_xstart"]) / sigma[t])
        weights = ADAMS_BASHFORTH[min(k, 3)]
        combined = sum(w * e for w, e in zip(weights, eps, strict=False))
        x_start = (x - sigma[t] * combined) / alpha[t]
        x = alpha[t - 1] * x_start + sigma[t - 1] * combined
        torch.testing.assert_close(step["sample"], x, rtol=1e-4, atol=1e-4)
        x = step["sample"]


@pytest.mark.parametrize("weights", ADAMS_BASHFORTH)
def test_weights_integrate_polynomials_below_their_order_exactly(
    weights: tuple[float, ...],
) -> None:
    """From u = 0 to 1 with values at 0, -1, -2, ...: ∫ uᵈ = 1/(d + 1)."""
    for degree in range(len(weights)):
        integral = sum(w * float(-i) ** degree for i, w in enumerate(weights))
        assert integral == pytest.approx(1.0 / (degree + 1))


@pytest.mark.parametrize(
    ("sampler", "first_order"),
    [
        ("plms", "ddim"),
        ("dpmpp_2m", "ddim"),
        ("dpmpp_3m", "ddim"),
        ("dpmpp_2m_sde", "ancestral"),
    ],
)
def test_first_step_without_a_history_is_the_first_order_one(
    sampler: str, first_order: str
) -> None:
    process = Chain(respacing="6").build()
    _, steps, _ = run_steps(process, network, options_of(sampler))
    _, expected, _ = run_steps(process, network, options_of(first_order))
    torch.testing.assert_close(steps[0]["sample"], expected[0]["sample"], rtol=1e-6, atol=1e-6)
    assert not torch.allclose(steps[1]["sample"], expected[1]["sample"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
@pytest.mark.parametrize("respacing", ["1", "2", "3", "9"])
def test_last_step_of_every_sampler_ends_at_the_predicted_x_start(
    sampler: str, respacing: str
) -> None:
    _, steps, _ = run_steps(Chain(respacing=respacing).build(), network, options_of(sampler))
    torch.testing.assert_close(steps[-1]["sample"], steps[-1]["pred_xstart"], rtol=1e-5, atol=1e-5)


# -- What the network predicts, and the options


def parametrised(
    process: GaussianDiffusion, mean_type: ModelMeanType, var_type: ModelVarType
) -> Callable[..., Tensor]:
    """`network` as x_start, told in the way the process wants to hear it."""

    def model(x: Tensor, t: Tensor) -> Tensor:
        x_start = network(x, t)
        places = torch.from_numpy(np.searchsorted(process.timestep_map, t.numpy()))
        c = process.coefficients_at(places, x.ndim)
        prediction = {
            ModelMeanType.START_X: x_start,
            ModelMeanType.EPSILON: (x - c.sqrt_alphas_cumprod * x_start)
            / c.sqrt_one_minus_alphas_cumprod,
        }[mean_type]
        return torch.cat([prediction, x.cos()], dim=1) if var_type.is_learned() else prediction

    return model


@pytest.mark.parametrize("sampler", NEW)
@pytest.mark.parametrize("mean_type", list(ModelMeanType))
@pytest.mark.parametrize("var_type", list(ModelVarType))
def test_samples_depend_neither_on_what_the_network_predicts_nor_on_its_variance(
    sampler: str, mean_type: ModelMeanType, var_type: ModelVarType
) -> None:
    _, expected, _ = run_steps(Chain(respacing="7").build(), network, options_of(sampler))
    process = Chain(respacing="7", mean_type=mean_type, var_type=var_type).build()
    model = parametrised(process, mean_type, var_type)
    _, steps, _ = run_steps(process, model, options_of(sampler))
    torch.testing.assert_close(steps[-1]["sample"], expected[-1]["sample"], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("sampler", NEW)
def test_predicted_x_start_is_changed_and_clamped_in_this_order(sampler: str) -> None:
    process = Chain(respacing="5").build()
    seen: list[Tensor] = []

    def denoised_fn(x_start: Tensor) -> Tensor:
        seen.append(x_start)
        return x_start + 3.0

    options = options_of(sampler, clip_denoised=True, denoised_fn=denoised_fn)
    _, steps, _ = run_steps(process, network, options)
    assert len(seen) == 5
    for step, before in zip(steps, seen, strict=True):
        assert before.max() < 3.0
        torch.testing.assert_close(step["pred_xstart"], (before + 3.0).clamp(-1.0, 1.0))


@pytest.mark.parametrize("sampler", NEW)
def test_eta_is_refused_by_the_samplers_that_have_none(sampler: str) -> None:
    with pytest.raises(ValueError, match=rf"eta=0\.5 belongs to the ddim sampler: {sampler} has"):
        SamplerOptions(sampler=sampler, eta=0.5)


@pytest.mark.parametrize("sampler", NEW)
def test_chain_that_ends_without_signal_gives_finite_samples_of_its_data(sampler: str) -> None:
    process = GaussianDiffusion(
        betas=np.append(np.linspace(0.001, 0.2, 59), 1.0),
        model_mean_type=ModelMeanType.START_X,
        model_var_type=ModelVarType.FIXED_SMALL,
        loss_type=LossType.MSE,
    )
    generators = [torch.Generator().manual_seed(seed) for seed in range(2)]
    x_T, noise_fn = gaussian_noise_fn(generators, (2, 3, 16, 16), "cpu")
    problem = GaussianProblem(0.2, 0.5, (3, 16, 16))
    alphas_cumprod = torch.from_numpy(process.coefficients.alphas_cumprod)

    def model(x: Tensor, t: Tensor) -> Tensor:
        return problem.denoised(x, alphas_cumprod[t].float().view(-1, 1, 1, 1))

    samples = sample_loop(process, model, x_T, noise_fn, options_of(sampler))
    assert samples.mean().item() == pytest.approx(0.2, abs=0.08)
    assert samples.std().item() == pytest.approx(0.5, rel=0.08)


# -- Convergence, on a Gaussian whose deterministic flow is known


def even_chain(num_steps: int, first: float, last: float = -4.0) -> GaussianDiffusion:
    """A chain whose log-SNR falls evenly from `first` to `last`."""
    alphas_cumprod = 1.0 / (1.0 + np.exp(-2.0 * np.linspace(first, last, num_steps)))
    betas = 1.0 - alphas_cumprod / np.append(1.0, alphas_cumprod[:-1])
    return GaussianDiffusion(
        betas=betas,
        use_timesteps=range(num_steps),
        model_mean_type=ModelMeanType.START_X,
        model_var_type=ModelVarType.FIXED_SMALL,
        loss_type=LossType.MSE,
    )


def flow_error(sampler: str, num_steps: int) -> float:
    """Relative error of x_0 against x_T · std_0/std_T, the flow of the probability-flow equation.

    With std_t² = ᾱ std² + 1 - ᾱ; before the last step, which all samplers share.
    """
    process = even_chain(num_steps, first=3.0)
    problem = GaussianProblem(0.0, 0.5, (1, 1, 1))
    model = exact_model(problem, process, is_variance_learned=False)
    x_T = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    steps = list(sample_loop_progressive(process, model, x_T, lambda k: x_T, options_of(sampler)))
    alphas_cumprod = process.coefficients.alphas_cumprod[[0, -1]]
    start, end = np.sqrt(alphas_cumprod * problem.std**2 + 1.0 - alphas_cumprod)
    return abs(steps[-2]["sample"].item() / (start / end) - 1.0)


@pytest.mark.parametrize(
    ("sampler", "order", "counts"),
    [
        ("ddim", 1.0, (33, 129)),
        ("dpmpp_2m", 2.0, (33, 129)),
        ("dpm_solver_2", 2.0, (33, 129)),
        ("dpm_solver_2", 2.0, (34, 130)),
        ("plms", 2.0, (33, 129)),
        ("dpmpp_3m", 3.0, (17, 257)),
    ],
)
def test_error_falls_with_the_order_of_the_deterministic_solver(
    sampler: str, order: float, counts: tuple[int, int]
) -> None:
    """plms: fourth-order weights, but the steps it takes are of a transformed time: order 2.

    dpmpp_3m: its error changes sign on the way, so from few steps to many; beyond 257 steps it is
    that of float32.
    """
    coarse, fine = (flow_error(sampler, count) for count in counts)
    measured = math.log(coarse / fine) / math.log((counts[1] - 1) / (counts[0] - 1))
    assert measured == pytest.approx(order, abs=0.35)


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_with_many_steps_only_the_last_jump_loses_variance(sampler: str) -> None:
    process = even_chain(400, first=2.0)
    std = 0.1
    problem = GaussianProblem(0.0, std, (1, 1, 1))
    model = exact_model(problem, process, is_variance_learned=False)
    share = linear_std(process, model, options_of(sampler)) / std
    expected = std_share_of_last_jump(std, process.coefficients.alphas_cumprod[0])
    assert 0.5 < expected < 0.6
    assert share == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("respacing", ["5", "25", "0,10"])
def test_ancestral_steps_with_the_ideal_variance_lose_exactly_the_last_jump(
    respacing: str,
) -> None:
    std = 5 / 127.5
    process = Chain(respacing=respacing, var_type=ModelVarType.LEARNED).build()
    model = exact_model(GaussianProblem(0.0, std, (1, 1, 1)), process, is_variance_learned=True)
    share = linear_std(process, model, options_of("ancestral")) / std
    expected = std_share_of_last_jump(std, process.coefficients.alphas_cumprod[0])
    assert share == pytest.approx(expected, rel=2e-3)


def test_share_of_the_last_jump_is_that_of_the_formula() -> None:
    std, level = 5 / 127.5, 0.03
    share = std_share_of_last_jump(std, 1.0 / (1.0 + level**2))
    assert share == pytest.approx(math.sqrt(std**2 / (std**2 + level**2)))
    assert std_share_of_last_jump(std, 1.0) == 1.0
    for bad_std, alpha_bar in ((0.0, 0.5), (0.1, 0.0), (0.1, 1.5)):
        with pytest.raises(ValueError, match="std must be positive"):
            std_share_of_last_jump(bad_std, alpha_bar)
