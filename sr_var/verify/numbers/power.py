"""How many independent images, and samples of each, a verdict within a margin takes.

A unit scatters by s, so that N of them have the standard error s/√N. A verdict that is true is
reached with the power 1 − β if its distance from the margin is (t + z) s/√N: t of the verdict's
one-sided level, z the normal quantile of 1 − β (docs/theory.md, eq. 39 to 41).
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import NamedTuple, TypedDict

from scipy import stats

from sr_var.verify.numbers.intervals import MIN_UNITS, plural
from sr_var.verify.numbers.verdict import VERDICT_LEVEL
from utils.files.atomic import JsonObject
from utils.files.records import is_number, read_record
from utils.process.errors import DataError
from utils.sizes import Size, SizeLike

POWER = 0.8
PARTS = ("mean", "variance", "bias")
_MANY = 1_000_000
# the variance of k₂ is not known with fewer
_LEAST_SAMPLES = 4
# what an image scatters by noise, times the side of its low-res image, and by the errors of nets,
# over their square: on pieces of data/demo under the oracle's law (docs/verification.md)
NOISE = {"mean": 0.64, "variance": 0.56, "bias": 0.41}
_ERRORS = {"mean": 1.1, "variance": 0.75, "bias": 0.0}


class Need(TypedDict):
    """Images for a verdict: of exact nets, and of nets that are off by half of the margin.

    None where a million is not enough, or the samples are fewer than four.
    """

    num_samples: int
    exact: int | None
    half: int | None


class PartOfPilot(NamedTuple):
    """Of the mean or the variance a square, of the bias itself; and what a unit scatters by."""

    value: float
    scatter: float


class Pilot(NamedTuple):
    """What a `results.json` says of its verdict."""

    num_samples: int
    kind: str
    num_units: int
    parts: Mapping[str, PartOfPilot]


def noise_scatter(part: str, num_samples: int, small_size: SizeLike) -> float:
    """s of exact nets: of the squared error of mean or variance as a share, or of the bias.

    Of n samples of a normal law √(2n/(n − 1))/n, 2/(n − 1) and √(2/(n − 1)) a pixel; the blocks of
    low-res pixels are what is independent in an image.
    """
    n = num_samples
    of_pixel = {
        "mean": math.sqrt(2 * n / (n - 1)) / n,
        "variance": 2 / (n - 1),
        "bias": math.sqrt(2 / (n - 1)),
    }
    small = Size.of(small_size)
    side = small.height if small.is_square else math.sqrt(math.prod(small))
    return NOISE[part] * of_pixel[part] / side


def units_needed(scatter: float, distance: float) -> int | None:
    """Smallest number of units, at least `MIN_UNITS`; None where a million is not enough."""
    if not distance > 0:
        return None
    power, count = NormalDist().inv_cdf(POWER), MIN_UNITS
    while True:
        quantile = float(stats.t.ppf(0.5 + VERDICT_LEVEL / 2, count - 1))
        wanted = ((quantile + power) * scatter / distance) ** 2
        if wanted > _MANY:
            return None
        if wanted <= count:
            return count
        count = math.ceil(wanted)


def images_needed(
    margin: float, num_samples: int, small_size: SizeLike, share: float
) -> int | None:
    """Images for all three verdicts of nets whose errors are `share` (below 1) of the margin."""
    if num_samples < _LEAST_SAMPLES:
        return None
    counts = []
    for part in PARTS:
        power = 1 if part == "bias" else 2
        border = margin**power
        own = _ERRORS[part] * border * share**power
        scatter = math.hypot(noise_scatter(part, num_samples, small_size), own)
        counts.append(units_needed(scatter, border * (1 - share**power)))
    known = [count for count in counts if count is not None]
    return max(known) if len(known) == len(counts) else None


def needs(margin: float, num_samples: Sequence[int], small_size: SizeLike) -> list[Need]:
    """What each number of samples takes."""
    return [
        {
            "num_samples": n,
            "exact": images_needed(margin, n, small_size, 0.0),
            "half": images_needed(margin, n, small_size, 0.5),
        }
        for n in num_samples
    ]


def read_pilot(path: str) -> Pilot:
    """What an earlier verification says.

    Raises:
        DataError: there is no such file, it is damaged, or it has no verdict with standard errors.
    """
    remedy = "give the results.json of a verification against samples, made by this version"
    try:
        return read_record(path, remedy, _parsed)
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"--pilot {os.fspath(path)}: there is no such file; {remedy}") from None


def _parsed(content: JsonObject) -> Pilot:
    count, parts = content["clusters"]["count"], {}
    for part in PARTS:
        value, error = (content["verdict"][part][key] for key in ("value", "standard_error"))
        if is_number(value) and is_number(error):
            square = value if part == "bias" else math.copysign(value**2, value)
            parts[part] = PartOfPilot(float(square), float(error) * math.sqrt(count))
    if not parts or not (is_number(count) and count > 1):
        raise ValueError("it has no verdict with standard errors")
    return Pilot(int(content["num_samples"]), str(content["clusters"]["kind"]), int(count), parts)


def needs_by_pilot(
    pilot: Pilot, margin: float, num_samples: int
) -> dict[str, tuple[str, int | None]]:
    """By part, the verdict that a pilot makes likely, and the units that it takes.

    With more samples than the pilot's the scatter is taken to stay (as errors of nets do), with
    fewer to grow as 1/n (as noise does): both are at most too many.
    """
    found = {}
    for name, part in pilot.parts.items():
        border = margin if name == "bias" else margin**2
        value = abs(part.value) if name == "bias" else part.value
        scatter = part.scatter * max(1.0, pilot.num_samples / num_samples)
        word = "equivalent" if value < border else "different"
        found[name] = word, units_needed(scatter, abs(border - value))
    return found


def power_text(margin: float, found: Sequence[Need]) -> str:
    """The needs by the plan's flags alone, as a table."""
    lines = [
        f"images for a verdict within ±{100 * margin:g} %, reached in {100 * POWER:.0f} % of the "
        "cases:",
        f"{'samples':>8}{'exact nets':>14}{'off by half of the margin':>28}",
    ]
    for need in found:
        cells = [_shown(need[key]) for key in ("exact", "half")]
        lines.append(f"{need['num_samples']:>8}{cells[0]:>14}{cells[1]:>28}")
    lines.append(f"(at least {MIN_UNITS}, below which intervals do not hold; 4 samples at least)")
    return "\n".join(lines)


def pilot_text(pilot: Pilot, margin: float, num_samples: Sequence[int]) -> str:
    """What a pilot makes likely, a line for each number of samples."""
    of, shaky = plural(pilot.kind), 100 / math.sqrt(2 * (pilot.num_units - 1))
    lines = [
        f"by the pilot of {pilot.num_units} {of} and {pilot.num_samples} samples, whose "
        f"standard errors are known to ±{shaky:.0f} %, {of} for a verdict within "
        f"±{100 * margin:g} %:"
    ]
    for n in num_samples:
        parts = needs_by_pilot(pilot, margin, n).items()
        said = [f"{name} {word}, {_shown(count)}" for name, (word, count) in parts]
        lines.append(f"{n:>8} samples: {'; '.join(said)}")
    return "\n".join(lines)


def _shown(count: int | None) -> str:
    return "too many" if count is None else f"{count:,}"
