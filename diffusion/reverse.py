"""The learned reverse chain p: what a network's output says about x_{t-1} and x_start.

The network is a callable `model(x, t, **model_kwargs)`; its output is the mean prediction, and
with a learned variance the variance values behind it along the channel axis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from diffusion.forward import (
    Coefficients,
    DeviceTable,
    ForwardProcess,
    posterior_mean,
    respaced_betas,
    xstart_from_eps,
)
from diffusion.schedules import check_betas
from diffusion.types import (
    Condition,
    LossType,
    Model,
    ModelMeanType,
    ModelVarType,
    PredictionLoss,
    StepOptions,
)

# A network trained with rescaled timesteps knows them on the scale of a chain of this length.
RESCALED_STEPS = 1000.0


class ReverseProcess(ForwardProcess):
    """A forward chain and the reverse chain that a network defines on it.

    Args:
        betas: (T,) variances in (0, 1].
        model_mean_type: what the network predicts.
        model_var_type: where the variance of a reverse step comes from.
        loss_type: what `losses.training_losses` minimises.
        prediction_loss: how an error of the prediction counts in it.
        use_timesteps: the timesteps of the chain to visit, with the same noise at each; None for
            all. Those of the process count from 0, whichever they are.
        rescale_timesteps: hand t·1000/T to the network instead of t.

    Attributes:
        timestep_map: the visited timesteps of the whole chain, which the network is told.
        original_num_steps: length T of the whole chain.

    Raises:
        ValueError: for betas out of range; when no timestep is visited, or one that the chain does
            not have; or for a chain that ends without any signal although the network predicts
            the noise, from which x_start could not be told there.
    """

    def __init__(
        self,
        *,
        betas: ArrayLike,
        model_mean_type: ModelMeanType,
        model_var_type: ModelVarType,
        loss_type: LossType,
        prediction_loss: PredictionLoss = PredictionLoss.MSE,
        use_timesteps: Iterable[int] | None = None,
        rescale_timesteps: bool = False,
    ) -> None:
        betas = check_betas(betas)
        self.original_num_steps = betas.size
        self.timestep_map = np.arange(betas.size)
        if use_timesteps is not None:
            self.timestep_map = _visited(use_timesteps, betas.size)
            betas = respaced_betas(betas, self.timestep_map)
        super().__init__(betas)
        if model_mean_type is ModelMeanType.EPSILON and self.coefficients.alphas_cumprod[-1] <= 0.0:
            raise ValueError(
                f"a chain of {self.num_timesteps} steps whose last beta is {betas[-1]:g} ends "
                "without signal, so predicted noise says nothing about x_start there: take more "
                "steps, the cosine schedule, or predict_xstart"
            )
        self.model_mean_type = model_mean_type
        self.model_var_type = model_var_type
        self.loss_type, self.prediction_loss = loss_type, prediction_loss
        handed: NDArray[Any] = self.timestep_map
        if rescale_timesteps:
            handed = (handed * (RESCALED_STEPS / self.original_num_steps)).astype(np.float32)
        self._network_timesteps = DeviceTable(handed)

    def network_timesteps(self, t: Tensor) -> Tensor:
        """Return the timesteps as the network knows them: (B,) to (B,), on the same device."""
        return self._network_timesteps.on(t.device)[t]

    def descending_timesteps(self, x: Tensor) -> Iterator[Tensor]:
        """Yield T-1, ..., 0, each as a (B,) tensor on the device of `x` (B, ...)."""
        # Rows of one tensor: to build each from a number would copy it to the device.
        steps = torch.arange(self.num_timesteps - 1, -1, -1, device=x.device)
        yield from steps.unsqueeze(1).expand(-1, x.shape[0]).unbind(0)

    def evaluate(
        self, fn: Callable[..., Tensor], x: Tensor, t: Tensor, kwargs: Condition | None
    ) -> Tensor:
        """Return `fn(x, t, **kwargs)` with the timesteps as the network knows them."""
        return fn(x, self.network_timesteps(t), **(kwargs or {}))

    def p_mean_variance(
        self, model: Model, x: Tensor, t: Tensor, options: StepOptions | None = None
    ) -> dict[str, Tensor]:
        """Return p(x_{t-1} | x_t) and the x_start it rests on.

        The mean is that of the posterior at the predicted x_start (Ho et al. 2020, arXiv
        2006.11239, equation 7), for x_t `x` (B, C, ...) at timesteps `t` (B,). Of the options,
        `cond_fn` and `eta` play no part.

        Returns:
            `mean`, `variance`, `log_variance` and `pred_xstart`, in the shape of `x`.

        Raises:
            ValueError: when the network's output has the wrong shape.
        """
        options = options or StepOptions()
        output = self.evaluate(model, x, t, options.model_kwargs)
        out = self.p_of_output(self.coefficients_at(t, x.ndim), output, x, options)
        return {name: value.expand_as(x) for name, value in out.items()}

    def p_of_output(
        self, c: Coefficients[Tensor], output: Tensor, x: Tensor, options: StepOptions
    ) -> dict[str, Tensor]:
        """Return what `p_mean_variance` does, but a fixed variance only broadcasts over x."""
        prediction, variance_values = self.split(output, x)
        variance, log_variance = self._variance(c, variance_values)
        pred_xstart = self.xstart_of_prediction(c, prediction, x, options)
        return {
            "mean": posterior_mean(c, pred_xstart, x),
            "variance": variance,
            "log_variance": log_variance,
            "pred_xstart": pred_xstart,
        }

    def xstart_of_prediction(
        self, c: Coefficients[Tensor], prediction: Tensor, x: Tensor, options: StepOptions
    ) -> Tensor:
        """Return the x_start that the network's mean prediction stands for."""
        is_eps = self.model_mean_type is ModelMeanType.EPSILON
        pred_xstart = xstart_from_eps(c, x, prediction) if is_eps else prediction
        if options.denoised_fn is not None:
            pred_xstart = options.denoised_fn(pred_xstart)
        return pred_xstart.clamp(-1.0, 1.0) if options.clip_denoised else pred_xstart

    def split(self, output: Tensor, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the mean prediction and, where the variance is learned, its values."""
        num_parts = 2 if self.model_var_type.is_learned() else 1
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


def _visited(use_timesteps: Iterable[int], num_steps: int) -> NDArray[np.int64]:
    kept = sorted(set(use_timesteps))
    if not kept:
        raise ValueError("no timesteps are kept: a process needs at least one step")
    if kept[0] < 0 or kept[-1] >= num_steps:
        raise ValueError(
            f"a chain of {num_steps} steps has timesteps 0 to {num_steps - 1}, got {kept[0]} to "
            f"{kept[-1]}"
        )
    return np.array(kept, dtype=np.int64)
