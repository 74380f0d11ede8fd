"""Writes the conditional mean of every test image; finished images are not computed again.

    one process:  python sr_mean_test.py $MODEL_FLAGS $SCRIPT_FLAGS --model_path M.pt
    4 GPUs:       torchrun --nproc_per_node 4 sr_mean_test.py (the same)
    a function:   python sr_mean_test.py --mean_module restorers:bicubic $MODEL_FLAGS (the same)
    several nets: --model_path 'run_{fold}/M.pt' --cross_fit 3, or 'run_{run}/M.pt' --ensemble 0,1,2

The network is built from the model flags that the training stored in --log_dir. Of several nets
the average is written, and the variance between them.
"""

from __future__ import annotations

from functools import partial

from sr_var.flags.nets import EnsembleFlags
from sr_var.flags.scripts import MeanModelFlags, MeanNetFlags, TestDataFlags, TestFlags
from utils.flags.groups import Reading
from utils.process.errors import run_main
from utils.script_util import FlagParser, from_args, make_parser, with_values


def create_parser() -> FlagParser:
    """The flags of this script (a path in the mean net's place only fits the variance test)."""
    return make_parser(
        __doc__,
        model=MeanModelFlags,
        data=TestDataFlags,
        test=TestFlags,
        several_nets=EnsembleFlags,
        mean_net=MeanNetFlags,
    )


def main(argv: list[str] | None = None) -> int:
    """Parses, builds, tests; returns the exit code."""
    args = create_parser().parse_args(argv)
    several = from_args(EnsembleFlags, args)
    paths = several.members(args.model_path, "model_path")
    from sr_var.stored_flags import follow_net

    followed = follow_net(with_values(args, model_path=paths[0]), MeanModelFlags)
    args = with_values(followed, model_path=args.model_path)
    model_flags, data_flags = from_args(MeanModelFlags, args), from_args(TestDataFlags, args)
    test = from_args(TestFlags, args)
    from sr_var.base_dataset import load_test_entries
    from sr_var.data.folds import CrossFit, FoldedMean
    from sr_var.ensemble import SRMeanEnsembleTestLoop, require_folds, tested_models, tested_module
    from sr_var.mean_utils import SRMeanTestLoop, mean_result_folder
    from sr_var.script_util import run_test
    from sr_var.values import Units
    from utils.loops.checkpoint import step_of
    from utils.runs.start import started

    with started(args, test) as run:
        log, reading = run.logger.info, Reading.of(data_flags)
        require_folds(CrossFit.from_flags(several), paths)
        if args.mean_module:
            nets, paths = tested_module(model_flags, test, args.mean_module, several, log)
        else:
            nets = tested_models(model_flags, test, paths, reading, log)
        sizes, step = model_flags.sizes, 0 if args.mean_module else step_of(paths[0])
        entries = load_test_entries(data_flags, sizes, log)
        read_as = {"reading": reading, "units": Units.of(model_flags)}
        results = mean_result_folder(test.output_dir, step, *paths, **read_as)
        make_loop = partial(SRMeanTestLoop, model=nets[0])
        if len(nets) > 1:
            make_loop = partial(SRMeanEnsembleTestLoop, model=FoldedMean(nets))
        run.is_done = run_test(
            make_loop, results, entries, model_flags, data_flags, test, run.logger
        )
    return run.exit_code


if __name__ == "__main__":
    run_main(main)
