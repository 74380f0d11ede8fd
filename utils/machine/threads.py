"""Threads for work that lets go of the interpreter: decoding, encoding, sums of large arrays.

Not for arithmetic of networks (torch has its own threads), nor for processes.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

from utils.machine.launch import num_local_processes

Item = TypeVar("Item")
Result = TypeVar("Result")
_MAX_ENCODING = 4


def num_cores() -> int:
    """Cores that this process may use; a job's share may be smaller than the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def chosen_threads(wanted: int) -> int:
    """What a flag asks for; below 1 this process's share of the cores that it may use."""
    return wanted if wanted > 0 else max(1, num_cores() // num_local_processes())


def encoding_threads(device: torch.device) -> int:
    """Threads that encode pictures behind a loop: a few beside a GPU, one where it computes."""
    return 1 if device.type == "cpu" else min(_MAX_ENCODING, chosen_threads(-1))


def ordered_map(
    call: Callable[[Item], Result], items: Iterable[Item], num_threads: int
) -> Generator[Result, None, None]:
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
