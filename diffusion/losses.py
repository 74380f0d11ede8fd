"""What training minimises: the loss of each example at its timestep.

DDPM is Ho et al. 2020 (arXiv 2006.11239), IDDPM Nichol & Dhariwal 2021 (arXiv 2102.09672).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from diffusion.bound import mean_flat, vb_term_bpd
from diffusion.reverse import ReverseProcess
from diffusion.types import Condition, LossType, Model, ModelMeanType, PredictionLoss, StepOptions

# The weight of the bound in a hybrid loss is that of a chain of this length.
REFERENCE_STEPS = 1000


def training_losses(
    process: ReverseProcess,
    model: Model,
    x_start: Tensor,
    t: Tensor,
    model_kwargs: Condition | None = None,
    noise: Tensor | None = None,
) -> dict[str, Tensor]:
    """Return the training loss of each example, and its parts.

    The squared error of the prediction (DDPM equation 14), or another loss of it; for a learned
    variance plus the variational bound, whose gradient reaches the variance alone (IDDPM
    section 3.1); or the bound itself.

    Args:
        process: the reverse chain, with the type of the loss.
        model: the network, conditioned on `model_kwargs`.
        x_start: (B, C, ...) clean examples in [-1, 1].
        t: (B,) timesteps.
        noise: standard normal in the shape of `x_start`; None: from the global generator.

    Returns:
        `loss` (B,), and without the bound alone the loss of the prediction, by its name (`mse`),
        and, with a learned variance, `vb`.
    """
    noise = torch.randn_like(x_start) if noise is None else noise
    x_t = process.q_sample(x_start, t, noise=noise)
    output = process.evaluate(model, x_t, t, model_kwargs)
    if process.loss_type in (LossType.KL, LossType.RESCALED_KL):
        weight = process.num_timesteps if process.loss_type is LossType.RESCALED_KL else 1
        return {"loss": weight * _vb_term(process, output, x_start, x_t, t)}
    prediction, variance_values = process.split(output, x_t)
    is_eps = process.model_mean_type is ModelMeanType.EPSILON
    loss_of, name = LOSSES[process.prediction_loss], process.prediction_loss.value
    error = mean_flat(loss_of((noise if is_eps else x_start) - prediction))
    if variance_values is None:
        return {name: error, "loss": error}
    frozen = torch.cat([prediction.detach(), variance_values], dim=1)  # (B, 2C, ...)
    vb = _vb_term(process, frozen, x_start, x_t, t)
    if process.loss_type is LossType.RESCALED_MSE:
        vb = vb * (process.num_timesteps / REFERENCE_STEPS)
    return {"vb": vb, name: error, "loss": error + vb}


def _squared(error: Tensor) -> Tensor:
    return error**2


def _huber(error: Tensor) -> Tensor:
    size = error.abs()
    return torch.where(size < 1, 0.5 * error * error, size - 0.5)


# of every element; mean over an example afterwards
LOSSES: Mapping[PredictionLoss, Callable[[Tensor], Tensor]] = MappingProxyType(
    {
        PredictionLoss.MSE: _squared,
        PredictionLoss.L1: torch.abs,
        PredictionLoss.HUBER: _huber,
        PredictionLoss.SMOOTH_L1: _huber,
    }
)


def _vb_term(
    process: ReverseProcess, output: Tensor, x_start: Tensor, x_t: Tensor, t: Tensor
) -> Tensor:
    c = process.coefficients_at(t, x_t.ndim)
    # A clamp would cut the gradient exactly where the prediction is worst.
    out = process.p_of_output(c, output, x_t, StepOptions(clip_denoised=False))
    return vb_term_bpd(c, x_start, x_t, t, out)
