"""The law p(Y | X) of the oracle: real low-res images, a high-res law with closed-form moments.

Images are NCHW in [-1, 1]; X is (N, C, h, w), Y is (N, C, f·h, f·w), and X = area(Y) exactly.

    Y = base(X) + r·B + σ·Pε                                                  (docs/oracle.md)

base is smooth, r = ±1 an edge of one of two polarities (one draw a low-res pixel, shared by the
channels), ε standard normal, P the projection that takes each channel's block mean away. So Y is
bimodal at edges, its spread depends on the place, and all of its moments are known.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

# y = 0.5·photograph leaves room for the spread of Y in [-1, 1]
PHOTO_SCALE = 0.5
# gradient of the luminance at which the edge strength s is one half
_HALF_GRADIENT = 0.08
_SIGMA_FLAT, _SIGMA_EDGE = 0.04, 0.16
_EDGE_HEIGHT = 0.25
_POLARITY_SLOPE = 4.0
_TINY_GRADIENT = 1e-3
_BISECTIONS = 60
# κ: how far a class moves the polarity's probability, as a share of min(p, 1 − p)
_CLASS_SHIFT = 0.8
BILINEAR, BICUBIC = "bilinear", "bicubic"


@dataclass(frozen=True)
class OracleLaw:
    """p(Y | X = x) for a batch of low-res images; made by `oracle_law`.

    Attributes:
        base: (N, C, H, W) smooth image with area(base) = x.
        edge: (N, 1, H, W) the pattern B, with block means 0; the same for all channels.
        sigma: (N, 1, H, W) standard deviation of the noise before the projection.
        probability: (N, 1, h, w) p = P(r = +1).
    """

    base: Tensor
    edge: Tensor
    sigma: Tensor
    probability: Tensor

    @property
    def factor(self) -> int:
        """f, high-res pixels along the side of a low-res one."""
        return self.base.shape[-1] // self.probability.shape[-1]

    @property
    def noise_variance(self) -> Tensor:
        """Variance of σ·Pε, σ²(1 − 1/f²), (N, 1, H, W): of one polarity's law."""
        return self.sigma.square() * (1.0 - 1.0 / self.factor**2)

    def require_even_noise(self) -> None:
        """Raise ValueError unless all σ of a block are equal, as those of `oracle_law` are."""

    @property
    def mean(self) -> Tensor:
        """E[Y | x] = base + (2p − 1)B, (N, C, H, W)."""
        mean: Tensor = self.base + (2.0 * self._p - 1.0) * self.edge
        return mean

    @property
    def variance(self) -> Tensor:
        """Var[Y | x] = 4p(1 − p)B² + σ²(1 − 1/f²), (N, C, H, W)."""
        spread = 4.0 * self._pq * self.edge**2 + self.noise_variance
        return spread.expand_as(self.base)

    @property
    def third_central_moment(self) -> Tensor:
        """E[(Y − EY)³ | x] = 8p(1 − p)(1 − 2p)B³, (N, C, H, W): that of r·B, as noise has none."""
        third: Tensor = 8.0 * self._pq * (1.0 - 2.0 * self._p) * self.edge**3
        return third.expand_as(self.base)

    @property
    def fourth_central_moment(self) -> Tensor:
        """E[(Y − EY)⁴ | x] = 3 Var² + κ₄, κ₄ = 16p(1 − p)(1 − 6p(1 − p))B⁴, (N, C, H, W)."""
        cumulant: Tensor = 16.0 * self._pq * (1.0 - 6.0 * self._pq) * self.edge**4
        return 3.0 * self.variance.square() + cumulant

    def given_class(self, label: int, num_classes: int) -> OracleLaw:
        """p(Y | X = x, c) of the class law, all of whose parts but p are those of this law.

        p_c = p + κ t_c min(p, 1 − p) with κ = 0.8 and t_c from −1 to 1 in equal steps, so that the
        classes, of equal share, have the mean p: without the class Y has this law
        (docs/oracle.md, eq. o8).

        Args:
            label: c, 0 to k − 1.
            num_classes: k ≥ 2.

        Raises:
            ValueError: there are fewer classes, or there is no such label.
        """
        if num_classes < 2 or not 0 <= label < num_classes:
            raise ValueError(f"label {label} of {num_classes} classes: give 2 or more, from 0 on")
        shift = _CLASS_SHIFT * (2.0 * label / (num_classes - 1) - 1.0)
        p = self.probability
        return replace(self, probability=p + shift * torch.minimum(p, 1.0 - p))

    def class_gap(self, num_classes: int) -> Tensor:
        """Var[E[Y | x, c] | x] of the class law, (N, 1, H, W): Var[Y | x] − mean of Var[Y | x, c].

        4κ² (k + 1)/(3(k − 1)) min(p, 1 − p)² B² (docs/oracle.md, eq. o9).
        """
        spread = (num_classes + 1) / (3 * (num_classes - 1))  # of t_c
        p = self._p
        return 4.0 * _CLASS_SHIFT**2 * spread * (torch.minimum(p, 1.0 - p) * self.edge).square()

    def cdf(self, value: Tensor) -> Tensor:
        """P(Y ≤ value | x) pixel by pixel, (N, C, H, W): a mixture of two normal laws."""
        std = self.noise_variance.sqrt()
        deviation = value - self.base
        upper: Tensor = torch.special.ndtr((deviation - self.edge) / std)
        lower: Tensor = torch.special.ndtr((deviation + self.edge) / std)
        mixture: Tensor = torch.lerp(lower, upper, self._p.expand_as(upper))
        return mixture

    def quantile(self, level: float) -> Tensor:
        """The value that Y stays below with probability `level`, pixel by pixel, (N, C, H, W).

        Raises:
            ValueError: for a level outside (0, 1).
        """
        if not 0.0 < level < 1.0:
            raise ValueError(f"a quantile has a level between 0 and 1, got {level}")
        # each component's quantile bounds that of the mixture
        shift: Tensor = torch.special.ndtri(torch.tensor(level, dtype=self.base.dtype))
        centre = self.base + self.noise_variance.sqrt() * shift.to(self.base.device)
        low, high = centre - self.edge.abs(), centre + self.edge.abs()
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2.0
            is_below = self.cdf(middle) < level
            low, high = torch.where(is_below, middle, low), torch.where(is_below, high, middle)
        middle = (low + high) / 2.0
        return middle

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One draw of Y for each x, (N, C, H, W); area(Y) = x up to rounding."""
        p, device = self.probability, self.base.device
        uniform = torch.rand(p.shape, generator=generator, dtype=p.dtype, device=device)
        polarity = repeat_blocks(torch.where(uniform < p, 1.0, -1.0).to(p), self.factor)
        normal = torch.empty_like(self.base).normal_(generator=generator)
        return self.base + polarity * self.edge + self._noise(normal)

    def _noise(self, normal: Tensor) -> Tensor:
        """σ·Pε of standard normal ε, (N, C, H, W)."""
        return self.sigma * remove_block_means(normal, self.factor)

    @property
    def _p(self) -> Tensor:
        return repeat_blocks(self.probability, self.factor)

    @property
    def _pq(self) -> Tensor:
        p = self._p
        return p * (1.0 - p)


def oracle_law(low_res: Tensor, factor: int, *, base: str = BILINEAR) -> OracleLaw:
    """The law of Y given the low-res images; everything is computed in their dtype.

    With lum the channel mean, g its gradient (central differences, replicated border) and
    s = |g|/(|g| + 0.08): σ = 0.04 + 0.16 s, a = 0.25 s, p = sigmoid(4 lum),
    w = |g_x|/(|g_x| + |g_y| + 10⁻³), B = a (w b_v + (1 − w) b_h) with b_v, b_h a step from −1 to 1
    across the columns, rows of a block.

    Args:
        low_res: (N, C, h, w), about [-0.5, 0.5]: `PHOTO_SCALE` times a photograph in [-1, 1].
        factor: f ≥ 2. A block of odd side has a middle row and column of zeros.
        base: what the smooth image is made by, `bilinear` or `bicubic` (`smooth_base`).

    Raises:
        ValueError: for a factor below 2, where area(Y) = x leaves nothing to be random, or for
            another base.
    """
    if factor < 2:
        raise ValueError(f"the oracle needs a factor of 2 or more between the sizes, got {factor}")
    luminance = low_res.mean(dim=1, keepdim=True)  # (N, 1, h, w)
    g_x, g_y = _central_differences(luminance)
    gradient = torch.sqrt(g_x**2 + g_y**2)
    strength = gradient / (gradient + _HALF_GRADIENT)
    share = g_x.abs() / (g_x.abs() + g_y.abs() + _TINY_GRADIENT)
    height = _EDGE_HEIGHT * strength
    columns, rows = _step_patterns(low_res, factor)  # (1, 1, H, W) each
    edge = repeat_blocks(height * share, factor) * columns
    edge = edge + repeat_blocks(height * (1.0 - share), factor) * rows
    return OracleLaw(
        base=smooth_base(low_res, factor, base),
        edge=edge,
        sigma=repeat_blocks(_SIGMA_FLAT + _SIGMA_EDGE * strength, factor),
        probability=torch.sigmoid(_POLARITY_SLOPE * luminance),
    )


def smooth_base(low_res: Tensor, factor: int, base: str = BILINEAR) -> Tensor:
    """base(x) = up(x) + repeat(x − area(up(x))), (N, C, H, W): area(base(x)) = x.

    up is bilinear, or bicubic (Keys' kernel with a = −0.75), border pixels replicated.

    Raises:
        ValueError: for another base.
    """
    if base not in (BILINEAR, BICUBIC):
        raise ValueError(f"the oracle's base is {BILINEAR} or {BICUBIC}, not {base!r}")
    upsampled = F.interpolate(low_res, scale_factor=float(factor), mode=base, align_corners=False)
    return upsampled + repeat_blocks(low_res - F.avg_pool2d(upsampled, factor), factor)


def repeat_blocks(low_res: Tensor, factor: int) -> Tensor:
    """Every low-res pixel repeated to its f×f block, (N, C, h, w) to (N, C, f·h, f·w)."""
    return low_res.repeat_interleave(factor, dim=-2).repeat_interleave(factor, dim=-1)


def block_sums(image: Tensor, factor: int) -> Tensor:
    """Sum over each f×f block, (N, C, f·h, f·w) to (N, C, h, w)."""
    return F.avg_pool2d(image, factor) * factor**2


def remove_block_means(image: Tensor, factor: int) -> Tensor:
    """The projection P: each channel minus the mean of its block, shape kept."""
    return image - repeat_blocks(F.avg_pool2d(image, factor), factor)


def _central_differences(luminance: Tensor) -> tuple[Tensor, Tensor]:
    padded = F.pad(luminance, (1, 1, 1, 1), mode="replicate")
    g_x = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2.0
    g_y = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2.0
    return g_x, g_y  # (N, 1, h, w) each


def _step_patterns(low_res: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """b_v and b_h on the whole image, (1, 1, H, W): −1 in the first half of a block, then 1."""
    positions = 2 * torch.arange(factor, device=low_res.device) - (factor - 1)
    step = torch.sign(positions).to(low_res.dtype)  # (f,)
    height, width = low_res.shape[-2:]
    columns = step.repeat(width).expand(1, 1, height * factor, width * factor)
    rows = step.repeat(height)[:, None].expand(1, 1, height * factor, width * factor)
    return columns, rows
