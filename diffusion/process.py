"""The diffusion process with a network in it: single steps.

DDPM is Ho et al. 2020 (arXiv 2006.11239), DDIM Song et al. 2021 (arXiv 2010.02502), ADM Dhariwal &
Nichol 2021 (arXiv 2105.05233).
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffusion.forward import ddim_step, eps_from_xstart, xstart_from_eps
from diffusion.reverse import ReverseProcess
from diffusion.types import Model, StepOptions


class GaussianDiffusion(ReverseProcess):
    """A forward chain and the steps along the reverse chain that a network defines on it.

    The constructor is that of `ReverseProcess`. The steps take a network, x_t (B, C, ...) and
    timesteps (B,), and return `sample` and `pred_xstart` in the shape of x_t; noise is standard
    normal in that shape, drawn from the global generator where it is wanted and None.
    """

    def p_sample(
        self,
        model: Model,
        x: Tensor,
        t: Tensor,
        noise: Tensor | None = None,
        options: StepOptions | None = None,
    ) -> dict[str, Tensor]:
        """Take one ancestral step: x_{t-1} = mean + [t > 0]·std·noise (DDPM algorithm 2).

        A `cond_fn` shifts the mean by variance·gradient (ADM algorithm 1).

        Raises:
            ValueError: for an eta, which this step has no use for.
        """
        options = options or StepOptions()
        if options.eta:
            raise ValueError(f"eta={options.eta} belongs to DDIM: an ancestral step has none")
        c = self.coefficients_at(t, x.ndim)
        output = self.evaluate(model, x, t, options.model_kwargs)
        out = self.p_of_output(c, output, x, options)
        mean = out["mean"]
        if options.cond_fn is not None:
            gradient = self.evaluate(options.cond_fn, x, t, options.model_kwargs)
            mean = mean + out["variance"] * gradient
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
    ) -> dict[str, Tensor]:
        """Take one DDIM step (DDIM equations 12 and 16), which needs no noise when eta = 0.

        x_{t-1} = √alpha_bar_{t-1} x_start + √(1 - alpha_bar_{t-1} - sigma²) eps + sigma·noise
        with sigma = eta·√(posterior variance), which is 0 at t = 0.
        """
        options = options or StepOptions()
        c = self.coefficients_at(t, x.ndim)
        pred_xstart = self.denoise(model, x, t, options)
        if not options.eta:
            return {"sample": ddim_step(c, x, pred_xstart), "pred_xstart": pred_xstart}
        eps = eps_from_xstart(c, x, pred_xstart)
        share = torch.sqrt((1.0 - c.alphas_cumprod_prev) / (1.0 - c.alphas_cumprod))
        sigma = options.eta * share * torch.sqrt(1.0 - c.alphas_cumprod / c.alphas_cumprod_prev)
        # Rounding may leave less than nothing where nearly all of the noise is fresh.
        variance = (1.0 - c.alphas_cumprod_prev - sigma**2).clamp(min=0.0)
        sample = c.alphas_cumprod_prev.sqrt() * pred_xstart + variance.sqrt() * eps
        sample = sample + sigma * (torch.randn_like(x) if noise is None else noise)
        return {"sample": sample, "pred_xstart": pred_xstart}

    def denoise(
        self, model: Model, x: Tensor, t: Tensor, options: StepOptions | None = None
    ) -> Tensor:
        """Return the predicted x_start that a step without a variance rests on.

        With a `cond_fn` that of the guided noise, eps - √(1 - alpha_bar_t)·gradient (ADM algorithm
        2), which is not clamped again. One evaluation of the network; `eta` plays no part.
        """
        options = options or StepOptions()
        output = self.evaluate(model, x, t, options.model_kwargs)
        c = self.coefficients_at(t, x.ndim)
        pred_xstart = self.xstart_of_prediction(c, self.split(output, x)[0], x, options)
        if options.cond_fn is None:
            return pred_xstart
        gradient = self.evaluate(options.cond_fn, x, t, options.model_kwargs)
        eps = eps_from_xstart(c, x, pred_xstart) - c.sqrt_one_minus_alphas_cumprod * gradient
        return xstart_from_eps(c, x, eps)

    def ddim_reverse_sample(
        self, model: Model, x: Tensor, t: Tensor, options: StepOptions | None = None
    ) -> dict[str, Tensor]:
        """Take one deterministic DDIM step the other way, from x_t to x_{t+1}, without guidance.

        DDIM equation 13 with the steps in reverse order: an Euler step of the same differential
        equation.
        """
        pred_xstart = self.p_mean_variance(model, x, t, options)["pred_xstart"]
        c = self.coefficients_at(t, x.ndim)
        eps = eps_from_xstart(c, x, pred_xstart)
        following = c.alphas_cumprod_next
        sample = following.sqrt() * pred_xstart + (1.0 - following).sqrt() * eps
        return {"sample": sample, "pred_xstart": pred_xstart}
