"""Which file system a folder lies on, and whether its `flock` holds between machines."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from utils.files.atomic import naming_disk_errors

_MOUNTS = "/proc/self/mountinfo"
_ESCAPE = re.compile(r"\\([0-7]{3})")
# what nfs(5) and Lustre's mount name: locks that the server does not hear of
_LOCAL_OPTIONS = ("nolock", "local_lock=all", "local_lock=flock", "localflock", "localflocks")
# network file systems whose flock reaches the server unless an option says otherwise
_TOLD_BY_OPTIONS = ("nfs", "nfs4", "gfs2", "ocfs2", "ceph")
# those that keep it on the machine, or where nothing tells
_UNKNOWN = ("9p", "virtiofs", "cifs", "smb3", "afs", "beegfs", "gpfs", "orangefs", "pvfs2", "panfs")


@dataclass(frozen=True)
class Mount:
    """Where a file system is mounted, which it is and how."""

    point: str
    kind: str
    options: frozenset[str]


def mount_of(folder: str, lines: Iterable[str] | None = None) -> Mount | None:
    """The mount that a folder lies on, by the lines of mountinfo; None where there are none."""
    if lines is None:
        try:
            with open(_MOUNTS, encoding="utf-8", errors="surrogateescape") as file:
                lines = file.readlines()
        except OSError:  # no Linux
            return None
    path, found = os.path.realpath(folder), None
    for line in lines:
        mount = _parse(line)
        if mount is None or (found is not None and len(mount.point) < len(found.point)):
            continue
        if path == mount.point or path.startswith(mount.point.rstrip("/") + "/"):
            found = mount
    return found


def _parse(line: str) -> Mount | None:
    """A line as in proc(5): `36 35 98:0 /root /point rw - ext4 /dev/sda rw`."""
    before, dash, after = line.partition(" - ")
    first, last = before.split(), after.split()
    if not dash or len(first) < 6 or len(last) < 3:
        return None
    point = _ESCAPE.sub(lambda match: chr(int(match[1], 8)), first[4])
    return Mount(point, last[0], frozenset(",".join((first[5], last[2])).split(",")))


def why_locks_are_local(mount: Mount | None) -> str:
    """Why machines may not see each other's `flock`; empty if they do, or no other one is there."""
    if mount is None:
        return ""
    kind, local = mount.kind, [word for word in _LOCAL_OPTIONS if word in mount.options]
    if kind == "lustre" and "flock" not in mount.options:
        return f"{kind}, mounted with {local[0]}" if local else f"{kind}, mounted without flock"
    if kind in _TOLD_BY_OPTIONS and local:
        return f"{kind}, mounted with {local[0]}"
    if kind in _UNKNOWN or kind == "fuse" or kind.startswith("fuse."):
        return f"{kind}, which does not promise locks between machines"
    return ""


def why_locks_fail(folder: str) -> str:
    """Try it: of two descriptors of one file one must get the lock and the other must not.

    Empty if it is so. This finds file systems without locks, not those that lock on one machine.
    """
    path = os.path.join(folder, f".try.{os.getpid()}.{secrets.token_hex(4)}.lock")
    with naming_disk_errors(path):
        first = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        second = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return ""
    except OSError as error:
        return f"flock is refused: {error.strerror}"
    finally:
        os.close(first)
        os.close(second)
        os.remove(path)
    return "two descriptors got the same lock"
