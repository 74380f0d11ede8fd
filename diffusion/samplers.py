"""Sampling loops: one signature for every sampler, and noise that the caller decides on.

A sampler is a function of a `SampleProblem` that yields `{"sample", "pred_xstart"}` after each
step; a new one joins by an entry in `SAMPLERS`. All of them evaluate the network once a step and
end at the x_start predicted at t = 0. Not for the formulas of a step: those are methods of
`GaussianDiffusion` and functions of `diffusion.multistep`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffusion import multistep
from diffusion.forward import ddim_step
from diffusion.types import Model, NoiseFn, StepOptions

if TYPE_CHECKING:
    from diffusion.process import GaussianDiffusion

Progress = Callable[[Iterable[Tensor]], Iterable[Tensor]]


@dataclass(frozen=True)
class SamplerOptions(StepOptions):
    """How a sampling loop is run; the fields of `StepOptions`, and two more.

    Attributes:
        sampler: a name in `SAMPLERS`.
        progress: wraps the iterable of steps (`tqdm.tqdm` would do); None or False for none.
    """

    sampler: str = "ancestral"
    progress: Progress | bool | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sampler not in SAMPLERS:
            names = ", ".join(sorted(SAMPLERS))
            raise ValueError(f"unknown sampler {self.sampler!r}: choose one of {names}")
        if self.sampler != "ddim" and self.eta:
            raise ValueError(f"eta={self.eta} belongs to the ddim sampler: {self.sampler} has none")
        if self.progress is True:
            raise ValueError("progress=True names no bar: pass a wrapper such as tqdm.tqdm")


@dataclass(frozen=True)
class SampleProblem:
    """What a sampler needs to know.

    Attributes:
        process: the diffusion process.
        model: the network, `model(x, t, **model_kwargs)`.
        x_T: (B, C, ...) where the loop starts, standard normal.
        noise_fn: `noise_fn(k)` is the noise of the k-th step, k = 0 for the first one taken.
        options: how the loop is run.
    """

    process: GaussianDiffusion
    model: Model
    x_T: Tensor
    noise_fn: NoiseFn
    options: SamplerOptions

    def timesteps(self) -> Iterable[Tensor]:
        """Return T-1, ..., 0, each as a (B,) tensor on the device of `x_T`."""
        steps = list(self.process.descending_timesteps(self.x_T))
        return self.options.progress(steps) if callable(self.options.progress) else steps


Sampler = Callable[[SampleProblem], Iterator[dict[str, Tensor]]]


def ancestral(problem: SampleProblem) -> Iterator[dict[str, Tensor]]:
    """Sample the reverse chain itself (Ho et al. 2020, algorithm 2)."""
    x = problem.x_T
    for k, t in enumerate(problem.timesteps()):
        noise = problem.noise_fn(k)
        out = problem.process.p_sample(problem.model, x, t, noise, problem.options)
        yield out
        x = out["sample"]


def ddim(problem: SampleProblem) -> Iterator[dict[str, Tensor]]:
    """Sample with DDIM steps (Song et al. 2021, arXiv 2010.02502), without noise at eta = 0."""
    x = problem.x_T
    for k, t in enumerate(problem.timesteps()):
        noise = problem.noise_fn(k) if problem.options.eta else None
        out = problem.process.ddim_sample(problem.model, x, t, noise, problem.options)
        yield out
        x = out["sample"]


def dpmpp_2m(problem: SampleProblem) -> Iterator[dict[str, Tensor]]:
    """Sample with DPM-Solver++ (2M), data prediction, without noise (arXiv 2211.01095)."""
    x, previous = problem.x_T, None
    for t in problem.timesteps():
        c = problem.process.coefficients_at(t, x.ndim)
        pred_xstart = problem.process.denoise(problem.model, x, t, problem.options)
        x = ddim_step(c, x, multistep.extrapolated_xstart(c, pred_xstart, previous))
        yield {"sample": x, "pred_xstart": pred_xstart}
        previous = pred_xstart


def dpmpp_2m_sde(problem: SampleProblem) -> Iterator[dict[str, Tensor]]:
    """Sample with SDE-DPM-Solver++ (2M), midpoint rule, fresh noise at each step.

    arXiv 2211.01095, the solver for the diffusion SDE. A step is one of the reverse chain with the
    small fixed variance, from an x_start that is extrapolated in log-SNR.
    """
    x, previous = problem.x_T, None
    for k, t in enumerate(problem.timesteps()):
        noise = problem.noise_fn(k)
        c = problem.process.coefficients_at(t, x.ndim)
        pred_xstart = problem.process.denoise(problem.model, x, t, problem.options)
        x_start = multistep.extrapolated_xstart(c, pred_xstart, previous)
        x = multistep.sde_step(c, x, x_start, noise)
        yield {"sample": x, "pred_xstart": pred_xstart}
        previous = pred_xstart


def plms(problem: SampleProblem) -> Iterator[dict[str, Tensor]]:
    """Sample with pseudo linear multisteps of order 4 (Liu et al. 2022, arXiv 2202.09778).

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
        x_start, eps = multistep.linear_multistep_xstart(c, x, pred_xstart, used)
        x = ddim_step(c, x, x_start)
        yield {"sample": x, "pred_xstart": pred_xstart}
        history = [eps, *history][: multistep.MAX_ORDER - 1]


SAMPLERS: Mapping[str, Sampler] = MappingProxyType(
    {
        "ancestral": ancestral,
        "ddim": ddim,
        "plms": plms,
        "dpmpp_2m": dpmpp_2m,
        "dpmpp_2m_sde": dpmpp_2m_sde,
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

    Returns:
        Samples in the shape of `x_T`, for images in [-1, 1].
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
