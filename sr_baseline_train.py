"""Trains a baseline: mean and variance in one network by likelihood, or quantiles.

one process:  python sr_baseline_train.py --objective nll $MODEL_FLAGS $SCRIPT_FLAGS
the others:   --objective beta_nll --beta 0.5, or --objective quantile --quantiles 0.05,0.5,0.95
4 GPUs:       torchrun --nproc_per_node 4 sr_baseline_train.py (the same)
go on:        the same command with --resume_checkpoint auto
"""

from __future__ import annotations

from functools import partial

from sr_var.flags.nets import BaselineModelFlags, BaselineTrainFlags
from sr_var.flags.scripts import DataFlags
from utils.process.errors import run_main
from utils.script_util import FlagParser, from_args, make_parser


def create_parser() -> FlagParser:
    """The flags of this script."""
    return make_parser(
        __doc__, model=BaselineModelFlags, data=DataFlags, training=BaselineTrainFlags
    )


def main(argv: list[str] | None = None) -> int:
    """Parses, builds, trains; returns the exit code."""
    args = create_parser().parse_args(argv)
    from sr_var.stored_flags import follow_net_run

    args = follow_net_run(args, BaselineModelFlags)
    model_flags, data_flags = from_args(BaselineModelFlags, args), from_args(DataFlags, args)
    train = from_args(BaselineTrainFlags, args)
    from sr_var.baseline import BaselineTrainLoop
    from sr_var.data.validation import load_training
    from sr_var.degrade.view import View
    from sr_var.script_util import new_net
    from sr_var.stored_flags import identity_of, save_model_args
    from utils.runs.start import started

    with started(args, train) as run:
        log, num_labels = run.logger.info, model_flags.num_labels
        view = View.of(model_flags, train.seed, "baseline")
        what = data_flags, view, train, run.device, log
        images = load_training(*what, num_labels=num_labels)
        loop = BaselineTrainLoop(
            model=new_net(model_flags, train, log),
            model_flags=model_flags,
            **images._asdict(),
            identity=identity_of(model_flags),
            logger=run.logger,
            **train.common(),
        )
        run.is_done = loop.run_loop(on_start=partial(save_model_args, train.log_dir, model_flags))
    return run.exit_code


if __name__ == "__main__":
    run_main(main)
