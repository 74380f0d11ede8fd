"""The oracle's law of Y once its pixels have been observed, with noise or some of them only.

Beside x = area(Y) there is z = Y + sξ, ξ standard normal, with a std s of each pixel that all
channels share: the same everywhere for noise, 0 where a mask shows the pixel and infinite where it
hides it. Y then has the law of `oracle.law` again, two polarities with one normal law about each,
with other parts (docs/theory.md, section 10).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from oracle.law import OracleLaw, block_sums, repeat_blocks


@dataclass(frozen=True)
class PosteriorLaw(OracleLaw):
    """p(Y | x, z) for a batch; made by `given_noisy`, `given_pixels` or `given_observation`.

        Y = base + r·B + √v·ε − v·Σ(√v·ε)/V,      V = Σ v of the block          (theory.md, eq. 74)

    Mean, variance, moments, quantiles and samples are those of `OracleLaw`, with these parts. The
    block means of base are those of x, and B and the noise have block means 0.

    Attributes:
        base: (N, C, H, W) the mean of both polarities, each counted once.
        edge: (N, 1, H, W) half of how far they lie apart; 0 where a pixel is known.
        sigma: (N, 1, H, W) √v, std of the noise before the block mean is held; it differs within
            a block, and is 0 where a pixel is known.
        probability: (N, 1, h, w) P(r = +1 | x, z).
        log_odds: (N, 1, h, w) its logit, which does not saturate.
    """

    log_odds: Tensor

    @property
    def noise_variance(self) -> Tensor:
        """v − v²/V, (N, 1, H, W): the variance within a polarity."""
        v = self.sigma.square()
        return (v * (1.0 - _share_of_block(v, self.factor))).clamp(min=0.0)  # of rounding

    def require_even_noise(self) -> None:
        """Raise ValueError where the σ of a block differ: where a mask shows some pixels."""
        first = self.sigma[..., :: self.factor, :: self.factor]
        if not torch.equal(self.sigma, repeat_blocks(first, self.factor)):
            raise ValueError("this is known of laws whose noise is even within a block: no masks")

    @property
    def log_weights(self) -> tuple[Tensor, Tensor]:
        """log P(r = +1 | x, z) and log P(r = −1 | x, z), (N, 1, h, w) each."""
        return F.logsigmoid(self.log_odds), F.logsigmoid(-self.log_odds)

    def given_class(self, label: int, num_classes: int) -> OracleLaw:
        """Refused: the label comes before what is observed (`OracleLaw.given_class`, then this).

        Raises:
            ValueError: always.
        """
        raise ValueError(
            f"label {label} of {num_classes} classes: take the law given the class first, then "
            "that given the observation"
        )

    def cdf(self, value: Tensor) -> Tensor:
        """P(Y ≤ value | x, z) pixel by pixel, (N, C, H, W); a step where the pixel is known."""
        std = self.noise_variance.sqrt()
        is_known = (std == 0.0).expand_as(self.base)
        step = (value >= self.mean).to(self.base)
        mixture = super().cdf(value)  # 0/0 where the pixel is known
        return torch.where(is_known, step, mixture)

    def _noise(self, normal: Tensor) -> Tensor:
        scaled = self.sigma * normal
        share = _share_of_block(self.sigma.square(), self.factor)
        return scaled - share * repeat_blocks(block_sums(scaled, self.factor), self.factor)


def given_noisy(law: OracleLaw, noisy: Tensor, noise_std: float) -> PosteriorLaw:
    """p(Y | x, z) for z = Y + s·ξ, (N, C, H, W): all pixels are seen, with noise of std s.

    Args:
        law: p(Y | x).
        noisy: z, neither rounded nor clipped.
        noise_std: s, in the unit of the images; 0: Y itself is seen; infinite: nothing is.

    Raises:
        ValueError: the std is negative or no number; or sizes do not fit.
    """
    return given_observation(law, noisy, torch.full_like(law.sigma, noise_std))


def given_pixels(law: OracleLaw, seen: Tensor, mask: Tensor) -> PosteriorLaw:
    """p(Y | x, mask·Y, mask): some pixels are seen as they are, and all block means.

    Args:
        law: p(Y | x).
        seen: (N, C, H, W), Y where the mask is 1; elsewhere any numbers.
        mask: (N, 1, H, W) of 0 and 1 or of booleans, for all channels.

    Raises:
        ValueError: the mask holds other values; or sizes do not fit.
    """
    is_seen = mask == 1
    if not bool((is_seen | (mask == 0)).all()):
        raise ValueError("a mask holds 0 where a pixel is hidden and 1 where it is seen")
    std = torch.where(is_seen, 0.0, math.inf).to(law.sigma)
    return given_observation(law, seen, std)


def given_observation(law: OracleLaw, observed: Tensor, noise_std: Tensor) -> PosteriorLaw:
    """p(Y | x, z) for z = Y + s·ξ with a std s of each pixel (docs/theory.md, eq. 70 to 74).

    With e = z − base, k = σ²/(σ² + s²), v = σ²(1 − k), V = Σ v, and sums over the pixels of a
    block,

        log-odds of r = log-odds before + 2 Σ_c [ Σ kBe/σ² + Σ kB · Σ ke / V ]
        base + ke − (v/V) Σ ke      and      B − kB + (v/V) Σ kB

    are its polarity, its base and its edge. Where s is infinite `observed` does not matter. What is
    known already (σ = 0, k = 0) stays as it is, so that a law may be given one observation after
    another, in any order, as the diffusion's x_t behind a mask.

    Args:
        law: p(Y | x), or that given earlier observations.
        observed: z, (N, C, H, W).
        noise_std: s, (N, 1, H, W), from 0 to infinity.

    Raises:
        ValueError: a std is negative or no number; or sizes do not fit.
    """
    if observed.shape != law.base.shape or noise_std.shape != law.sigma.shape:
        raise ValueError(
            f"observed {tuple(observed.shape)} and noise_std {tuple(noise_std.shape)} do not fit "
            f"a law of {tuple(law.base.shape)}"
        )
    if not bool((noise_std >= 0).all()):
        raise ValueError("a std of noise is a number from 0 to infinity")
    factor, prior = law.factor, law.sigma.square()
    tells = torch.isfinite(noise_std) & (prior > 0)
    square = torch.where(tells, noise_std.square(), 0.0)
    precision = torch.where(tells, 1.0 / torch.where(tells, prior + square, 1.0), 0.0)
    gain = prior * precision  # k
    left = torch.where(tells, square * precision, 1.0)  # 1 − k, as it does not cancel
    off = torch.where(tells, observed - law.base, 0.0)  # e
    pulled, pushed = gain * off, gain * law.edge  # ke, kB
    pulled_sum, pushed_sum = block_sums(pulled, factor), block_sums(pushed, factor)
    v = prior * left
    free, share = block_sums(v, factor), _share_of_block(v, factor)  # V, v/V
    own = block_sums((law.edge * precision * off).sum(dim=1, keepdim=True), factor)  # Σ kBe/σ²
    shared = pushed_sum * pulled_sum.sum(dim=1, keepdim=True) / torch.where(free > 0, free, 1.0)
    before = law.log_odds if isinstance(law, PosteriorLaw) else torch.logit(law.probability)
    log_odds = before + 2.0 * (own + shared)
    return PosteriorLaw(
        base=law.base + pulled - share * repeat_blocks(pulled_sum, factor),
        edge=left * law.edge + share * repeat_blocks(pushed_sum, factor),
        sigma=law.sigma * left.sqrt(),
        probability=torch.sigmoid(log_odds),
        log_odds=log_odds,
    )


def _share_of_block(values: Tensor, factor: int) -> Tensor:
    """Each value's share of the sum of its block; 0 in blocks of zeros."""
    total = repeat_blocks(block_sums(values, factor), factor)
    return values / torch.where(total > 0, total, 1.0)
