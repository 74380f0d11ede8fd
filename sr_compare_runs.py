"""Compares trainings by what they logged: curves in one picture, last and best values in a table.

    python sr_compare_runs.py logs/sr_mean/a logs/sr_mean/b

Losses of different objectives (--loss, --objective) say nothing of each other: compare their
val/psnr, val/nll and val/z2.
"""

from __future__ import annotations

import os

from sr_var.flags.compare import CompareFlags
from utils.process.errors import run_main
from utils.script_util import FlagParser, from_args, make_parser


def create_parser() -> FlagParser:
    """The flags of this script; words without a flag are log folders."""
    parser = make_parser(__doc__, comparison=CompareFlags)
    parser.flag_of_words = "log_dirs"
    return parser


def main(argv: list[str] | None = None) -> int:
    """Parses, reads, writes; returns the exit code."""
    args = create_parser().parse_args(argv)
    flags = from_args(CompareFlags, args)
    from sr_var.compare import draw_runs, read_runs, table_text, write_table
    from utils.runs.start import started

    with started(args, flags, has_group=False) as run:
        runs = read_runs(flags.folders)
        run.logger.info(table_text(runs))
        if not flags.dry_run:
            write_table(os.path.join(flags.log_dir, "runs.csv"), runs)
            picture = os.path.join(flags.log_dir, "runs.png")
            draw_runs(picture, runs)
            run.logger.info(f"curves: {picture}")
    return run.exit_code


if __name__ == "__main__":
    run_main(main)
