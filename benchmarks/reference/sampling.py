"""Plain ancestral and DDIM sampling: numpy tables that every step turns into tensors.

Formulas of Ho et al. 2020 (arXiv 2006.11239), Nichol & Dhariwal 2021 (arXiv 2102.09672) and Song
et al. 2021 (arXiv 2010.02502); the network predicts the noise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Model: TypeAlias = Callable[..., Tensor]
NoiseFn: TypeAlias = Callable[[int], Tensor]


class PlainSampler:
    """A chain of some of the timesteps of a longer one, and its sampling loops.

    Args:
        betas: (T,) of the chain that is sampled.
        timestep_map: (T,) what the network knows its timesteps as.
        is_variance_learned: the network's second half interpolates between the two variances.
        is_variance_small: without that, the posterior's variance instead of beta.
        is_clipped: clamp the predicted image to [-1, 1].
    """

    def __init__(
        self,
        betas: NDArray[np.float64],
        timestep_map: NDArray[Any],
        *,
        is_variance_learned: bool = False,
        is_variance_small: bool = False,
        is_clipped: bool = True,
    ) -> None:
        self.betas, self.timestep_map = betas, timestep_map
        self.is_variance_learned, self.is_clipped = is_variance_learned, is_clipped
        self.is_variance_small = is_variance_small
        self.alphas_bar = np.cumprod(1.0 - betas)
        self.alphas_bar_prev = np.append(1.0, self.alphas_bar[:-1])
        self.posterior = betas * (1.0 - self.alphas_bar_prev) / (1.0 - self.alphas_bar)
        self.log_posterior = np.log(np.append(self.posterior[1], self.posterior[1:]))
        self.log_large = np.log(np.append(self.posterior[1], betas[1:]))
        self.coef_start = betas * np.sqrt(self.alphas_bar_prev) / (1.0 - self.alphas_bar)
        self.coef_x = (1.0 - self.alphas_bar_prev) * np.sqrt(1.0 - betas) / (1.0 - self.alphas_bar)

    def ancestral(
        self,
        model: Model,
        x: Tensor,
        noise_fn: NoiseFn,
        **given: Any,
    ) -> Tensor:
        """Return samples from x_T `x` (B, C, H, W); `noise_fn(k)` is the noise of the k-th step."""
        with torch.no_grad():
            for k, step in enumerate(range(len(self.betas) - 1, -1, -1)):
                t = torch.tensor([step] * x.shape[0], device=x.device)
                x = self._ancestral_step(model, x, t, noise_fn(k), given)
        return x

    def _ancestral_step(
        self,
        model: Model,
        x: Tensor,
        t: Tensor,
        noise: Tensor,
        given: dict[str, Any],
    ) -> Tensor:
        output = model(x, self._known_as(t), **given)
        if self.is_variance_learned:
            output, share = torch.split(output, x.shape[1], dim=1)
            low, high = _look_up(self.log_posterior, t, x), _look_up(np.log(self.betas), t, x)
            share = (share + 1) / 2
            log_variance = share * high + (1 - share) * low
        else:
            table = self.log_posterior if self.is_variance_small else self.log_large
            log_variance = _look_up(table, t, x)
        x_start = self._x_start(x, t, output)
        mean = _look_up(self.coef_start, t, x) * x_start + _look_up(self.coef_x, t, x) * x
        is_noisy = (t != 0).float().reshape(-1, 1, 1, 1)
        return mean + is_noisy * torch.exp(0.5 * log_variance) * noise

    def ddim(
        self,
        model: Model,
        x: Tensor,
        noise_fn: NoiseFn,
        eta: float = 0.0,
        **given: Any,
    ) -> Tensor:
        """Return samples from x_T `x` (B, C, H, W); noise is used where eta > 0."""
        with torch.no_grad():
            for k, step in enumerate(range(len(self.betas) - 1, -1, -1)):
                t = torch.tensor([step] * x.shape[0], device=x.device)
                output = model(x, self._known_as(t), **given)
                if self.is_variance_learned:
                    output = torch.split(output, x.shape[1], dim=1)[0]
                x_start = self._x_start(x, t, output)
                signal = _look_up(1 / self.alphas_bar, t, x).sqrt()
                eps = (signal * x - x_start) / _look_up(1 / self.alphas_bar - 1, t, x).sqrt()
                here, prev = _look_up(self.alphas_bar, t, x), _look_up(self.alphas_bar_prev, t, x)
                sigma = eta * torch.sqrt((1 - prev) / (1 - here)) * torch.sqrt(1 - here / prev)
                rest = (1 - prev - sigma**2).clamp(min=0).sqrt()
                x = prev.sqrt() * x_start + rest * eps
                if eta:
                    x = x + sigma * noise_fn(k)
        return x

    def _x_start(self, x: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        signal = _look_up(np.sqrt(1 / self.alphas_bar), t, x)
        found = signal * x - _look_up(np.sqrt(1 / self.alphas_bar - 1), t, x) * eps
        return found.clamp(-1, 1) if self.is_clipped else found

    def _known_as(self, t: Tensor) -> Tensor:
        return torch.tensor(self.timestep_map, device=t.device)[t]


def _look_up(table: NDArray[np.float64], t: Tensor, x: Tensor) -> Tensor:
    """The entries at `t` (B,), each filling its image of `x`; the table is converted every time."""
    values = torch.from_numpy(table).to(x.device)[t].float()
    return values.reshape(-1, *[1] * (x.ndim - 1)).expand(x.shape)
