"""Trains a diffusion model of images, of all of them or by class.

one process:  python image_train.py --data_dir FOLDER $MODEL_FLAGS $DIFFUSION_FLAGS $TRAIN_FLAGS
4 GPUs:       torchrun --nproc_per_node 4 image_train.py (the same)
or:           mpiexec -n 4 python image_train.py (the same)
go on:        the same command with --resume_checkpoint auto and the same --log_dir
"""

from __future__ import annotations

from functools import partial

from image_ddpm.flags import (
    ImageDataFlags,
    ImageDiffusionFlags,
    ImageModelFlags,
    ImageTrainFlags,
    PresetFlags,
    apply_presets,
    with_folders,
)
from utils.process.errors import run_main
from utils.script_util import FlagParser, from_args, make_parser


def create_parser() -> FlagParser:
    """The flags of this script."""
    return make_parser(
        __doc__,
        preset=PresetFlags,
        model=ImageModelFlags,
        diffusion=ImageDiffusionFlags,
        data=ImageDataFlags,
        training=ImageTrainFlags,
    )


def main(argv: list[str] | None = None) -> int:
    """Parses, builds, trains; returns the exit code."""
    args = apply_presets(create_parser().parse_args(argv))
    from image_ddpm.networks import follow_run

    args, start = follow_run(args)
    flags, process = from_args(ImageModelFlags, args), from_args(ImageDiffusionFlags, args)
    data_flags = from_args(ImageDataFlags, args)
    train = with_folders(from_args(ImageTrainFlags, args))
    from ddpm.entries import load_train_entries
    from ddpm.process import training_process
    from image_ddpm.loops import ImageDiffusionTrainLoop
    from image_ddpm.networks import create_image_model, model_keywords
    from utils.loops.networks import new_network
    from utils.runs.start import started

    with started(args, train) as run:
        log = run.logger.info
        process = training_process(process, log)
        num_classes = flags.num_classes if flags.class_cond else None
        entries = load_train_entries(data_flags, num_classes, log, start)
        create = partial(create_image_model, **model_keywords(flags, process))
        loop = ImageDiffusionTrainLoop(
            model=new_network(create, train.asked_precision, log),
            entries=entries,
            data_flags=data_flags,
            network=flags,
            process=process,
            train=train,
            logger=run.logger,
        )
        run.is_done = loop.run_loop()
    return run.exit_code


if __name__ == "__main__":
    run_main(main)
