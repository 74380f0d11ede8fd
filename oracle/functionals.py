"""Beyond the pixel: what the oracle's covariance says of linear functionals and of whole blocks.

Two low-res pixels have independent blocks. Within a block of f×f pixels and C channels, with b the
pattern B in every channel, both as vectors of C·f² values,

    Cov[Y | x] = 4p(1 − p) b bᵀ + σ² (1 ⊗ P)                                    (docs/oracle.md)

where 1 ⊗ P takes each channel's mean away.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from oracle.law import OracleLaw, block_sums, repeat_blocks


class LinearFunctional(Protocol):
    """A map of each channel by sums over a window: (N, C, H, W) to (N, C, H′, W′)."""

    @property
    def kernel(self) -> Tensor:
        """The weights (h, w) of a window's pixels."""

    def __call__(self, image: Tensor, power: int = 1) -> Tensor:
        """The sums of the pixels times the weights to that power."""


def variance_of_functional(law: OracleLaw, functional: LinearFunctional) -> Tensor:
    """Var[AY | x], (N, C, H′, W′), of a linear functional A with the weights a.

    The blocks β that a window touches add up, as they are independent:

        Σ_β 4p(1 − p) (Σ_{k∈β} a_k B_k)² + σ² (Σ_{k∈β} a_k² − (Σ_{k∈β} a_k)²/f²)

    They are computed in turns in which no window touches two of them. Of a law given some pixels
    (`oracle.posterior`) the second term is Σ_{k∈β} a_k² v_k − (Σ_{k∈β} a_k v_k)²/V_β.
    """
    factor, (height, width) = law.factor, functional.kernel.shape
    polarity_std = (4.0 * law.probability * (1.0 - law.probability)).sqrt()
    edge = repeat_blocks(polarity_std, factor) * law.edge
    variance = law.sigma.square()  # v
    whole = repeat_blocks(block_sums(variance, factor), factor)  # V
    shared = variance / torch.where(whole > 0, whole, 1.0).sqrt()
    turns_down, turns_across = ((side + factor - 2) // factor + 1 for side in (height, width))
    total = torch.zeros_like(functional(law.base))
    for down in range(turns_down):
        for across in range(turns_across):
            mask = torch.zeros_like(law.probability)
            mask[..., down::turns_down, across::turns_across] = 1.0
            turn = repeat_blocks(mask, factor)
            total += functional(edge * turn).square()
            total += functional(variance * turn, 2) - functional(shared * turn).square()
    return total.clamp(min=0.0)  # of rounding, where it is 0


def leading_component(law: OracleLaw) -> tuple[Tensor, Tensor]:
    """The leading eigenvector and eigenvalue of each block's covariance, C·f² values a block.

    The vector is b/‖b‖: an image (N, C, H, W) whose blocks have norm 1; 0 where B is 0. The value,
    (N, 1, h, w), is 4p(1 − p)‖b‖² + σ². All others are σ², but for C of 0: the means of channels.

    Raises:
        ValueError: σ is not even within blocks (`OracleLaw.require_even_noise`).
    """
    law.require_even_noise()
    pattern = law.edge.expand_as(law.base)
    square = block_sums(pattern.square(), law.factor).sum(dim=1, keepdim=True)  # ‖b‖²
    norm = repeat_blocks(square.sqrt(), law.factor)
    vector = torch.where(norm > 0, pattern / norm, torch.zeros_like(pattern))
    p = law.probability
    return vector, 4.0 * p * (1.0 - p) * square + other_variance(law)


def other_variance(law: OracleLaw) -> Tensor:
    """σ² of each block, (N, 1, h, w): the variance of every component behind the leading one.

    Raises:
        ValueError: σ is not even within blocks.
    """
    law.require_even_noise()
    return law.sigma[..., :: law.factor, :: law.factor].square()


def trace(law: OracleLaw) -> Tensor:
    """The sum of the variances of a block's C·f² values, (N, 1, h, w)."""
    return block_sums(law.variance, law.factor).sum(dim=1, keepdim=True)
