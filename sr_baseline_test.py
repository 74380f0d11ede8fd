"""Writes a baseline's results of every test image; finished images are not computed again.

    one process:  python sr_baseline_test.py --log_dir L --model_path M.pt --output_dir O
    4 GPUs:       torchrun --nproc_per_node 4 sr_baseline_test.py (the same)

Mean and variance have the names of the two nets' results, so that sr_var_verification.py takes them
with --sr_model_output_dir O and the step for both --mean_model_step and --var_model_step. A net of
quantiles also writes these, and how many real values lie below each.
"""

from __future__ import annotations

from functools import partial

from sr_var.flags.nets import QUANTILE, BaselineModelFlags, BaselineTestFlags
from sr_var.flags.scripts import TestDataFlags
from utils.flags.groups import Reading
from utils.process.errors import run_main
from utils.script_util import FlagParser, from_args, make_parser


def create_parser() -> FlagParser:
    """The flags of this script."""
    return make_parser(
        __doc__, model=BaselineModelFlags, data=TestDataFlags, test=BaselineTestFlags
    )


def main(argv: list[str] | None = None) -> int:
    """Parses, builds, tests; returns the exit code."""
    args = create_parser().parse_args(argv)
    from sr_var.stored_flags import follow_net

    args = follow_net(args, BaselineModelFlags)
    model_flags, data_flags = from_args(BaselineModelFlags, args), from_args(TestDataFlags, args)
    test = from_args(BaselineTestFlags, args)
    from sr_var.base_dataset import load_test_entries
    from sr_var.baseline import (
        BaselineTestLoop,
        ExactQuantiles,
        baseline_result_folder,
        report_quantiles,
    )
    from sr_var.script_util import run_test, tested_model
    from sr_var.values import Units
    from utils.dist_util import is_main
    from utils.loops.checkpoint import step_of
    from utils.runs.start import started

    with started(args, test) as run:
        log, reading = run.logger.info, Reading.of(data_flags)
        model = tested_model(model_flags, test, reading, log)
        sizes, step = model_flags.sizes, step_of(test.model_path)
        entries = load_test_entries(data_flags, sizes, log)
        read_as = {"reading": reading, "units": Units.of(model_flags)}
        results = baseline_result_folder(model_flags, test, step, **read_as)
        make_loop = partial(
            BaselineTestLoop,
            model=model,
            model_flags=model_flags,
            step=step,
            exact=ExactQuantiles.of_test(model_flags, test),
        )
        run.is_done = run_test(
            make_loop, results, entries, model_flags, data_flags, test, run.logger
        )
        has_quantiles = run.is_done and model_flags.objective == QUANTILE and not test.dry_run
        if has_quantiles and is_main():
            report_quantiles(results, entries, step, log)
    return run.exit_code


if __name__ == "__main__":
    run_main(main)
