"""Disks that take no more, and folders that nobody may write to; no assertions."""

from __future__ import annotations

import contextlib
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A tmpfs at the folder, which is made; skips the test where mounting is not allowed."""
    folder.mkdir(parents=True)
    if not mount(folder, options):
        pytest.skip("this user may not mount a tmpfs")
    try:
        yield folder
    finally:
        unmount(folder)


def mount(folder: Path, options: str) -> bool:
    """A tmpfs at a folder; False where mounting is not allowed."""
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def unmount(folder: Path) -> None:
    """Takes a tmpfs and all its files away."""
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def grow(folder: Path, size: str) -> None:
    """Gives a mounted tmpfs another size."""
    subprocess.run(["mount", "-o", f"remount,{size}", str(folder)], check=True)


@contextlib.contextmanager
def file_size_limit(num_bytes: int) -> Iterator[None]:
    """No file of this process may grow beyond that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
