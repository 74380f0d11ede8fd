"""Sampling loops: one signature for every sampler, and noise that the caller decides on.

A sampler is a function of a `SampleProblem` that yields `{"sample", "pred_xstart"}` after each
step; a new one joins by an entry in `SAMPLERS`. All of them evaluate the network once a step and
end at the x_start predicted at t = 0. What a step that looks back at earlier ones does is a pure
function of its coefficients and of what the network said there and before.

DDPM is Ho et al. 2020 (arXiv 2006.11239), DPM-Solver Lu et al. 2022 (arXiv 2206.00927),
DPM-Solver++ Lu et al. 2022 (arXiv 2211.01095), PNDM Liu et al. 2022 (arXiv 2202.09778).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from diffusion.forward import Coefficients, ddim_step, eps_from_xstart, posterior_mean
from diffusion.process import GaussianDiffusion
from diffusion.types import Model, NoiseFn, StepOptions

# Adams–Bashforth of orders 1 to 4 for equal steps, newest value first.
ADAMS_BASHFORTH: tuple[tuple[float, ...], ...] = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
MAX_ORDER = len(ADAMS_BASHFORTH)


@dataclass(frozen=True)
class SamplerOptions(StepOptions):
    """How a sampling loop is run: the fields of `StepOptions`, and a name in `SAMPLERS`."""

    sampler: str = "ancestral"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sampler not in SAMPLERS:
            names = ", ".join(sorted(SAMPLERS))
            raise ValueError(f"unknown sampler {self.sampler!r}: choose one of {names}")
        if self.sampler != "ddim" and self.eta:
            raise ValueError(f"eta={self.eta} belongs to the ddim sampler: {self.sampler} has none")


@dataclass(frozen=True)
class SampleProblem:
    """What a sampler needs to know: the arguments of `sample_loop_progressive`."""

    process: GaussianDiffusion
    model: Model
    x_T: Tensor
    noise_fn: NoiseFn
    options: SamplerOptions

    def timesteps(self) -> Iterator[Tensor]:
        """Return T-1, ..., 0, each as a (B,) tensor on the device of `x_T`."""
        return self.process.descending_timesteps(self.x_T)


Sampler = Callable[[SampleProblem], Iterator[dict[str, Tensor]]]


def ancestral(problem: SampleProblem) -> Iterator[dict[str, Tensor]]:
    """Sample the reverse chain itself (DDPM algorithm 2)."""
    return _single_steps(problem, problem.process.p_sample, has_noise=True)


def ddim(problem: SampleProblem) -> Iterator[dict[str, Tensor]]:
    """Sample with DDIM steps (Song et al. 2021, arXiv 2010.02502), without noise at eta = 0."""
    return _single_steps(problem, problem.process.ddim_sample, has_noise=problem.options.eta > 0.0)


def _single_steps(
    problem: SampleProblem, step: Callable[..., dict[str, Tensor]], *, has_noise: bool
) -> Iterator[dict[str, Tensor]]:
    x = problem.x_T
    for k, t in enumerate(problem.timesteps()):
        noise = problem.noise_fn(k) if has_noise else None
        out = step(problem.model, x, t, noise, problem.options)
        yield out
        x = out["sample"]


def extrapolated_xstart(
    c: Coefficients[Tensor], pred_xstart: Tensor, previous: Tensor | None
) -> Tensor:
    """Return the x_start that a step of DPM-Solver++ (2M) rests on, in the shape of `pred_xstart`.

    The prediction at t (B, C, ...), followed in log-SNR to the middle of the step:
    D = x_start(t) + h_t / (2 h_{t+1}) · (x_start(t) - x_start(t+1)), h_t = lambda_{t-1} - lambda_t
    (DPM-Solver++ algorithm 2). With D in the place of x_start the DDIM step is that algorithm's.
    At t = 0, where h has no end, and at the first step, which has no `previous`, D is the
    prediction.
    """
    if previous is None:
        return pred_xstart
    return torch.addcmul(pred_xstart, c.multistep_weight, pred_xstart - previous)


def sde_step(c: Coefficients[Tensor], x_t: Tensor, x_start: Tensor, noise: Tensor) -> Tensor:
    """Return x_{t-1} drawn from q(x_{t-1} | x_t, x_start), which is x_start at t = 0.

    With the x_start of `extrapolated_xstart` this is the step of SDE-DPM-Solver++ (2M): its
    factors (σ_{t-1}/σ_t)·e^{-h} of x_t, √alpha_bar_{t-1}·(1 - e^{-2h}) of x_start and
    σ_{t-1}·√(1 - e^{-2h}) of the noise are those of the posterior (DDPM equation 7), and the
    midpoint rule halves the difference as in the deterministic solver. All are (B, C, ...); the
    noise is standard normal.
    """
    return torch.addcmul(posterior_mean(c, x_start, x_t), c.posterior_variance.sqrt(), noise)


def dpmpp_2m(problem: SampleProblem, *, is_stochastic: bool = False) -> Iterator[dict[str, Tensor]]:
    """Sample with DPM-Solver++ (2M), data prediction, with or without fresh noise at each step.

    With noise it is SDE-DPM-Solver++ (2M), midpoint rule: a step is one of the reverse chain with
    the small fixed variance, from an x_start that is extrapolated in log-SNR.
    """
    x, previous = problem.x_T, None
    for k, t in enumerate(problem.timesteps()):
        noise = problem.noise_fn(k) if is_stochastic else None
        c = problem.process.coefficients_at(t, x.ndim)
        pred_xstart = problem.process.denoise(problem.model, x, t, problem.options)
        x_start = extrapolated_xstart(c, pred_xstart, previous)
        x = ddim_step(c, x, x_start) if noise is None else sde_step(c, x, x_start, noise)
        yield {"sample": x, "pred_xstart": pred_xstart}
        previous = pred_xstart


def dpmpp_3m(problem: SampleProblem) -> Iterator[dict[str, Tensor]]:
    """Sample with DPM-Solver++ (3M): the DDIM step from an x_start that follows a parabola.

    The parabola goes through the latest three predictions (`forward.third_order_weights`); the
    first step has one, the second two, and the last step, to x_start, is of order 1.
    """
    x = problem.x_T
    known: list[Tensor] = []  # predictions, newest first
    for t in problem.timesteps():
        c = problem.process.coefficients_at(t, x.ndim)
        known = [problem.process.denoise(problem.model, x, t, problem.options), *known[:2]]
        x_start = known[0]
        weights = (c.third_order_weight, c.third_order_weight_before)
        for weight, newer, older in zip(weights, known, known[1:], strict=False):
            x_start = torch.addcmul(x_start, weight, newer - older)
        x = ddim_step(c, x, x_start)
        yield {"sample": x, "pred_xstart": known[0]}


def dpm_solver_2(problem: SampleProblem) -> Iterator[dict[str, Tensor]]:
    """Sample with DPM-Solver-2, noise prediction, the second evaluation of a pair in its middle.

    The timesteps are taken in pairs: the first step of a pair is one of DDIM, the second goes on
    from there with eps_{t+1} + W (eps_t - eps_{t+1}) for the noise (`forward.paired_weights`), so
    that both together are the step of order 2. The last step, to x_start, is of order 1, and with
    an even number of timesteps the first one is, too.
    """
    x, before = problem.x_T, problem.x_T  # `before`: the noise at the start of the pair
    num_steps = problem.process.num_timesteps
    for k, t in enumerate(problem.timesteps()):
        c = problem.process.coefficients_at(t, x.ndim)
        pred_xstart = problem.process.denoise(problem.model, x, t, problem.options)
        eps, x_start = eps_from_xstart(c, x, pred_xstart), pred_xstart
        is_second = (num_steps - k) % 2 == 0 and 0 < k < num_steps - 1
        if is_second:
            change = (c.paired_weight - 1.0) * (eps - before)
            x_start = pred_xstart - c.sqrt_recipm1_alphas_cumprod * change
        x = ddim_step(c, x, x_start)
        yield {"sample": x, "pred_xstart": pred_xstart}
        before = eps


def linear_multistep_xstart(
    c: Coefficients[Tensor], x_t: Tensor, pred_xstart: Tensor, history: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Return the x_start that a pseudo linear multistep rests on, and the noise at t.

    The noise of the steps so far is combined by Adams–Bashforth,
    eps' = (55 eps_t - 59 eps_{t+1} + 37 eps_{t+2} - 9 eps_{t+3}) / 24,
    and the DDIM step takes eps' in the place of eps_t (PNDM, section 3). With fewer
    values the formula of lower order takes its place, so the first step is one of DDIM.

    Args:
        c: coefficients at t.
        x_t: (B, C, ...) noisy examples.
        pred_xstart: predicted x_start at t.
        history: noise at t + 1, t + 2, ..., at most three.

    Returns:
        x_start such that it and eps' make up `x_t`, and eps_t; both in the shape of `x_t`.
    """
    eps = eps_from_xstart(c, x_t, pred_xstart)
    if not history:
        return pred_xstart, eps
    weights = ADAMS_BASHFORTH[len(history)]
    change = (weights[0] - 1.0) * eps
    for weight, value in zip(weights[1:], history, strict=True):
        change = change + weight * value
    # By how much eps' differs, so that pred_xstart keeps its digits where x_t has little signal.
    return pred_xstart - c.sqrt_recipm1_alphas_cumprod * change, eps


def plms(problem: SampleProblem) -> Iterator[dict[str, Tensor]]:
    """Sample with pseudo linear multisteps of order 4 (PNDM).

    Orders 1, 2 and 3 lead up to it, so that every step costs one evaluation (the paper starts with
    Runge–Kutta steps of four); the last step, to x_start, is of order 1. The weights are those of
    equal steps, so with sections of unequal density a few steps are of a lower order.
    """
    x = problem.x_T
    history: list[Tensor] = []  # the noise of the latest steps, newest first
    last = problem.process.num_timesteps - 1
    for k, t in enumerate(problem.timesteps()):
        c = problem.process.coefficients_at(t, x.ndim)
        pred_xstart = problem.process.denoise(problem.model, x, t, problem.options)
        used = history if k < last else []
        x_start, eps = linear_multistep_xstart(c, x, pred_xstart, used)
        x = ddim_step(c, x, x_start)
        yield {"sample": x, "pred_xstart": pred_xstart}
        history = [eps, *history][: MAX_ORDER - 1]


SAMPLERS: Mapping[str, Sampler] = MappingProxyType(
    {
        "ancestral": ancestral,
        "ddim": ddim,
        "plms": plms,
        "dpm_solver_2": dpm_solver_2,
        "dpmpp_2m": dpmpp_2m,
        "dpmpp_3m": dpmpp_3m,
        "dpmpp_2m_sde": functools.partial(dpmpp_2m, is_stochastic=True),
    }
)


def sample_loop_progressive(
    process: GaussianDiffusion,
    model: Model,
    x_T: Tensor,
    noise_fn: NoiseFn,
    options: SamplerOptions | None = None,
) -> Iterator[dict[str, Tensor]]:
    """Yield `{"sample", "pred_xstart"}` after each step of a sampling loop.

    No step copies between host and device or waits for the device, unless the callables do. No
    gradients are recorded; without a `cond_fn`, which needs them inside, the results are inference
    tensors.

    Args:
        process: the diffusion process.
        model: the network, `model(x, t, **model_kwargs)`.
        x_T: (B, C, ...) where the loop starts, standard normal.
        noise_fn: `noise_fn(k)` is the noise of the k-th step, k = 0 for the first one taken, in
            the shape of `x_T`, for ancestral, dpmpp_2m_sde, and ddim with eta > 0. The last step
            multiplies it by 0.
        options: how the loop is run.

    Yields:
        Two tensors in the shape of `x_T`.

    Raises:
        ValueError: when `x_T` is not of a floating point type.
    """
    if not x_T.is_floating_point():
        raise ValueError(f"x_T is noise and must be of a floating point type, got {x_T.dtype}")
    options = options or SamplerOptions()
    problem = SampleProblem(process, model, x_T, noise_fn, options)
    return _without_gradients(SAMPLERS[options.sampler](problem), options)


def _without_gradients(
    steps: Iterator[dict[str, Tensor]], options: SamplerOptions
) -> Iterator[dict[str, Tensor]]:
    mode = torch.inference_mode if options.cond_fn is None else torch.no_grad
    while True:
        # Only the step runs in this mode, not the code of whoever consumes the generator.
        with mode():
            out = next(steps, None)
        if out is None:
            return
        yield out


def sample_loop(
    process: GaussianDiffusion,
    model: Model,
    x_T: Tensor,
    noise_fn: NoiseFn,
    options: SamplerOptions | None = None,
) -> Tensor:
    """Run a sampling loop to its end; arguments as `sample_loop_progressive`.

    Return samples in the shape of `x_T`, for images in [-1, 1].
    """
    sample = x_T
    for out in sample_loop_progressive(process, model, x_T, noise_fn, options):
        sample = out["sample"]
    # An inference tensor would refuse changes in place, far from where it was made.
    return sample.clone()


def gaussian_noise_fn(
    generators: Sequence[torch.Generator], shape: tuple[int, ...], device: torch.device | str
) -> tuple[Tensor, NoiseFn]:
    """Return x_T and the noise of the steps, each row from a generator of its own.

    So a row is a function of its generator's seed alone, whatever batch it is in. A generator's
    first draw is its row of x_T, the next that of step 0, and so on.

    Args:
        generators: one for each row, on `device`.
        shape: (B, C, ...) with B = len(generators).
        device: where the noise is to lie.

    Returns:
        x_T (B, C, ...), standard normal float32, and `noise_fn(k)`, which is to be called with
        k = 0, 1, 2, ... in this order.

    Raises:
        ValueError: when there is not one generator for each row, on that device; from the
            function, when steps are asked for in another order.
    """
    device = torch.device(device)
    if len(generators) != shape[0]:
        raise ValueError(f"{shape[0]} rows need as many generators, got {len(generators)}")
    for generator in generators:
        if generator.device.type != device.type:
            raise ValueError(
                f"a generator on {generator.device} cannot draw on {device}: make it with "
                f"torch.Generator({str(device)!r})"
            )
    expected = itertools.count()

    def draw() -> Tensor:
        noise = torch.empty(shape, device=device)
        for row, generator in zip(noise.unbind(0), generators, strict=True):
            row.normal_(generator=generator)
        return noise

    def noise_fn(k: int) -> Tensor:
        wanted = next(expected)
        if k != wanted:
            raise ValueError(f"noise is drawn step by step: step {wanted} is next, not {k}")
        return draw()

    return draw(), noise_fn


def last_noise_level(alpha_bar: float) -> float:
    """Return √((1 - alpha_bar) / alpha_bar), the std of the noise beside a signal of unit size.

    `alpha_bar`, in (0, 1], is of the timestep that the last step starts from.
    """
    return math.sqrt((1.0 - alpha_bar) / alpha_bar)


def std_share_of_last_jump(std: float, alpha_bar: float) -> float:
    """Return sampled std / true std, in (0, 1], when all is exact but the last step.

    The last step goes from the noise level s_last to the predicted x_start. For Gaussian data that
    is E[x_start | x_t], and the variance of a conditional mean lacks that of the rest: what is left
    of s² is s⁴ / (s² + s_last²), so the std keeps √(s² / (s² + s_last²)). That is what any sampler
    keeps that has the right law at t = 0; the steps before lose or add variance of their own.

    Args:
        std: true std s > 0 of the data, in units of x_start.
        alpha_bar: as of `last_noise_level`.

    Raises:
        ValueError: for a std or a share of signal that is not positive.
    """
    if not (std > 0.0 and 0.0 < alpha_bar <= 1.0):
        raise ValueError(
            f"std must be positive and alpha_bar in (0, 1], got {std:g} and {alpha_bar:g}"
        )
    return std / math.hypot(std, last_noise_level(alpha_bar))
