"""Processes that load batches beside the loop: how many, how they end, what a death is called.

What they load, and in which order, is the business of ``utils.loops.data`` and of the task's data
set.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from utils.machine.launch import num_local_processes
from utils.machine.threads import num_cores
from utils.process.console import prepare_streams
from utils.process.errors import DataError, with_causes
from utils.process.stop import leave_stopping_to_parent

# what torch says when one is killed, and when its shared memory, a file of this name, is full
_DEATH, _SHARED_MEMORY = "DataLoader worker (pid", "</torch_"


def default_num_workers() -> int:
    """Loader processes for this rank: its share of the cores with a GPU, none without."""
    if not torch.cuda.is_available():
        return 0
    return max(1, min(16, num_cores() // num_local_processes() - 1))


def make_loader(
    dataset: Dataset[Any],
    batch_sampler: Sampler[Any] | Sequence[Any],
    num_workers: int,
    collate: Callable[[list[Any]], Any] | None = None,
) -> DataLoader[Any]:
    """A loader over explicit batches; pinned memory where there is a GPU to copy to.

    Its processes live through a stop signal to the whole group until the loop has stopped.
    """
    return DataLoader(
        dataset,
        batch_sampler=batch_sampler,
        num_workers=num_workers,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        prefetch_factor=4 if num_workers else None,
        worker_init_fn=_begin,
    )


def _begin(worker: int) -> None:
    prepare_streams()
    leave_stopping_to_parent()


def loaded(loader: DataLoader[Any]) -> Iterator[Any]:
    """What a loader gives.

    Raises:
        DataError: if a loader process dies while a batch is handed over.
    """
    try:
        yield from loader
    except (ConnectionError, EOFError) as error:
        raise _death(str(error) or type(error).__name__) from error


@contextlib.contextmanager
def naming_loader_deaths() -> Iterator[None]:
    """Around a loop, or as its decorator: a loader process's death can surface anywhere in it.

    Raises:
        DataError: with the remedy, in place of torch's RuntimeError or of one that it has caused.
    """
    try:
        yield
    except RuntimeError as error:
        for said in map(str, with_causes(error)):
            if _DEATH in said or _SHARED_MEMORY in said:
                raise _death(said) from error
        raise


def _death(said: str) -> DataError:
    # or torch's handler raises its own error once more, anywhere on the way out
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    return DataError(
        f"a process that loads images died ({said.strip().splitlines()[-1]}): the machine or its "
        "shared memory, /dev/shm, may be too small for so many. Run again with fewer --num_workers "
        "(0: none)"
    )
