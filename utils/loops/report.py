"""What a training says of itself: at its start, when it is stopped, and when it diverges."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch

from utils import dist_util
from utils.files.atomic import JsonObject
from utils.flags.training import TrainFlags
from utils.fp16_util import MIN_LG_LOSS_SCALE, MixedPrecisionTrainer
from utils.loops.checkpoint import CheckpointStore, model_file_name
from utils.process.errors import CheckpointError
from utils.process.stop import go_on_with

_BATCH_KEY = "global_batch"


def global_batch(flags: TrainFlags) -> int:
    """Items of one step, over all processes."""
    return flags.batch_size * dist_util.get_world_size()


def batch_state(flags: TrainFlags) -> dict[str, int]:
    """What a checkpoint remembers of the batch."""
    return {_BATCH_KEY: global_batch(flags)}


def say_start(
    model: torch.nn.Module,
    flags: TrainFlags,
    step: int,
    stored: JsonObject,
    log: Callable[[str], None],
) -> None:
    """Say what of the flags the network cannot have, and how large the batch of all processes is.

    Args:
        model: may have `notices`, lines about its flags.
        flags: of the run.
        step: that the run goes on from, 0 for a fresh start.
        stored: the state of the checkpoint that is resumed; empty for a fresh start.
        log: receives the lines.
    """
    for line in getattr(model, "notices", list)():
        log(line)
    batch, world_size = global_batch(flags), dist_util.get_world_size()
    if world_size > 1:
        log(f"global batch {batch} = {flags.batch_size} x {world_size} processes")
    before = _stored_batch(stored, step)
    if before not in (None, batch):
        log(
            f"notice: the global batch is {batch} (--batch_size {flags.batch_size}, which is per "
            f"process, x {world_size}); in the run that is resumed it was {before}: from here on a "
            "step takes another number of items"
        )


def _stored_batch(stored: JsonObject, step: int) -> int | None:
    """The global batch of a checkpoint; told from the place in the data where it is not there."""
    batch, position = stored.get(_BATCH_KEY), stored.get("position")
    if batch is None and isinstance(position, int) and step and position % step == 0:
        batch = position // step
    return batch if isinstance(batch, int) else None


def how_to_go_on(flags: TrainFlags) -> str:
    """What to do after a stop."""
    if not flags.model_save_dir:
        return "nothing was saved, for --model_save_dir is empty: another run starts afresh"
    folder = flags.model_save_dir
    return go_on_with(f"--resume_checkpoint auto --model_save_dir {folder}")


def refuse_divergence(
    flags: TrainFlags, step: int, skipped_in_row: float, trainer: MixedPrecisionTrainer
) -> None:
    """End a run whose gradients stay useless.

    Raises:
        CheckpointError: says what happened, the remedy, and which checkpoint is there.
    """
    lg_loss_scale = float(trainer.lg_loss_scale)
    if trainer.has_loss_scale and lg_loss_scale <= MIN_LG_LOSS_SCALE:
        raise CheckpointError(
            f"step {step}: the loss scale fell to 2^{lg_loss_scale:.0f} and fp16 still overflows; "
            f"lower --lr or use --use_bf16 True. {_last_checkpoint(flags, step)}"
        )
    if not trainer.has_loss_scale and skipped_in_row >= flags.max_bad_steps:
        raise CheckpointError(
            f"step {step}: {skipped_in_row:.0f} gradients in a row were not finite; lower --lr or "
            f"look at the data. {_last_checkpoint(flags, step)}"
        )


def _last_checkpoint(flags: TrainFlags, step: int) -> str:
    folder = flags.model_save_dir
    there = CheckpointStore(folder, warn=lambda line: None).steps() if folder else []
    saved = [found for found in there if found <= step]
    if not saved:
        return "No checkpoint was saved"
    return f"The last checkpoint is {os.path.join(folder, model_file_name(saved[0]))}"
