"""Who am I among the processes, and the few collective operations the loops need.

One process without any launcher needs no process group: every function here then answers for a
world of one. Started by a launcher (`utils.machine.launch`), the group is gloo on CPUs and NCCL
on GPUs.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from utils.machine.launch import Launch, has_own_gpu, set_rendezvous
from utils.process.errors import skip_teardown

_TIMEOUT = timedelta(minutes=30)
# Until the process ends: a network that outlives the block holds the group, too, and would destroy
# it with the interpreter locked, while the group's thread may be waiting for that lock.
_groups_kept: list[dist.ProcessGroup | None] = []


def single_process(launch: Launch) -> Launch:
    """The same place on the machine, in a world of one."""
    return Launch(0, launch.local_rank, 1)


@contextlib.contextmanager
def process_group(launch: Launch) -> Iterator[torch.device]:
    """Join the process group (if there is more than one process) and yield this rank's device."""
    device = pick_device(launch.local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        is_alone = launch.world_size == 1
        if not (is_alone or device.index == launch.local_rank or has_own_gpu(os.environ)):
            raise ValueError(
                f"LOCAL_RANK={launch.local_rank}, but this machine has "
                f"{torch.cuda.device_count()} GPUs; start as many processes as GPUs "
                "(--nproc_per_node)"
            )
    if launch.world_size == 1:
        yield device
        return
    set_rendezvous()
    dist.init_process_group(
        # votes go over the CPU, so that they do not wait for the GPU
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        store=_fresh_store(launch),
        rank=launch.rank,
        world_size=launch.world_size,
        timeout=_TIMEOUT,
    )
    _groups_kept.append(dist.group.WORLD)
    skip_teardown()
    try:
        yield device
    finally:
        dist.destroy_process_group()


def _fresh_store(launch: Launch) -> Any:
    """Where the ranks tell each other their addresses, one for each life of the group.

    torchrun hands the same store to the processes that it starts again, with the addresses of the
    dead ones in it.
    """
    store, _, _ = next(rendezvous("env://", launch.rank, launch.world_size, timeout=_TIMEOUT))
    life = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return dist.PrefixStore(f"life_{life}", store)  # type: ignore[attr-defined]


def pick_device(local_rank: int = 0) -> torch.device:
    """The GPU of this local rank where there is one, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", local_rank % torch.cuda.device_count())


def current_device() -> torch.device:
    """The device set by `process_group`, or the default one outside of it."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def is_distributed() -> bool:
    """Whether a process group exists."""
    return dist.is_available() and dist.is_initialized()


def get_rank() -> int:
    """Global rank; 0 without a process group."""
    return dist.get_rank() if is_distributed() else 0


def get_world_size() -> int:
    """Number of processes; 1 without a process group."""
    return dist.get_world_size() if is_distributed() else 1


def is_main() -> bool:
    """Whether this process writes the logs and checkpoints."""
    return get_rank() == 0


def barrier() -> None:
    """Wait until every process is here."""
    any_rank(False)


def mean_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """Average of a tensor over the processes; the argument stays as it is."""
    if not is_distributed():
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total / get_world_size()


def any_rank(condition: bool) -> bool:
    """Whether the condition holds on at least one process; all processes get the same answer."""
    if not is_distributed():
        return condition
    votes = torch.tensor([int(condition)])  # on the CPU: no wait for the GPU
    dist.all_reduce(votes, op=dist.ReduceOp.MAX)
    return bool(votes.item())


def raise_together(error: Exception | None) -> None:
    """End all processes when one of them failed, so that none waits for it for ever.

    Raises this rank's own error; on the others a `RuntimeError` that points to it.
    """
    failed = any_rank(error is not None)
    if error is not None:
        raise error
    if failed:
        raise RuntimeError("another process failed; its message says why")


def gather_tensors(values: torch.Tensor) -> list[torch.Tensor]:
    """The tensor of every rank, in rank order; shapes must agree."""
    if not is_distributed():
        return [values]
    gathered = [torch.empty_like(values) for _ in range(get_world_size())]
    dist.all_gather(gathered, values.contiguous())
    return gathered


@torch.no_grad()
def broadcast_tensors(tensors: Iterable[torch.Tensor]) -> None:
    """Overwrite the tensors on every rank with rank 0's, one message per dtype."""
    if not is_distributed():
        return
    groups: dict[torch.dtype, list[torch.Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(tensor.dtype, []).append(tensor)
    for group in groups.values():
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in group])
        dist.broadcast(flat, src=0)
        for tensor, part in zip(group, torch.split(flat, [t.numel() for t in group]), strict=True):
            tensor.copy_(part.view_as(tensor))
