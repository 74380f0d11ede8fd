"""Networks in the precision that a device has: which it can follow, and frozen ones from files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch

from utils import dist_util
from utils.atomic_file import sha256_of
from utils.checkpoint import CheckpointStore
from utils.errors import CheckpointError
from utils.fp16_util import computes_natively
from utils.identity import Identity
from utils.state_dict_io import load_model
from utils.train_flags import TrainFlags

Log = Callable[[str], None]
Train = TypeVar("Train", bound=TrainFlags)


Network = TypeVar("Network", bound=torch.nn.Module)


def new_network(
    create: Callable[..., Network],
    flags: Mapping[str, Any],
    train: TrainFlags,
    start: Callable[[Network], None] | None = None,
) -> Network:
    """The network of the flags in the precision of the training.

    A checkpoint that is resumed replaces all of its weights.

    Args:
        create: makes a network of flags, ``use_fp16`` and ``use_bf16`` among them.
        flags: its keywords.
        train: decides the precision.
        start: changes the fresh weights, in fp32.
    """
    model = create(**{**flags, "use_fp16": train.use_fp16, "use_bf16": train.use_bf16})
    if start is not None:
        start(model)
    cast_to_own_precision(model)
    return model


def cast_to_own_precision(model: torch.nn.Module) -> None:
    """Casts the layers that compute in the precision of the network's flags, where it has such."""
    convert = getattr(model, "convert_to_compute_dtype", None)
    if convert is not None:
        convert()


def usable_precision(use_fp16: bool, use_bf16: bool, log: Log) -> dict[str, bool]:
    """The precision flags that this device can follow: fp32 where it has no 16-bit arithmetic.

    The stored flags stay as they are, so that another device computes as asked.
    """
    if not (use_fp16 or use_bf16):
        return {"use_fp16": False, "use_bf16": False}
    name, dtype = ("fp16", torch.float16) if use_fp16 else ("bf16", torch.bfloat16)
    if computes_natively(dtype, dist_util.current_device()):
        return {"use_fp16": use_fp16, "use_bf16": use_bf16}
    log(f"notice: this CPU has no {name} arithmetic (about 100 times slower); computing in fp32")
    return {"use_fp16": False, "use_bf16": False}


def in_usable_precision(train: Train, log: Log) -> Train:
    """The training flags with a precision that the device has; they decide for the network too."""
    usable = usable_precision(train.use_fp16, train.use_bf16, log)
    return dataclasses.replace(train, use_fp16=usable["use_fp16"], use_bf16=usable["use_bf16"])


def load_checked(
    create: Callable[..., Network],
    flags: dict[str, Any],
    path: str,
    log: Log,
    identity: Identity | None = None,
) -> Network:
    """The network of the flags with fp32 weights from a file, frozen, in its precision.

    Args:
        create: makes a network of flags, ``use_fp16`` and ``use_bf16`` among them.
        flags: its keywords.
        path: of the weights.
        log: receives notices.
        identity: what the checkpoint has to be, where its manifest says so.

    Raises:
        CheckpointError: if the file is missing (lists what is there), damaged or of another model.
    """
    found = CheckpointStore("", warn=log).resolve(path)
    if found is None:
        raise CheckpointError("--model_path is empty; give the checkpoint to use")
    if identity is not None:
        remedy = "leave these flags out, or name the checkpoint that was made with them"
        identity.refuse_other_flags(found.model_path, found.manifest, remedy)
    log(f"{found.model_path}: sha256 {sha256_of(found.model_path)}")
    model = create(**{**flags, **usable_precision(flags["use_fp16"], flags["use_bf16"], log)})
    for line in getattr(model, "notices", list)():
        log(line)
    load_model(model, found.model_path, log)
    cast_to_own_precision(model)
    model.eval().requires_grad_(False)
    return model
