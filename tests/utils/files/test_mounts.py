"""On which file systems flock holds between machines, by what the kernel says of them."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

import pytest

from utils.files.mounts import Mount, mount_of, why_locks_are_local, why_locks_fail

_LINES = [
    "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard",
    "40 27 0:50 / /data rw,relatime shared:1 - nfs4 srv:/export rw,vers=4.2,local_lock=none",
    "41 40 0:51 / /data/old\\040runs rw,relatime - nfs srv:/old rw,vers=3,nolock,local_lock=all",
    "42 27 0:52 / /scratch rw master:2 unbindable - lustre mds@tcp:/fs rw,flock,lazystatfs",
    "a line of something else",
]


@pytest.mark.parametrize(
    ("folder", "point", "kind"),
    [
        ("/data/x", "/data", "nfs4"),
        ("/data/old runs", "/data/old runs", "nfs"),
        ("/database", "/", "ext4"),
        ("/scratch/me", "/scratch", "lustre"),
    ],
)
def test_folder_lies_on_the_nearest_mount(folder: str, point: str, kind: str) -> None:
    mount = mount_of(folder, _LINES)
    assert mount is not None and (mount.point, mount.kind) == (point, kind)


def test_this_folder_lies_on_something() -> None:
    mount = mount_of(os.curdir)
    assert mount is None or Path.cwd().is_relative_to(mount.point)


@pytest.mark.parametrize(
    ("kind", "options", "word"),
    [
        ("ext4", "rw", ""),
        ("tmpfs", "rw", ""),
        ("nfs4", "rw,local_lock=none", ""),
        ("nfs", "rw,local_lock=posix", ""),
        ("nfs", "rw,nolock,local_lock=all", "nolock"),
        ("nfs4", "rw,local_lock=flock", "local_lock=flock"),
        ("lustre", "rw,flock", ""),
        ("lustre", "rw,localflock", "localflock"),
        ("lustre", "rw", "without flock"),
        ("gfs2", "rw,localflocks", "localflocks"),
        ("ceph", "rw", ""),
        ("cifs", "rw", "cifs"),
        ("9p", "rw", "9p"),
        ("fuse.sshfs", "rw", "fuse.sshfs"),
        ("fuseblk", "rw", ""),
        ("beegfs", "rw", "beegfs"),
    ],
)
def test_which_locks_hold_between_machines(kind: str, options: str, word: str) -> None:
    why = why_locks_are_local(Mount("/x", kind, frozenset(options.split(","))))
    assert bool(why) == bool(word) and word in why


def test_locks_of_this_disk_hold(tmp_path: Path) -> None:
    assert why_locks_fail(str(tmp_path)) == ""
    assert list(tmp_path.iterdir()) == []


def test_locks_that_keep_nobody_out_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda file, operation: None)
    assert "same lock" in why_locks_fail(str(tmp_path))


def test_locks_that_are_refused_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert "Function not implemented" in why_locks_fail(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
