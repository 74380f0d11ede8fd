"""Names of files, and folders that may be remote: what is there, how large, making, removing.

Reading and writing one file is the business of `utils.files.atomic`.
"""

from __future__ import annotations

import hashlib
import os
import re

from utils.files.atomic import blobfile_module, is_remote, naming_disk_errors
from utils.process.errors import FORBIDDEN, StorageError

# what nearly every file system takes
MAX_NAME_BYTES = 255
_DIGEST = re.compile("~[0-9a-f]{16}$")
# what tensorboardX lets through
_NOT_IN_TAGS = re.compile(r"[^-/\w.]")
_DRIVE = re.compile(r"[A-Za-z]:")
_CONTROL = re.compile("[\x00-\x1f\x7f]")
# what stands for bytes of a file's name that are not UTF-8
_UNDECODED = re.compile("[\ud800-\udfff]")


def with_home(path: str) -> str:
    """A path whose `~` is the home folder, as no shell does it in `--flag=~/x` or a file.

    ValueError if there is no such home folder.
    """
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        raise ValueError(
            f"{path} is no home folder of anybody; give the whole path, or ./{path} for what has "
            "this very name"
        )
    return expanded


def problem_with_letters(name: str) -> str | None:
    """Why a name cannot be written down, whatever path it is; None if it can."""
    if _UNDECODED.search(name):
        return "has bytes that are not UTF-8"
    if _CONTROL.search(name):
        return "has a line break or another character that cannot be printed"
    return None


def problem_with_name(name: object) -> str | None:
    """Why `name` is unfit to be a path below a data or an output folder, or None if it is fit.

    Fit are relative names with forward slashes, without `..`, control characters, backslash or
    drive letter.
    """
    if not isinstance(name, str):
        return "is no string"
    if problem := problem_with_letters(name):
        return problem
    if "\\" in name:
        return "has a backslash; separate folders by '/'"
    if name.startswith("/") or _DRIVE.match(name):
        return "is absolute; give it relative to data_dir"
    parts = name.split("/")
    if ".." in parts:
        return "has '..', which could lead out of its folder"
    return "names no file" if parts[-1] in ("", ".") else None


def flat_name(name: str, suffix: str = "") -> str:
    """The name of one file for a name with folders: `a/b` and `.png` give `a__b.png`.

    Where `__` could be read in two ways, as in `a__b/c`, and where the result would be longer
    than a file system takes, it ends in `~` and a digest of the name.
    """
    flat = name.replace("/", "__")
    is_plain = flat.replace("__", "/") == name and not _DIGEST.search(flat)
    if is_plain and len(os.fsencode(flat + suffix)) <= MAX_NAME_BYTES:
        return flat + suffix
    tail = _digest(name) + suffix
    while len(os.fsencode(flat + tail)) > MAX_NAME_BYTES:
        flat = flat[:-1]
    return flat + tail


def tag_name(name: str) -> str:
    """The end of a TensorBoard tag, in which most characters become `_`."""
    return name + _digest(name) if _NOT_IN_TAGS.search(name) else name


def number_name(value: float) -> str:
    """A number as part of a file's name: as short as tells it from all others."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def _digest(name: str) -> str:
    return f"~{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def is_file(path: str) -> bool:
    """Whether a local or remote path is a file."""
    if is_remote(path):
        return bool(blobfile_module().exists(path)) and not blobfile_module().isdir(path)
    return os.path.isfile(path)


def is_folder(path: str) -> bool:
    """Whether a local or remote path is a folder."""
    return bool(blobfile_module().isdir(path)) if is_remote(path) else os.path.isdir(path)


def list_names(folder: str) -> list[str]:
    """Sorted names in a folder; none if there is no such folder."""
    if not is_folder(folder or "."):
        return []
    return sorted(
        blobfile_module().listdir(folder) if is_remote(folder) else os.listdir(folder or ".")
    )


def size_of(path: str) -> int:
    """Size of a file in bytes."""
    return int(blobfile_module().stat(path).size) if is_remote(path) else os.path.getsize(path)


def remove(path: str) -> None:
    """Remove a file."""
    (blobfile_module() if is_remote(path) else os).remove(path)


def make_folder(folder: str, flag: str = "") -> None:
    """Make a local or remote folder and those above it, if it is not there; `flag` has named it.

    Raises:
        StorageError: if there is a file in its place or above it, no folder can be there, the disk
            is full, or its name begins with `~`, which parsers have replaced by the home folder.
        OSError: if it may not be made.
    """
    if is_remote(folder):
        blobfile_module().makedirs(folder)
        return
    named = f"{flag} {folder or repr('')}".lstrip()
    if folder.startswith("~"):
        raise StorageError(f"{named}: ~ is no folder here; give the whole path, or ./{folder}")
    try:
        os.makedirs(folder, exist_ok=True)
    except (FileExistsError, NotADirectoryError, FileNotFoundError) as error:
        raise StorageError(f"{named} {_obstacle(folder, error)}; name another folder") from None
    except OSError as error:
        if error.errno in FORBIDDEN:
            raise
        with naming_disk_errors(folder):
            raise


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
