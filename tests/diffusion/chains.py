"""Processes and exact denoisers that several tests of the diffusion package need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.gaussian_diffusion import LossType, ModelMeanType, ModelVarType
from diffusion.respace import SpacedDiffusion, space_timesteps
from diffusion.schedules import get_named_beta_schedule


@dataclass(frozen=True)
class Chain:
    """What a process is built from."""

    schedule: str = "linear"
    num_steps: int = 1000
    respacing: str = "250"
    mean_type: ModelMeanType = ModelMeanType.START_X
    var_type: ModelVarType = ModelVarType.FIXED_SMALL
    loss_type: LossType = LossType.MSE
    rescale_timesteps: bool = False

    def build(self) -> SpacedDiffusion:
        return SpacedDiffusion(
            space_timesteps(self.num_steps, self.respacing),
            betas=get_named_beta_schedule(self.schedule, self.num_steps),
            model_mean_type=self.mean_type,
            model_var_type=self.var_type,
            loss_type=self.loss_type,
            rescale_timesteps=self.rescale_timesteps,
        )


@dataclass(frozen=True)
class GaussianData:
    """Images whose values are independent N(mean, std²): all that is learned is known exactly."""

    mean: float
    std: float

    def denoiser(self, process: SpacedDiffusion) -> Callable[[Tensor, Tensor], Tensor]:
        """Return E[x_start | x_t] as a network that gets the timesteps of the longer chain."""
        alphas_cumprod = torch.zeros(process.original_num_steps)
        alphas_cumprod[torch.from_numpy(process.timestep_map)] = torch.from_numpy(
            process.alphas_cumprod
        ).float()

        def model(x: Tensor, t: Tensor) -> Tensor:
            alpha_bar = alphas_cumprod[t].view(-1, 1, 1, 1)
            gain = alpha_bar.sqrt() * self.std**2 / (alpha_bar * self.std**2 + 1.0 - alpha_bar)
            return self.mean + gain * (x - alpha_bar.sqrt() * self.mean)

        return model


def standard_normal(seed: int, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
