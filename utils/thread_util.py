"""Threads for work that lets go of the interpreter: decoding, encoding, sums of large arrays.

Not for arithmetic of networks (torch has its own threads), nor for processes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from utils.data_util import num_cores
from utils.dist_util import local_world_size

Item = TypeVar("Item")
Result = TypeVar("Result")


def chosen_threads(wanted: int) -> int:
    """What a flag asks for; below 1 this process's share of the cores that it may use."""
    return wanted if wanted > 0 else max(1, num_cores() // local_world_size())


def ordered_map(
    call: Callable[[Item], Result], items: Iterable[Item], num_threads: int
) -> Iterator[Result]:
    """Results in the order of the items; at most twice as many as threads are there at a time.

    The first error ends it: items that no thread has begun are given up. One thread is the
    caller's own.
    """
    if num_threads == 1:
        yield from map(call, items)
        return
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(num_threads) as pool:
        try:
            for item in items:
                if len(waiting) >= 2 * num_threads:
                    yield waiting.popleft().result()
                waiting.append(pool.submit(call, item))
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
