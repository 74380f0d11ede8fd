"""How often calibrated intervals keep their promise, on laws whose true risk is known.

    python -m benchmarks.guarantee --output_dir outputs/bench

A calibration has n units of some pixels each. The errors of a unit in stds are c·Z: Z is the law of
its pixels, and c, which the std does not know, is drawn for each unit. So the expected share of
pixels outside at a factor λ is E P(|Z| > λ/c), a sum or an integral of one dimension. Each of the
repetitions draws a new calibration, chooses λ with the functions of `sr_var.calibrate.risk`, and
asks for that share. docs/calibration.md has the table.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, t

from sr_var.calibrate.risk import allowed_risk, share_outside, smallest_factor
from utils.files.atomic import write_text_atomic

Array = npt.NDArray[np.float64]
ALPHA = DELTA = 0.1
NUM_PIXELS = 64
_SPREAD = 0.5
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(80)


@dataclass(frozen=True)
class Law:
    """Errors of an image in stds: c·Z, with c out of `scales` with `shares`; Z normal or heavy."""

    name: str
    scales: tuple[float, ...] = (1.0,)
    shares: tuple[float, ...] = (1.0,)
    is_heavy: bool = False

    def scores(self, rng: np.random.Generator, num_units: int, num_tiles: int = 1) -> Array:
        """|error|/std of a calibration, (n · tiles, pixels); tiles of a unit share their c."""
        scale = rng.choice(self.scales, (num_units, 1), p=self.shares).repeat(num_tiles, 0)
        shape = (len(scale), NUM_PIXELS)
        z = rng.standard_t(3, shape) if self.is_heavy else rng.standard_normal(shape)
        return np.abs(scale * z)

    def risk(self, factor: Array, shift: float = 1.0) -> Array:
        """The expected share outside at each factor, of images whose errors are `shift` times."""
        outside = t(3).sf if self.is_heavy else norm.sf
        found = np.zeros_like(factor)
        for scale, share in zip(self.scales, self.shares, strict=True):
            found += share * 2 * outside(factor / (scale * shift))
        return found


def _lognormal(spread: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """exp(spread·N(0, 1)) as 80 points (Gauss and Hermite)."""
    return tuple(np.exp(spread * _NODES)), tuple(_WEIGHTS / _WEIGHTS.sum())


LAWS = (
    Law("std is right"),
    Law("error of an image e^(N/2) times its std", *_lognormal(_SPREAD)),
    Law("the same, heavy tails (t, 3 degrees)", *_lognormal(_SPREAD), is_heavy=True),
    Law("every eighth image 100 times its std", (1.0, 100.0), (0.875, 0.125)),
)


class Outcome(NamedTuple):
    """Of many repetitions: the true risks of the chosen factors."""

    mean: float
    standard_error: float
    share_above: float


def repeat(
    law: Law,
    num_units: int,
    delta: float | None,
    *,
    num_repetitions: int = 1000,
    num_tiles: int = 1,
    shift: float = 1.0,
    seed: int = 0,
) -> Outcome:
    """Calibrate again and again, and ask for the true risk each time.

    Args:
        delta: None: conformal risk control.
        num_tiles: of each unit; more than 1: they are taken, wrongly, for units of their own.
        shift: errors in stds of the images that are predicted, over those of the calibration's.
    """
    rng = np.random.default_rng(seed)
    allowed = allowed_risk(num_units * num_tiles, ALPHA, delta)
    factors = []
    for _ in range(num_repetitions):
        # all images are of one size: the mean of their shares is the share of all
        risk = share_outside(law.scores(rng, num_units, num_tiles))
        factors.append(smallest_factor(risk, allowed) or np.inf)
    found = law.risk(np.array(factors), shift)
    error = found.std(ddof=1) / np.sqrt(num_repetitions)
    return Outcome(float(found.mean()), float(error), float((found > ALPHA).mean()))


def _row(cells: Sequence[object]) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _cells(outcome: Outcome) -> list[str]:
    return [
        f"{100 * outcome.mean:.2f} ± {100 * outcome.standard_error:.2f}",
        f"{100 * outcome.share_above:.1f}",
    ]


def tables(num_repetitions: int) -> str:
    """Both tables as Markdown: exchangeable images, and what a shift and tiles do."""
    head = ["share outside, mean, %", "calibrations with more than 10 %, %"]

    def table(titles: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
        return [_row([*titles, *head]), _row(["---"] * (len(titles) + 2)), *map(_row, rows)]

    run: Callable[..., Outcome] = partial(repeat, num_repetitions=num_repetitions)
    kept: list[list[object]] = []
    for method, delta, counts in (("conformal", None, (12, 100)), ("risk_control", 0.1, (22, 138))):
        for law in LAWS:
            kept += [[method, law.name, n, *_cells(run(law, n, delta))] for n in counts]
    broken: list[list[object]] = []
    for method, delta, n in (("conformal", None, 100), ("risk_control", DELTA, 138)):
        for shift in (1.2, 1.5, 2.0):
            name = f"errors {shift:g} times those of the calibration"
            broken.append([method, name, n, *_cells(run(LAWS[1], n, delta, shift=shift))])
    for method, delta in (("conformal", None), ("risk_control", DELTA)):
        name = "tiles counted: 12 of each of 12 photographs, every eighth 100 times its std"
        broken.append([method, name, 144, *_cells(run(LAWS[3], 12, delta, num_tiles=12))])
    titles = ["method", "law", "n"]
    return "\n".join([*table(titles, kept), "", *table(["method", "what is wrong", "n"], broken)])


def main(argv: list[str] | None = None) -> int:
    """Repeat, print, write `guarantee.md`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num_repetitions", type=int, default=1000)
    parser.add_argument("--output_dir", default="outputs/bench")
    args = parser.parse_args(argv)
    text = tables(args.num_repetitions)
    print(text)
    os.makedirs(args.output_dir, exist_ok=True)
    write_text_atomic(os.path.join(args.output_dir, "guarantee.md"), text + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
