"""Writes the conditional variance of every test image; finished images are not computed again.

    one process:  python sr_var_test.py $MODEL_FLAGS $SCRIPT_FLAGS --model_path V.pt \
                      --mean_model_path M.pt --mean_model_args_path LOG/mean_model_args.pkl
    4 GPUs:       torchrun --nproc_per_node 4 sr_var_test.py (the same)

The network is built from the model flags that the training stored in --log_dir. Its mean comes from
the net of --mean_model_path, or, with --cross_fit K, from the average of the K nets of the pattern.
"""

from __future__ import annotations

from functools import partial

from sr_var.flags.nets import CrossFitFlags
from sr_var.flags.scripts import MeanNetFlags, TestDataFlags, VarModelFlags, VarTestFlags
from utils.flags.groups import Reading
from utils.process.errors import run_main
from utils.script_util import FlagParser, from_args, make_parser


def create_parser() -> FlagParser:
    """The flags of this script."""
    return make_parser(
        __doc__,
        model=VarModelFlags,
        mean_net=MeanNetFlags,
        cross_fitting=CrossFitFlags,
        data=TestDataFlags,
        test=VarTestFlags,
    )


def main(argv: list[str] | None = None) -> int:
    """Parses, builds, tests; returns the exit code."""
    args = create_parser().parse_args(argv)
    from sr_var.stored_flags import follow_net

    args = follow_net(args, VarModelFlags)
    model_flags, mean_flags = from_args(VarModelFlags, args), from_args(MeanNetFlags, args)
    data_flags, test = from_args(TestDataFlags, args), from_args(VarTestFlags, args)
    fold_flags = from_args(CrossFitFlags, args)
    from sr_var.base_dataset import load_test_entries
    from sr_var.components import tested_loop_of
    from sr_var.data.folds import CrossFit
    from sr_var.script_util import frozen_means, mean_net_paths, run_test, tested_model
    from sr_var.values import Units
    from sr_var.var_utils import require_same_mean
    from utils.files.atomic import sha256_of
    from utils.loops.checkpoint import manifest_beside, step_of
    from utils.runs.start import started

    with started(args, test) as run:
        log, reading = run.logger.info, Reading.of(data_flags)
        model = tested_model(model_flags, test, reading, log)
        sizes, step = model_flags.sizes, step_of(test.model_path)
        cross_fit = CrossFit.from_flags(fold_flags)
        mean_paths = mean_net_paths(mean_flags, cross_fit)
        mean_net = frozen_means(mean_flags, cross_fit, sizes, test, log, args)
        state = manifest_beside(test.model_path).get("state", {})
        require_same_mean(state, list(map(sha256_of, mean_paths)), test.model_path)
        entries = load_test_entries(data_flags, sizes, log)
        paths = test.model_path, *mean_paths
        read_as = {"reading": reading, "units": Units.of(model_flags)}
        loop_class, make_folder = tested_loop_of(model_flags)
        results = make_folder(test.output_dir, step, *paths, **read_as)
        make_loop = partial(loop_class, model=model, mean_model=mean_net)
        run.is_done = run_test(make_loop, results, entries, sizes, data_flags, test, run.logger)
    return run.exit_code


if __name__ == "__main__":
    run_main(main)
