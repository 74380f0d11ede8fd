"""What the nets are worth in exact samples, and what they predict better than the samples.

Both work on means over pixels, of one image, of all, or of a bootstrap replicate. docs/theory.md,
eq. 45 to 47.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from scipy.special import digamma, gammaln

from sr_var.results.moments import Array
from sr_var.verify.numbers.reference import student

PAIRED = ("nll", "crps", "interval_score_90")
_ROUTES = ("nets", "samples", "expected")


def equivalent_samples(means: Mapping[str, Array]) -> dict[str, Array]:
    """The number of exact samples whose moments have the same mean squared error, by dotted name.

    `truth.….equivalent_samples_mean` ⟨v⟩/⟨(m − μ)²⟩, since x̄ of n has ⟨v⟩/n; of the variance,
    `…_variance`, the n at which ⟨Var(k₂)⟩ = ⟨μ₄⟩/n − ⟨v²⟩(n − 3)/(n(n − 1)) is ⟨(v̂ − v)²⟩: the
    larger root of S n² − (S + ⟨μ₄⟩ − ⟨v²⟩) n + ⟨μ₄⟩ − 3⟨v²⟩ = 0. Infinite without an error. Of
    n exact samples themselves both are n, up to their noise.

    Args:
        means: of `floors.truth_means`.
    """
    found: dict[str, Array] = {}
    fourth, square = means["truth.fourth"], means["truth.v_square"]
    with np.errstate(divide="ignore", invalid="ignore"):
        for route in _ROUTES:
            of = f"truth.{route}."
            error = means[of + "scatter"]
            half = (error + fourth - square) / 2
            root = np.sqrt(np.maximum(half**2 - error * (fourth - 3 * square), 0))
            found[of + "equivalent_samples_mean"] = means["truth.v"] / means[of + "square"]
            found[of + "equivalent_samples_variance"] = (half + root) / error
    return found


def equivalent_text(
    truth: Mapping[str, float], intervals: Mapping[str, list[float] | None], num_samples: int
) -> str:
    """One sentence: what the nets' section `truth.nets` is worth, with 95 % intervals."""
    said = []
    for part in ("mean", "variance"):
        name = f"equivalent_samples_{part}"
        interval = intervals.get(f"truth.nets.{name}")
        value, *ends = (f"{number:.0f}" for number in (truth[name], *(interval or ())))
        said.append(f"{value} [{', '.join(ends)}]" if ends else value)
    there = f"; there are {num_samples} here" if num_samples else ""
    return (
        f"The nets' mean is worth {said[0]} exact samples, their variance {said[1]} (of the same "
        f"rms error{there})."
    )


def paired_differences(means: Mapping[str, Array]) -> dict[str, Array]:
    """Nets less samples of each score of `PAIRED`, pixel by pixel: below 0 the nets are better.

    `paired.<score>` as measured. `paired.fair_<score>` without what n samples of a normal law lose
    by being so few (`handicap`): as against infinitely many.
    """
    num_samples = round(float(np.ravel(means["samples.count"])[0]))
    lost = handicap(num_samples)
    found: dict[str, Array] = {}
    for name in PAIRED:
        difference = means[f"nets.{name}"] - means[f"samples.{name}"]
        scale = 1.0 if name == "nll" else means["samples.sharpness_mean_std"]
        found[f"paired.{name}"] = difference
        found[f"paired.fair_{name}"] = difference + lost[name] * scale
    return found


@lru_cache(maxsize=8)
def handicap(num_samples: int) -> dict[str, float]:
    """What n samples of a normal law lose against the law: nats, or shares of E s′.

    s′² = k₂(1 + 1/n), so E s′ = σ c √(1 + 1/n), c = √(2/(n−1)) Γ(n/2)/Γ((n−1)/2), and
    E ln s′²/σ² = ψ((n−1)/2) − ln((n−1)/2) + ln(1 + 1/n).
    """
    few, many, half = student(num_samples), student(None), (num_samples - 1) / 2
    log_c = float(gammaln(half + 0.5) - gammaln(half)) - 0.5 * math.log(half)
    of_std = math.exp(log_c) * math.sqrt(1 + 1 / num_samples)
    log_square = float(digamma(half)) - math.log(half) + math.log(1 + 1 / num_samples)
    return {
        "nll": 0.5 * (log_square + few.z2 - many.z2),
        "crps": few.crps - many.crps / of_std,
        "interval_score_90": few.score - many.score / of_std,
    }
