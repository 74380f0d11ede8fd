"""Batches: the order of training data and the shares of test data, and the processes that load.

An infinite stream of item indices, one random permutation after another, is cut into global
batches; rank r takes the r-th slice of each. So the order depends neither on workers nor on the
number of processes, and to resume it is enough to know how many items were used: it is a function
of (seed, position, rank). Which items there are and how to decode them belongs to the task's data
set.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from utils import dist_util
from utils.files.atomic import JsonObject
from utils.machine.launch import num_local_processes
from utils.machine.threads import num_cores
from utils.process.console import prepare_streams
from utils.process.errors import DataError, with_causes
from utils.process.stop import leave_signals_to_parent


def tree_map(function: Callable[[torch.Tensor], Any], tree: Any) -> Any:
    """The same structure with `function` applied to every tensor; anything else is kept."""
    if isinstance(tree, torch.Tensor):
        return function(tree)
    if isinstance(tree, dict):
        return {key: tree_map(function, value) for key, value in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):  # named: one argument a field
        return type(tree)(*(tree_map(function, value) for value in tree))
    if isinstance(tree, (list, tuple)):
        return type(tree)(tree_map(function, value) for value in tree)
    return tree


def first_tensor(tree: Any) -> torch.Tensor:
    """Any tensor of the batch; TypeError if there is none."""
    found: list[torch.Tensor] = []
    tree_map(found.append, tree)
    if not found:
        raise TypeError(f"a batch of type {type(tree).__name__} holds no tensor")
    return found[0]


def num_bytes(tree: Any) -> int:
    """Size of all tensors together."""
    sizes: list[int] = []
    tree_map(lambda tensor: sizes.append(tensor.nbytes), tree)
    return sum(sizes)


def batch_length(tree: Any) -> int:
    """Number of items: the first dimension of the batch's tensors."""
    return int(first_tensor(tree).shape[0])


def batch_slice(tree: Any, start: int, stop: int) -> Any:
    """Items `start` to `stop` of every tensor of the batch."""
    return tree_map(lambda tensor: tensor[start:stop], tree)


def to_device(tree: Any, device: torch.device, *, is_copy: bool = False) -> Any:
    """Every tensor of the batch on the device; copies from pinned memory do not wait.

    With `is_copy` what is there already is copied, too, so that the result shares no memory.
    """
    return tree_map(lambda tensor: tensor.to(device, non_blocking=True, copy=is_copy), tree)


ItemKey: TypeAlias = tuple[int, int, int]  # position in the stream, epoch, index
# what a task's network is given and what its output is held against: tensors, or NamedTuples,
# dicts and tuples of tensors, that share their first dimension
Pair: TypeAlias = tuple[Any, Any]


@runtime_checkable
class ResumableData(Protocol):
    """What `TrainLoop` needs of its data to resume exactly."""

    def batches(self, position: int) -> Iterator[Pair]:
        """This rank's `(batch, label)` pairs from the `position`-th item of the stream on."""
        ...

    def listing(self) -> JsonObject:
        """What tells the data from other data (`files.records`); empty if nobody knows."""
        ...


@dataclass(frozen=True)
class EpochOrder:
    """The infinite stream of items: epoch e is a permutation drawn from (seed, e)."""

    num_items: int
    seed: int

    def permutation(self, epoch: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Item indices of one epoch, shape (num_items,)."""
        return np.random.default_rng((self.seed, epoch)).permutation(self.num_items)


class ShardSampler(Sampler[list[ItemKey]]):
    """Yields this rank's batches of `(position, epoch, index)` from a position on, without end.

    Raises:
        DataError: if one global batch is larger than the data set.
    """

    def __init__(self, order: EpochOrder, batch_size: int, position: int) -> None:
        rank, world_size = dist_util.get_rank(), dist_util.get_world_size()
        self._global_batch = batch_size * world_size
        if self._global_batch > order.num_items:
            raise DataError(
                f"--batch_size {batch_size} on {world_size} process(es) needs "
                f"{self._global_batch} images, the data set has {order.num_items}; "
                "lower --batch_size or add images"
            )
        self._order, self._position = order, position
        self._slice = slice(rank * batch_size, (rank + 1) * batch_size)

    def __iter__(self) -> Iterator[list[ItemKey]]:
        position, num_items = self._position, self._order.num_items
        cached_epoch, permutation = -1, np.zeros(0, np.int64)
        while True:
            keys: list[ItemKey] = []
            for place in range(position, position + self._global_batch)[self._slice]:
                epoch, offset = divmod(place, num_items)
                if epoch != cached_epoch:
                    cached_epoch, permutation = epoch, self._order.permutation(epoch)
                keys.append((place, epoch, int(permutation[offset])))
            yield keys
            position += self._global_batch


class TrainData:
    """Endless shuffled batches of a map-style data set, resumable at any position.

    Args:
        dataset: maps `(position, epoch, index)` to one item; `len` is the number of items.
        prepare: turns a collated batch into the pair the loop wants, on the loop's device; not
            needed where items are pairs already.
        collate: makes a batch of items; None: as torch does.
        num_workers: loader processes; -1 chooses from the cores (none on a CPU device, where the
            network needs them itself).
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        batch_size: int,
        prepare: Callable[[Any], Pair] = tuple,
        *,
        collate: Callable[[list[Any]], Any] | None = None,
        seed: int = 0,
        num_workers: int = -1,
    ) -> None:
        self.dataset, self._batch_size = dataset, batch_size
        self._prepare, self._collate = prepare, collate
        self._order = EpochOrder(len(dataset), seed)  # type: ignore[arg-type]
        self._num_workers = default_num_workers() if num_workers < 0 else num_workers
        # a batch larger than the data is an error now, not at the first step
        ShardSampler(self._order, batch_size, 0)

    def listing(self) -> JsonObject:
        """What the data set says of itself, if it does."""
        found: JsonObject = getattr(self.dataset, "listing", dict)()
        return found

    def batches(self, position: int) -> Iterator[Pair]:
        """This rank's prepared batches from the `position`-th item on."""
        sampler = ShardSampler(self._order, self._batch_size, position)
        loader = make_loader(self.dataset, sampler, self._num_workers, self._collate)
        for batch in loaded(loader):
            yield self._prepare(batch)


def endless(data: Iterable[Any]) -> Iterator[Any]:
    """The items of an iterable, again and again; DataError if it has none, or is used up."""
    while True:
        is_empty = True
        for item in data:
            is_empty = False
            yield item
        if is_empty:
            raise DataError(
                "the data holds no batch, or was an iterator that has ended; pass an iterable that "
                "can start again, or an endless one"
            )


def shard_batches(num_items: int, batch_size: int) -> list[range]:
    """This rank's share of `range(num_items)` in batches: each item on exactly one rank, once."""
    mine = range(num_items)[dist_util.get_rank() :: dist_util.get_world_size()]
    return [mine[i : i + batch_size] for i in range(0, len(mine), batch_size)]


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
    leave_signals_to_parent()


def loaded(loader: DataLoader[Any]) -> Iterator[Any]:
    """What a loader gives; DataError if one of its processes dies while it hands over a batch."""
    batches = iter(loader)
    try:
        yield from batches
    except (ConnectionError, EOFError) as error:
        _silence_torch()
        said = str(error) or type(error).__name__
        raise _death(said + _ended(getattr(batches, "_workers", []))) from error


def _ended(workers: list[BaseProcess]) -> str:
    """Which of them have ended; a broken connection is seen a little before its process is gone."""
    for worker in workers:
        worker.join(timeout=0.2)
    ended = [str(worker.pid) for worker in workers if not worker.is_alive()]
    return f", pid(s) {', '.join(ended)}" if ended else ""


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
                _silence_torch()
                raise _death(said) from error
        raise


def _silence_torch() -> None:
    """Take away torch's handler, which would raise its error again anywhere on the way out."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _death(said: str) -> DataError:
    return DataError(
        f"a process that loads images died ({said.strip().splitlines()[-1]}): the machine or its "
        "shared memory, /dev/shm, may be too small for so many. Run again with fewer --num_workers "
        "(0: none)"
    )
