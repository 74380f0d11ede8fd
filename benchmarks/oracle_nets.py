"""How far each way to a mean and a variance is from the exact law, after the same training.

    python benchmarks/oracle_nets.py                  (all routes, short: 20 minutes on two cores)
    python benchmarks/oracle_nets.py --name oracle_long --routes itakura_saito --width 16 \
--channel_mult 1,1,4 --batch_size 32 --lr 2e-3 --num_crops 8000 --num_test_crops 64 \
--mean_steps 4500 --var_steps 6000                   (the long run: an hour and a half on two cores)

Runs the scripts of the toolkit, prints each command, and goes on where it was when it was stopped.
Writes `<name>_<date>.json` and `.md` to `--output_dir`.
"""

from __future__ import annotations

import datetime
import importlib
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if not __package__:
    sys.path.insert(0, str(ROOT))  # run as a file, it finds only its own folder

from sr_var.demo.commands import (  # noqa: E402
    NUM_EXACT_SAMPLES,
    ROUTES,
    Nets,
    OracleExperiment,
    Route,
)
from utils.process.errors import EXIT_DONE, run_main  # noqa: E402
from utils.script_util import (  # noqa: E402
    FlagParser,
    flag,
    from_args,
    make_parser,
    require_known,
)

_FIGURES = ("relative_mse", "relative_var_error", "relative_rms_error", "var_bias")
_INTERVALS = ("raw_coverage", "coverage", "raw_mean_width", "mean_width")


@dataclass(frozen=True)
class NetsFlags:
    """What to train, how long, and where to write."""

    name: str = flag("oracle_routes", "of the folders in data, checkpoints, logs and outputs")
    routes: str = flag(",".join(r.name for r in ROUTES), "which, comma separated")
    width: int = flag(16, "channels of the networks")
    channel_mult: str = flag("1,1,2", "channel multipliers of the networks")
    batch_size: int = flag(16, "images of a step")
    lr: float = flag(3e-3, "learning rate at the start; it falls to 0")
    num_crops: int = flag(4000, "pieces of photographs for training, four draws of each")
    num_test_crops: int = flag(64, "pieces of the test photographs")
    num_calibration_crops: int = flag(0, "further pieces of them, to calibrate intervals on")
    mean_steps: int = flag(400, "steps of a mean net")
    var_steps: int = flag(400, "steps of a variance net; a baseline trains for as many as both")
    output_dir: str = flag(str(ROOT / "benchmarks/results"), "folder of the two files")

    def __post_init__(self) -> None:
        """Refuse routes that there are not.

        Raises:
            ValueError: names the flag and what it may be.
        """
        require_known(self, routes=(route.name for route in ROUTES))

    @property
    def chosen(self) -> list[Route]:
        """The routes in the order of the table."""
        return [route for route in ROUTES if route.name in self.routes.split(",")]

    @property
    def experiment(self) -> OracleExperiment:
        """The sizes."""
        own = ("routes", "output_dir", "width", "channel_mult")
        sizes = {name: value for name, value in vars(self).items() if name not in own}
        return OracleExperiment(nets=Nets(self.width, channel_mult=self.channel_mult), **sizes)


def create_parser() -> FlagParser:
    """The flags of this script."""
    return make_parser(__doc__, benchmark=NetsFlags)


def rows(experiment: OracleExperiment, routes: Sequence[Route]) -> list[dict[str, Any]]:
    """What the verifications found: one row a route, then that of the exact samples."""
    found, samples = [], {}
    for route in routes:
        path = Path(experiment.log_dir(route), "results.json")
        results = json.loads(path.read_text(encoding="utf-8"))
        truth, samples = results["truth"], results["truth"]["samples"]
        steps = experiment.mean_steps * (1 + route.num_folds) + experiment.var_steps
        found.append(
            {
                "route": route.name,
                "title": route.title,
                "training_images": steps * experiment.batch_size,
                "evaluations": results["cost"]["nets"]["evaluations_per_image"],
                **{name: truth["nets"][name] for name in _FIGURES},
                **{name: results["calibrated"][name] for name in _intervals(results)},
            }
        )
    title = f"{NUM_EXACT_SAMPLES} exact samples"
    exact = {name: samples[name] for name in _FIGURES}
    return [*found, {"route": "samples", "title": title, **exact}]


def _intervals(results: Mapping[str, Any]) -> tuple[str, ...]:
    return _INTERVALS if "calibrated" in results else ()


def format_table(found: Sequence[Mapping[str, Any]]) -> str:
    """The rows in Markdown, per cent."""
    is_calibrated = any("coverage" in row for row in found)
    of_intervals = " 90 % intervals hold | calibrated | times as wide |"
    lines = [
        "| route | training images | evaluations | mean: squared error / variance | variance: "
        f"mean relative error | relative rms error | relative bias |{is_calibrated * of_intervals}",
        f"|---|---|---|---|---|---|---|{is_calibrated * '---|---|---|'}",
    ]
    for row in found:
        cells = [
            row["title"],
            str(row.get("training_images", "–")),
            str(row.get("evaluations", "–")),
        ]
        cells += [f"{100 * row[name]:.3g} %" for name in _FIGURES[:-1]]
        cells.append(f"{100 * row['var_bias']:+.2g} %")
        if "coverage" in row:
            cells += [f"{100 * row[name]:.1f} %" for name in ("raw_coverage", "coverage")]
            cells.append(f"{row['mean_width'] / row['raw_mean_width']:.2f}")
        elif is_calibrated:
            cells += ["–"] * 3
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> int:
    """Trains, tests, judges, writes; returns the exit code of a command that did not finish."""
    flags = from_args(NetsFlags, create_parser().parse_args(argv))
    steps = flags.experiment.commands(flags.chosen)
    for number, (script, words) in enumerate(steps, 1):
        print(f"\n[{number}/{len(steps)}] python {script} {' '.join(words)}", flush=True)
        code: int = importlib.import_module(script.removesuffix(".py")).main(words)
        if code != EXIT_DONE:
            return code
    path = write_results(flags, rows(flags.experiment, flags.chosen))
    print(f"written: {path} and its .md")
    return EXIT_DONE


def write_results(flags: NetsFlags, found: Sequence[Mapping[str, Any]]) -> Path:
    """JSON and Markdown; returns the path of the JSON."""
    import torch

    today = datetime.date.today().isoformat()
    path = Path(flags.output_dir, f"{flags.name}_{today}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "date": today,
        "flags": {name: value for name, value in vars(flags).items() if name != "output_dir"},
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "results": list(found),
    }
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(format_table(found), encoding="utf-8")
    print("\n" + format_table(found))
    return path


if __name__ == "__main__":
    run_main(main)
