"""Seconds of training until two passes are as near to the exact law as n exact samples.

    python benchmarks/time_to_truth.py                 (two hours, on cores that are free)
    python benchmarks/time_to_truth.py --routes subpixel_consistent,subpixel_nll --base bilinear
    python benchmarks/time_to_truth.py --degradation 'area & noise:25'      (or 'area & mask:0.5')

Every route is trained anew for each budget, its learning rate falling to 0 at the end of it: what
somebody gets who has decided for that long. Run again after a stop, it goes on where it was.
Writes `<name>_<date>.json`, `.md` and `.png` to `--output_dir`.
"""

from __future__ import annotations

import datetime
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parent.parent
if not __package__:
    sys.path.insert(0, str(ROOT))  # run as a file, it finds only its own folder

import torch  # noqa: E402

from benchmarks.record import hardware, own_command  # noqa: E402
from benchmarks.truth_data import errors_of_samples, load_photos, observation_of  # noqa: E402
from benchmarks.truth_report import COUNTS, draw, format_tables  # noqa: E402
from benchmarks.truth_routes import MEAN, ROUTES, VARIANCE, Bench, Recipe, Row, Trial  # noqa: E402
from models.config import CONV3X3, RES_BLOCKS  # noqa: E402
from oracle.law import BICUBIC, BILINEAR  # noqa: E402
from sr_var.flags.degradation import AREA  # noqa: E402
from sr_var.flags.network import SUBPIXEL, UNET  # noqa: E402
from sr_var.flags.scripts import MeanModelFlags  # noqa: E402
from utils.files.atomic import write_json_atomic  # noqa: E402
from utils.files.records import differences, read_record, versions  # noqa: E402
from utils.flags.groups import AUTO, Precision  # noqa: E402
from utils.flags.training import TrainFlags  # noqa: E402
from utils.fp16_util import trains_in_bf16  # noqa: E402
from utils.machine.threads import num_cores, tune_allocator  # noqa: E402
from utils.process.errors import EXIT_DONE, DataError, run_main  # noqa: E402
from utils.script_util import (  # noqa: E402
    FlagParser,
    flag,
    from_args,
    make_parser,
    require_at_least,
    require_known,
)

Item = TypeVar("Item")
_PRECISIONS = AUTO, str(Precision.FP32), str(Precision.BF16)
_OF_PRECISION = "of the trainings; auto: bf16 where this CPU has arithmetic for it"


@dataclass(frozen=True)
class WhatFlags:
    """What is compared, for how long, and where it is written. Rows do not depend on these."""

    name: str = flag("time_to_truth", "of the files")
    routes: str = flag(",".join(r.name for r in ROUTES), "which, comma separated")
    budgets: str = flag("15,30,60,120,240", "seconds of training, all networks of a route together")
    seeds: str = flag("0", "of weights and data, comma separated; curves are medians over them")
    base: str = flag(f"{BILINEAR},{BICUBIC}", "smooth image of the law, comma separated")
    output_dir: str = flag(str(ROOT / "benchmarks/results"), "folder of the three files")
    rows_dir: str = flag(str(ROOT / "outputs/bench"), "folder of what is finished, until all is")

    def __post_init__(self) -> None:
        """Refuse lists with what there is not."""
        require_known(self, routes=(route.name for route in ROUTES), base=(BILINEAR, BICUBIC))
        if min(self.seconds) <= 0 or min(self.seed_list) < 0:
            raise ValueError(
                f"--budgets {self.budgets} must be positive, --seeds {self.seeds} not negative"
            )

    @property
    def seconds(self) -> list[float]:
        """The budgets, ascending."""
        return sorted(_numbers("budgets", self.budgets, float))

    @property
    def seed_list(self) -> list[int]:
        """The seeds."""
        return _numbers("seeds", self.seeds, int)

    @property
    def trials(self) -> list[Trial]:
        """All that is to be trained; routes that share a mean net stand together."""
        chosen = [route for route in ROUTES if route.name in self.routes.split(",")]
        return [
            Trial(route, budget, seed, base)
            for base in dict.fromkeys(self.base.split(","))
            for seed in self.seed_list
            for budget in self.seconds
            for route in chosen
        ]


@dataclass(frozen=True)
class HowFlags:
    """How networks are trained and judged: what every row depends on."""

    data_dir: str = flag(str(ROOT / "data/demo/train"), "photographs to train on")
    test_dir: str = flag(str(ROOT / "data/demo/test"), "photographs to judge on")
    num_test_crops: int = flag(64, "test images")
    small_size: int = flag(16, "side of the low-res images, pixels; the factor is 4")
    width: int = flag(48, "channels of the sub-pixel nets")
    num_res_blocks: int = flag(3, "residual blocks of the sub-pixel nets")
    res_block: str = flag(CONV3X3, "kind of these blocks", RES_BLOCKS)
    batch_size: int = flag(16, "images of a step of the sub-pixel nets")
    lr: float = flag(2e-3, "learning rate of the sub-pixel nets; it falls to 0 as a cosine")
    muon_lr: float = flag(2.5e-3, "the same, of the mean net where Muon trains")
    muon_var_lr: float = flag(5e-3, "the same, of the variance net where Muon trains")
    unet_width: int = flag(32, "channels of the U-Nets")
    unet_channel_mult: str = flag("0.5,1,2", "channel multipliers of the U-Nets")
    unet_batch_size: int = flag(4, "images of a step of the U-Nets")
    unet_lr: float = flag(2e-3, "learning rate of the U-Nets; it falls to 0 as a cosine")
    mean_share: float = flag(0.5, "share of a budget that the mean net has, where there are two")
    lr_warmup_steps: int = flag(50, "first steps, over which lr rises from 0; at most a fifth")
    precision: str = flag(
        AUTO,
        "of the trainings; auto: bf16 where this CPU has arithmetic for it",
        (AUTO, *_PRECISIONS),
    )
    threads: int = flag(0, "threads of torch; 0: as many as cores")
    steps_per_second: float = flag(
        0.0, "how many steps a second of budget stands for, whatever they take; 0: measured"
    )

    def __post_init__(self) -> None:
        """Refuse values that no training could use."""
        require_at_least(self, num_test_crops=1, small_size=4, threads=0, steps_per_second=0)
        require_at_least(self, width=1, num_res_blocks=1, unet_width=1)
        if not 0 < self.mean_share < 1:
            raise ValueError(f"--mean_share {self.mean_share} must be between 0 and 1")
        _ = self.recipes

    @property
    def recipes(self) -> dict[str, Recipe]:
        """How the networks of each kind are trained; the U-Net is that of the demo."""
        of_subpixel = {
            "model_channels": self.width,
            "num_res_blocks": self.num_res_blocks,
            "res_block": self.res_block,
        }
        of_unet = {
            "model_channels": self.unet_width,
            "channel_mult": self.unet_channel_mult,
            "num_res_blocks": 1,
            "attention_resolutions": "",
            "resblock_updown": True,
        }
        for network, flags in ((SUBPIXEL, of_subpixel), (UNET, of_unet)):
            MeanModelFlags(network=network, **flags)
        return {
            SUBPIXEL: Recipe(
                of_subpixel,
                self._train(self.batch_size, self.lr),
                {MEAN: self.muon_lr, VARIANCE: self.muon_var_lr},
            ),
            UNET: Recipe(of_unet, self._train(self.unet_batch_size, self.unet_lr)),
        }

    def _train(self, batch_size: int, lr: float) -> TrainFlags:
        return TrainFlags(
            batch_size=batch_size,
            lr=lr,
            lr_schedule="cosine",
            lr_anneal_steps=1,  # of each training: its steps
            lr_warmup_steps=self.lr_warmup_steps,
            use_bf16=self.used_precision == Precision.BF16,
            log_interval=100,
        )

    @property
    def used_precision(self) -> str:
        """The `precision`, or what it is on this CPU."""
        if self.precision != AUTO:
            return self.precision
        return str(Precision.BF16 if trains_in_bf16() else Precision.FP32)

    @property
    def settings(self) -> dict[str, Any]:
        """What tells rows from those of other flags; of the folders their names."""
        folders = {name: Path(getattr(self, name)).name for name in ("data_dir", "test_dir")}
        here = {"threads": self.threads or num_cores(), "precision": self.used_precision}
        return {**vars(self), **folders, **here}


@dataclass(frozen=True)
class SeeingFlags(HowFlags):
    """The same, and what networks see; trained as fast as the machine can."""

    precision: str = flag(AUTO, _OF_PRECISION, _PRECISIONS)
    degradation: str = flag(
        AREA,
        "what networks see: block means, or also the image: 'area & noise:25' or 'area & mask:0.5'",
    )

    def __post_init__(self) -> None:
        """Refuse what has no exact law."""
        super().__post_init__()
        observation_of(self.degradation)


def _numbers(name: str, text: str, kind: Callable[[str], Item]) -> list[Item]:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--{name} {text!r} must be numbers separated by commas") from None


def create_parser() -> FlagParser:
    """The flags of this script."""
    return make_parser(__doc__, what=WhatFlags, how=SeeingFlags)


class FinishedRows:
    """The rows that are done, in a file; those of other settings are refused.

    Raises:
        DataError: if the file is damaged, or its rows were made with other settings.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self._path, self._settings = path, settings
        self._rows: list[Row] = []
        if path.exists():
            remedy = "delete it, or give another --name"
            made, self._rows = read_record(
                path, remedy, lambda content: (dict(content["settings"]), list(content["rows"]))
            )
            others = differences(made, settings, {"degradation": AREA, "res_block": CONV3X3})
            if others:
                told = ", ".join(map(str, others))
                raise DataError(f"{path} holds rows made with other settings: {told}; {remedy}")

    def find(self, trial: Trial) -> Row | None:
        """The row of a trial, if it is done."""
        for row in self._rows:
            if (row["route"], row["budget"], row["seed"], row["base"]) == trial.key:
                return row
        return None

    def add(self, row: Row) -> None:
        """Keep one more."""
        self._rows.append(row)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_json_atomic(self._path, {"settings": self._settings, "rows": self._rows})


def train_all(trials: Sequence[Trial], bench: Bench, finished: FinishedRows) -> list[Row]:
    """The rows of all trials: those that are there, and those that are made now.

    Raises:
        StopRequested: a signal came; what is finished is kept.
    """
    routes = list(dict.fromkeys(trial.route for trial in trials))
    left = sum(trial.budget for trial in trials if finished.find(trial) is None)
    rows = []
    for trial in trials:
        row = finished.find(trial)
        if row is None:
            place = f"route {routes.index(trial.route) + 1} of {len(routes)}, {trial.route.title}"
            print(
                f"{trial.base} base, seed {trial.seed}, budget {trial.budget:g} s, {place}; "
                f"about {left / 60:.0f} min left",
                flush=True,
            )
            row = bench.run(trial)
            finished.add(row)
            left -= trial.budget
            print(
                f"  {row['seconds']:.0f} s, steps {' + '.join(map(str, row['steps']))}: mean "
                f"{row['relative_mse']:.3%}, variance {row['relative_var_error']:.3g}",
                flush=True,
            )
        rows.append(row)
    return rows


def write_results(
    what: WhatFlags, how: SeeingFlags, rows: Sequence[Row], bench: Bench
) -> tuple[Path, str]:
    """JSON, Markdown and PNG; returns the path of the JSON, and the tables."""
    today = datetime.date.today().isoformat()
    bases = dict.fromkeys(row["base"] for row in rows)
    exact = {base: {n: errors_of_samples(bench.law(base), n) for n in COUNTS} for base in bases}
    machine = hardware()
    record = {
        "date": today,
        "command": own_command("benchmarks.time_to_truth"),
        "settings": how.settings,
        "hardware": machine,
        "versions": versions(),
        "exact_samples": exact,
        "rows": list(rows),
    }
    path = Path(what.output_dir, f"{what.name}_{today}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json_atomic(path, record)
    place = machine["gpu"] or f"{machine['cpu']} ({machine['capability']})"
    how_run = f"{machine['threads']} threads, {how.used_precision}, torch {torch.__version__}"
    head = f"{today}, {place}, {how_run}\n\n"
    tables = format_tables(rows, exact)
    path.with_suffix(".md").write_text(head + tables, encoding="utf-8")
    draw(rows, exact).savefig(path.with_suffix(".png"), dpi=110)
    return path, tables


def bench_of(how: HowFlags, degradation: str = AREA) -> Bench:
    """What trains and judges, by the flags; `degradation` is what networks see.

    Raises:
        DataError: photographs are missing or too small.
    """
    return Bench(
        how.recipes,
        load_photos(how.data_dir, how.small_size, "--data_dir"),
        load_photos(how.test_dir, how.small_size, "--test_dir"),
        how.num_test_crops,
        how.small_size,
        how.steps_per_second,
        how.mean_share,
        degradation=degradation,
    )


def main(argv: list[str] | None = None) -> int:
    """Trains, judges, writes, prints; returns the exit code."""
    args = create_parser().parse_args(argv)
    what, how = from_args(WhatFlags, args), from_args(SeeingFlags, args)
    torch.set_num_threads(how.threads or num_cores())
    tune_allocator()
    bench = bench_of(how, how.degradation)
    finished = FinishedRows(Path(what.rows_dir, f"{what.name}_rows.json"), how.settings)
    rows = train_all(what.trials, bench, finished)
    path, tables = write_results(what, how, rows, bench)
    print(f"\n{tables}\nwritten: {path} and its .md and .png")
    return EXIT_DONE


if __name__ == "__main__":
    run_main(main)
