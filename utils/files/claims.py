"""Exclusion by names, for file systems whose locks end at the machine: claims with a lease.

What is claimed has a folder of numbered files, its claims; whoever made the highest one has it. A
claim is made by `O_EXCL`, which every network file system does atomically, and names its process.
A thread writes it anew several times in a lease; one that has not been written for a whole lease
has lapsed, and the next number may be made. The highest claim is never removed, so a number that
was taken over cannot come back: of several processes that find the same claim lapsed one makes the
next number, and a process that wakes too late finds that its own is gone.

Ages are differences of two times that the file server has set: of the claim, and of a file that is
written at that moment. So the clocks of the machines may differ.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.files.atomic import is_alive, naming_disk_errors, write_through
from utils.files.records import parse_json
from utils.files.storage import make_folder
from utils.process.errors import StorageError

LEASE_VARIABLE = "FILE_LOCK_LEASE"
# far above the 60 s for which NFS clients may take what they know of a file as true
_LEASE_SECONDS = 120.0
_LONGEST_LEASE = 86_400.0
# a claim is written at least so often, and several times in a lease
_SECONDS_OF_BEAT, _BEATS_OF_LEASE = 5.0, 8
_FREE = b"free"
_MAX_BYTES = 4096


def chosen_lease(environ: Mapping[str, str]) -> float:
    """Seconds after which a silent claim lapses: `FILE_LOCK_LEASE`, or 120.

    ValueError if it is no number from 1 to a day.
    """
    text = environ.get(LEASE_VARIABLE, "") or str(_LEASE_SECONDS)
    with contextlib.suppress(ValueError):
        if 1 <= (seconds := float(text)) <= _LONGEST_LEASE:
            return seconds
    raise ValueError(f"{LEASE_VARIABLE}={text}: give seconds from 1 to {_LONGEST_LEASE:.0f}")


@dataclass(frozen=True)
class Seen:
    """The highest claim, as it is now; unequal to what it was while its process lives."""

    number: int
    content: bytes
    changed: float

    @property
    def owner(self) -> str:
        """Who has it, as JSON."""
        return self.content.decode(errors="replace").strip() or "an unknown process"


class Claim:
    """What is held until it is closed, or until its process was silent for a lease."""

    def __init__(self, path: str, lease: float) -> None:
        self._path, self.lease, self.closed = path, lease, False
        self._owner, self._mutex = os.getpid(), threading.Lock()
        self._content = json.dumps(_description(lease)).encode() + b"\n"
        _make(path, self._content)

    def is_held(self) -> bool:
        """Whether nobody has taken it over; asks the file server."""
        if self.closed:
            return False
        folder, number = os.path.split(self._path)
        seen = _look(self._path)
        is_own = seen is not None and seen.content == self._content
        return is_own and not os.path.exists(os.path.join(folder, _name(int(number) + 1)))

    def beat(self) -> None:
        """Write it anew, the same bytes, so that it does not lapse."""
        with self._mutex:
            if not self.closed:
                self._write(self._content)

    def close(self) -> None:
        """Let go, if this process has it; those that were forked meanwhile have not."""
        if os.getpid() == self._owner:
            with self._mutex:
                if not self.closed:
                    _HEART.forget(self)
                    self._write(_FREE.ljust(len(self._content)))
                self.closed = True
        self.closed = True

    def _write(self, content: bytes) -> None:
        with contextlib.suppress(OSError):  # it was taken over, or the server is away
            descriptor = os.open(self._path, os.O_RDWR)
            try:
                if os.read(descriptor, _MAX_BYTES) == self._content:
                    os.pwrite(descriptor, content, 0)
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def __enter__(self) -> Claim:
        """Return itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Let go."""
        self.close()


class _Heart:
    """The thread that keeps all claims of this process from lapsing."""

    def __init__(self) -> None:
        self._claims: set[Claim] = set()
        self._mutex, self._is_new = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None

    def keep(self, claim: Claim) -> None:
        with self._mutex:
            self._claims.add(claim)
            if self._thread is None:
                self._thread = threading.Thread(target=self._beat, daemon=True, name="claims")
                self._thread.start()
        self._is_new.set()

    def forget(self, claim: Claim) -> None:
        with self._mutex:
            self._claims.discard(claim)

    def _beat(self) -> None:
        while True:
            with self._mutex:
                claims = [*self._claims]
            lease = min((claim.lease for claim in claims), default=_LEASE_SECONDS)
            if self._is_new.wait(_seconds_of_beat(lease)):
                self._is_new.clear()  # it may have a shorter lease
                continue
            for claim in claims:
                claim.beat()


_HEART = _Heart()


def _new_heart() -> None:
    """A forked process has neither the thread nor the claims of its parent."""
    global _HEART
    _HEART = _Heart()


os.register_at_fork(after_in_child=_new_heart)


def take(folder: str) -> Claim | None:
    """Claim what `folder` stands for; None while a process has it that is not silent.

    Raises:
        StorageError: the disk has no room for it, or does not take it.
    """
    make_folder(folder)
    number = max(_numbers(folder), default=0)
    if number and not _is_free(folder, number):
        return None
    path = os.path.join(folder, _name(number + 1))
    try:
        claim = Claim(path, chosen_lease(os.environ))
    except StorageError as error:
        if error.errno == errno.EEXIST:  # somebody was faster
            return None
        raise
    numbers = _numbers(folder)
    if max(numbers, default=0) != number + 1:  # the view of the folder was an old one
        _remove(path)
        return None
    for old in numbers:
        if old <= number:
            _remove(os.path.join(folder, _name(old)))
    _HEART.keep(claim)
    return claim


def see(folder: str) -> Seen | None:
    """The highest claim; None where nobody has claimed anything, or it has just gone."""
    number = max(_numbers(folder), default=0)
    return _look(os.path.join(folder, _name(number)))


def seconds_between_looks(seen: Seen | None) -> float:
    """How often to ask whether a process still lives."""
    return _seconds_of_beat(_lease_of(seen.content if seen else b"")) / 4


def _seconds_of_beat(lease: float) -> float:
    return min(_SECONDS_OF_BEAT, lease / _BEATS_OF_LEASE)


def _name(number: int) -> str:
    return f"{number:06d}"


def _numbers(folder: str) -> list[int]:
    try:
        return [int(name) for name in os.listdir(folder) if name.isdecimal()]
    except FileNotFoundError:
        return []


def _look(path: str) -> Seen | None:
    with naming_disk_errors(path):
        try:
            with open(path, "rb") as file:  # opened, not asked for by name: NFS asks the server
                content, changed = file.read(_MAX_BYTES), os.fstat(file.fileno()).st_mtime
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ESTALE):
                return None
            raise
    return Seen(int(os.path.basename(path)), content, changed)


def _is_free(folder: str, number: int) -> bool:
    seen = _look(os.path.join(folder, _name(number)))
    if seen is None:
        return False
    if seen.content.startswith(_FREE) or _is_dead_here(seen.content):
        return True
    return _server_time(folder) - seen.changed > _lease_of(seen.content)


def _server_time(folder: str) -> float:
    """The time now, of the clock that sets the times of the files of a folder."""
    path = os.path.join(folder, f".now.{os.getpid()}.{secrets.token_hex(4)}")
    _make(path, b"?")
    try:
        return os.stat(path).st_mtime
    finally:
        _remove(path)


def _make(path: str, content: bytes) -> None:
    """Write a new file, so that all machines see it; StorageError, and none, if that fails."""
    with naming_disk_errors(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            write_through(path, descriptor, content)
            os.fsync(descriptor)
        except BaseException:
            _remove(path)
            raise
        finally:
            os.close(descriptor)


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.remove(path)


def _lease_of(content: bytes) -> float:
    """The lease that a claim names; the usual one where it is not yet, or badly, written."""
    seconds = _parsed(content).get("lease")
    is_known = isinstance(seconds, (int, float)) and 1 <= seconds <= _LONGEST_LEASE
    return float(seconds) if is_known else _LEASE_SECONDS  # type: ignore[arg-type]


def _is_dead_here(content: bytes) -> bool:
    """Whether a claim is of a process of this machine that has ended."""
    owner = _parsed(content)
    if owner.get("machine") != _machine() or not isinstance(owner.get("pid"), int):
        return False
    return not is_alive(owner["pid"])


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        found = parse_json(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _description(lease: float) -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "job": os.environ.get("SLURM_JOB_ID", ""),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "machine": _machine(),
        "lease": lease,
        "token": secrets.token_hex(8),
    }


def _machine() -> str:
    """Where process numbers mean the same: one boot of one kernel, one container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:  # no Linux: process numbers of others are not asked for
        return secrets.token_hex(8)
