"""What checkpoints of the super-resolving networks are, and which flags follow them.

To be called once presets have been settled, before the flags are read.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

from ddpm.flags import DiffusionFlags
from ddpm.process import TRAINING_ONLY, denoiser_identity
from ddpm.stored_flags import Start, follow_checkpoint, start_of_file, start_of_run
from sr_var.flags.scripts import MeanModelFlags, SRDiffusionModelFlags
from sr_var.model_args import args_path, flags_of_checkpoint, problem_with_images
from utils.files.identity import Identity
from utils.files.storage import is_file
from utils.script_util import flags_of

_FLAGS = (*flags_of(SRDiffusionModelFlags), *flags_of(DiffusionFlags))
_IN_USE = tuple(one for one in _FLAGS if one.name not in TRAINING_ONLY)


def sr_identity(
    flags: SRDiffusionModelFlags, process: DiffusionFlags, *, is_training: bool
) -> Identity:
    """What the checkpoints of the denoiser are (``denoiser_identity``)."""
    return denoiser_identity("SuperResModel", flags, process, is_training=is_training)


def follow_run(args: argparse.Namespace) -> argparse.Namespace:
    """The arguments of a training, which follow the checkpoint that it starts from.

    Raises:
        CheckpointError: for flags that contradict the run to resume.
    """
    return follow_checkpoint(args, start_of_run(args, args.model_save_dir), _FLAGS)


def follow_denoiser(args: argparse.Namespace) -> argparse.Namespace:
    """The arguments of a script that uses the denoiser of ``--model_path``.

    Raises:
        CheckpointError: for flags that contradict it.
    """
    return follow_checkpoint(args, start_of_file(args.model_path), _IN_USE)


def follow_net_run(
    args: argparse.Namespace, flags_class: type[MeanModelFlags]
) -> argparse.Namespace:
    """The arguments of a training of a mean, variance or baseline net.

    The model flags are those of the run that it goes on with, whatever the command line says.

    Raises:
        CheckpointError: if that run has no stored flags, or others with `--strict_flags True`.
        ValueError: if the command line asks for a network of other data than RGB images.
    """
    start = start_of_run(args, args.model_save_dir)
    if start.is_resumed:
        return _follow_net(args, start, flags_class)
    args = follow_checkpoint(args, start, flags_of(flags_class))
    problem = problem_with_images(vars(args))
    if problem:
        raise ValueError(f"--{problem}")
    return args


def follow_net(args: argparse.Namespace, flags_class: type[MeanModelFlags]) -> argparse.Namespace:
    """The arguments of a script that tests the net of `--model_path`, whose model flags count.

    Raises:
        CheckpointError: as :func:`follow_net_run`.
    """
    return _follow_net(args, start_of_file(args.model_path), flags_class)


def _follow_net(
    args: argparse.Namespace, start: Start, flags_class: type[MeanModelFlags]
) -> argparse.Namespace:
    if not start.manifest and not is_file(start.path):
        return args  # who loads it says what is there
    notices = list(getattr(args, "notices", ()))
    flags = flags_of_checkpoint(
        start,
        args_path(args.log_dir, flags_class),
        flags_class,
        notices.append,
        path_flag="--log_dir" if "log_dir" in args.given_flags else "",
    )
    start = replace(start, manifest={"network": {"flags": flags}}, is_in_charge=True)
    args = argparse.Namespace(**{**vars(args), "notices": notices})
    return follow_checkpoint(args, start, flags_of(flags_class))
