"""Networks in the precision that a device has: which it can follow, and frozen ones from files."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from utils import dist_util
from utils.files.atomic import sha256_of
from utils.files.identity import Identity
from utils.flags.training import TrainFlags
from utils.fp16_util import computes_natively
from utils.loops.checkpoint import CheckpointStore
from utils.process.errors import CheckpointError
from utils.script_util import FlagValues
from utils.untrusted.state_dict import load_model

Log = Callable[[str], None]


def is_to_be_compiled(choice: str, device: torch.device) -> bool:
    """Whether a network for this device is compiled.

    On a CPU ``auto`` is off: networks have faster convolutions there than compiled ones.
    """
    if choice == "auto":
        return device.type == "cuda" and importlib.util.find_spec("triton") is not None
    return choice == "on"


class CompiledNetwork(torch.nn.Module):
    """Calls ``network``, compiled, with batches of the largest size seen so far.

    Weights are the network's own, so what is trained or loaded there counts here.

    Args:
        network: any module whose tensor arguments share their first dimension.
        has_graphs: replay the kernels as one CUDA graph; for calls without gradients.
    """

    def __init__(self, network: torch.nn.Module, *, has_graphs: bool = False) -> None:
        super().__init__()
        self.network = network
        self._has_graphs = has_graphs
        mode = "reduce-overhead" if has_graphs else None
        self._compiled = torch.compile(network, dynamic=False, mode=mode)
        self._batch_size = 0

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The network's output for the rows that were given."""
        num_rows = len(next(v for v in (*args, *kwargs.values()) if isinstance(v, torch.Tensor)))
        self._batch_size = max(self._batch_size, num_rows)
        num_missing = self._batch_size - num_rows
        if num_missing:
            args = tuple(_filled(value, num_missing) for value in args)
            kwargs = {name: _filled(value, num_missing) for name, value in kwargs.items()}
        if self._has_graphs:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        output: torch.Tensor = self._compiled(*args, **kwargs)
        # the next replay writes over what a graph returned
        output = output.clone() if self._has_graphs else output
        return output[:num_rows] if num_missing else output


def compiled_for(
    network: torch.nn.Module, choice: str, device: torch.device, log: Log, *, is_trained: bool
) -> torch.nn.Module:
    """The network as the flag wants it: compiled, with CUDA graphs where it only runs forward."""
    if not is_to_be_compiled(choice, device):
        return network
    log("compiling the network: the first batch takes minutes (--compile off switches this off)")
    return CompiledNetwork(network, has_graphs=device.type == "cuda" and not is_trained)


def _filled(value: Any, num_missing: int) -> Any:
    """A tensor with its last row repeated; anything else as it is."""
    if not isinstance(value, torch.Tensor):
        return value
    return torch.cat([value, value[-1:].expand(num_missing, *value.shape[1:])])


Train = TypeVar("Train", bound=TrainFlags)


Network = TypeVar("Network", bound=torch.nn.Module)


def new_network(
    create: Callable[..., Network],
    flags: FlagValues,
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


def usable_precision(
    use_fp16: bool, use_bf16: bool, log: Log, *, with_backward: bool = False
) -> dict[str, bool]:
    """The precision flags that a frozen network can follow here: fp32 where 16 bits would crawl.

    The stored flags stay as they are, so that another device computes as asked.

    Args:
        use_fp16: what is asked for.
        use_bf16: the same.
        log: told where the device computes otherwise.
        with_backward: whether gradients are taken through the network.
    """
    asked = {"use_fp16": use_fp16, "use_bf16": use_bf16}
    if not any(asked.values()):
        return asked
    name, dtype = _asked_dtype(use_fp16)
    if computes_natively(dtype, dist_util.current_device(), with_backward=with_backward):
        return asked
    log(f"notice: this CPU has no fast {name} {_lack(with_backward)}; computing in fp32")
    return dict.fromkeys(asked, False)


def training_precision(use_fp16: bool, use_bf16: bool, log: Log) -> dict[str, bool]:
    """The precision flags that a training can follow on the devices of all processes.

    In place of fp16 whose backward pass would crawl comes bf16, which needs no loss scale, where it
    is fast in both directions; else fp32. Every process must ask.

    Args:
        use_fp16: what is asked for.
        use_bf16: the same.
        log: told where the devices compute otherwise.
    """
    asked = {"use_fp16": use_fp16, "use_bf16": use_bf16}
    if not any(asked.values()):
        return asked
    name, dtype = _asked_dtype(use_fp16)
    if _all_train_in(dtype):
        return asked
    has_stand_in = use_fp16 and _all_train_in(torch.bfloat16)
    log(
        f"notice: this CPU has no fast {name} {_lack(True)}; training in "
        f"{'bf16' if has_stand_in else 'fp32'} (a GPU computes as asked)"
    )
    return {"use_fp16": False, "use_bf16": has_stand_in}


def _asked_dtype(use_fp16: bool) -> tuple[str, torch.dtype]:
    return ("fp16", torch.float16) if use_fp16 else ("bf16", torch.bfloat16)


def _lack(with_backward: bool) -> str:
    return "backward pass" if with_backward else "arithmetic"


def _all_train_in(dtype: torch.dtype) -> bool:
    """Whether all processes can; gradients of two types could not be averaged."""
    device = dist_util.current_device()
    return not dist_util.any_rank(not computes_natively(dtype, device, with_backward=True))


def in_usable_precision(train: Train, log: Log) -> Train:
    """The training flags with a precision that the device has; they decide for the network too."""
    usable = training_precision(train.use_fp16, train.use_bf16, log)
    return dataclasses.replace(train, use_fp16=usable["use_fp16"], use_bf16=usable["use_bf16"])


def load_checked(
    create: Callable[..., Network],
    flags: FlagValues,
    path: str,
    log: Log,
    identity: Identity | None = None,
    *,
    with_backward: bool = False,
) -> Network:
    """The network of the flags with fp32 weights from a file, frozen, in its precision.

    Args:
        create: makes the network of the flags.
        flags: its keywords, ``use_fp16`` and ``use_bf16`` among them.
        path: the checkpoint.
        log: told of the file and of a precision that the device lacks.
        identity: what the checkpoint has to be, where its manifest says so.
        with_backward: whether gradients with respect to its input are taken.

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
    asked = flags["use_fp16"], flags["use_bf16"]
    model = create(**{**flags, **usable_precision(*asked, log, with_backward=with_backward)})
    load_model(model, found.model_path, log)
    cast_to_own_precision(model)
    model.eval().requires_grad_(False)
    return model
