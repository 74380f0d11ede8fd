"""The diffusion process with a network in it: single steps, whole chains, training losses.

Not for what the network's output means (`diffusion.reverse`), how the loops go
(`diffusion.samplers`, `diffusion.bound`), or a chain with fewer steps (`diffusion.spacing`).

References: DDPM is Ho et al. 2020 (arXiv 2006.11239), IDDPM Nichol & Dhariwal 2021 (arXiv
2102.09672), DDIM Song et al. 2021 (arXiv 2010.02502).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from diffusion import bound as likelihood
from diffusion import samplers
from diffusion.forward import (
    Coefficients,
    ddim_step,
    eps_from_xstart,
    posterior_mean,
)
from diffusion.losses import mean_flat
from diffusion.reverse import ReverseProcess
from diffusion.types import (
    LossType,
    Model,
    ModelMeanType,
    ModelVarType,
    NoiseFn,
    StepOptions,
)

__all__ = ["GaussianDiffusion", "LossType", "ModelMeanType", "ModelVarType", "StepOptions"]

# The weight of the bound in a hybrid loss is that of a chain of this length.
REFERENCE_STEPS = 1000


class GaussianDiffusion(ReverseProcess):
    """A forward chain, the reverse chain that a network defines on it, and how it is trained.

    The constructor is that of `ReverseProcess`.
    """

    def p_sample(
        self,
        model: Model,
        x: Tensor,
        t: Tensor,
        noise: Tensor | None = None,
        options: StepOptions | None = None,
        **step: Any,
    ) -> dict[str, Tensor]:
        """Take one ancestral step: x_{t-1} = mean + [t > 0]·std·noise (DDPM algorithm 2).

        Args:
            model: the network.
            x: (B, C, ...) x_t.
            t: (B,) timesteps.
            noise: standard normal in the shape of `x`; drawn from the global generator when None.
            options: how the step is taken.
            **step: single fields of `options` by name, such as `clip_denoised=False`.

        Returns:
            `sample` (x_{t-1}) and `pred_xstart`, in the shape of `x`.

        Raises:
            ValueError: for an eta, which this step has no use for.
        """
        options = _merged(options, step)
        if options.eta:
            raise ValueError(f"eta={options.eta} belongs to DDIM: an ancestral step has none")
        c = self.coefficients_at(t, x.ndim)
        output = self._call(model, x, t, options.model_kwargs)
        out = self._p_mean_variance(c, output, x, options)
        mean = out["mean"]
        if options.cond_fn is not None:
            mean = self.condition_mean(options.cond_fn, out, x, t, options.model_kwargs)
        noise = torch.randn_like(x) if noise is None else noise
        std = c.noise_mask * torch.exp(0.5 * out["log_variance"])
        return {"sample": torch.addcmul(mean, std, noise), "pred_xstart": out["pred_xstart"]}

    def ddim_sample(
        self,
        model: Model,
        x: Tensor,
        t: Tensor,
        noise: Tensor | None = None,
        options: StepOptions | None = None,
        **step: Any,
    ) -> dict[str, Tensor]:
        """Take one DDIM step (DDIM equations 12 and 16).

        x_{t-1} = √alpha_bar_{t-1} x_start + √(1 - alpha_bar_{t-1} - sigma²) eps + sigma·noise
        with sigma = eta·√(posterior variance), which is 0 at t = 0.

        Args:
            model: the network.
            x: (B, C, ...) x_t.
            t: (B,) timesteps.
            noise: standard normal in the shape of `x`; drawn from the global generator when None
                and eta > 0; not used when eta = 0.
            options: how the step is taken.
            **step: single fields of `options` by name, such as `eta=1.0`.

        Returns:
            `sample` (x_{t-1}) and `pred_xstart`, in the shape of `x`.
        """
        options = _merged(options, step)
        c = self.coefficients_at(t, x.ndim)
        pred_xstart = self.denoise(model, x, t, options)
        if not options.eta:
            return {"sample": ddim_step(c, x, pred_xstart), "pred_xstart": pred_xstart}
        eps = eps_from_xstart(c, x, pred_xstart)
        sigma = _ddim_sigma(c, options.eta)
        # Rounding may leave less than nothing where nearly all of the noise is fresh.
        variance = (1.0 - c.alphas_cumprod_prev - sigma**2).clamp(min=0.0)
        sample = c.alphas_cumprod_prev.sqrt() * pred_xstart + variance.sqrt() * eps
        sample = sample + sigma * (torch.randn_like(x) if noise is None else noise)
        return {"sample": sample, "pred_xstart": pred_xstart}

    def denoise(
        self,
        model: Model,
        x: Tensor,
        t: Tensor,
        options: StepOptions | None = None,
        **step: Any,
    ) -> Tensor:
        """Return the predicted x_start that a step without a variance rests on.

        With a `cond_fn` that of the guided noise (`condition_score`), which is not clamped again.

        Args:
            model: the network; one evaluation.
            x: (B, C, ...) x_t.
            t: (B,) timesteps.
            options: how the step is taken; `eta` plays no part.
            **step: single fields of `options` by name.

        Returns:
            x_start in the shape of `x`.
        """
        options = _merged(options, step)
        output = self._call(model, x, t, options.model_kwargs)
        c = self.coefficients_at(t, x.ndim)
        if options.cond_fn is None:
            return self._xstart(c, self._split(output, x)[0], x, options)
        out = self._p_mean_variance(c, output, x, options)
        out = self.condition_score(options.cond_fn, out, x, t, options.model_kwargs)
        return out["pred_xstart"]

    def ddim_reverse_sample(
        self,
        model: Model,
        x: Tensor,
        t: Tensor,
        clip_denoised: bool = True,
        denoised_fn: Callable[[Tensor], Tensor] | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
    ) -> dict[str, Tensor]:
        """Take one deterministic DDIM step the other way, from x_t to x_{t+1}.

        DDIM equation 13 with the steps in reverse order: an Euler step of the same differential
        equation. Arguments as `p_mean_variance`.

        Returns:
            `sample` (x_{t+1}) and `pred_xstart`, in the shape of `x`.
        """
        out = self.p_mean_variance(model, x, t, clip_denoised, denoised_fn, model_kwargs)
        c = self.coefficients_at(t, x.ndim)
        eps = eps_from_xstart(c, x, out["pred_xstart"])
        following = c.alphas_cumprod_next
        sample = following.sqrt() * out["pred_xstart"] + (1.0 - following).sqrt() * eps
        return {"sample": sample, "pred_xstart": out["pred_xstart"]}

    def p_sample_loop(
        self,
        model: Model,
        shape: tuple[int, ...],
        noise: Tensor | None = None,
        device: torch.device | str | None = None,
        **options: Any,
    ) -> Tensor:
        """Draw samples with ancestral steps and torch's global generator.

        Args:
            model: the network.
            shape: (B, C, ...).
            noise: where to start; standard normal when None.
            device: where to draw that; by default where the network's parameters are.
            **options: fields of `samplers.SamplerOptions` but `sampler`.

        Returns:
            Samples of that shape. `samplers.sample_loop` takes the noise of each step from the
            caller, and knows more samplers.
        """
        x_T = noise if noise is not None else _initial_noise(model, shape, device)
        return self._loop(model, x_T, samplers.SamplerOptions(sampler="ancestral", **options))

    def ddim_sample_loop(
        self,
        model: Model,
        shape: tuple[int, ...],
        noise: Tensor | None = None,
        device: torch.device | str | None = None,
        **options: Any,
    ) -> Tensor:
        """Draw samples with DDIM steps; arguments as `p_sample_loop`, with `eta` among them."""
        x_T = noise if noise is not None else _initial_noise(model, shape, device)
        return self._loop(model, x_T, samplers.SamplerOptions(sampler="ddim", **options))

    def _loop(self, model: Model, x_T: Tensor, options: samplers.SamplerOptions) -> Tensor:
        return samplers.sample_loop(self, model, x_T, lambda k: torch.randn_like(x_T), options)

    def training_losses(
        self,
        model: Model,
        x_start: Tensor,
        t: Tensor,
        model_kwargs: Mapping[str, Any] | None = None,
        noise: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return the training loss of each example, and its parts.

        The squared error of the prediction (DDPM equation 14); for a learned variance plus the
        variational bound, whose gradient reaches the variance alone (IDDPM section 3.1); or the
        bound itself.

        Args:
            model: the network.
            x_start: (B, C, ...) clean examples in [-1, 1].
            t: (B,) timesteps.
            model_kwargs: conditioning for the network.
            noise: standard normal in the shape of `x_start`; drawn from the global generator
                when None.

        Returns:
            `loss` (B,), and for the squared error `mse` and, with a learned variance, `vb`.
        """
        noise = torch.randn_like(x_start) if noise is None else noise
        x_t = self.q_sample(x_start, t, noise=noise)
        output = self._call(model, x_t, t, model_kwargs)
        if self.loss_type.is_vb():
            weight = self.num_timesteps if self.loss_type is LossType.RESCALED_KL else 1
            return {"loss": weight * self._vb_term(output, x_start, x_t, t)}
        prediction, variance_values = self._split(output, x_t)
        mse = mean_flat((self._target(x_start, x_t, t, noise) - prediction) ** 2)
        if variance_values is None:
            return {"mse": mse, "loss": mse}
        frozen = torch.cat([prediction.detach(), variance_values], dim=1)  # (B, 2C, ...)
        vb = self._vb_term(frozen, x_start, x_t, t)
        if self.loss_type is LossType.RESCALED_MSE:
            vb = vb * (self.num_timesteps / REFERENCE_STEPS)
        return {"vb": vb, "mse": mse, "loss": mse + vb}

    def _vb_term(self, output: Tensor, x_start: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        c = self.coefficients_at(t, x_t.ndim)
        # A clamp would cut the gradient exactly where the prediction is worst.
        out = self._p_mean_variance(c, output, x_t, StepOptions(clip_denoised=False))
        return likelihood.vb_term_bpd(c, x_start, x_t, t, out)

    def _target(self, x_start: Tensor, x_t: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        if self.model_mean_type is ModelMeanType.EPSILON:
            return noise
        if self.model_mean_type is ModelMeanType.START_X:
            return x_start
        return posterior_mean(self.coefficients_at(t, x_t.ndim), x_start, x_t)

    def prior_bpd(self, x_start: Tensor) -> Tensor:
        """Return the prior term of the bound, see `likelihood.prior_bpd`."""
        return likelihood.prior_bpd(self, x_start)

    def calc_bpd_loop(
        self,
        model: Model,
        x_start: Tensor,
        clip_denoised: bool = True,
        model_kwargs: Mapping[str, Any] | None = None,
        noise_fn: NoiseFn | None = None,
    ) -> dict[str, Tensor]:
        """Return the variational bound term by term, see `likelihood.calc_bpd_loop`."""
        return likelihood.calc_bpd_loop(
            self,
            model,
            x_start,
            clip_denoised=clip_denoised,
            model_kwargs=model_kwargs,
            noise_fn=noise_fn,
        )


def _merged(options: StepOptions | None, step: dict[str, Any]) -> StepOptions:
    options = options or StepOptions()
    return replace(options, **step) if step else options


def _ddim_sigma(c: Coefficients[Tensor], eta: float) -> Tensor:
    share = torch.sqrt((1.0 - c.alphas_cumprod_prev) / (1.0 - c.alphas_cumprod))
    return eta * share * torch.sqrt(1.0 - c.alphas_cumprod / c.alphas_cumprod_prev)


def _initial_noise(
    model: Model, shape: tuple[int, ...], device: torch.device | str | None
) -> Tensor:
    if device is None and isinstance(model, torch.nn.Module):
        device = next((p.device for p in model.parameters()), None)
    return torch.randn(shape, device=device)
