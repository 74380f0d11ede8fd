"""Denoising, JPEG and inpainting with intervals that hold, in minutes: ``make demo-restore``.

Before each step it says what the step does and what is left of all of them, and prints the command.
Stop it at any time; run again, it goes on where it was. At the end stands one page.
"""

from __future__ import annotations

from dataclasses import dataclass

from sr_var.demo.restoration.commands import FULL, QUICK, Preset, demo_steps, record_path
from sr_var.demo.restoration.photographs import write_lists
from utils.process.errors import EXIT_DONE, run_main
from utils.runs.scripts import read_times, run_steps
from utils.script_util import FlagParser, flag, from_args, make_parser, require_at_least


@dataclass(frozen=True)
class DemoFlags:
    """How much of it."""

    quick: bool = flag(False, "tens of seconds, to see that all of it runs; nothing is learned")
    seed: int = flag(0, "of the split, weights and noise; others than 0 have folders of their own")

    def __post_init__(self) -> None:
        require_at_least(self, seed=0)


def create_parser() -> FlagParser:
    """The flags of this script."""
    return make_parser(__doc__, demo=DemoFlags)


def _pick_preset(flags: DemoFlags) -> Preset:
    """In bf16 where the CPU has arithmetic for it."""
    if flags.quick:
        return QUICK.with_seed(flags.seed)
    from utils.fp16_util import trains_in_bf16

    return FULL.with_bf16(trains_in_bf16()).with_seed(flags.seed)


def main(argv: list[str] | None = None) -> int:
    """Run all commands of the preset; return the exit code of the one that did not finish."""
    flags = from_args(DemoFlags, create_parser().parse_args(argv))
    preset = _pick_preset(flags)
    record = record_path(preset)
    write_lists(preset.split, preset.lists_dir)
    if (code := run_steps(demo_steps(preset), record)) != EXIT_DONE:
        return code
    from sr_var.demo.restoration.page import write_report
    from sr_var.demo.restoration.results import find_all, in_plain_words

    times = read_times(record)
    found = find_all(preset, times)
    path = write_report(preset, found, times)
    print("", *in_plain_words(found), sep="\n")
    minutes = sum(taken.seconds for taken in times.values()) / 60
    print(f"\nThe demo took {minutes:.1f} min in all.")
    print(f"report: {path} (open it in a browser)")
    return EXIT_DONE


if __name__ == "__main__":
    run_main(main)
