"""All noise types, shares of right labels and seeds; figures and report.html at the end.

    python noisy_label_sweep.py                    (MNIST as published; hours on a few cores)
    python noisy_label_sweep.py --max_step 500 --lr 2e-3           (small data, as the digits)

Several runs at once, one a core. Stop it at any time; run again, it goes on where it was.
"""

from __future__ import annotations

from noisy_label.flags import SweepFlags
from utils.process.errors import run_main
from utils.script_util import FlagParser, from_args, make_parser


def create_parser() -> FlagParser:
    """The flags of this script."""
    return make_parser(__doc__, sweep=SweepFlags)


def main(argv: list[str] | None = None) -> int:
    """Parses, runs, reports; returns the exit code."""
    args = create_parser().parse_args(argv)
    flags = from_args(SweepFlags, args)
    import os

    from noisy_label.files import TEST, TRAINING, load_split
    from noisy_label.noise import count_classes
    from noisy_label.report import text_table, words_text, write_report
    from noisy_label.summary import summarise
    from noisy_label.sweep import clean_runs, noisy_runs, require_same_sweep, run_all
    from utils.files.atomic import write_json_atomic
    from utils.runs.job import working
    from utils.runs.start import started

    training = load_split(flags.data_dir, TRAINING)
    num_classes = count_classes(training[1].numpy())
    splits = {TRAINING: training, TEST: load_split(flags.data_dir, TEST, num_classes)}
    require_same_sweep(flags, splits)
    with started(args, flags, has_group=False) as run:
        stages = clean_runs(flags), noisy_runs(flags)
        with working(sum(map(len, stages)), "sweep", "run") as job:
            for stage in stages:
                run_all(stage, flags, job)
        summary = summarise(flags, *(labels.numpy() for _, labels in splits.values()))
        run.logger.info(f"\n{text_table(summary)}\n\n{words_text(summary)}\n")
        write_json_atomic(os.path.join(flags.log_dir, "results.json"), summary)
        run.logger.info(f"report: {write_report(flags.log_dir, summary)}")
    return run.exit_code


if __name__ == "__main__":
    run_main(main)
