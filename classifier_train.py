"""Trains a classifier of noisy images, which guides image_sample.py (--classifier_path).

one process:  python classifier_train.py --data_dir FOLDER $CLASSIFIER_FLAGS $TRAIN_FLAGS
4 GPUs:       torchrun --nproc_per_node 4 classifier_train.py (the same)
go on:        the same command with --resume_checkpoint auto and the same --log_dir

Give the diffusion flags of the denoiser that it will guide.
"""

from __future__ import annotations

from functools import partial

from image_ddpm.flags import (
    ClassifierFlags,
    ClassifierImageFlags,
    ClassifierProcessFlags,
    ClassifierTrainFlags,
    ImageDataFlags,
    with_folders,
)
from utils.process.errors import run_main
from utils.script_util import FlagParser, from_args, make_parser


def create_parser() -> FlagParser:
    """The flags of this script."""
    return make_parser(
        __doc__,
        images=ClassifierImageFlags,
        classifier=ClassifierFlags,
        diffusion=ClassifierProcessFlags,
        data=ImageDataFlags,
        training=ClassifierTrainFlags,
    )


def main(argv: list[str] | None = None) -> int:
    """Parses, builds, trains; returns the exit code."""
    args = create_parser().parse_args(argv)
    from image_ddpm.networks import follow_classifier_run

    args, start = follow_classifier_run(args)
    image, classifier = from_args(ClassifierImageFlags, args), from_args(ClassifierFlags, args)
    process, data_flags = from_args(ClassifierProcessFlags, args), from_args(ImageDataFlags, args)
    train = with_folders(from_args(ClassifierTrainFlags, args))
    from ddpm.entries import load_train_entries
    from ddpm.process import training_process
    from ddpm.stored_flags import class_names
    from image_ddpm.classifier import (
        ClassifierTrainLoop,
        classifier_identity,
        create_classifier,
        load_noisy_images,
    )
    from image_ddpm.validation import load_validation
    from utils.loops.networks import new_network
    from utils.runs.start import started

    with started(args, train) as run:
        log, sizes = run.logger.info, vars(image)
        process = training_process(process, log)
        entries = load_train_entries(data_flags, image.num_classes, log, start)
        create = partial(create_classifier, **vars(classifier), **sizes)
        what = entries, data_flags, image, train, process, run.device, log
        loop = ClassifierTrainLoop(
            model=new_network(create, train.asked_precision, log),
            **load_noisy_images(*what)._asdict(),
            validation=load_validation(*what),
            class_names=class_names(entries),
            identity=classifier_identity(classifier, sizes, process.known_noise),
            logger=run.logger,
            **train.common(),
        )
        run.is_done = loop.run_loop()
    return run.exit_code


if __name__ == "__main__":
    run_main(main)
