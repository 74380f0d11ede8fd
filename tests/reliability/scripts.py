"""A script in a process of its own, started in milliseconds; no assertions."""

from __future__ import annotations

import ctypes
import importlib
import os
import resource
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.tiny import done, words
from tests.utils.processes import TIMEOUT_SECONDS, Child
from tests.utils.training_loops import differences, saved_run

_CAPABILITIES_V3 = 0x20080522


class Script:
    """A running script; what it prints goes to ``said_path``.

    Args:
        script: name of its module.
        flags: its command line.
        said_path: a new file.
        is_unprivileged: root obeys the permissions of folders, too.
        max_file_size: in bytes; no file that it writes may grow beyond that.
    """

    def __init__(
        self,
        script: str,
        flags: dict[str, Any],
        said_path: Path,
        *,
        is_unprivileged: bool = False,
        max_file_size: int = resource.RLIM_INFINITY,
    ) -> None:
        self._said_path = said_path
        limits = (is_unprivileged, max_file_size)
        self._child = Child(_run, script, words(flags), said_path, *limits)

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._child.process.pid or 0

    def children(self) -> list[int]:
        """Of its process, those that run."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        try:
            return [int(word) for word in children.read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            return []

    def said(self) -> str:
        """Everything that it has printed so far."""
        return self._said_path.read_text() if self._said_path.exists() else ""

    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._child.process.is_alive()

    def exit_code(self) -> int:
        """Waits for its end; a kill by signal N is -N."""
        return self._child.exit_code()


def wait_until(is_so: Callable[[], bool]) -> None:
    """Looks again and again.

    Raises:
        TimeoutError: if it is not so within a minute.
    """
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError("it did not come to that")
        time.sleep(0.002)


def differences_from_unbroken(
    script: str, flags: Mapping[str, Any], last: int, whole_dir: Path
) -> list[str]:
    """What differs at step ``last`` between a training that goes on and one in one go elsewhere."""
    done(script, words(flags, resume_checkpoint="auto", max_step=last))
    done(script, words(flags, resume_checkpoint="", model_save_dir=whole_dir, max_step=last))
    found, truth = (saved_run(Path(d), last) for d in (flags["model_save_dir"], whole_dir))
    return differences(found, truth)


def _run(
    say: Callable[[Any], None],
    script: str,
    argv: list[str],
    said_path: Path,
    is_unprivileged: bool,
    max_file_size: int,
) -> int:
    descriptor = os.open(said_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    if is_unprivileged:
        _drop_capabilities()
    resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_size, resource.RLIM_INFINITY))
    code: int = importlib.import_module(script).main(argv)
    return code


def _drop_capabilities() -> None:
    """Takes from this thread what lets root write where it may not."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_V3, 0)
    none = (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capset(header, none) != 0:
        raise OSError(ctypes.get_errno(), "capset")
