"""Seconds until a script answers: `--help` of each, and the way to the first step of two.

    python -m benchmarks.startup

Each run is a process of its own. On the way to the first step the outermost `import` statements are
clocked, wherever they stand, and the process ends where the first step would begin.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import Measurement, Timed, TimingFlags, Variant, measure, quartiles
from benchmarks.record import Table, Target, write_record
from utils.process.errors import EXIT_DONE, run_main
from utils.script_util import flag, from_args, make_parser

ROOT = Path(__file__).resolve().parent.parent
MAX_HELP_SECONDS, MAX_IMPORT_SECONDS = 1.0, 3.0
IMPORTS = "imports on the way"
DEMO = ROOT / "data" / "demo"

# clocks outermost imports, and ends the process where the first step would begin
_UNTIL_FIRST_STEP = """
import builtins, json, os, runpy, sys, time
seconds, depth, plain_import = [0.0], [0], builtins.__import__
def clocked(*args, **kwargs):
    depth[0] += 1
    started = time.perf_counter()
    try:
        return plain_import(*args, **kwargs)
    finally:
        depth[0] -= 1
        if depth[0] == 0:
            seconds[0] += time.perf_counter() - started
builtins.__import__ = clocked
def stop(*args, **kwargs):
    print(json.dumps({"imports": seconds[0]}), flush=True)
    os._exit(0)
script, where, name, *words = sys.argv[1:]
module, _, owner = where.partition(":")
__import__(module)
target = sys.modules[module]
setattr(getattr(target, owner) if owner else target, name, stop)
sys.argv = [script, *words]
runpy.run_path(script, run_name="__main__")
"""


@dataclass(frozen=True)
class StartupFlags(TimingFlags):
    """Which scripts."""

    scripts: str = flag("", "whose help is asked for, comma separated; empty: all of the root")
    first_steps: bool = flag(True, "the way to the first step of a training and of a sampling")


@dataclass(frozen=True)
class FirstStep:
    """A script, where its first step begins, and its words."""

    script: str
    where: str
    name: str
    words: Sequence[str]


def help_call(script: str) -> Callable[[], None]:
    """Run `--help`; its failure is an error."""

    def call() -> None:
        command = [sys.executable, script, "--help"]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)

    return call


def first_steps(folder: Path) -> list[FirstStep]:
    """A training of the mean net on the photographs of `data/demo`, and sampling of images."""
    import torch

    from benchmarks import nets
    from image_ddpm.networks import create_image_model

    tiles = [DEMO / "make_tiles.py", "--output_dir", folder / "tiles", "--splits", "train"]
    info = ["sr_data_info.py", "--data_dir", folder / "tiles" / "train", "--output_dir", folder]
    for command in ([*tiles, "--num_tiles", 4], [*info, "--log_dir", folder / "log"]):
        line = [sys.executable, *map(str, command)]
        subprocess.run(line, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    network = {"image_size": 16, "num_channels": 16, "num_res_blocks": 1, "channel_mult": "1,2"}
    model = nets.fill(create_image_model(learn_sigma=True, **network))
    torch.save(model.state_dict(), folder / "model.pt")
    training = {
        **{"data_dir": folder / "tiles" / "train", "data_info_dict_path": folder / "data_info.pkl"},
        **{"large_size": 32, "small_size": 8, "model_channels": 16, "channel_mult": "1,2"},
        **{"attention_resolutions": "16", "log_dir": folder / "mean", "max_step": 1},
        **{"model_save_dir": folder / "mean"},
    }
    sampling = {
        **network,
        **{"learn_sigma": True, "model_path": folder / "model.pt", "num_samples": 1},
        **{"batch_size": 1, "log_dir": folder / "samples", "timestep_respacing": "2"},
    }
    return [
        FirstStep("sr_mean_train.py", "utils.train_util:TrainLoop", "run_step", words(training)),
        FirstStep("image_sample.py", "ddpm.sampling:Sampler", "_draw", words(sampling)),
    ]


def words(flags: dict[str, object]) -> list[str]:
    """A command line."""
    return [word for name, value in flags.items() for word in (f"--{name}", str(value))]


def run_to_first_step(step: FirstStep) -> tuple[float, float]:
    """Seconds of the process until there, and of its imports.

    Raises:
        ValueError: with the end of what the script said, if it ended before.
    """
    command = [sys.executable, "-c", _UNTIL_FIRST_STEP, step.script, step.where, step.name]
    started = time.perf_counter()
    done = subprocess.run([*command, *step.words], cwd=ROOT, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    try:
        answer = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        raise ValueError(f"{step.script} took no step: {done.stderr[-500:]}") from None
    return seconds, float(answer["imports"])


def measure_first_steps(flags: StartupFlags) -> Measurement:
    """Both figures of every script, from the same runs."""
    with tempfile.TemporaryDirectory() as folder:
        steps = first_steps(Path(folder))
        imports: dict[str, list[float]] = {f"{step.script}: {IMPORTS}": [] for step in steps}

        def call(step: FirstStep) -> Timed:
            seconds, of_imports = run_to_first_step(step)
            imports[f"{step.script}: {IMPORTS}"].append(of_imports)
            return Timed(seconds)

        variants = [Variant("python -c 'import torch'", _import_torch)]
        variants += [
            Variant(f"{step.script}: to the first step", functools.partial(call, step))
            for step in steps
        ]
        measured = measure(variants, flags)
    more = {name: values[flags.warmup :] for name, values in imports.items()}
    variants += [Variant(name, _import_torch, note="part of the above") for name in more]
    return Measurement(variants, {**measured.times, **more}, {})


def _import_torch() -> None:
    subprocess.run([sys.executable, "-c", "import torch"], cwd=ROOT, check=True)


def main(argv: list[str] | None = None) -> int:
    """Measures, prints, writes."""
    flags = from_args(StartupFlags, make_parser(__doc__, benchmark=StartupFlags).parse_args(argv))
    names = flags.scripts.split(",") if flags.scripts else sorted(os.listdir(ROOT))
    scripts = [name for name in names if name.endswith(".py")]
    helps = measure([Variant(name, help_call(name)) for name in scripts], flags)
    tables = [Table("--help", helps.rows())]
    medians = {name: quartiles(times)[1] for name, times in helps.times.items()}
    slowest = max(medians, key=lambda name: medians[name])
    targets = [
        Target(
            f"slowest --help, {slowest}",
            medians[slowest],
            MAX_HELP_SECONDS,
            is_at_least=False,
            unit="s",
        )
    ]
    if flags.first_steps:
        found = measure_first_steps(flags)
        tables.append(Table("to the first step", found.rows()))
        for name, times in found.times.items():
            if name.endswith(IMPORTS):
                target = Target(
                    name, quartiles(times)[1], MAX_IMPORT_SECONDS, is_at_least=False, unit="s"
                )
                targets.append(target)
    write_record("startup", flags, tables, targets)
    return EXIT_DONE


if __name__ == "__main__":
    run_main(main)
