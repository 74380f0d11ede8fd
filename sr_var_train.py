"""Trains the network for the conditional variance Var[high-res | low-res], given a mean net.

one process:  python sr_var_train.py $MODEL_FLAGS $SCRIPT_FLAGS --mean_model_path M.pt
4 GPUs:       torchrun --nproc_per_node 4 sr_var_train.py (the same)
go on:        the same command with --resume_checkpoint auto
cross-fit:    --cross_fit 3 --mean_model_path 'checkpoints/sr_mean/run_{fold}/model090000.pt'
"""

from __future__ import annotations

from functools import partial

from ddpm.flags import apply_preset
from sr_var.flags.nets import VAR_PRESETS, NetPresetFlags, ResidualFlags
from sr_var.flags.scripts import DataFlags, MeanNetFlags, VarModelFlags, VarTrainFlags
from utils.process.errors import run_main
from utils.script_util import FlagParser, from_args, make_parser


def create_parser() -> FlagParser:
    """The flags of this script."""
    return make_parser(
        __doc__,
        preset=NetPresetFlags,
        model=VarModelFlags,
        mean_net=MeanNetFlags,
        residuals=ResidualFlags,
        data=DataFlags,
        training=VarTrainFlags,
    )


def main(argv: list[str] | None = None) -> int:
    """Parses, builds, trains; returns the exit code."""
    args = apply_preset(create_parser().parse_args(argv), VAR_PRESETS, "")
    from sr_var.functionals import settle_functional
    from sr_var.stored_flags import (
        follow_net_run,
        identity_of,
        require_known_classes,
        save_model_args,
    )

    args = follow_net_run(settle_functional(args), VarModelFlags)
    model_flags, mean_flags = from_args(VarModelFlags, args), from_args(MeanNetFlags, args)
    data_flags, train = from_args(DataFlags, args), from_args(VarTrainFlags, args)
    residuals = from_args(ResidualFlags, args)
    from sr_var import script_util as build
    from sr_var.components import train_loop_of
    from sr_var.data.folds import CrossFit
    from sr_var.data.validation import load_training
    from sr_var.degrade.view import View
    from utils.runs.start import started

    with started(args, train) as run:
        log, num_labels = run.logger.info, model_flags.num_labels
        make_loop = train_loop_of(model_flags, residuals.loss)
        cross_fit = CrossFit.from_flags(residuals, num_labels)
        mean_net = build.frozen_means(mean_flags, cross_fit, model_flags, train, log, args)
        view = View.of(model_flags, train.seed, train.net)
        images = load_training(data_flags, view, train, run.device, log, cross_fit, num_labels)
        means = build.mean_net_paths(mean_flags, cross_fit)
        require_known_classes(means, images.entries, data_flags)
        loop = make_loop(
            model=build.new_net(model_flags, train, log),
            mean_model=mean_net,
            **images._asdict(),
            cross_fit=cross_fit,
            mean_digests=build.mean_net_digests(mean_flags, cross_fit),
            identity=identity_of(model_flags),
            logger=run.logger,
            **train.common(),
        )
        build.report_leakage(mean_net, images.data, residuals.leakage_images, run.logger, loop.step)
        run.is_done = loop.run_loop(on_start=partial(save_model_args, train.log_dir, model_flags))
    return run.exit_code


if __name__ == "__main__":
    run_main(main)
