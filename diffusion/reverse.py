"""The learned reverse chain p: what a network's output says about x_{t-1} and x_start.

The network is a callable `model(x, t, **model_kwargs)`; its output is the mean prediction, and
with a learned variance the variance values behind it along the channel axis. Not for taking steps
with it nor for training it: that is `diffusion.process`.

References: DDPM is Ho et al. 2020 (arXiv 2006.11239), ADM Dhariwal & Nichol 2021 (arXiv
2105.05233).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from diffusion.forward import (
    Coefficients,
    DeviceTable,
    ForwardProcess,
    eps_from_xstart,
    posterior_mean,
    xstart_from_eps,
    xstart_from_xprev,
)
from diffusion.types import LossType, Model, ModelMeanType, ModelVarType, StepOptions

# A network trained with rescaled timesteps knows them on the scale of a chain of this length.
RESCALED_STEPS = 1000.0


class ReverseProcess(ForwardProcess):
    """A forward chain and the reverse chain that a network defines on it.

    Args:
        betas: (T,) variances in (0, 1].
        model_mean_type: what the network predicts.
        model_var_type: where the variance of a reverse step comes from.
        loss_type: what `training_losses` minimises.
        rescale_timesteps: hand t·1000/T to the network instead of t.

    Raises:
        ValueError: for betas out of range, or a chain that ends without any signal although the
            network predicts the noise, from which x_start could not be told there.
    """

    def __init__(
        self,
        *,
        betas: ArrayLike,
        model_mean_type: ModelMeanType,
        model_var_type: ModelVarType,
        loss_type: LossType,
        rescale_timesteps: bool = False,
    ) -> None:
        super().__init__(betas)
        if model_mean_type is ModelMeanType.EPSILON and self.alphas_cumprod[-1] <= 0.0:
            raise ValueError(
                f"a chain of {self.num_timesteps} steps whose last beta is {self.betas[-1]:g} ends "
                "without signal, so predicted noise says nothing about x_start there: take more "
                "steps, the cosine schedule, or predict_xstart"
            )
        self.model_mean_type = model_mean_type
        self.model_var_type = model_var_type
        self.loss_type = loss_type
        self.rescale_timesteps = rescale_timesteps
        self._set_timestep_map(np.arange(self.num_timesteps), self.num_timesteps)

    def _set_timestep_map(self, timestep_map: NDArray[np.int64], original_num_steps: int) -> None:
        """Set which timestep of a chain of `original_num_steps` each timestep stands for."""
        self.timestep_map = timestep_map  # (T,)
        self.original_num_steps = original_num_steps
        handed: NDArray[Any] = timestep_map
        if self.rescale_timesteps:
            handed = (timestep_map * (RESCALED_STEPS / original_num_steps)).astype(np.float32)
        self._network_timesteps = DeviceTable(handed)

    def network_timesteps(self, t: Tensor) -> Tensor:
        """Return the timesteps as the network knows them: (B,) to (B,), on the same device."""
        return self._network_timesteps.on(t.device)[t]

    def descending_timesteps(self, x: Tensor) -> Iterator[Tensor]:
        """Yield T-1, ..., 0, each as a (B,) tensor on the device of `x` (B, ...)."""
        # Rows of one tensor: to build each from a number would copy it to the device.
        steps = torch.arange(self.num_timesteps - 1, -1, -1, device=x.device)
        yield from steps.unsqueeze(1).expand(-1, x.shape[0]).unbind(0)

    def p_mean_variance(
        self,
        model: Model,
        x: Tensor,
        t: Tensor,
        clip_denoised: bool = True,
        denoised_fn: Callable[[Tensor], Tensor] | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
    ) -> dict[str, Tensor]:
        """Return p(x_{t-1} | x_t) and the x_start it rests on.

        The mean is that of the posterior at the predicted x_start (DDPM equation 7), or the
        prediction itself for PREVIOUS_X.

        Args:
            model: the network.
            x: (B, C, ...) x_t.
            t: (B,) timesteps.
            clip_denoised: clamp the predicted x_start to [-1, 1].
            denoised_fn: applied to the predicted x_start before the clamp.
            model_kwargs: conditioning for the network.

        Returns:
            `mean`, `variance`, `log_variance` and `pred_xstart`, in the shape of `x`.

        Raises:
            ValueError: when the network's output has the wrong shape.
        """
        options = StepOptions(clip_denoised=clip_denoised, denoised_fn=denoised_fn)
        output = self._call(model, x, t, model_kwargs)
        out = self._p_mean_variance(self.coefficients_at(t, x.ndim), output, x, options)
        return {name: value.expand_as(x) for name, value in out.items()}

    def _call(
        self, fn: Callable[..., Tensor], x: Tensor, t: Tensor, kwargs: Mapping[str, Any] | None
    ) -> Tensor:
        return fn(x, self.network_timesteps(t), **(kwargs or {}))

    def _p_mean_variance(
        self, c: Coefficients[Tensor], output: Tensor, x: Tensor, options: StepOptions
    ) -> dict[str, Tensor]:
        """As `p_mean_variance`, but a fixed variance only broadcasts over x."""
        prediction, variance_values = self._split(output, x)
        variance, log_variance = self._variance(c, variance_values)
        pred_xstart = self._xstart(c, prediction, x, options)
        mean = prediction
        if self.model_mean_type is not ModelMeanType.PREVIOUS_X:
            mean = posterior_mean(c, pred_xstart, x)
        return {
            "mean": mean,
            "variance": variance,
            "log_variance": log_variance,
            "pred_xstart": pred_xstart,
        }

    def _xstart(
        self, c: Coefficients[Tensor], prediction: Tensor, x: Tensor, options: StepOptions
    ) -> Tensor:
        """Return the x_start that the network's mean prediction stands for."""
        if self.model_mean_type is ModelMeanType.START_X:
            pred_xstart = prediction
        elif self.model_mean_type is ModelMeanType.EPSILON:
            pred_xstart = xstart_from_eps(c, x, prediction)
        else:
            pred_xstart = xstart_from_xprev(c, x, prediction)
        if options.denoised_fn is not None:
            pred_xstart = options.denoised_fn(pred_xstart)
        return pred_xstart.clamp(-1.0, 1.0) if options.clip_denoised else pred_xstart

    @property
    def _is_variance_learned(self) -> bool:
        return self.model_var_type in (ModelVarType.LEARNED, ModelVarType.LEARNED_RANGE)

    def _split(self, output: Tensor, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the mean prediction and, where the variance is learned, its values."""
        num_parts = 2 if self._is_variance_learned else 1
        expected = (x.shape[0], num_parts * x.shape[1], *x.shape[2:])
        if output.shape != expected:
            raise ValueError(
                f"the network returned shape {tuple(output.shape)}, a variance of type "
                f"{self.model_var_type.name} needs {expected}: learn_sigma must be the same for "
                "network and diffusion"
            )
        output = output.to(x.dtype)
        if num_parts == 1:
            return output, None
        prediction, variance_values = output.chunk(2, dim=1)  # (B, C, ...) each
        return prediction, variance_values

    def _variance(
        self, c: Coefficients[Tensor], variance_values: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return variance and log variance of a reverse step, broadcasting over x."""
        if self.model_var_type is ModelVarType.FIXED_SMALL:
            return c.posterior_variance, c.posterior_log_variance_clipped
        if self.model_var_type is ModelVarType.FIXED_LARGE:
            return c.large_variance, c.large_log_variance
        assert variance_values is not None
        if self.model_var_type is ModelVarType.LEARNED:
            return variance_values.exp(), variance_values
        share = (variance_values + 1.0) / 2.0  # [-1, 1] becomes [0, 1]
        log_variance = share * c.log_betas + (1.0 - share) * c.posterior_log_variance_clipped
        return log_variance.exp(), log_variance

    def condition_mean(
        self,
        cond_fn: Callable[..., Tensor],
        p_mean_var: Mapping[str, Tensor],
        x: Tensor,
        t: Tensor,
        model_kwargs: Mapping[str, Any] | None = None,
    ) -> Tensor:
        """Return the mean of a guided step: mean + variance·gradient (ADM algorithm 1).

        Args:
            cond_fn: `cond_fn(x, t, **model_kwargs)`, the gradient of log p(y | x_t).
            p_mean_var: what `p_mean_variance` returned for `x`.
            x: (B, C, ...) x_t.
            t: (B,) timesteps; `cond_fn` gets them as the network does.
            model_kwargs: conditioning for `cond_fn`.

        Returns:
            The mean, in the shape of `x`.
        """
        gradient = self._call(cond_fn, x, t, model_kwargs)
        return p_mean_var["mean"] + p_mean_var["variance"] * gradient

    def condition_score(
        self,
        cond_fn: Callable[..., Tensor],
        p_mean_var: Mapping[str, Tensor],
        x: Tensor,
        t: Tensor,
        model_kwargs: Mapping[str, Any] | None = None,
    ) -> dict[str, Tensor]:
        """Return `p_mean_var` for guided noise: eps - √(1 - alpha_bar_t)·gradient.

        ADM algorithm 2, for samplers that have no variance to shift the mean by.

        Arguments as `condition_mean`.

        Returns:
            A copy of `p_mean_var` with new `pred_xstart` and `mean`.
        """
        c = self.coefficients_at(t, x.ndim)
        eps = eps_from_xstart(c, x, p_mean_var["pred_xstart"])
        eps = eps - c.sqrt_one_minus_alphas_cumprod * self._call(cond_fn, x, t, model_kwargs)
        pred_xstart = xstart_from_eps(c, x, eps)
        mean = posterior_mean(c, pred_xstart, x)
        return {**p_mean_var, "pred_xstart": pred_xstart, "mean": mean}
