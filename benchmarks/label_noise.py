"""Labels with added noise of std s: does the mean net stay, and the variance net rise by s²?

    python -m benchmarks.label_noise                    (about 10 minutes on one core)

For each s and seed a mean and a variance net are trained on fresh draws Y + e of the oracle's law
(`sr_mean_train.py --label_noise s` does the same with images of files), and held against the exact
moments of Y. Writes `label_noise_<date>.json` and `.md` to `--output_dir`; docs/oracle.md has the
table.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if not __package__:
    sys.path.insert(0, str(ROOT))  # run as a file, it finds only its own folder

import torch  # noqa: E402

from benchmarks.record import RESULTS_DIR, write_rows  # noqa: E402
from benchmarks.time_to_truth import HowFlags, bench_of  # noqa: E402
from benchmarks.truth_routes import ROUTES, Bench, Row, Trial  # noqa: E402
from oracle.law import BILINEAR  # noqa: E402
from utils.metrics import HALF_RANGE_255  # noqa: E402
from utils.process.errors import EXIT_DONE, run_main  # noqa: E402
from utils.script_util import (  # noqa: E402
    FlagParser,
    flag,
    from_args,
    make_parser,
    require_at_least,
)

ROUTE = next(route for route in ROUTES if route.name == "subpixel_muon")


@dataclass(frozen=True)
class NoiseFlags(HowFlags):
    """How much noise, and how long the nets train."""

    label_noise: str = flag("0,10,25", "stds of the labels' noise, grey levels, comma separated")
    steps: int = flag(800, "training steps of each net")
    seeds: str = flag("0,1,2", "of weights and data, comma separated; the table has medians")
    small_size: int = 8
    threads: int = 1
    output_dir: str = flag(str(RESULTS_DIR), "folder of the two files")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, steps=1)
        if min(self.stds) < 0 or min(self.seed_list) < 0:
            raise ValueError(
                f"--label_noise {self.label_noise} and --seeds {self.seeds} must not be negative"
            )

    @property
    def stds(self) -> list[float]:
        """The parsed `label_noise`."""
        return _numbers(self, "label_noise")

    @property
    def seed_list(self) -> list[int]:
        """The parsed `seeds`."""
        return [int(seed) for seed in _numbers(self, "seeds")]


def _numbers(flags: NoiseFlags, name: str) -> list[float]:
    text = getattr(flags, name)
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--{name} {text!r} must be numbers separated by commas") from None


def create_parser() -> FlagParser:
    """The flags of this script."""
    return make_parser(__doc__, benchmark=NoiseFlags)


def rows_of(flags: NoiseFlags, bench: Bench) -> list[Row]:
    """A row for each std: medians over the seeds.

    `relative_mse` ⟨(m̂ − μ)²⟩ / ⟨v⟩; `rise` ⟨v̂⟩ − ⟨v⟩, grey levels²; `relative_var_error`
    ⟨|v̂ − v − s²| / (v + s²)⟩.
    """
    mean_variance = float(bench.law(BILINEAR).variance.mean()) * HALF_RANGE_255**2
    rows = []
    for std in flags.stds:
        noisy = replace(bench, label_noise=std)
        trials = [Trial(ROUTE, 2.0 * flags.steps, seed, BILINEAR) for seed in flags.seed_list]
        found = [noisy.run(trial) for trial in trials]
        median = {
            name: statistics.median(one[name] for one in found)
            for name in ("relative_mse", "relative_var_error", "var_bias", "seconds")
        }
        noisy_variance = mean_variance + std**2  # what the errors are shares of
        rise = std**2 + median.pop("var_bias") * noisy_variance
        median["relative_mse"] *= noisy_variance / mean_variance
        rows.append({"label_noise": std, "added": std**2, "rise": rise, **median})
        print(f"s = {std:g}: {rows[-1]}", flush=True)
    return rows


def format_table(rows: Sequence[Row]) -> str:
    """The rows in Markdown."""
    lines = [
        "| s, grey levels | mean: squared error / variance of Y | s² | mean v̂ − mean v | "
        "mean \\|v̂ − v − s²\\| / (v + s²) |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['label_noise']:g} | {100 * row['relative_mse']:.2f} % | {row['added']:g} | "
            f"{row['rise']:.1f} | {100 * row['relative_var_error']:.1f} % |"
        )
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> int:
    """Trains, judges, writes, prints; returns the exit code."""
    flags = from_args(NoiseFlags, create_parser().parse_args(argv))
    torch.set_num_threads(flags.threads or 1)
    bench = bench_of(replace(flags, mean_share=0.5, steps_per_second=1.0))
    rows = rows_of(flags, bench)
    write_rows("label_noise", Path(flags.output_dir), vars(flags), rows, format_table(rows))
    return EXIT_DONE


if __name__ == "__main__":
    run_main(main)
