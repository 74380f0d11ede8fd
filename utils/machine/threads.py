"""Threads for work that lets go of the interpreter, and glibc's allocator for networks on a CPU.

Arithmetic of networks has torch's own threads.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import torch

from utils.machine.launch import num_local_processes

Item = TypeVar("Item")
Result = TypeVar("Result")
_MAX_ENCODING = 4
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def tune_allocator() -> bool:
    """Keep large activations instead of returning them; whether that was possible and wanted.

    By default every large activation is a mapping of its own, given back to the kernel when it dies
    and faulted in again page by page at the next layer. No effect on results, only on time and on
    memory that stays with the process. `TUNED_MALLOC=0` in the environment leaves it alone.
    """
    if os.environ.get("TUNED_MALLOC") == "0":
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, -1))


def return_free_memory() -> bool:
    """Give the pages that are free inside the heap back to the system; whether that was possible.

    Small results that stay between large arrays that go keep the heap from shrinking, so that it
    may grow with every item of a long work. No effect on results.
    """
    try:
        trim = ctypes.CDLL("libc.so.6").malloc_trim
    except (OSError, AttributeError):
        return False
    return bool(trim(0))


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


def even_groups(items: Sequence[Item], most: int, num_threads: int) -> list[Sequence[Item]]:
    """The items in order, in groups of at most `most`, as many and as long for each thread."""
    num_groups = -(-len(items) // (most * num_threads)) * num_threads
    ends = [len(items) * i // num_groups for i in range(num_groups + 1)] if items else []
    return [items[start:end] for start, end in itertools.pairwise(ends) if end > start]


class BackgroundWriter:
    """Makes calls one after the other in a thread of its own, inside a `with` block.

    The block ends when all calls are done. The first error comes up at the next `submit` or
    at the end of the block, and no call is begun after it. Outside of a block a call is made at
    once.

    Args:
        max_waiting: calls that may wait behind the one at work, with what they hold.
    """

    def __init__(self, max_waiting: int = 1) -> None:
        self._max_pending = max_waiting + 1
        self._pool: ThreadPoolExecutor | None = None
        self._pending: deque[Future[None]] = deque()
        self._has_failed = False
        self.seconds_waited = 0.0

    def __enter__(self) -> BackgroundWriter:
        self._pool, self._has_failed = ThreadPoolExecutor(1, "writer"), False
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        assert self._pool is not None
        started = time.perf_counter()
        self._pool.shutdown()
        self.seconds_waited += time.perf_counter() - started
        self._pool, done = None, list(self._pending)
        self._pending.clear()
        if error is None:  # else the caller's own error is the one to tell
            for future in done:
                future.result()

    def submit(self, call: Callable[..., None], *args: Any) -> None:
        """Have `call(*args)` made; wait while too many wait already."""
        started = time.perf_counter()
        try:
            if self._pool is None:
                call(*args)
                return
            while self._pending and (
                self._pending[0].done() or len(self._pending) >= self._max_pending
            ):
                self._pending.popleft().result()
            self._pending.append(self._pool.submit(self._make, call, args))
        finally:
            self.seconds_waited += time.perf_counter() - started

    def _make(self, call: Callable[..., None], args: tuple[Any, ...]) -> None:
        if self._has_failed:
            return
        try:
            call(*args)
        except BaseException:
            self._has_failed = True
            raise
