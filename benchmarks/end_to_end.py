"""The whole experiment on a few pictures, script by script: seconds of each, and what of it.

    python -m benchmarks.end_to_end

The commands of `make demo` with fewer steps, each in a process of its own, in an empty folder every
round; there is no warm-up. A script's seconds have its start in them, and all that it does: what
tests or cuts tiles does so twice, the second time to calibrate. "two passes" and "samples" are the
seconds that the networks took for one image, by the records that the scripts leave.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.harness import Measurement, TimingFlags, Variant, quartiles
from benchmarks.record import Table, Target, write_record
from benchmarks.startup import DEMO, ROOT
from sr_var.demo.commands import QUICK, Preset, photograph_commands
from utils.process.errors import EXIT_DONE, run_main
from utils.process.progress import Progress
from utils.script_util import flag, from_args, make_parser

WHOLE, SAMPLES, PASSES = "whole experiment", "samples of an image", "two passes of an image"
SAMPLING, TESTS = "ddpm_sr_sample.py", "sr_var_test.py"


@dataclass(frozen=True)
class ChainFlags(TimingFlags):
    """How much of it."""

    rounds: int = flag(2, "rounds; each runs every script once")
    max_step: int = flag(8, "training steps of each net")
    num_samples: int = flag(8, "samples of an image")
    width: int = flag(16, "channels of the mean and the variance net")

    def preset(self) -> Preset:
        """The quick demo, shorter."""
        steps = dict.fromkeys(("mean_steps", "var_steps", "diffusion_steps"), self.max_step)
        nets = replace(QUICK.nets, width=self.width)
        return replace(QUICK, name="chain", num_samples=self.num_samples, nets=nets, **steps)


class Chain:
    """Runs of all scripts, in order.

    Args:
        folder: temporary; the commands run there, and their results go there.
        flags: of the measurement.
    """

    def __init__(self, folder: Path, flags: ChainFlags) -> None:
        self._folder, self._preset = folder, flags.preset()
        self._commands = photograph_commands(self._preset)
        names = [script for script, _ in self._commands]
        self.seconds: dict[str, list[float]] = {n: [] for n in (*names, PASSES, SAMPLES)}
        self.outside: dict[str, list[float]] = {SAMPLING: [], TESTS: []}

    def run(self) -> None:
        """Run them in an emptied folder.

        Raises:
            ValueError: with what a script said that failed.
        """
        for entry in self._folder.iterdir():
            shutil.rmtree(entry)
        (self._folder / "data").mkdir()
        (self._folder / "data" / "demo").symlink_to(DEMO)
        taken: dict[str, list[float]] = {script: [] for script, _ in self._commands}
        for script, words in self._commands:
            started = time.perf_counter()
            done = subprocess.run(
                [sys.executable, str(ROOT / script), *words],
                cwd=self._folder,
                capture_output=True,
                text=True,
            )
            taken[script].append(time.perf_counter() - started)
            if done.returncode != EXIT_DONE:
                said = done.stderr[-500:]
                raise ValueError(f"{script} ended with {done.returncode}: {said}")
        for script, seconds in taken.items():
            self.seconds[script].append(sum(seconds))
        # the calibration's tests come after those of the images that are judged
        self._read_costs({script: seconds[0] for script, seconds in taken.items()})

    def _read_costs(self, first_seconds: dict[str, float]) -> None:
        log = self._folder / "logs" / "sr_compare" / self._preset.name / "results.json"
        results = json.loads(log.read_text(encoding="utf-8"))
        num_images = int(results["num_images"])
        parts = ((SAMPLES, "samples", SAMPLING), (PASSES, "nets", TESTS))
        for name, section, script in parts:
            seconds = float(results["cost"][section]["seconds_per_image"])
            self.seconds[name].append(seconds)
            self.outside[script].append(1 - seconds * num_images / first_seconds[script])


def measure_chain(flags: ChainFlags) -> tuple[Measurement, dict[str, float]]:
    """Every script, and the share of two of them in which no network was at work."""
    whole: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        chain = Chain(Path(folder), flags)
        with Progress(flags.rounds, "measuring", unit="run") as bar:
            for _ in range(flags.rounds):
                started = time.perf_counter()
                chain.run()
                whole.append(time.perf_counter() - started)
                bar.update()
                if sum(whole) > flags.time_limit:
                    break
    times = {WHOLE: whole, **chain.seconds}
    variants = [
        Variant(name, chain.run, against=SAMPLES if name == PASSES else "") for name in times
    ]
    shares = {script: quartiles(values)[1] for script, values in chain.outside.items()}
    return Measurement(variants, times, {}), shares


def main(argv: list[str] | None = None) -> int:
    """Runs, prints, writes."""
    flags = from_args(ChainFlags, make_parser(__doc__, benchmark=ChainFlags).parse_args(argv))
    measured, shares = measure_chain(flags)
    for script, share in shares.items():
        print(f"{script}: {share:.0%} of its seconds outside of the networks")
    preset = flags.preset()
    title = (
        f"{preset.nets.large_size}² given {preset.nets.small_size}², {flags.max_step} training "
        f"steps, {flags.num_samples} samples; ratio: whole experiment over the script"
    )
    cheaper = Target(
        f"{SAMPLES} over {PASSES}",
        measured.ratio(PASSES, SAMPLES),
        1.0,
        note=f"{flags.num_samples} samples; of a tiny network",
    )
    extra = {"share_outside_networks": shares}
    write_record("end_to_end", flags, [Table(title, measured.rows())], [cheaper], extra)
    return EXIT_DONE


if __name__ == "__main__":
    run_main(main)
