"""Writes files behind a loop that has better to do: in order, few at a time, no error lost.

Not for making files whole (`utils.files.atomic`), nor for deciding what is written.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any


class BackgroundWriter:
    """Makes calls one after the other in a thread of its own, inside a ``with`` block.

    The block ends when all calls are done. The first error comes up at the next :meth:`submit` or
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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
        """Has ``call(*args)`` made; waits while too many wait already.

        Raises:
            BaseException: what an earlier call raised.
        """
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
