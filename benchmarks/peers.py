"""Sampling loops of diffusers' schedulers, set up to take the toolkit's steps.

diffusers is optional (requirements-bench.txt) and imported where it is used.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from diffusion.reverse import ReverseProcess

SAMPLERS = ("ancestral", "ddim", "dpmpp_2m")


def has_diffusers() -> bool:
    """Whether the package can be found, without importing it."""
    return importlib.util.find_spec("diffusers") is not None


class DiffusersLoop:
    """A scheduler's loop as its pipelines write it.

    Args:
        sampler: one of `SAMPLERS`.
        process: a chain with fixed small variances on evenly spaced timesteps from 0 on.
        base_betas: of the chain that the network knows.

    Raises:
        ValueError: names the file to install from, where diffusers is missing.
    """

    def __init__(self, sampler: str, process: ReverseProcess, base_betas: Sequence[float]) -> None:
        self.scheduler, self._more = _scheduler(sampler, process, base_betas)

    def __call__(
        self, model: Callable[..., Tensor], x: Tensor, generators: list[torch.Generator]
    ) -> Tensor:
        """Samples from x_T `x` (B, C, H, W), a generator for each row."""
        scheduler, more = self.scheduler, dict(self._more)
        if "DPMSolver" in type(scheduler).__name__:
            # it counts its steps and remembers outputs: a loop begins by setting the timesteps
            steps = [int(t) for t in scheduler.timesteps.tolist()]
            scheduler.set_timesteps(timesteps=steps, device=x.device)
        else:
            more["generator"] = generators
        with torch.inference_mode():
            for t in scheduler.timesteps:
                output = model(x, t.to(x.device).expand(x.shape[0]))
                x = scheduler.step(output, t, x, **more).prev_sample
        return x


def _scheduler(
    sampler: str, process: ReverseProcess, base_betas: Sequence[float]
) -> tuple[Any, dict[str, Any]]:
    try:
        import diffusers
    except ImportError as error:
        raise ValueError(
            "diffusers is not installed: pip install -r requirements-bench.txt, or give --peer "
            "False to leave it out"
        ) from error
    common = {"num_train_timesteps": len(base_betas), "trained_betas": list(base_betas)}
    steps = [int(t) for t in process.timestep_map[::-1]]
    if sampler == "ancestral":
        found = diffusers.DDPMScheduler(variance_type="fixed_small", clip_sample=True, **common)
        found.set_timesteps(timesteps=steps)
        return found, {}
    if sampler == "ddim":
        found = diffusers.DDIMScheduler(
            clip_sample=True, set_alpha_to_one=True, timestep_spacing="leading", **common
        )
        found.set_timesteps(len(steps))
        if [int(t) for t in found.timesteps] != steps:
            raise ValueError(f"diffusers' DDIM cannot take the timesteps {steps}")
        return found, {"use_clipped_model_output": True}
    found = diffusers.DPMSolverMultistepScheduler(
        algorithm_type="dpmsolver++", solver_order=2, final_sigmas_type="zero", **common
    )
    found.set_timesteps(timesteps=steps)
    return found, {}
