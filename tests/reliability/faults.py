"""What the soak does to a script: kills, signals, full disks, damaged files, a second writer.

Not for the cycles (``soak``) nor for what files hold (``soaked_files``).
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.pipeline import Pipeline
from tests.reliability.disks import grow
from tests.reliability.scripts import Script, wait_until
from tests.reliability.soaked_files import TRAININGS, set_files, steps_of_sets
from tests.utils.checkpoints import flip_byte
from utils.errors import EXIT_CHECKPOINT, EXIT_DATA, EXIT_DONE, EXIT_STOPPED

SIZE_OF_DISK = 256 * 2**20
_FEW_BYTES, _MANY_BYTES = 2**10, 2**20  # room that is left, at random in between
_SAMPLER = "ddpm_sr_sample"
_READS_PHOTOS = (*TRAININGS, _SAMPLER, "sr_mean_test", "sr_var_test", "sr_var_verification")


@dataclass
class Trial:
    """A script of a pipeline on its way to its end.

    Attributes:
        script, flags, pipeline: what is started, where.
        said_dir: where what it prints goes, outside of the disk.
        disk: the tmpfs that everything lies on, or None.
        seconds: how long it takes undisturbed.
        rng: of the faults.
        unexpected: endings that no fault allows for.
    """

    script: str
    flags: dict[str, Any]
    pipeline: Pipeline
    said_dir: Path
    disk: Path | None
    seconds: float
    rng: random.Random
    unexpected: list[str] = field(default_factory=list)
    _num_starts: int = 0

    def start(self, **limits: int) -> Script:
        """Another process of it, once it runs."""
        self._num_starts += 1
        said_path = self.said_dir / f"{self.script}_{self._num_starts}"
        said_path.unlink(missing_ok=True)
        process = Script(self.script, self.flags, said_path, **limits)
        wait_until(said_path.exists)
        return process

    def end(self, process: Script, fault: str, *codes: int, words: str = "") -> int:
        """Waits; an exit code other than these, 0 or with no such words, is unexpected."""
        code = process.exit_code()
        said = process.said()
        is_silent = code not in (EXIT_DONE, *_KILLED) and words not in said
        if code not in (EXIT_DONE, *codes) or is_silent:
            self.unexpected.append(f"{self.script}, {fault}: ended with {code}\n{said[-2000:]}")
        return code

    def some_time(self) -> float:
        """A moment of its run, in seconds after its start."""
        return self.rng.uniform(0, self.seconds)

    def some_bytes(self) -> int:
        """Room on a disk, mostly little."""
        return round(_FEW_BYTES * (_MANY_BYTES / _FEW_BYTES) ** self.rng.random())


@dataclass(frozen=True)
class Fault:
    """``strike`` returns the paths below the root that it damaged, or None if it came too late.

    ``fits`` says whether it is possible, ``weight`` how often it is chosen beside the others.
    """

    strike: Callable[[Trial], set[str] | None]
    fits: Callable[[Trial], bool] = lambda trial: True
    weight: float = 1.0


def _signalled(number: signal.Signals) -> Callable[[Trial], set[str] | None]:
    def strike(trial: Trial) -> set[str] | None:
        process = trial.start()
        time.sleep(trial.some_time())
        try:
            os.kill(process.pid, number)
        except ProcessLookupError:
            trial.end(process, number.name)
            return None
        # before its loop, and for good after it, a signal does what it does to any process
        trial.end(process, number.name, -number, EXIT_STOPPED)
        return set()

    return strike


def _fill_disk(trial: Trial) -> set[str]:
    assert trial.disk
    used = shutil.disk_usage(trial.disk).used
    grow(trial.disk, f"size={used + trial.some_bytes()}")
    try:
        trial.end(trial.start(), "full disk", EXIT_DATA, words="MiB free")
    finally:
        grow(trial.disk, f"size={SIZE_OF_DISK}")
    return set()


def _limit_files(trial: Trial) -> set[str]:
    process = trial.start(max_file_size=trial.some_bytes())
    trial.end(process, "limit on file sizes", EXIT_DATA, words="MiB free")
    return set()


def _damage_newest_set(trial: Trial) -> set[str]:
    save_dir, steps = _sets(trial)
    files = sorted(set_files(save_dir, steps[-1]))
    _damage(trial.rng.choice(files), trial.rng)
    # the run that follows replaces all of them
    return {str(path.relative_to(trial.pipeline.root)) for path in files}


def _damage(path: Path, rng: random.Random) -> None:
    size = path.stat().st_size
    kind = rng.choice(("gone", "cut", "flipped"))
    if kind == "gone":
        path.unlink()
    elif kind == "cut":
        os.truncate(path, rng.randrange(size))
    else:
        flip_byte(path, rng.randrange(size))


def _sets(trial: Trial) -> tuple[Path, list[int]]:
    save_dir = trial.pipeline.save_dir(TRAININGS[trial.script])
    return save_dir, steps_of_sets(save_dir)


def _has_two_sets(trial: Trial) -> bool:
    return trial.script in TRAININGS and len(_sets(trial)[1]) > 1


def _cut_photo(trial: Trial) -> set[str]:
    path = trial.rng.choice(sorted(trial.pipeline.data.data_dir.glob("*.*")))
    with _cut(path, trial.rng):
        # one that it does not read, or the last that it would read again, hurts nobody
        trial.end(trial.start(), "damaged photograph", EXIT_DATA, words=path.name)
    return set()


@contextmanager
def _cut(path: Path, rng: random.Random) -> Iterator[None]:
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content) // 2)])
    try:
        yield
    finally:
        path.write_bytes(content)


def _start_two(trial: Trial) -> set[str]:
    first = trial.start()
    time.sleep(trial.some_time() / 2)
    second = trial.start()
    refusal = (EXIT_CHECKPOINT,) if trial.script in TRAININGS else ()
    codes = [
        trial.end(process, "two writers", *refusal, words="is being written by another run")
        for process in (first, second)
    ]
    if EXIT_DONE not in codes:
        trial.unexpected.append(f"{trial.script}, two writers: both ended with {codes}")
    return set()


def choose(trial: Trial) -> str:
    """The name of a fault that fits."""
    names = [name for name, fault in FAULTS.items() if fault.fits(trial)]
    return trial.rng.choices(names, [FAULTS[name].weight for name in names])[0]


_KILLED = tuple(-number for number in signal.Signals)
FAULTS: dict[str, Fault] = {
    **{
        number.name: Fault(_signalled(number))
        for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    },
    "full disk": Fault(_fill_disk, lambda trial: trial.disk is not None),
    "limit on file sizes": Fault(_limit_files),
    "damaged checkpoint": Fault(_damage_newest_set, _has_two_sets, weight=3.0),
    "damaged photograph": Fault(_cut_photo, lambda trial: trial.script in _READS_PHOTOS),
    "two writers": Fault(_start_two, lambda trial: trial.script in (*TRAININGS, _SAMPLER)),
}
