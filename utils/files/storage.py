"""Folders of files that may be remote: what is there, how large, making and removing.

Reading and writing one file is the business of ``utils.files.atomic``.
"""

from __future__ import annotations

import os

from utils.files.atomic import is_remote
from utils.files.full_disk import storing
from utils.process.errors import FORBIDDEN, StorageError


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


def make_folder(folder: str, flag: str = "") -> None:
    """Makes a folder and those above it; nothing happens if it is there.

    Args:
        folder: local or remote.
        flag: which named it, for messages.

    Raises:
        StorageError: if there is a file in its place or above it, no folder can be there, the disk
            is full, or its name begins with ``~``, which parsers have replaced by the home folder.
        OSError: if it may not be made.
    """
    if not is_remote(folder):
        _refuse_home(folder, flag)
        try:
            os.makedirs(folder, exist_ok=True)
        except (FileExistsError, NotADirectoryError, FileNotFoundError) as error:
            named = f"{flag} {folder or repr('')}".lstrip()
            raise StorageError(f"{named} {_obstacle(folder, error)}; name another folder") from None
        except OSError as error:
            if error.errno in FORBIDDEN:
                raise
            with storing(folder):
                raise
        return
    import blobfile

    blobfile.makedirs(folder)


def _refuse_home(folder: str, flag: str) -> None:
    if folder.startswith("~"):
        named = f"{flag} {folder}".lstrip()
        raise StorageError(f"{named}: ~ is no folder here; give the whole path, or ./{folder}")


def _obstacle(folder: str, error: OSError) -> str:
    """Why a folder cannot be made: what is there, or above it."""
    place = os.path.abspath(folder)
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    if os.path.isdir(place):
        return f"cannot be made in {place} ({error.strerror})"
    kind = "a file" if os.path.exists(place) else "a link to nothing"
    is_itself = place == os.path.abspath(folder)
    return f"is {kind}" if is_itself else f"cannot be made: {place} is {kind}"


def remove(path: str) -> None:
    """Removes a file."""
    if not is_remote(path):
        os.remove(path)
        return
    import blobfile

    blobfile.remove(path)
