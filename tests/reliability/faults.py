"""What the soak does to a script: kills, signals, full disks, damaged files, a second writer.

Not for the cycles (``soak``) nor for what files hold (``soaked_files``). A fault that came too late
to matter does not count.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tests.pipeline import Pipeline
from tests.reliability.disks import grow
from tests.reliability.scripts import Script, wait_until
from tests.reliability.soaked_files import TRAININGS, finished_files, set_files, steps_of_sets
from tests.tiny import TEST_NAMES
from tests.utils.checkpoints import flip_byte
from utils.files.atomic import TEMP_NAME
from utils.process.errors import EXIT_CHECKPOINT, EXIT_DATA, EXIT_DONE, EXIT_STOPPED

SIZE_OF_DISK = 256 * 2**20
_FEW_BYTES, _MANY_BYTES = 2**10, 2**20  # room that is left, at random in between
_SAMPLER, _VERIFICATION = "ddpm_sr_sample", "sr_var_verification"
_WITH_LOOPS = (*TRAININGS, _SAMPLER, "sr_mean_test", "sr_var_test")


class Ending(Protocol):
    """What is looked at of a process at its end."""

    @property
    def pid(self) -> int:
        """Of the process."""

    def exit_code(self) -> int:
        """Waits for the end; a kill by signal N is -N."""

    def said(self) -> str:
        """What it has printed."""


@dataclass
class Trial:
    """A script of a pipeline on its way to its end.

    Attributes:
        script, flags, pipeline: what is started, where.
        said_dir: where what it prints goes, outside of the disk.
        disk: the tmpfs that everything lies on, or None.
        seconds: how long it takes undisturbed.
        made: relative paths of what it makes, if it is known.
        rng: of the faults.
        unexpected: endings that no fault allows for.
    """

    script: str
    flags: dict[str, Any]
    pipeline: Pipeline
    said_dir: Path
    disk: Path | None
    seconds: float
    made: Set[str]
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

    @property
    def is_complete(self) -> bool:
        """Whether everything that it makes is there, and whole."""
        return self.made <= finished_files(self.pipeline)

    def end(self, process: Ending, fault: str, *codes: int, says: tuple[str, ...] = ()) -> int:
        """Waits for the end and notes what is wrong with it.

        Args:
            process: of this script.
            fault: what has hit it.
            codes: exit codes that the fault explains; 0 is one if the work is complete.
            says: one of these must stand in its output, unless it was done or killed.
        """
        code = process.exit_code()
        said, wrong = process.said(), ""
        if code not in (EXIT_DONE, *codes):
            wrong = "which this fault does not explain"
        elif code == EXIT_DONE and not self.is_complete:
            wrong = "although its work is not complete"
        elif code > 0 and says and not any(words in said for words in says):
            wrong = f"without saying {says}"
        elif code >= 0 and self._temp_files_of(process):
            wrong = f"and left {self._temp_files_of(process)}"
        if wrong:
            self.unexpected.append(f"{self.script}, {fault}: ended with {code} {wrong}\n{said}")
        return code

    def _temp_files_of(self, process: Ending) -> list[str]:
        names = (path.name for path in self.pipeline.root.rglob(".*.tmp"))
        matches = (TEMP_NAME.fullmatch(name) for name in names)
        return [match[0] for match in matches if match and int(match["pid"]) == process.pid]

    def some_time(self) -> float:
        """A moment of its run, in seconds after its start."""
        return self.rng.uniform(0, self.seconds)

    def some_bytes(self) -> int:
        """Room on a disk, mostly little."""
        return round(_FEW_BYTES * (_MANY_BYTES / _FEW_BYTES) ** self.rng.random())


@dataclass(frozen=True)
class Fault:
    """``strike`` returns the paths below the root that it damaged, or None if it came too late.

    ``fits`` says whether it is possible.
    """

    strike: Callable[[Trial], set[str] | None]
    fits: Callable[[Trial], bool] = lambda trial: True


def _signalled(number: signal.Signals) -> Callable[[Trial], set[str] | None]:
    def strike(trial: Trial) -> set[str] | None:
        before = _results(trial)
        process = trial.start()
        time.sleep(trial.some_time())
        try:
            os.kill(process.pid, number)
        except ProcessLookupError:
            trial.end(process, number.name)
            return None
        code = trial.end(process, number.name, -number, EXIT_STOPPED)
        has_begun = before != _results(trial) and not trial.is_complete
        if code == -number != -signal.SIGKILL and has_begun and trial.script in _WITH_LOOPS:
            trial.unexpected.append(f"{trial.script}: {number.name} ended its loop")
        return None if code == EXIT_DONE else set()

    return strike


def _kill_loader(trial: Trial) -> set[str] | None:
    process = trial.start()
    time.sleep(trial.some_time())
    for pid in process.children():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    code = trial.end(process, "killed loader", EXIT_DATA, says=("fewer --num_workers",))
    return None if code == EXIT_DONE else set()


def _results(trial: Trial) -> set[str]:
    """Without the files that tell what a run was started with."""
    return {path for path in finished_files(trial.pipeline) if not path.startswith("logs/")}


def _fill_disk(trial: Trial) -> set[str] | None:
    assert trial.disk
    used = shutil.disk_usage(trial.disk).used
    grow(trial.disk, f"size={used + trial.some_bytes()}")
    try:
        code = trial.end(trial.start(), "full disk", EXIT_DATA, says=("MiB free",))
    finally:
        grow(trial.disk, f"size={SIZE_OF_DISK}")
    return None if code == EXIT_DONE else set()


def _limit_files(trial: Trial) -> set[str] | None:
    process = trial.start(max_file_size=trial.some_bytes())
    # what loader processes hand over is a file, too
    says = ("MiB free", "shared memory")
    code = trial.end(process, "limit on file sizes", EXIT_DATA, says=says)
    return None if code == EXIT_DONE else set()


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


def _cut_photos(trial: Trial) -> set[str] | None:
    is_test = trial.script not in TRAININGS
    photos = [
        path
        for path in sorted(trial.pipeline.data.data_dir.rglob("*.*"))
        if (path.stem in TEST_NAMES or path.name in TEST_NAMES) == is_test
    ]
    with _cut(photos, trial.rng):
        names = tuple(path.name for path in photos)
        trial.end(trial.start(), "damaged photographs", EXIT_DATA, says=names)
    return set()


@contextlib.contextmanager
def _cut(paths: list[Path], rng: random.Random) -> Iterator[None]:
    contents = [path.read_bytes() for path in paths]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content[: rng.randrange(len(content) // 2)])
    try:
        yield
    finally:
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(content)


def _start_two(trial: Trial) -> set[str] | None:
    first = trial.start()
    time.sleep(trial.some_time() / 2)
    second = trial.start()
    if trial.script == _SAMPLER:
        # whichever ends first leaves the other one what that one is at
        for process in (first, second):
            process.exit_code()
        for process in (first, second):
            trial.end(process, "two writers")
        return set()
    refusals = ("is being written by another run", "another run has written to")
    codes = [
        trial.end(process, "two writers", EXIT_CHECKPOINT, says=refusals)
        for process in (first, second)
    ]
    if sorted(codes) == [EXIT_DONE, EXIT_CHECKPOINT]:
        return set()
    # two that end well must have worked one after the other
    if not any(f"(step {trial.flags['max_step']})" in one.said() for one in (first, second)):
        trial.unexpected.append(f"{trial.script}, two writers: ended with {codes}")
    return None


def _is_incomplete(*scripts: str) -> Callable[[Trial], bool]:
    return lambda trial: trial.script in scripts and not trial.is_complete


FAULTS: dict[str, Fault] = {
    **{
        number.name: Fault(_signalled(number))
        for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    },
    "killed loader": Fault(_kill_loader, lambda trial: trial.flags.get("num_workers") == 1),
    "full disk": Fault(_fill_disk, lambda trial: trial.disk is not None),
    "limit on file sizes": Fault(_limit_files),
    "damaged checkpoint": Fault(_damage_newest_set, _has_two_sets),
    "damaged photographs": Fault(_cut_photos, _is_incomplete(*_WITH_LOOPS, _VERIFICATION)),
    "two writers": Fault(_start_two, _is_incomplete(*TRAININGS, _SAMPLER)),
}
