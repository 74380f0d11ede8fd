"""What `make demo` reached, seed by seed, beside what it should reach: a table.

    for seed in 0 1 2; do python demo.py --seed $seed; done
    python -m benchmarks.demo_seeds --seeds 0,1,2

Reads the verifications that the demo wrote (`logs/sr_compare/`); computes nothing anew.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sr_var.demo.commands import CPU, GPU, ITAKURA_SAITO, QUICK, Preset
from utils.process.errors import EXIT_DONE, DataError, run_main

PRESETS = {preset.name: preset for preset in (CPU, QUICK, GPU)}
Results = dict[str, Any]


@dataclass(frozen=True)
class Target:
    """A figure of the two `results.json` and the bounds that its median should keep.

    `read` takes that of the photographs and that of the oracle; a bound may be another figure of
    the same files.
    """

    title: str
    read: Callable[[Results, Results], float]
    low: Callable[[Results, Results], float] | None = None
    high: Callable[[Results, Results], float] | None = None


def _at(section: str, *keys: str) -> Callable[[Results, Results], float]:
    """A reader of `section` of the photographs, or of `truth` of the oracle."""

    def read(photos: Results, oracle: Results) -> float:
        value: Any = (oracle if section == "truth" else photos)[section]
        for key in keys:
            value = value[key]
        return float(value)

    return read


def _fixed(value: float) -> Callable[[Results, Results], float]:
    return lambda photos, oracle: value


def _gain(photos: Results, oracle: Results) -> float:
    psnr = photos["high_res"]
    return float(psnr["psnr_net"] - psnr["psnr_bilinear"])


def _beyond_samples(photos: Results, oracle: Results) -> float:
    psnr = photos["high_res"]
    return float(psnr["psnr_net"] - psnr["psnr_samples"])


_NETS, _SAMPLES = ("calibration", "nets"), ("calibration", "samples")
_TRUE = ("truth", "nets"), ("truth", "samples")
TARGETS = (
    Target("error² / variance, nets", _at(*_NETS, "z2"), _fixed(0.7), _fixed(1.5)),
    Target(
        "95 % intervals hold, nets", _at(*_NETS, "coverage_95"), low=_fixed(0.92), high=_fixed(0.97)
    ),
    Target("negative variances", _at("var", "num_negative"), high=_fixed(0)),
    Target("mean net over bilinear, dB", _gain, low=_fixed(1.2)),
    Target("mean net over the samples' mean, dB", _beyond_samples, low=_fixed(0)),
    Target("negative log-likelihood, nats", _at(*_NETS, "nll"), high=_at(*_SAMPLES, "nll")),
    Target("std maps correlate, without noise", _at("ceiling", "disattenuated"), low=_fixed(0.7)),
    Target("error² / variance, samples", _at(*_SAMPLES, "z2")),
    Target("95 % intervals hold, samples", _at(*_SAMPLES, "coverage_95")),
    Target(
        "oracle, mean: squared error / variance",
        _at(*_TRUE[0], "relative_mse"),
        high=_at(*_TRUE[1], "relative_mse"),
    ),
    Target(
        "oracle, variance: mean relative error",
        _at(*_TRUE[0], "relative_var_error"),
        high=_at(*_TRUE[1], "relative_var_error"),
    ),
)


def load_results(preset: Preset) -> tuple[Results, Results]:
    """The results of the photographs and of the oracle.

    Raises:
        DataError: a demo of this preset and seed has not come to its end.
    """
    found = []
    for folder in (preset.log_dir, preset.oracle.log_dir(ITAKURA_SAITO)):
        path = Path(folder, "results.json")
        if not path.exists():
            raise DataError(f"{path} does not exist; run demo.py --seed {preset.seed} to its end")
        found.append(json.loads(path.read_text(encoding="utf-8")))
    return found[0], found[1]


def format_table(seeds: Sequence[int], results: Sequence[tuple[Results, Results]]) -> str:
    """Markdown: a row for each figure; its seeds, their median, the bounds, and whether it keeps
    them."""
    columns = ["", *(f"seed {seed}" for seed in seeds), "median", "wanted", ""]
    lines = [_row(columns), _row(["---"] * len(columns))]
    for target in TARGETS:
        values = [target.read(*pair) for pair in results]
        median = statistics.median(values)
        bounds = [
            bound and statistics.median([bound(*pair) for pair in results])
            for bound in (target.low, target.high)
        ]
        low, high = bounds
        wanted = " ".join(
            f"{sign} {bound:.4g}"
            for sign, bound in zip("≥≤", bounds, strict=True)
            if bound is not None
        )
        is_kept = (low is None or median >= low) and (high is None or median <= high)
        verdict = ("yes" if is_kept else "**no**") if wanted else ""
        lines.append(
            _row([target.title, *(f"{v:.4g}" for v in values), f"{median:.4g}", wanted, verdict])
        )
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", default="0,1,2", help="of demo.py, comma separated")
    parser.add_argument("--preset", default=CPU.name, choices=sorted(PRESETS))
    flags = parser.parse_args(argv)
    seeds = [int(seed) for seed in flags.seeds.split(",")]
    presets = [PRESETS[flags.preset].with_seed(seed) for seed in seeds]
    print(format_table(seeds, [load_results(preset) for preset in presets]))
    return EXIT_DONE


if __name__ == "__main__":
    run_main(main)
