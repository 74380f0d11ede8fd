"""Digits from a diffusion model in minutes: ``make demo-images``; trains, samples, judges, reports.

Prints each command before it runs it. Stop it at any time; run again, it goes on where it was.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from image_ddpm.demo import FULL, QUICK, commands, write_report
from utils.process.errors import EXIT_DONE, run_main
from utils.runs.job import run_scripts
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
    steps, started = commands(preset), time.monotonic()
    if (code := run_scripts(steps)) != EXIT_DONE:
        return code
    path = write_report(preset)
    print(f"\ndone in {(time.monotonic() - started) / 60:.1f} min")
    print(f"report:   {path} (open it in a browser)")
    print(f"samples:  outputs/image_ddpm/{preset.name}/")
    return EXIT_DONE


if __name__ == "__main__":
    run_main(main)
