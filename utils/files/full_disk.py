"""What a disk that takes no more says, as an error that names the path, the space and the remedy.

Not for deciding what is written, nor how it stays whole (``utils.files.atomic``).
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator

from utils.process.errors import FORBIDDEN, SHORTEN, StorageError

# What torch.save says when the disk refuses its bytes: it raises RuntimeError, not OSError.
_TORCH_WRITER_WORDS = ("inline_container", "PytorchStreamWriter", "iostream error")


@contextlib.contextmanager
def storing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Lets an error of the disk inside a ``with`` block name what was to be stored.

    Raises:
        StorageError: as `atomic_write`.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        if isinstance(error, StorageError) or not _is_storage_failure(error):
            raise
        raise _storage_error(os.fspath(path), error) from error


def write_through(path: str | os.PathLike[str], descriptor: int, data: bytes) -> None:
    """Writes to an open local file past any buffer, which a full disk would make fail twice.

    Raises:
        StorageError: as `atomic_write`; some of it may have been written.
    """
    with storing(path):
        while data:
            data = data[os.write(descriptor, data) :]


def _is_storage_failure(error: OSError | RuntimeError) -> bool:
    if isinstance(error, OSError) or isinstance(error.__context__, OSError):
        return True
    # torch says the same of any other error that comes up while it writes
    return not error.__context__ and any(word in str(error) for word in _TORCH_WRITER_WORDS)


def _storage_error(path: str, error: OSError | RuntimeError) -> StorageError:
    cause = error.__context__ if isinstance(error, RuntimeError) else error
    number = (cause.errno if isinstance(cause, OSError) else None) or errno.EIO
    state = f"cannot store {path}: {error}; {_free_space(path)}"
    remedy = "Free some space or choose another folder"
    if number in FORBIDDEN:
        state, remedy = f"cannot store {path}: {os.strerror(number)}", "Choose another folder"
    if number == errno.ENAMETOOLONG:
        state, remedy = f"cannot store {path}: {os.strerror(number)}", SHORTEN.capitalize()
    message = f"{state}. The previous file, if there was one, is intact. {remedy}, and run again"
    return StorageError(number, message)


def _free_space(path: str) -> str:
    if "://" in path:
        return "free space unknown (remote)"
    folder = os.path.dirname(os.path.realpath(path))
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    try:
        free_mib = shutil.disk_usage(folder).free / 2**20
    except OSError as error:
        return f"free space unknown (folder {folder}: {error.strerror})"
    return f"{free_mib:.1f} MiB free in {folder}"
