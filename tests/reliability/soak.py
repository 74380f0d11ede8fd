"""The super-resolution pipeline hit by random faults, for an hour.

    make soak
    python -m tests.reliability.soak --minutes 5 --seed 1

Twice, the pipeline of the tiny data runs undisturbed, to the same bits. Then it runs again and
again, each script hit by faults and started anew until it ends well. What it leaves must be what
the undisturbed runs left, bit for bit. At the end stand counts: cycles, faults by kind, files that
were finished before a fault and not after it, files torn, endings that the fault does not explain,
and runs that differ. The exit code is 1 unless the last four are 0 and, in half an hour or more,
every kind of fault has struck. Counts are written after every cycle, so that an interrupted soak
has some; the folder of a cycle that differs is kept beside them.

One process on a CPU, with or without a loader process, in fp32: R3 to R5, R13, R15 and R17 have the
other precisions and the ranks.
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
from tests.reliability.faults import FAULTS, SIZE_OF_DISK, Trial
from tests.reliability.soaked_files import TRAININGS, digests, finished_files, torn_files
from tests.tiny import TinyData
from utils.process.errors import EXIT_DONE
from utils.process.progress import Progress

MAX_FAULTS = 3  # of a script
WITH_LOADERS = (*TRAININGS, "sr_mean_test", "sr_var_test")
STEPS = {"mean_steps": 12, "var_steps": 9, "ddpm_steps": 8}  # each of them saved
MINUTES_FOR_ALL = 30


class Soak:
    """The cycles and their counts.

    Args:
        folder: empty; one sub-folder a cycle, removed behind it.
        disk: the tmpfs that the folder is, or None.
        said_dir: for what the scripts print.
        seed: of the faults.
        say: told what goes wrong.

    Raises:
        RuntimeError: if two undisturbed runs differ, or one does not end well.
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
        self._made: dict[str, set[str]] = {}
        self.faults: Counter[str] = Counter()
        self.num_cycles = self.num_scripts = 0
        self.num_lost = self.num_torn = self.num_unexpected = self.num_different = 0
        warm, self._expected = (  # the first start imports everything
            digests(self._run(folder / name, max_faults=0)) for name in ("warm", "undisturbed")
        )
        if warm != self._expected:
            raise RuntimeError("two undisturbed runs differ: nothing can be compared with them")

    def cycle(self, kept: Path) -> None:
        """One pipeline with faults, compared with the undisturbed one; ``kept`` if it differs."""
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
            shutil.copytree(root, kept / root.name, dirs_exist_ok=True)
        shutil.rmtree(root)

    def counts(self) -> dict[str, object]:
        """What has happened so far."""
        return {
            "cycles": self.num_cycles,
            "scripts_run": self.num_scripts,
            "faults": {name: self.faults[name] for name in FAULTS},
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

    @property
    def missed_faults(self) -> list[str]:
        """Kinds that have not struck yet, of those that can here."""
        possible = (name for name in FAULTS if self._disk or name != "full disk")
        return [name for name in possible if not self.faults[name]]

    def _run(self, root: Path, max_faults: int) -> Pipeline:
        pipeline = Pipeline(root, self._data, **STEPS)
        for script, flags in flags_of_steps(pipeline).items():
            if script == "sr_mean_test":
                copy_model_flags(pipeline)
            more = {"resume_checkpoint": "auto", "save_interval": 1} if script in TRAININGS else {}
            if script in WITH_LOADERS:
                more["num_workers"] = self._rng.randint(0, 1)
            known = (self._seconds.get(script, 0.0), self._made.get(script, set()))
            where = (pipeline, self._said_dir, self._disk)
            trial = Trial(script, {**flags, **more}, *where, *known, self._rng)
            self._finish(trial, self._rng.randint(0, max_faults))
        return pipeline

    def _finish(self, trial: Trial, num_faults: int) -> None:
        """Lets faults hit a script, then starts it undisturbed.

        Raises:
            RuntimeError: if it does not end well although nothing disturbs it.
        """
        damaged: set[str] = set()
        at_first = finished = finished_files(trial.pipeline)
        for _ in range(num_faults):
            name = self._choose(trial)
            hit = FAULTS[name].strike(trial)
            self.faults[name] += hit is not None
            damaged |= hit or set()
            finished = self._judge(finished, trial, damaged, name)
        started = time.monotonic()
        process = trial.start()
        if process.exit_code() != EXIT_DONE or not trial.is_complete:
            raise RuntimeError(f"{trial.script} does not end well\n{process.said()}")
        seconds = time.monotonic() - started
        self.num_scripts += 1
        finished = self._judge(finished, trial, set(), "the run to the end")
        if not num_faults:
            self._seconds[trial.script] = seconds
            self._made[trial.script] = finished - at_first

    def _choose(self, trial: Trial) -> str:
        """A fault that fits; the fewer have struck, the sooner."""
        names = [name for name, fault in FAULTS.items() if fault.fits(trial)]
        return self._rng.choices(names, [1 / (1 + self.faults[name]) for name in names])[0]

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
def place_to_soak() -> Iterator[tuple[Path, Path | None, Path]]:
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
    if not args.minutes > 0:
        parser.error(f"--minutes {args.minutes} must be positive")
    args.output_dir.mkdir(parents=True, exist_ok=True)
    record = args.output_dir / "counts.json"
    record.unlink(missing_ok=True)
    started = time.monotonic()
    with (
        place_to_soak() as place,
        Progress(max(1, round(args.minutes)), "soaking", unit="min") as bar,
    ):
        soak = Soak(*place, args.seed, bar.write)
        minutes = shown = 0.0
        while minutes < args.minutes:
            soak.cycle(args.output_dir)
            minutes = (time.monotonic() - started) / 60
            record.write_text(json.dumps({**soak.counts(), "minutes": minutes}, indent=2) + "\n")
            bar.update(int(minutes - shown), note=f"{soak.num_cycles} cycles")
            shown += int(minutes - shown)
    print(record.read_text(), end="")
    if missed := soak.missed_faults:
        print(f"never struck: {', '.join(missed)}")
    return 0 if soak.is_well and (not missed or args.minutes < MINUTES_FOR_ALL) else 1


if __name__ == "__main__":
    sys.exit(main())
