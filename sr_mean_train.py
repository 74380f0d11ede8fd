"""Trains the network for the conditional mean E[high-res | low-res].

one process:  python sr_mean_train.py $MODEL_FLAGS $SCRIPT_FLAGS
4 GPUs:       torchrun --nproc_per_node 4 sr_mean_train.py $MODEL_FLAGS $SCRIPT_FLAGS
go on:        the same command with --resume_checkpoint auto
cross-fit:    for k in 0 1 2: --cross_fit 3 --fold $k, with folders of its own for each k
"""

from __future__ import annotations

from functools import partial

from ddpm.flags import apply_preset
from sr_var.flags.nets import MEAN_PRESETS, FoldFlags, NetPresetFlags
from sr_var.flags.scripts import DataFlags, MeanModelFlags, MeanTrainFlags
from utils.process.errors import run_main
from utils.script_util import FlagParser, from_args, make_parser


def create_parser() -> FlagParser:
    """The flags of this script."""
    return make_parser(
        __doc__,
        preset=NetPresetFlags,
        model=MeanModelFlags,
        data=DataFlags,
        training=MeanTrainFlags,
        cross_fitting=FoldFlags,
    )


def main(argv: list[str] | None = None) -> int:
    """Parses, builds, trains; returns the exit code."""
    args = apply_preset(create_parser().parse_args(argv), MEAN_PRESETS, "")
    from sr_var.stored_flags import follow_net_run

    args = follow_net_run(args, MeanModelFlags)
    model_flags, data_flags = from_args(MeanModelFlags, args), from_args(DataFlags, args)
    train, fold_flags = from_args(MeanTrainFlags, args), from_args(FoldFlags, args)
    from sr_var.data.folds import CrossFit
    from sr_var.data.validation import load_training
    from sr_var.degrade.view import View
    from sr_var.mean_utils import SRMeanTrainLoop
    from sr_var.script_util import new_net
    from sr_var.stored_flags import identity_of, save_model_args
    from utils.runs.start import started

    with started(args, train) as run:
        log, num_labels = run.logger.info, model_flags.num_labels
        cross_fit = CrossFit.from_flags(fold_flags, num_labels)
        view = View.of(model_flags, train.seed, train.net)
        what = data_flags, view, train, run.device, log, cross_fit
        images = load_training(*what, num_labels)
        loop = SRMeanTrainLoop(
            model=new_net(model_flags, train, log),
            **images._asdict(),
            cross_fit=cross_fit,
            identity=identity_of(model_flags),
            logger=run.logger,
            **train.common(),
        )
        run.is_done = loop.run_loop(on_start=partial(save_model_args, train.log_dir, model_flags))
    return run.exit_code


if __name__ == "__main__":
    run_main(main)
