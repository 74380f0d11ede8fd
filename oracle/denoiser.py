"""The exact denoiser of the oracle: E[Y | x_t, x] at every noise level, in the place of a network.

It is a `model(x_t, t, low_res=…)` for the diffusion code, predicting x_start, so a sampler can be
judged without any network.
"""

from __future__ import annotations

import torch
from torch import Tensor

from oracle.law import OracleLaw, block_sums, oracle_law, remove_block_means, repeat_blocks
from oracle.posterior import PosteriorLaw, given_observation


def posterior_mean_of_y(law: OracleLaw, x_t: Tensor, alpha_bar: Tensor) -> Tensor:
    """E[Y | x_t, x] for x_t = √ᾱ Y + √(1 − ᾱ) ε′, (N, C, H, W).

    Per block, with e = x_t − √ᾱ base and τ = ᾱσ² + 1 − ᾱ, Bayes' rule gives

        P(r = +1 | x_t) = sigmoid( logit p + 2√ᾱ Σ B·e / τ )    (sum over block and channels)
        E[Y | x_t] = Σ_r P(r | x_t) [ base + rB + (√ᾱσ²/τ) P(e − √ᾱ rB) ]

    and P B = B, as B has block means 0. In [-1, 1] but for the tails of Y; `alpha_bar` is ᾱ_t, (N,)
    or a scalar. A law that is given an observation is given x_t/√ᾱ as another one, of the std
    √(1/ᾱ − 1): its σ may differ within a block.
    """
    if isinstance(law, PosteriorLaw):
        return _given_x_t(law, x_t, alpha_bar).mean
    scale, tau, edge_mean = _posterior_parts(law, x_t, alpha_bar)
    e = x_t - scale * law.base
    shrink = scale * law.sigma**2 / tau
    projected = remove_block_means(e, law.factor)
    return law.base + edge_mean * law.edge + shrink * (projected - scale * edge_mean * law.edge)


def posterior_variance_of_y(law: OracleLaw, x_t: Tensor, alpha_bar: Tensor) -> Tensor:
    """Var[Y | x_t, x] pixel by pixel, (N, C, H, W): what an ideal learned variance rests on.

    Within a polarity the noise keeps σ²(1 − ᾱ)/τ of its variance (times 1 − 1/f² of the
    projection); the two polarities add 4P(1 − P)·((1 − ᾱσ²/τ)B)².
    """
    scale, tau, edge_mean = _posterior_parts(law, x_t, alpha_bar)
    alpha_bar = scale**2
    within = law.noise_variance * (1.0 - alpha_bar) / tau
    between = (1.0 - edge_mean**2) * ((1.0 - alpha_bar * law.sigma**2 / tau) * law.edge) ** 2
    return (within + between).expand_as(x_t)


def _given_x_t(law: PosteriorLaw, x_t: Tensor, alpha_bar: Tensor) -> PosteriorLaw:
    """p(Y | X, x_t): x_t/√ᾱ is Y with noise of the std √(1/ᾱ − 1)."""
    alpha_bar = torch.as_tensor(alpha_bar, dtype=x_t.dtype, device=x_t.device).reshape(-1, 1, 1, 1)
    scale, std = alpha_bar.sqrt(), ((1.0 - alpha_bar) / alpha_bar).sqrt()
    shape = (x_t.shape[0], *law.sigma.shape[1:])
    one_each = PosteriorLaw(*(part.expand(shape[0], -1, -1, -1) for part in vars(law).values()))
    return given_observation(one_each, x_t / scale, std.expand(shape))


def _posterior_parts(
    law: OracleLaw, x_t: Tensor, alpha_bar: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """√ᾱ (N, 1, 1, 1), τ (N, 1, H, W) and E[r | x_t] repeated to the blocks (N, 1, H, W)."""
    alpha_bar = torch.as_tensor(alpha_bar, dtype=x_t.dtype, device=x_t.device).reshape(-1, 1, 1, 1)
    scale = alpha_bar.sqrt()
    tau = alpha_bar * law.sigma**2 + 1.0 - alpha_bar
    evidence = law.edge * (x_t - scale * law.base).sum(dim=1, keepdim=True) / tau
    log_odds = torch.logit(law.probability) + 2.0 * scale * block_sums(evidence, law.factor)
    edge_mean = repeat_blocks(torch.tanh(log_odds / 2.0), law.factor)
    return scale, tau, edge_mean


def score_of(denoised: Tensor, x_t: Tensor, alpha_bar: Tensor) -> Tensor:
    """∇ log p(x_t | x) by Tweedie's formula, (√ᾱ E[Y | x_t, x] − x_t) / (1 − ᾱ), (N, C, H, W).

    Exact for the exact E[Y | x_t, x] (`posterior_mean_of_y`), whatever the law of Y (Robbins 1956;
    Efron, "Tweedie's formula and selection bias", 2011); with a network's prediction it is the
    score that the network stands for (docs/theory.md, eq. 68). `alpha_bar` is ᾱ_t < 1, (N,) or a
    scalar.
    """
    alpha_bar = torch.as_tensor(alpha_bar, dtype=x_t.dtype, device=x_t.device).reshape(-1, 1, 1, 1)
    return (alpha_bar.sqrt() * denoised - x_t) / (1.0 - alpha_bar)


class ExactDenoiser:
    """`model(x_t, t, low_res=…)` that returns E[Y | x_t, x]: a perfect x_start prediction.

    Args:
        alphas_cumprod: (T,) ᾱ of the chain whose timesteps it is handed: for a respaced process
            the longer chain.
        factor: high-res pixels along the side of a low-res one.
    """

    def __init__(self, alphas_cumprod: Tensor, factor: int) -> None:
        self._alphas_cumprod = torch.as_tensor(alphas_cumprod, dtype=torch.float64)
        self._factor = factor

    def law(self, low_res: Tensor) -> OracleLaw:
        """The law of the low-res images, to be handed in as `low_res`: computed once a batch."""
        return oracle_law(low_res, self._factor)

    def __call__(self, x_t: Tensor, t: Tensor, *, low_res: Tensor | OracleLaw) -> Tensor:
        """E[Y | x_t, x], (N, C, H, W), at whole timesteps t (N,) of the chain.

        `low_res` is (N, C, h, w), or the law of them. TypeError for timesteps that are not whole
        (`rescale_timesteps`).
        """
        if t.is_floating_point():
            raise TypeError("the exact denoiser knows whole timesteps: leave rescale_timesteps off")
        if self._alphas_cumprod.device != t.device:
            self._alphas_cumprod = self._alphas_cumprod.to(t.device)
        law = self.law(low_res) if isinstance(low_res, Tensor) else low_res
        return posterior_mean_of_y(law, x_t, self._alphas_cumprod[t])
