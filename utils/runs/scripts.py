"""Scripts one after the other: what each does in plain words, and how long all of it still takes.

Guessed seconds are scaled by what the steps before took. What each step took, over all runs that
worked on it, is kept in a JSON file: so a run that goes on counts what is left, and guesses can be
set from a real run.
"""

from __future__ import annotations

import importlib
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from utils.files.atomic import JsonObject, write_json_atomic
from utils.files.records import find_record, require_numbers
from utils.files.storage import make_folder
from utils.process.console import dimmed, show
from utils.process.errors import EXIT_DONE, EXIT_STOPPED
from utils.process.stop import stop_line

# script and its arguments, as in ("sr_plan.py", ["--seed", "1"])
Command = tuple[str, Sequence[str]]

# of a step that an earlier run has finished
_SECONDS_AGAIN = 3.0
# the share of all guesses that counts as taken as guessed: a first short step says little
_TRUST = 0.05
# a step that took less than this share of its guess found its work done
_LEAST = 0.25


@dataclass(frozen=True)
class Step:
    """A script to run: what it does, as in "training the net", and seconds it is guessed to take.

    The guesses need not be those of this machine: only their ratios count once steps are done.
    """

    command: Command
    what: str
    guess: float

    @property
    def line(self) -> str:
        """The command as a user would type it."""
        script, words = self.command
        return f"python {script} {' '.join(words)}"


@dataclass(frozen=True)
class Taken:
    """Seconds that a step took, over all runs that worked on it."""

    seconds: float
    is_done: bool


# by the line of the step
Times = Mapping[str, Taken]


def run_steps(steps: Sequence[Step], record: str) -> int:
    """Run scripts in this process in order; before each, say what it does and what is left of all.

    Args:
        record: JSON file of what the steps took; its folder is made. A damaged one counts as none.

    Returns:
        The exit code of the first that did not finish, or `EXIT_DONE`.
    """
    for place, step in enumerate(steps):
        times = read_times(record)
        _announce(steps, times, place)
        script, words = step.command
        module = script.removesuffix(".py").replace("/", ".")
        code, started = None, time.monotonic()
        try:
            code = importlib.import_module(module).main(list(words))
        finally:
            taken = _add(times.get(step.line), time.monotonic() - started, code == EXIT_DONE)
            _keep(record, steps, {**times, step.line: taken})
        if code == EXIT_STOPPED:
            show(stop_line(where=f"in step {place + 1} of {len(steps)}"), sys.stdout)
        if code != EXIT_DONE:
            return int(code)
    return EXIT_DONE


def _announce(steps: Sequence[Step], times: Times, place: int) -> None:
    step = steps[place]
    before = times.get(step.line)
    again = " (done by an earlier run)" if before is not None and before.is_done else ""
    left = in_words(seconds_left(steps, times, place))
    show(f"\nstep {place + 1} of {len(steps)}, {step.what}{again}, {left}", sys.stdout)
    show(dimmed(step.line, sys.stdout), sys.stdout)


def seconds_left(steps: Sequence[Step], times: Times, place: int = 0) -> float:
    """Seconds that the steps from `place` on will take, by guesses and by what others took.

    A step that was stopped counts what is left of it, one that an earlier run has finished a look.
    """
    slowness = _slowness(steps, times)
    return sum(_left(step, times.get(step.line), slowness) for step in steps[place:])


def _slowness(steps: Sequence[Step], times: Times) -> float:
    """Seconds that a guessed second takes here."""
    trusted = _TRUST * sum(step.guess for step in steps)
    seconds = guessed = trusted
    for step in steps:
        taken = times.get(step.line)
        # one that was stopped tells what it has taken at least
        if taken is not None and (taken.is_done or taken.seconds > step.guess):
            seconds += max(taken.seconds, _LEAST * step.guess)
            guessed += step.guess
    return seconds / guessed if guessed else 1.0


def _left(step: Step, taken: Taken | None, slowness: float) -> float:
    whole = step.guess * slowness
    if taken is None:
        return whole
    if taken.is_done:
        return min(taken.seconds, _SECONDS_AGAIN)
    # one that has taken longer than all of it was to take is not at its end
    return max(whole - taken.seconds, whole / 10)


def in_words(seconds: float) -> str:
    """A time as people say it, rounded up: `about 40 s left`, `about 4 min left`."""
    if seconds <= 50:
        return f"about {10 * max(1, math.ceil(seconds / 10))} s left"
    return f"about {math.ceil(seconds / 60)} min left"


def _add(before: Taken | None, seconds: float, is_done: bool) -> Taken:
    """What a step has taken with another run of it: one that was done takes little, done again."""
    if before is None:
        return Taken(seconds, is_done)
    if before.is_done:
        return Taken(max(before.seconds, seconds), is_done)
    return Taken(before.seconds + seconds, is_done)


def read_times(record: str) -> dict[str, Taken]:
    """What the steps of a record took, by their lines; nothing where there is none to be used."""

    def parse(content: JsonObject) -> dict[str, Taken]:
        steps = content["steps"]
        require_numbers(step["seconds"] for step in steps)
        if not all(isinstance(step["command"], str) for step in steps):
            raise ValueError("its commands are no text")
        return {
            step["command"]: Taken(max(0.0, step["seconds"]), step["is_done"] is True)
            for step in steps
        }

    return find_record(record, parse) or {}


def _keep(record: str, steps: Sequence[Step], times: Times) -> None:
    """Write what the steps took; one that is no more is dropped. No step fails for it."""
    rows = [
        {"what": step.what, "guess": step.guess, **asdict(times[step.line]), "command": step.line}
        for step in steps
        if step.line in times
    ]
    try:
        make_folder(os.path.dirname(record))
        write_json_atomic(record, {"steps": rows})
    except OSError as error:
        show(f"warning: what the steps take is not kept: {error}", sys.stderr)
