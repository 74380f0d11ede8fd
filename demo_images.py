"""Digits from a diffusion model in minutes: ``make demo-images``; trains, samples, judges, reports.

Before each step it says what the step does and what is left of all of them, and prints the command.
Stop it at any time; run again, it goes on where it was.
"""

from __future__ import annotations

from dataclasses import dataclass

from image_ddpm.demo import FULL, QUICK, demo_steps, record_path, write_report
from utils.process.errors import EXIT_DONE, run_main
from utils.runs.scripts import read_times, run_steps
from utils.script_util import FlagParser, flag, from_args, make_parser


@dataclass(frozen=True)
class DemoFlags:
    """How much of it."""

    quick: bool = flag(False, "some seconds, to see that all of it runs; no digit can be read")


def create_parser() -> FlagParser:
    """The flags of this script."""
    return make_parser(__doc__, demo=DemoFlags)


def main(argv: list[str] | None = None) -> int:
    """Run all commands of the preset; return the exit code of the one that did not finish."""
    flags = from_args(DemoFlags, create_parser().parse_args(argv))
    preset = QUICK if flags.quick else FULL
    record = record_path(preset)
    if (code := run_steps(demo_steps(preset), record)) != EXIT_DONE:
        return code
    path = write_report(preset)
    minutes = sum(taken.seconds for taken in read_times(record).values()) / 60
    print(f"\nThe demo took {minutes:.1f} min in all.")
    print(f"report:   {path} (open it in a browser)")
    print(f"samples:  outputs/image_ddpm/{preset.name}/")
    return EXIT_DONE


if __name__ == "__main__":
    run_main(main)
