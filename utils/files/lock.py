"""One writer per folder: an advisory lock that dies with its process, and who holds it."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import socket
import time
from collections.abc import Iterator
from typing import IO

from utils.files.atomic import naming_disk_errors, write_through
from utils.files.records import parse_json
from utils.files.storage import make_folder
from utils.process.errors import CheckpointError

_MAX_SECONDS_OF_ORPHANS = 20.0
_MAX_SECONDS_OF_SILENCE = 2.0
_MAX_OWNER = 500


class _LockFile(io.TextIOWrapper):
    """A file whose lock goes when the process that opened it closes it.

    Processes forked meanwhile have inherited the file: closing it in one alone would not let go,
    and one of them that closes its own must not.
    """

    def __init__(self, path: str) -> None:
        super().__init__(open(path, "a+b"), encoding="utf-8")  # noqa: SIM115 - close() is its own
        self._owner = os.getpid()

    def close(self) -> None:
        """Let go, if this process has it, and close."""
        if not self.closed and os.getpid() == self._owner:
            fcntl.flock(self, fcntl.LOCK_UN)
        super().close()


def try_lock(path: str) -> IO[str] | None:
    """Take the lock file, or return None if a living process holds it.

    Close the returned file to let go. The kernel lets go by itself when the process dies.
    """
    make_folder(os.path.dirname(path) or ".")
    with naming_disk_errors(path):
        file = _LockFile(path)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def _lock_or_owner(path: str) -> IO[str] | str:
    """The lock, or who holds it; waits if that process is dead, or has not yet said who it is.

    The loader processes of a killed run inherit its lock and need seconds to notice its death.
    A process that has just taken the lock writes its name next.
    """
    started = time.monotonic()
    while True:
        file = try_lock(path)
        if file is not None:
            return file
        with open(path, encoding="utf-8", errors="replace") as held:
            owner = held.read(_MAX_OWNER)
        patience = _MAX_SECONDS_OF_ORPHANS if owner else _MAX_SECONDS_OF_SILENCE
        if (owner and not _is_dead(owner)) or time.monotonic() - started > patience:
            return owner or "an unknown process"
        time.sleep(0.1)


def _is_dead(owner: str) -> bool:
    try:
        content = parse_json(owner)
        is_here = bool(content["host"] == socket.gethostname())
        os.kill(int(content["pid"]), 0)
    except ProcessLookupError:
        return is_here
    except (ValueError, KeyError, TypeError, OverflowError, OSError):
        return False
    return False


@contextlib.contextmanager
def sole_writer(folder: str) -> Iterator[None]:
    """Hold a folder for the duration of a `with` block.

    Raises:
        CheckpointError: if another process holds it; the message names host, process and time.
        StorageError: if the disk has no room for these.
    """
    path = os.path.join(folder, ".writer.lock")
    file = _lock_or_owner(path)
    if isinstance(file, str):
        raise CheckpointError(
            f"{folder} is being written by another run ({file}); wait for it, stop it, or give "
            "another --model_save_dir"
        )
    with file:
        started = time.strftime("%Y-%m-%d %H:%M:%S")
        owner = {"host": socket.gethostname(), "pid": os.getpid(), "since": started}
        file.truncate(0)
        write_through(path, file.fileno(), json.dumps(owner).encode())
        try:
            yield
        finally:
            file.truncate(0)
