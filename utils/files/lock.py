"""One writer per folder, one worker an image: who holds what, on one machine and on several.

Where the file system's `flock` holds between machines, a lock is one: it dies with its process.
Elsewhere a claim by name takes its place (`utils.files.claims`). `FILE_LOCKS` chooses: `flock`,
`claim`, or `auto`, which asks the file system.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import io
import json
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeVar

from utils.files import claims, mounts
from utils.files.atomic import is_alive, naming_disk_errors, write_through
from utils.files.records import parse_json
from utils.files.storage import make_folder
from utils.process.errors import CheckpointError

LOCKS_VARIABLE = "FILE_LOCKS"
AUTO, FLOCK, CLAIM = KINDS = ("auto", "flock", "claim")
# beside locks of a folder where somebody claims by name: who has it on a disk of its own follows
_MARK = ".claimed_by_name"
_MAX_SECONDS_OF_ORPHANS = 20.0
_MAX_SECONDS_OF_SILENCE = 2.0
_MAX_OWNER = 500

T = TypeVar("T")


class Lock(Protocol):
    """What is held until it is closed, or its process ends."""

    @property
    def closed(self) -> bool:
        """Whether it was let go."""
        ...

    def close(self) -> None:
        """Let go."""
        ...

    def is_held(self) -> bool:
        """False for a claim that another process has taken over, as this one stood still."""
        ...

    def __enter__(self) -> object:
        """Return something that is not needed."""
        ...

    def __exit__(self, kind: Any, error: Any, trace: Any, /) -> None:
        """Let go."""
        ...


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

    def is_held(self) -> bool:
        """Nobody takes a lock from a process that has it."""
        return not self.closed


def chosen_kind(environ: Mapping[str, str]) -> str:
    """What `FILE_LOCKS` says, `auto` without it; ValueError if that is no kind."""
    kind = environ.get(LOCKS_VARIABLE, "") or AUTO
    if kind not in KINDS:
        raise ValueError(f"{LOCKS_VARIABLE}={kind}: give one of {', '.join(KINDS)}")
    claims.chosen_lease(environ)
    return kind


def _why_claims(folder: str) -> str:
    """Why things in an existing folder are claimed by name; empty where they are locked."""
    kind = chosen_kind(os.environ)
    if kind != AUTO:
        return f"{LOCKS_VARIABLE}={CLAIM}" if kind == CLAIM else ""
    if os.path.exists(os.path.join(folder, _MARK)):
        return "another process claims here by name"
    return _why_not_locks(folder, os.stat(folder).st_dev)


@functools.cache
def _why_not_locks(folder: str, device: int) -> str:
    return mounts.why_locks_are_local(mounts.mount_of(folder)) or mounts.why_locks_fail(folder)


def lock_notice(folder: str) -> str:
    """What to tell people of the locks in a folder that several machines share; mostly nothing."""
    make_folder(folder)
    why = _why_claims(folder)
    if not why and chosen_kind(os.environ) == FLOCK:
        why = _why_not_locks(folder, os.stat(folder).st_dev)
        if why:
            return (
                f"warning: {folder}: {LOCKS_VARIABLE}={FLOCK}, but {why}: machines that share it "
                f"may do the same work and overwrite each other; use {LOCKS_VARIABLE}={AUTO}"
            )
    elif why and chosen_kind(os.environ) == AUTO:
        lease = claims.chosen_lease(os.environ)
        return (
            f"warning: {folder}: {why}, so flock may not keep machines apart; work is claimed by "
            f"files in its place, and what a killed process had is free after {lease:g} s. To use "
            "flock, mount the file system so that locks reach its server (NFS: without nolock and "
            f"local_lock; Lustre: -o flock), or set {LOCKS_VARIABLE}={FLOCK}"
        )
    return ""


def try_lock(path: str) -> Lock | None:
    """Take the lock of this path, or return None if a living process holds it.

    Close it to let go. A lock goes by itself when its process dies, a claim a lease later.

    Raises:
        StorageError: the disk has no room for it.
        ValueError: `FILE_LOCKS` or `FILE_LOCK_LEASE` is none.
    """
    folder = os.path.dirname(path) or "."
    make_folder(folder)
    return claims.take(_claims_of(path)) if _is_claimed(folder) else _try_flock(path)


def _is_claimed(folder: str) -> bool:
    if not _why_claims(folder):
        return False
    mark = os.path.join(folder, _MARK)
    if not os.path.exists(mark):
        with naming_disk_errors(mark):
            open(mark, "ab").close()
    return True


def _claims_of(path: str) -> str:
    return f"{path}.claims"


def _try_flock(path: str) -> _LockFile | None:
    with naming_disk_errors(path):
        file = _LockFile(path)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        except OSError:
            file.close()
            raise
    return file


def lock_or_sign_of_life(path: str) -> Lock | None:
    """The lock, or None once its holder is known to live; waits at most a lease to know it."""
    is_told = False

    def wait(seconds: float) -> bool:
        nonlocal is_told
        if not is_told:
            is_told, seen = True, _seen(path)
            owner = seen.owner if seen else "a process"
            print(f"waiting for a sign of life of who holds {path}: {owner}", flush=True)
        time.sleep(seconds)
        return True

    return next((lock for _, lock in each_free([(None, path)], wait)), None)


def each_free(
    paths: Iterable[tuple[T, str]], wait: Callable[[float], bool]
) -> Iterator[tuple[T, Lock]]:
    """Go through things with a lock each, and yield those that nobody is busy with, locked.

    Those that others hold are tried again at the end, once or, of claims, until their holders have
    given a sign of life or their leases are over: a process that was killed leaves nothing undone.
    `wait` waits for some seconds, and returns whether to go on.
    """
    busy: list[tuple[T, str, claims.Seen | None]] = []
    for thing, path in paths:
        lock = try_lock(path)
        if lock is not None:
            yield thing, lock
        else:
            busy.append((thing, path, _seen(path)))
    while busy:
        asked, busy = busy, []
        for thing, path, seen in asked:
            lock = try_lock(path)
            if lock is not None:
                yield thing, lock
            elif seen is not None and _seen(path) == seen:
                busy.append((thing, path, seen))
        pauses = [claims.seconds_between_looks(seen) for _, _, seen in busy]
        if busy and not wait(min(pauses)):
            return


def _seen(path: str) -> claims.Seen | None:
    """The claim that holds a path; None where locks do, which need no signs of life."""
    return claims.see(_claims_of(path)) if _is_claimed(os.path.dirname(path) or ".") else None


def _lock_or_owner(path: str) -> Lock | str:
    """The lock, or who holds it; waits if that process may be dead, or has not said who it is."""
    if not _is_claimed(os.path.dirname(path)):
        return _flock_or_owner(path)
    lock = lock_or_sign_of_life(path)
    seen = None if lock else _seen(path)
    return lock or (seen.owner if seen else "an unknown process")


def _flock_or_owner(path: str) -> _LockFile | str:
    """The lock, or who holds it.

    The loader processes of a killed run inherit its lock and need seconds to notice its death.
    A process that has just taken the lock writes its name next.
    """
    started = time.monotonic()
    while True:
        file = _try_flock(path)
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
        host, pid = content["host"], content["pid"]
    except (ValueError, KeyError, TypeError):
        return False
    # a number that is whole, as anybody may have written the file
    return host == socket.gethostname() and isinstance(pid, int) and not is_alive(pid)


@contextlib.contextmanager
def sole_writer(folder: str) -> Iterator[Lock]:
    """Hold a folder for the duration of a `with` block.

    Raises:
        CheckpointError: if another process holds it; the message names host, process and time.
        StorageError: if the disk has no room for these.
    """
    path = os.path.join(folder, ".writer.lock")
    lock = _lock_or_owner(path)
    if isinstance(lock, str):
        raise CheckpointError(
            f"{folder} is being written by another run ({lock}); wait for it, stop it, or give "
            "another --model_save_dir"
        )
    with lock:
        if not isinstance(lock, _LockFile):  # a claim names its process
            yield lock
            return
        started = time.strftime("%Y-%m-%d %H:%M:%S")
        owner = {"host": socket.gethostname(), "pid": os.getpid(), "since": started}
        lock.truncate(0)
        write_through(path, lock.fileno(), json.dumps(owner).encode())
        try:
            yield lock
        finally:
            lock.truncate(0)
