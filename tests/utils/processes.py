"""Processes of their own for tests: started in milliseconds, since torch is imported once for all.

A process runs a function that it can import by name. ``say`` hands a word to the test.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any

from utils.process.errors import run_main

TIMEOUT_SECONDS = 60


class Child:
    """A running process and what it says."""

    def __init__(self, work: Callable[..., int], *args: Any) -> None:
        context = preloaded_context()
        self._said, writer = context.Pipe(duplex=False)
        self.process: ForkServerProcess = context.Process(target=_run, args=(work, writer, args))
        self.process.start()
        writer.close()

    def next_word(self) -> Any:
        """Waits for what it says next.

        Raises:
            EOFError: if it has ended.
            TimeoutError: if it says nothing for a minute.
        """
        if not self._said.poll(TIMEOUT_SECONDS):
            raise TimeoutError(f"no word from {self.process}")
        return self._said.recv()

    def words(self) -> list[Any]:
        """Everything that it still says, until it ends."""
        found = []
        try:
            while True:
                found.append(self.next_word())
        except EOFError:
            return found

    def exit_code(self) -> int:
        """Waits for its end; a kill by signal N is -N."""
        self.process.join(TIMEOUT_SECONDS)
        if self.process.exitcode is None:
            self.process.kill()
            raise TimeoutError(f"{self.process} does not end")
        return self.process.exitcode


def preloaded_context() -> ForkServerContext:
    """Starts processes that have torch, and the imports of its optimizers, already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", "torch._dynamo", "tests.utils.loops"])
    return context


def _run(work: Callable[..., int], writer: Connection, args: tuple[Any, ...]) -> None:
    # its loader processes are forked, as those of a script are
    multiprocessing.set_start_method("fork", force=True)
    run_main(lambda: work(writer.send, *args))
