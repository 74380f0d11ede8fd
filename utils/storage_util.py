"""Folders of files that may be remote: what is there, how large, making and removing.

Reading and writing one file is the business of ``atomic_file``.
"""

from __future__ import annotations

import os

from utils.atomic_file import is_remote


def is_file(path: str) -> bool:
    """Whether a local or ``blobfile`` path is a file."""
    if not is_remote(path):
        return os.path.isfile(path)
    import blobfile

    return bool(blobfile.exists(path)) and not blobfile.isdir(path)


def is_folder(path: str) -> bool:
    """Whether a local or ``blobfile`` path is a folder."""
    if not is_remote(path):
        return os.path.isdir(path)
    import blobfile

    return bool(blobfile.isdir(path))


def list_names(folder: str) -> list[str]:
    """Sorted names in a folder; none if there is no such folder."""
    if not is_remote(folder):
        return sorted(os.listdir(folder or ".")) if os.path.isdir(folder or ".") else []
    import blobfile

    return sorted(blobfile.listdir(folder)) if blobfile.isdir(folder) else []


def size_of(path: str) -> int:
    """Size of a file in bytes."""
    if not is_remote(path):
        return os.path.getsize(path)
    import blobfile

    return int(blobfile.stat(path).size)


def make_folder(folder: str) -> None:
    """Makes a folder and those above it; nothing happens if it is there."""
    if not is_remote(folder):
        os.makedirs(folder, exist_ok=True)
        return
    import blobfile

    blobfile.makedirs(folder)


def remove(path: str) -> None:
    """Removes a file."""
    if not is_remote(path):
        os.remove(path)
        return
    import blobfile

    blobfile.remove(path)
