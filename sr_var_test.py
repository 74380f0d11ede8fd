"""Writes the conditional variance of every test image; finished images are not computed again.

    one process:  python sr_var_test.py $MODEL_FLAGS $SCRIPT_FLAGS --model_path V.pt \
                      --mean_model_path M.pt --mean_model_args_path LOG/mean_model_args.pkl
    4 GPUs:       torchrun --nproc_per_node 4 sr_var_test.py (the same)

The network is built from the model flags that the training stored in --log_dir. Its mean comes from
the net of --mean_model_path, or, with --cross_fit K, from the average of the K nets of the pattern.
With --ensemble the mean of the variances of several nets is written, each on its own mean net where
--mean_model_path has {run}, too.
"""

from __future__ import annotations

from functools import partial

from sr_var.flags.nets import EnsembleFlags
from sr_var.flags.scripts import MeanNetFlags, TestDataFlags, VarModelFlags, VarTestFlags
from utils.flags.groups import Reading
from utils.process.errors import run_main
from utils.script_util import FlagParser, from_args, make_parser, with_values


def create_parser() -> FlagParser:
    """The flags of this script."""
    return make_parser(
        __doc__,
        model=VarModelFlags,
        mean_net=MeanNetFlags,
        several_nets=EnsembleFlags,
        data=TestDataFlags,
        test=VarTestFlags,
    )


def main(argv: list[str] | None = None) -> int:
    """Parses, builds, tests; returns the exit code."""
    args = create_parser().parse_args(argv)
    several = from_args(EnsembleFlags, args)
    path = several.runs_of(args.model_path, "model_path")[0]
    from sr_var.stored_flags import follow_net

    followed = follow_net(with_values(args, model_path=path), VarModelFlags)
    args = with_values(followed, model_path=args.model_path)
    model_flags, mean_flags = from_args(VarModelFlags, args), from_args(MeanNetFlags, args)
    data_flags, test = from_args(TestDataFlags, args), from_args(VarTestFlags, args)
    from sr_var.base_dataset import load_test_entries
    from sr_var.components import tested_loop_of
    from sr_var.ensemble import tested_variance
    from sr_var.script_util import run_test
    from sr_var.values import Units
    from utils.loops.checkpoint import step_of
    from utils.runs.start import started

    with started(args, test) as run:
        log, sizes, step = run.logger.info, model_flags.sizes, step_of(path)
        tested = tested_variance(model_flags, mean_flags, several, test, args, log)
        entries = load_test_entries(data_flags, sizes, log)
        read_as = {"reading": Reading.of(data_flags), "units": Units.of(model_flags)}
        written = {**read_as, "has_array": test.var_npy}
        _, make_folder = tested_loop_of(model_flags)
        results = make_folder(test.output_dir, step, *tested.paths, **written)
        make_loop = partial(tested.make_loop, model_flags)
        run.is_done = run_test(
            make_loop, results, entries, model_flags, data_flags, test, run.logger
        )
    return run.exit_code


if __name__ == "__main__":
    run_main(main)
