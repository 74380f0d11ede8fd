"""What checkpoints of the super-resolving denoiser are, and which flags follow them.

To be called once presets have been settled, before the flags are read.
"""

from __future__ import annotations

import argparse
from dataclasses import fields

from ddpm.flags import DiffusionFlags
from ddpm.process import TRAINING_ONLY, denoiser_identity
from ddpm.stored_flags import follow_checkpoint, start_of_file, start_of_run
from sr_var.flags.scripts import SRDiffusionModelFlags
from utils.files.identity import Identity, free_flags

_FLAGS = (*fields(SRDiffusionModelFlags), *fields(DiffusionFlags))
_IN_USE = tuple(one for one in _FLAGS if one.name not in TRAINING_ONLY)
_FREE = free_flags(SRDiffusionModelFlags, DiffusionFlags)


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
    return follow_checkpoint(args, start_of_run(args, args.model_save_dir), _FLAGS, _FREE)


def follow_denoiser(args: argparse.Namespace) -> argparse.Namespace:
    """The arguments of a script that uses the denoiser of ``--model_path``.

    Raises:
        CheckpointError: for flags that contradict it.
    """
    return follow_checkpoint(args, start_of_file(args.model_path), _IN_USE, _FREE)
