"""Which flags of which script follow which checkpoint (``ddpm.stored_flags``).

To be called once presets have been settled, before the flags are read.
"""

from __future__ import annotations

import argparse

from ddpm.process import TRAINING_ONLY
from ddpm.stored_flags import Start, follow_checkpoint, start_of_file, start_of_run
from image_ddpm.classifier_flags import (
    ClassifierFlags,
    ClassifierImageFlags,
    ClassifierProcessFlags,
)
from image_ddpm.flags import ImageDiffusionFlags, ImageModelFlags, save_dir_of
from utils.script_util import flags_of

_DENOISER = (*flags_of(ImageModelFlags), *flags_of(ImageDiffusionFlags))
_IN_USE = tuple(one for one in _DENOISER if one.name not in TRAINING_ONLY)
_CLASSIFIER = flags_of(ClassifierFlags)
_IMAGES = flags_of(ClassifierImageFlags)
_NUM_CLASSES = tuple(one for one in _IMAGES if one.name == "num_classes")


def follow_run(args: argparse.Namespace) -> tuple[argparse.Namespace, Start]:
    """The arguments of a training of a denoiser, and the checkpoint that it starts from.

    Raises:
        CheckpointError: for flags that contradict the run to resume.
    """
    start = start_of_run(args, save_dir_of(args))
    return follow_checkpoint(args, start, _DENOISER), start


def follow_denoiser(args: argparse.Namespace) -> argparse.Namespace:
    """The arguments of a script that uses the denoiser of ``--model_path``.

    Raises:
        CheckpointError: for flags that contradict it.
    """
    start = start_of_file(args.model_path)
    return follow_checkpoint(args, start, _IN_USE)


def follow_classifier_run(args: argparse.Namespace) -> tuple[argparse.Namespace, Start]:
    """As :func:`follow_run`, of a classifier.

    Raises:
        CheckpointError: for flags that contradict the run to resume.
    """
    start = start_of_run(args, save_dir_of(args))
    flags = (*_CLASSIFIER, *_IMAGES, *flags_of(ClassifierProcessFlags))
    return follow_checkpoint(args, start, flags), start


def follow_guide(args: argparse.Namespace) -> argparse.Namespace:
    """The arguments of a script whose denoiser the classifier of ``--classifier_path`` may guide.

    The classes are the denoiser's, where it has some.

    Raises:
        CheckpointError: for flags that contradict the classifier.
    """
    start = start_of_file(args.classifier_path)
    flags = _CLASSIFIER if args.class_cond else (*_CLASSIFIER, *_NUM_CLASSES)
    return follow_checkpoint(args, start, flags)


def follow_features(args: argparse.Namespace) -> argparse.Namespace:
    """The arguments of a script that takes the features of the classifier of ``--features``.

    Raises:
        CheckpointError: for flags that contradict the classifier.
    """
    start = start_of_file(args.features)
    return follow_checkpoint(args, start, (*_CLASSIFIER, *_IMAGES))
