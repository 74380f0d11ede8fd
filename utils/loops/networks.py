"""Networks in the precision that a device has: which it can follow, and frozen ones from files."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch

from utils import dist_util
from utils.files.records import Identity
from utils.flags.groups import Compute, Precision
from utils.fp16_util import computes_natively
from utils.loops.checkpoint import CheckpointStore
from utils.loops.portable import weights_digest
from utils.process.errors import CheckpointError
from utils.untrusted.state_dict import load_model

Log = Callable[[str], None]


def is_to_be_compiled(choice: str, device: torch.device) -> bool:
    """Whether a network for this device is compiled.

    On a CPU `auto` is off: networks have faster convolutions there than compiled ones.
    """
    if choice == "auto":
        return device.type == "cuda" and importlib.util.find_spec("triton") is not None
    return choice == "on"


class CompiledNetwork(torch.nn.Module):
    """Calls `network`, compiled, with batches of the largest size seen so far.

    Weights are the network's own, so what is trained or loaded there counts here. Its tensor
    arguments share their first dimension. With `has_graphs` the kernels are replayed as one CUDA
    graph, for calls without gradients.
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


def settle_kernels(
    network: torch.nn.Module, choice: str, device: torch.device, log: Log, *, is_trained: bool
) -> str:
    """Have the network use the convolutions of the flag, where it has a choice, and say which.

    Processes that train together have the same ones: on CPUs of several kinds, direct sums.

    Returns:
        which, with `auto` settled; empty where there is no choice.
    """
    use: Callable[[str], tuple[str, str] | None] = getattr(network, "use_kernels", lambda _: None)
    chosen = use(choice) if device.type == "cpu" else None
    if chosen is None:
        return ""
    kernels, reason = chosen
    is_direct_there = is_trained and dist_util.any_rank(kernels == "direct")
    if is_direct_there and kernels != "direct":
        use("direct")
        kernels, reason = "direct", "as on another process's CPU"
    log(f"kernels: {kernels} ({reason})")
    return kernels


def compiled_for(
    network: torch.nn.Module, choice: str, device: torch.device, log: Log, *, is_trained: bool
) -> torch.nn.Module:
    """The network as the flag wants it: compiled, with CUDA graphs where it only runs forward."""
    if not is_to_be_compiled(choice, device):
        return network
    log("compiling the network: the first batch takes minutes (--compile off switches this off)")
    return CompiledNetwork(network, has_graphs=device.type == "cuda" and not is_trained)


def ready_for(
    network: torch.nn.Module, how: Compute, device: torch.device, log: Log
) -> torch.nn.Module:
    """A frozen network, computed as the flags want it."""
    settle_kernels(network, how.kernels, device, log, is_trained=False)
    return compiled_for(network, how.compile, device, log, is_trained=False)


def _filled(value: Any, num_missing: int) -> Any:
    """A tensor with its last row repeated; anything else as it is."""
    if not isinstance(value, torch.Tensor):
        return value
    return torch.cat([value, value[-1:].expand(num_missing, *value.shape[1:])])


Network = TypeVar("Network", bound=torch.nn.Module)


def usable_precision(
    asked: Precision, log: Log, *, is_trained: bool = False, with_backward: bool = False
) -> Precision:
    """The precision that is asked for, or the nearest that does not crawl on this device.

    In place of fp16 whose backward pass would crawl a training has bf16, which needs no loss
    scale, where that is fast in both directions; what else would crawl is in fp32. The flags stay
    as they are, so that another device computes as asked.

    Args:
        is_trained: whether the network is trained, by all processes: they must all ask, and have
            one precision, since gradients of two types could not be averaged.
        with_backward: whether gradients are taken through a frozen network.
    """
    device, has_backward = dist_util.current_device(), is_trained or with_backward

    def is_fast(precision: Precision) -> bool:
        dtype = getattr(torch, precision.value)
        is_slow = not computes_natively(dtype, device, with_backward=has_backward)
        return not (dist_util.any_rank(is_slow) if is_trained else is_slow)

    if asked is Precision.FP32 or is_fast(asked):
        return asked
    has_stand_in = is_trained and asked is Precision.FP16 and is_fast(Precision.BF16)
    usable = Precision.BF16 if has_stand_in else Precision.FP32
    lack = "backward pass" if has_backward else "arithmetic"
    doing, remark = ("training", " (a GPU computes as asked)") if is_trained else ("computing", "")
    log(f"notice: this CPU has no fast {asked} {lack}; {doing} in {usable}{remark}")
    return usable


def chosen_precision(
    choice: str, asked: Mapping[str, bool], log: Log, device: torch.device | None = None
) -> Precision | None:
    """What `--precision` stands for on the device; None where it was left out.

    Args:
        choice: the flag's value.
        asked: the flags of a training's precision that were given, too.

    Raises:
        ValueError: they contradict it.
    """
    if not choice:
        return None
    if choice == "auto":
        has_bf16 = computes_natively(torch.bfloat16, device or dist_util.current_device())
        found = Precision.BF16 if has_bf16 else Precision.FP32
        log(f"notice: --precision auto: {found}, bf16 is {'' if has_bf16 else 'not '}fast here")
    else:
        (found,) = (one for one in Precision if str(one) == choice)
    for name, value in asked.items():
        if value != (name == f"use_{choice}"):
            raise ValueError(
                f"--{name} {value} and --precision {choice} contradict each other: leave out one"
            )
    return found


def cast_to(model: Network, precision: Precision) -> Network:
    """The network, its layers that compute in 16 bits cast in place, where it has such."""
    convert = getattr(model, "convert_torso", None)
    if convert is not None and precision is not Precision.FP32:
        convert(getattr(torch, precision.value))
    return model


def new_network(create: Callable[[], Network], asked: Precision, log: Log) -> Network:
    """A fresh network for a training, in the precision that its devices can follow.

    `create` makes it in fp32. A checkpoint that is resumed replaces all of its weights.
    """
    return cast_to(create(), usable_precision(asked, log, is_trained=True))


def load_checked(
    create: Callable[[], Network],
    path: str,
    asked: Precision,
    log: Log,
    identity: Identity | None = None,
    *,
    with_backward: bool = False,
) -> Network:
    """A network with fp32 weights from a file, frozen, in the precision that is asked for here.

    Args:
        create: makes it, in fp32.
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
    log(f"{found.model_path}: sha256 {weights_digest(found.model_path)}")
    precision = usable_precision(asked, log, with_backward=with_backward)
    model = create()
    load_model(model, found.model_path, log)
    cast_to(model, precision)
    return model.eval().requires_grad_(False)
