"""Processes and exact denoisers that several tests of the diffusion package need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.process import GaussianDiffusion
from diffusion.reverse import ReverseProcess
from diffusion.schedules import get_named_beta_schedule
from diffusion.spacing import space_timesteps
from diffusion.types import LossType, ModelMeanType, ModelVarType, PredictionLoss


@dataclass(frozen=True)
class Chain:
    """What a process is built from."""

    schedule: str = "linear"
    num_steps: int = 1000
    respacing: str = "250"
    mean_type: ModelMeanType = ModelMeanType.START_X
    var_type: ModelVarType = ModelVarType.FIXED_SMALL
    loss_type: LossType = LossType.MSE
    prediction_loss: PredictionLoss = PredictionLoss.MSE
    rescale_timesteps: bool = False

    def build(self) -> GaussianDiffusion:
        return GaussianDiffusion(
            betas=get_named_beta_schedule(self.schedule, self.num_steps),
            use_timesteps=space_timesteps(self.num_steps, self.respacing),
            model_mean_type=self.mean_type,
            model_var_type=self.var_type,
            loss_type=self.loss_type,
            prediction_loss=self.prediction_loss,
            rescale_timesteps=self.rescale_timesteps,
        )


@dataclass(frozen=True)
class GaussianData:
    """Images whose values are independent N(mean, std²): all that is learned is known exactly."""

    mean: float
    std: float

    def denoiser(self, process: ReverseProcess) -> Callable[[Tensor, Tensor], Tensor]:
        """Return E[x_start | x_t] as a network that gets the timesteps of the longer chain."""
        alphas_cumprod = torch.zeros(process.original_num_steps)
        alphas_cumprod[torch.from_numpy(process.timestep_map)] = torch.from_numpy(
            process.coefficients.alphas_cumprod
        ).float()

        def model(x: Tensor, t: Tensor) -> Tensor:
            alpha_bar = alphas_cumprod[t].view(-1, 1, 1, 1)
            gain = alpha_bar.sqrt() * self.std**2 / (alpha_bar * self.std**2 + 1.0 - alpha_bar)
            return self.mean + gain * (x - alpha_bar.sqrt() * self.mean)

        return model


class GaussianClasses:
    """Two classes of values N(class mean, STD²), equally frequent: everything is known.

    The methods are called with the timesteps that the process hands to its network.
    """

    NULL = 2
    MEANS = torch.tensor([-0.5, 0.5], dtype=torch.float64)
    STD = 0.3

    def __init__(self, process: ReverseProcess) -> None:
        self.alphas_cumprod = torch.zeros(process.original_num_steps, dtype=torch.float64)
        kept = torch.from_numpy(process.timestep_map)
        self.alphas_cumprod[kept] = torch.from_numpy(process.coefficients.alphas_cumprod)
        self.num_rows: list[int] = []

    def logits(self, x: Tensor, t: Tensor) -> Tensor:
        """log N(x_t; √alpha_bar m_k, v) of both classes, up to a constant."""
        alpha_bar = self.alphas_cumprod[t].to(x).view(-1, 1)
        offsets = x.flatten(1)[:, None] - alpha_bar.sqrt()[..., None] * self.MEANS.to(x)[:, None]
        return -0.5 * offsets.square().sum(2) / (alpha_bar * self.STD**2 + 1 - alpha_bar)

    def eps(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """E[eps | x_t, y], with y = NULL E[eps | x_t]."""
        self.num_rows.append(x.shape[0])
        weights = torch.softmax(self.logits(x, t), dim=1)
        is_null = (y == self.NULL)[:, None]
        one_hot = torch.nn.functional.one_hot(y.clamp(max=1), 2).to(x)
        mean = (torch.where(is_null, weights, one_hot) @ self.MEANS.to(x)).view(-1, 1, 1, 1)
        alpha_bar = self.alphas_cumprod[t].to(x).view(-1, 1, 1, 1)
        variance = alpha_bar * self.STD**2 + 1 - alpha_bar
        return (1 - alpha_bar).sqrt() * (x - alpha_bar.sqrt() * mean) / variance


def standard_normal(seed: int, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
