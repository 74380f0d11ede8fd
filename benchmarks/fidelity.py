"""Runs the project's samplers on exact denoisers and compares the samples with the true law.

Not for flags, tables and pictures: those are `benchmarks.solver_fidelity` and
`benchmarks.fidelity_report`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmarks.exact_problems import Problem, exact_model
from diffusion.process import GaussianDiffusion
from diffusion.samplers import SamplerOptions, sample_loop
from diffusion.schedules import get_named_beta_schedule
from diffusion.spacing import space_timesteps
from diffusion.types import LossType, ModelMeanType, ModelVarType

UNIFORM, LOG_SNR, WITHOUT_ZERO = "uniform", "logsnr", "uniform without t = 0"


@dataclass(frozen=True)
class Solver:
    """A sampler with everything that decides the law of its samples but the number of steps."""

    name: str
    sampler: str
    spacing: str = UNIFORM
    eta: float = 0.0
    var_type: ModelVarType = ModelVarType.FIXED_SMALL

    @property
    def title(self) -> str:
        """Name and spacing."""
        return f"{self.name}, {self.spacing}"


_FAMILIES = (
    Solver("ancestral, small variance", "ancestral"),
    Solver("ancestral, large variance", "ancestral", var_type=ModelVarType.FIXED_LARGE),
    Solver("ancestral, ideal variance", "ancestral", var_type=ModelVarType.LEARNED),
    Solver("ddim, eta 0", "ddim"),
    Solver("ddim, eta 1", "ddim", eta=1.0),
    Solver("plms", "plms"),
    Solver("dpm_solver_2", "dpm_solver_2"),
    Solver("dpmpp_2m", "dpmpp_2m"),
    Solver("dpmpp_3m", "dpmpp_3m"),
    Solver("dpmpp_2m_sde", "dpmpp_2m_sde"),
)
SOLVERS: tuple[Solver, ...] = tuple(
    Solver(family.name, family.sampler, spacing, family.eta, family.var_type)
    for spacing in (UNIFORM, LOG_SNR)
    for family in _FAMILIES
) + (Solver("dpmpp_2m", "dpmpp_2m", WITHOUT_ZERO),)


@dataclass(frozen=True)
class ChainFlags:
    """The chain that a network would have been trained on, and whether x_start is clamped."""

    noise_schedule: str = "linear"
    diffusion_steps: int = 1000
    clip_denoised: bool = False


@dataclass(frozen=True)
class Fidelity:
    """Samples against the truth; averages run over pixels and images.

    Attributes:
        std_share: √(average sampled variance / average true variance).
        variance_error: average sampled variance / average true variance - 1.
        variance_standard_error: of `variance_error`, from the spread between samples.
        mean_error: rms error of the mean over the rms true std; the part that the number of samples
            explains is taken out, and what is left may be 0.
        exact_std_share: `std_share` without any sampling noise, where the law is Gaussian.
    """

    std_share: float
    variance_error: float
    variance_standard_error: float
    mean_error: float
    exact_std_share: float | None = None


def build_process(chain: ChainFlags, solver: Solver, num_steps: int) -> GaussianDiffusion:
    """The chain respaced to `num_steps` as the solver wants it."""
    betas, total = (
        get_named_beta_schedule(chain.noise_schedule, chain.diffusion_steps),
        chain.diffusion_steps,
    )
    if solver.spacing == WITHOUT_ZERO:
        kept = set(np.linspace(0, total - 1, num_steps + 1).round().astype(int)[1:].tolist())
    else:
        prefix = "logsnr" if solver.spacing == LOG_SNR else ""
        kept = space_timesteps(total, f"{prefix}{num_steps}", betas)
    return GaussianDiffusion(
        betas=betas,
        use_timesteps=kept,
        model_mean_type=ModelMeanType.START_X,
        model_var_type=solver.var_type,
        loss_type=LossType.MSE,
    )


def sampler_options(solver: Solver, chain: ChainFlags) -> SamplerOptions:
    """How the solver's loop is run."""
    return SamplerOptions(sampler=solver.sampler, eta=solver.eta, clip_denoised=chain.clip_denoised)


def measure(
    problems: Sequence[Problem],
    process: GaussianDiffusion,
    options: SamplerOptions,
    num_samples: int,
    generator: torch.Generator,
) -> Fidelity:
    """Draw `num_samples` samples of each problem and compare their moments with the true ones."""
    sums = torch.zeros(4, dtype=torch.float64)
    for problem in problems:
        samples = _draw(problem, process, options, num_samples, generator)
        sums += _moment_sums(problem, samples.double().cpu())
    true, sampled, squared_error, squared_mean_error = (sums / len(problems)).tolist()
    return Fidelity(
        std_share=math.sqrt(sampled / true),
        variance_error=sampled / true - 1.0,
        variance_standard_error=math.sqrt(squared_error / len(problems)) / true,
        mean_error=math.sqrt(max(squared_mean_error, 0.0) / true),
    )


def _draw(
    problem: Problem,
    process: GaussianDiffusion,
    options: SamplerOptions,
    num_samples: int,
    generator: torch.Generator,
) -> Tensor:
    shape = (num_samples, *problem.mean.shape[1:])

    def noise(k: int = 0) -> Tensor:
        return torch.randn(shape, generator=generator, device=generator.device)

    model = exact_model(problem, process, process.model_var_type is ModelVarType.LEARNED)
    return sample_loop(process, model, noise(), noise, options)


def _moment_sums(problem: Problem, samples: Tensor) -> Tensor:
    """(4,): true and sampled variance, squared standard error of it, squared error of the mean."""
    num_samples = samples.shape[0]
    true_mean, true_variance = problem.mean.double().cpu(), problem.variance.double().cpu()
    variance = samples.var(dim=0).mean()
    # samples are independent of each other, their pixels are not
    spread = (samples - samples.mean(dim=0)).square().flatten(1).mean(dim=1)  # (num_samples,)
    squared_mean_error = (samples.mean(dim=0) - true_mean).square().mean() - variance / num_samples
    squared_standard_error = spread.var() / num_samples
    return torch.stack([true_variance.mean(), variance, squared_standard_error, squared_mean_error])


def linear_std(
    process: GaussianDiffusion, model: Callable[[Tensor, Tensor], Tensor], options: SamplerOptions
) -> float:
    """The std of the samples where every step is linear, without drawing any.

    Then a sample is Σ_j w_j z_j over the independent standard normal inputs z: x_T and the noise
    of each step. Row j of one batch gets a 1 for z_j and zeros for the rest, so it ends at w_j,
    and the variance is Σ w_j².

    Args:
        process: of T steps.
        model: linear in x, without a constant part; no clamp in `options`.
        options: how the loop is run.
    """
    inputs = torch.eye(process.num_timesteps + 1, dtype=torch.float64)
    columns = inputs.view(*inputs.shape, 1, 1, 1)  # (T+1 inputs, T+1 rows, 1, 1, 1)
    weights = sample_loop(process, model, columns[0], lambda k: columns[k + 1], options)
    return float(weights.square().sum().sqrt())
