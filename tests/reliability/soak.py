"""Trainings, samples and verifications that are hit by random faults, for an hour.

    make soak
    python -m tests.reliability.soak --minutes 5 --seed 1

Once, the whole pipeline of the tiny data runs undisturbed. Then it runs again and again, each
script hit by faults and started anew until it ends well. What it leaves must be what the
undisturbed run left, bit for bit. At the end stand counts: cycles, faults by kind, files that were
finished before a fault and not after it, files torn, endings that the fault does not explain, and
runs that differ. The exit code is 1 unless the last four are 0. Counts are written after every
cycle, so that an interrupted soak has some.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.pipeline import Pipeline, copy_model_flags, flags_of_steps
from tests.reliability.disks import mount, unmount
from tests.reliability.faults import FAULTS, SIZE_OF_DISK, Trial, choose
from tests.reliability.soaked_files import TRAININGS, digests, finished_files, torn_files
from tests.tiny import TinyData
from utils.errors import EXIT_DONE
from utils.progress import Progress

MAX_FAULTS = 3  # of a script
STEPS = {"mean_steps": 12, "var_steps": 9, "ddpm_steps": 8}  # each of them saved


class Soak:
    """The cycles and their counts.

    Args:
        folder: empty; one sub-folder a cycle, removed if it went well.
        disk: the tmpfs that the folder is, or None.
        said_dir: for what the scripts print.
        seed: of the faults.
        say: told what goes wrong.
    """

    def __init__(
        self,
        folder: Path,
        disk: Path | None,
        said_dir: Path,
        seed: int,
        say: Callable[[str], None],
    ) -> None:
        self._folder, self._disk, self._said_dir = folder, disk, said_dir
        self._rng, self._say = random.Random(seed), say
        self._data = TinyData.write(folder / "photos", folder / "info")
        self._seconds: dict[str, float] = {}
        self.faults: Counter[str] = Counter()
        self.num_cycles = self.num_scripts = 0
        self.num_lost = self.num_torn = self.num_unexpected = self.num_different = 0
        for name in ("warm", "undisturbed"):  # the first start imports everything
            self._expected = digests(self._run(folder / name, max_faults=0))

    def cycle(self) -> None:
        """One pipeline with faults, compared with the undisturbed one."""
        root = self._folder / f"cycle_{self.num_cycles}"
        found = digests(self._run(root, MAX_FAULTS))
        self.num_cycles += 1
        wrong = sorted(
            name
            for name in self._expected.keys() | found.keys()
            if self._expected.get(name) != found.get(name)
        )
        if wrong:
            self.num_different += 1
            self._say(f"cycle {self.num_cycles} differs: {', '.join(wrong[:10])}")
        shutil.rmtree(root)

    def counts(self) -> dict[str, object]:
        """What has happened so far."""
        return {
            "cycles": self.num_cycles,
            "scripts_run": self.num_scripts,
            "faults": dict(sorted(self.faults.items())),
            "files_lost": self.num_lost,
            "files_torn": self.num_torn,
            "unexpected_endings": self.num_unexpected,
            "runs_that_differ": self.num_different,
        }

    @property
    def is_well(self) -> bool:
        """Whether nothing has gone wrong."""
        wrong = (self.num_lost, self.num_torn, self.num_unexpected, self.num_different)
        return wrong == (0, 0, 0, 0)

    def _run(self, root: Path, max_faults: int) -> Pipeline:
        pipeline = Pipeline(root, self._data, **STEPS)
        for script, flags in flags_of_steps(pipeline).items():
            if script == "sr_mean_test":
                copy_model_flags(pipeline)
            more = {"resume_checkpoint": "auto", "save_interval": 1} if script in TRAININGS else {}
            seconds = self._seconds.get(script, 0.0)
            where = (pipeline, self._said_dir, self._disk)
            trial = Trial(script, {**flags, **more}, *where, seconds, self._rng)
            self._finish(trial, self._rng.randint(0, max_faults))
        return pipeline

    def _finish(self, trial: Trial, num_faults: int) -> None:
        """Lets faults hit a script, then starts it undisturbed.

        Raises:
            RuntimeError: if it does not end well although nothing disturbs it.
        """
        damaged: set[str] = set()
        finished = finished_files(trial.pipeline)
        for _ in range(num_faults):
            name = choose(trial)
            hit = FAULTS[name].strike(trial)
            self.faults[name] += hit is not None
            damaged |= hit or set()
            finished = self._judge(finished, trial, damaged, name)
        started = time.monotonic()
        process = trial.start()
        if process.exit_code() != EXIT_DONE:
            raise RuntimeError(f"{trial.script} does not end well\n{process.said()}")
        if not num_faults:
            self._seconds[trial.script] = time.monotonic() - started
        self.num_scripts += 1
        self._judge(finished, trial, set(), "the run to the end")

    def _judge(self, before: set[str], trial: Trial, damaged: set[str], name: str) -> set[str]:
        """Counts what is missing of the finished files; returns those that are there now."""
        finished = finished_files(trial.pipeline)
        lost = before - finished - damaged
        torn = torn_files(trial.pipeline) - damaged
        self.num_lost += len(lost)
        self.num_torn += len(torn)
        self.num_unexpected += len(trial.unexpected)
        for what, paths in (("lost", lost), ("torn", torn)):
            if paths:
                self._say(f"{trial.script}, {name}: {what} {', '.join(sorted(paths)[:5])}")
        for line in trial.unexpected:
            self._say(line)
        trial.unexpected.clear()
        return finished


@contextmanager
def _place() -> Iterator[tuple[Path, Path | None, Path]]:
    """A folder, the disk that it is (None where mounting is not allowed), one beside it."""
    root = Path(tempfile.mkdtemp(prefix="soak_"))
    folder, said_dir = root / "disk", root / "said"
    folder.mkdir()
    said_dir.mkdir()
    is_mounted = mount(folder, f"size={SIZE_OF_DISK}")
    try:
        yield folder, folder if is_mounted else None, said_dir
    finally:
        if is_mounted:
            unmount(folder)
        shutil.rmtree(root)


def main(argv: list[str] | None = None) -> int:
    """Runs, prints the counts; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=60.0, help="how long (default: 60)")
    parser.add_argument("--seed", type=int, default=0, help="of the faults (default: 0)")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/soak"))
    args = parser.parse_args(argv)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    record = args.output_dir / "counts.json"
    started = time.monotonic()
    with _place() as place, Progress(max(1, round(args.minutes)), "soaking", unit="min") as bar:
        soak = Soak(*place, args.seed, bar.write)
        minutes = shown = 0.0
        while minutes < args.minutes:
            soak.cycle()
            minutes = (time.monotonic() - started) / 60
            record.write_text(json.dumps({**soak.counts(), "minutes": minutes}, indent=2) + "\n")
            bar.update(int(minutes - shown), note=f"{soak.num_cycles} cycles")
            shown += int(minutes - shown)
    print(record.read_text(), end="")
    return 0 if soak.is_well else 1


if __name__ == "__main__":
    sys.exit(main())
