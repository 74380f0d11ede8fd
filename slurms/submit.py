"""Submits the steps of the super-resolution experiment as Slurm jobs that wait for each other.

    all of it:           python slurms/submit.py
    look first:          python slurms/submit.py --dry_run True
    some of it:          python slurms/submit.py --steps var_train,var_test,verify
    when 1234 has ended: python slurms/submit.py --steps var_test,verify --after 1234

Settings stand in slurms/config.sh. What a job does when its time is over: slurms/README.md.
"""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

# it is started by its path
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from slurms.chain import (
    CHAIN,
    NEEDS,
    ROOT,
    in_order,
    job_command,
    read_options,
    submit,
    waits_for,
)
from utils.process.errors import EXIT_DONE, run_main
from utils.script_util import FlagParser, flag, from_args, make_parser

_JOB = "[0-9]+(_[0-9]+)?"


@dataclass(frozen=True)
class SubmitFlags:
    """What is submitted."""

    steps: str = flag(",".join(CHAIN), f"comma separated, of {', '.join(NEEDS)}")
    config: str = flag(
        "slurms/config.sh", "file of the settings; relative: to the toolkit's root", is_path=True
    )
    after: str = flag("", "numbers of jobs that the first steps wait for, with colons between them")
    dry_run: bool = flag(False, "print the commands, submit nothing")

    def __post_init__(self) -> None:
        """Refuse what are no numbers of jobs."""
        if self.after and not re.fullmatch(f"{_JOB}(:{_JOB})*", self.after):
            raise ValueError(
                f"--after {self.after!r} must be numbers of jobs with colons between them, as "
                "1234:1240 or, for a task of an array, 1234_7"
            )


def create_parser() -> FlagParser:
    """The flags of this script."""
    return make_parser(__doc__, submission=SubmitFlags)


def main(argv: list[str] | None = None) -> int:
    """Submit in order; a step waits for the chosen ones that it needs."""
    flags = from_args(SubmitFlags, create_parser().parse_args(argv))
    chosen = in_order([name.strip() for name in flags.steps.split(",")])
    config = str(ROOT / flags.config)
    jobs: dict[str, str] = {}
    for step, options in zip(chosen, read_options(chosen, config), strict=True):
        after = ":".join(jobs[need] for need in waits_for(step, chosen)) or flags.after
        command = job_command(step, options, after)
        if flags.dry_run:
            jobs[step] = f"<{step}>"
            print(f"CONFIG={shlex.quote(config)} {shlex.join(command)}")
            continue
        try:
            jobs[step] = submit(command, config)
        except ValueError as error:
            raise ValueError(f"{step}: {error}{_left(chosen, jobs)}") from None
        print(f"{step}: job {jobs[step]}" + (f" after {after}" if after else ""), flush=True)
    return EXIT_DONE


def _left(chosen: list[str], jobs: dict[str, str]) -> str:
    """What to do about the jobs that are there already: they are left, since they are useful."""
    if not jobs:
        return ""
    numbers = " ".join(jobs.values())
    rest = ",".join(step for step in chosen if step not in jobs)
    return (
        f"; left in the queue: {', '.join(f'{step} {job}' for step, job in jobs.items())}. Go on "
        f"with --steps {rest} --after {':'.join(jobs.values())}, or: scancel {numbers}"
    )


if __name__ == "__main__":
    run_main(main)
