"""Principal components of blocks, a network's and those of samples, against the oracle's.

All blocks of the oracle have one leading component and then equal ones, so what can be judged is
the leading one, its variance, that of the second, and the trace. Only where the leading variance
stands out is its direction anything to find. Not for networks: see `benchmarks.beyond_pixels`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from oracle.functionals import leading_component, other_variance, trace
from oracle.law import OracleLaw, block_sums, repeat_blocks
from sr_var.components import blocks_of, components_of
from sr_var.results.folder import strip

# ratios of the leading variance to the others, from, to
_GROUPS = ((1.0, 3.0), (3.0, 10.0), (10.0, float("inf")))
_NUM_SHOWN, _ENLARGED = 4, 2
Row = dict[str, Any]


@dataclass(frozen=True)
class Components:
    """What is said of each block, of images in [-1, 1].

    Attributes:
        leading: (N, D, h, w) the leading direction, of length 1.
        variances: (N, 2 or more, h, w) of the leading components.
        trace: (N, h, w) sum of all variances of the block.
    """

    leading: Tensor
    variances: Tensor
    trace: Tensor


def of_net(output: Tensor, factor: int, pixels: Tensor) -> Components:
    """Of a network of components; the trace is that of pixels' variances, (N, C, H, W)."""
    directions, variances = components_of(output, factor, pixels.shape[1])
    total = block_sums(pixels, factor).sum(dim=1)
    return Components(directions[:, 0].double(), variances.double(), total.double())


def of_samples(law: OracleLaw, num_samples: int) -> Components:
    """Of the sample covariance of as many exact samples of each image."""
    generator = torch.Generator().manual_seed(2)
    parts = []
    for i in range(len(law.base)):
        one = OracleLaw(*(part[i : i + 1] for part in vars(law).values()))
        drawn = torch.cat([one.sample(generator) for _ in range(num_samples)])
        blocks = blocks_of(drawn - drawn.mean(dim=0), law.factor).permute(2, 3, 0, 1)
        values, vectors = torch.linalg.eigh(blocks.mT @ blocks / (num_samples - 1))
        leading = vectors[..., -1].permute(2, 0, 1)
        both = values[..., [-1, -2]].permute(2, 0, 1)
        parts.append(Components(leading, both, values.sum(dim=-1)))
    return Components(*(torch.stack([vars(p)[name] for p in parts]) for name in vars(parts[0])))


def components_row(law: OracleLaw, net: Components, samples: Components) -> Row:
    """How far both are from the exact components, by how far the leading variance stands out.

    `groups`: of blocks whose λ₁/σ² is from `low` to below `high`, their `share`, and for both the
    means of |w·w₁|, of |λ̂₁ − λ₁|/λ₁, |λ̂₂ − σ²|/σ² and of the relative error of the trace.
    `net`, `samples`: the same of all blocks, weighted by 1 − σ²/λ₁.
    """
    vector, value = leading_component(law)
    other = other_variance(law)
    ratio = (value / other)[:, 0]
    exact = Components(
        blocks_of(vector, law.factor), torch.cat([value, other], dim=1), trace(law)[:, 0]
    )
    found = {"net": _errors(net, exact), "samples": _errors(samples, exact)}
    groups = []
    for low, high in _GROUPS:
        mask = ((ratio >= low) & (ratio < high)).double()
        group: Row = {"low": low, "high": high, "share": float(mask.mean())}
        groups.append(group | {name: _weighted(of, mask) for name, of in found.items()})
    weight = 1.0 - 1.0 / ratio
    return {"groups": groups, **{name: _weighted(of, weight) for name, of in found.items()}}


def _errors(found: Components, exact: Components) -> dict[str, Tensor]:
    relative = (found.variances[:, :2] - exact.variances).abs() / exact.variances
    return {
        "cosine": (found.leading * exact.leading).sum(dim=1).abs(),
        "leading": relative[:, 0],
        "second": relative[:, 1],
        "trace": (found.trace - exact.trace).abs() / exact.trace,
    }


def _weighted(errors: Mapping[str, Tensor], weight: Tensor) -> dict[str, float]:
    total = weight.sum().clamp(min=1e-9)
    return {name: float((value * weight).sum() / total) for name, value in errors.items()}


def format_components(row: Mapping[str, Any]) -> str:
    """The row in Markdown: a line each group; a network's figure and that of samples beside it."""
    titles = ("cosine of the leading direction", "λ₁: error", "λ₂: error", "trace: error")
    lines = [
        f"| λ₁/σ² | share of blocks | {' | '.join(titles)} |",
        "|---|---|---|---|---|---|",
    ]
    for group in row["groups"]:
        is_last = group["high"] == float("inf")
        text = f"from {group['low']:g} on" if is_last else f"{group['low']:g} to {group['high']:g}"
        lines.append(_line(text, f"{100 * group['share']:.0f} %", group))
    lines.append(_line("all, weighted by 1 − σ²/λ₁", "100 %", row))
    return "\n".join(lines) + "\n"


def _line(title: str, share: str, found: Mapping[str, Any]) -> str:
    net, samples = found["net"], found["samples"]
    cells = [f"{net['cosine']:.3f} / {samples['cosine']:.3f}"]
    for name in ("leading", "second", "trace"):
        cells.append(f"{100 * net[name]:.3g} % / {100 * samples[name]:.3g} %")
    return f"| {title} | {share} | {' | '.join(cells)} |"


def pictured(law: OracleLaw, means: Tensor, net: Components) -> npt.NDArray[np.uint8]:
    """Low-res, mean, mean − √λ₁ w₁, mean + √λ₁ w₁ of the nets, and the last two of the law.

    A row each of those images whose leading component is largest; the signs of the net's blocks
    are those of the law's.
    """
    vector, value = leading_component(law)
    exact = blocks_of(vector, law.factor)
    sign = torch.where((exact * net.leading).sum(dim=1, keepdim=True) < 0, -1.0, 1.0)
    std = net.variances[:, :1].sqrt()
    own = torch.nn.functional.pixel_shuffle(sign * std * net.leading, law.factor)
    truth = repeat_blocks(value.sqrt(), law.factor) * vector
    shown = value.mean(dim=(1, 2, 3)).argsort(descending=True)[:_NUM_SHOWN]
    low_res = repeat_blocks(block_sums(law.base, law.factor) / law.factor**2, law.factor)
    images = (low_res, means, means - own, means + own, law.mean - truth, law.mean + truth)
    # the law's images are photographs of half the contrast
    rows = strip(*((2.0 * image[shown].double()).clamp(-1, 1) for image in images))
    return rows.repeat(_ENLARGED, axis=0).repeat(_ENLARGED, axis=1)
