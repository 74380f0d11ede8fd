"""Files that are either complete or untouched, whatever kills the process while it writes them.

A local file is written to `.{name}.{pid}.{host}{random}.tmp` in the same folder (of a long name,
its beginning), flushed to the disk and moved over the old one: a reader sees the old content or the
new, and nothing between.
A path with `://` goes through blobfile, where an object appears when its upload is complete.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import platform
import re
import secrets
import shutil
import stat
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, TypeAlias, cast

from utils.process.errors import FORBIDDEN, SHORTEN, DataError, StorageError

# What torch.save says when the disk refuses its bytes: it raises RuntimeError, not OSError.
_TORCH_WRITER_WORDS = ("inline_container", "PytorchStreamWriter", "iostream error")


@contextlib.contextmanager
def naming_disk_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Let an error of the disk inside a `with` block become a StorageError that names `path`."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if isinstance(error, StorageError) or not _is_storage_failure(error):
            raise
        raise _storage_error(os.fspath(path), error) from error


def write_through(path: str | os.PathLike[str], descriptor: int, data: bytes) -> None:
    """Write to an open local file past any buffer, which a full disk would make fail twice.

    At a StorageError some of it may have been written.
    """
    with naming_disk_errors(path):
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


# what a JSON object is read as: its values are whatever the file says, until they are checked
JsonObject: TypeAlias = dict[str, Any]
StrPath: TypeAlias = str | os.PathLike[str]

TEMP_NAME = re.compile(r"\..+\.(?P<pid>\d+)\.(?P<host>[0-9a-f]{8})[0-9a-f]{8}\.tmp", re.DOTALL)
MAX_TEMP_AGE_HOURS = 24.0
CHUNK_BYTES = 1 << 20

_ESCAPED = "backslashreplace"
# characters of a file's name in that of its temporary file
_NAME_IN_TEMP = 50

# File systems that cannot flush a folder say so with one of these; the file itself is flushed.
_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)


class SpecialFileError(DataError):
    """A pipe, a socket or a device stands where a plain file should; it was not opened."""


def is_remote(path: StrPath) -> bool:
    """Whether `path` names an object that blobfile opens (`gs://…`, `az://…`)."""
    return "://" in os.fspath(path)


def open_binary(path: StrPath) -> BinaryIO:
    """Open a local or remote file for reading bytes.

    Raises:
        FileNotFoundError: nothing is there.
        SpecialFileError: no plain file: opening a pipe would wait for a writer, for ever perhaps.
    """
    if is_remote(path):
        return cast(BinaryIO, blobfile_module().BlobFile(os.fspath(path), "rb"))
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # opening a folder is an error of its own
        kind = "pipe" if stat.S_ISFIFO(mode) else "socket" if stat.S_ISSOCK(mode) else "device"
        raise SpecialFileError(f"{os.fspath(path)}: a {kind}, not a file")
    return open(path, "rb")


def read_up_to(path: StrPath, max_bytes: int) -> bytes:
    """The first `max_bytes` bytes of a file (`open_binary`), without room for more than it has."""
    chunks, rest = [], max_bytes
    with open_binary(path) as file:
        while rest and (chunk := file.read(min(CHUNK_BYTES, rest))):
            chunks.append(chunk)
            rest -= len(chunk)
    return b"".join(chunks)


@contextlib.contextmanager
def atomic_write(path: StrPath, mode: str = "wb") -> Iterator[IO[Any]]:
    """Yield a file object whose content replaces `path` when the block ends without an error.

    If the block raises, `path` keeps what it had and no temporary file is left. A symbolic link
    stays a link: the file it points to is replaced. What UTF-8 lacks, a byte of a file's name that
    is no text, is written as `\\udce9`, which JSON reads back.

    The path is local or `scheme://…`, and its folder must exist; the mode is "wb", or "w" for text
    in UTF-8.

    Raises:
        StorageError: the disk is full, the folder missing or read-only, or the like; names the
            path and the free space. Errors of torch's file writer count as such.
        ValueError: another mode.
    """
    if mode not in ("wb", "w"):
        raise ValueError(f"mode {mode!r} cannot be atomic: use 'wb' for bytes or 'w' for text")
    writer = _remote_writer if is_remote(path) else _local_writer
    with (
        naming_disk_errors(path),
        writer(os.fspath(path), "utf-8" if mode == "w" else None) as file,
    ):
        yield file


def write_bytes_atomic(path: StrPath, data: bytes) -> None:
    """Replace `path` by `data`; see `atomic_write`."""
    with atomic_write(path) as file:
        file.write(data)


def write_text_atomic(path: StrPath, text: str) -> None:
    """Replace `path` by `text` in UTF-8; see `atomic_write`."""
    with atomic_write(path, "w") as file:
        file.write(text)


def write_json_atomic(path: StrPath, value: Any) -> None:
    """Replace `path` by `value` as indented JSON with a final newline.

    Non-finite floats are written as Python's `json` writes and reads them (NaN, Infinity), since a
    record of a diverged run is worth more than strict JSON.
    """
    write_text_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def sha256_of(path: StrPath) -> str:
    """The SHA-256 of a local or remote file in hexadecimal."""
    digest = hashlib.sha256()
    with open_binary(path) as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def remove_stale_temp_files(folder: StrPath) -> list[Path]:
    """Remove the temporary files that killed writers left in `folder`, not in folders below it.

    A file is stale when its process is dead on this machine, or after `MAX_TEMP_AGE_HOURS`: whether
    a process of another machine that shares the folder still lives cannot be asked.

    A missing or remote folder holds no temporary files. Returns what was removed.
    """
    folder_path = Path(folder)
    if is_remote(folder) or not folder_path.is_dir():
        return []
    with os.scandir(folder) as entries:  # few of what may be many files are temporary
        names = [entry.name for entry in entries if TEMP_NAME.fullmatch(entry.name)]
    stale = [entry for entry in map(folder_path.joinpath, sorted(names)) if _is_stale(entry)]
    for entry in stale:
        entry.unlink(missing_ok=True)
    return stale


def _is_stale(entry: Path) -> bool:
    match = TEMP_NAME.fullmatch(entry.name)
    if match is None:
        return False
    if match["host"] == _host_tag() and not is_alive(int(match["pid"])):
        return True
    try:
        age_hours = (time.time() - entry.stat().st_mtime) / 3600.0
    except FileNotFoundError:
        return False
    return age_hours > MAX_TEMP_AGE_HOURS


def is_alive(pid: int) -> bool:
    """Whether a process of this machine has this number."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it is somebody else's
        pass
    return True


def _host_tag() -> str:
    return f"{zlib.crc32(platform.node().encode('utf-8', 'surrogateescape')):08x}"


def _temp_path(target: Path) -> Path:
    unique = f"{_host_tag()}{secrets.token_hex(4)}"
    # or a name that the file system takes just so would be too long for it with all this
    return target.with_name(f".{target.name[:_NAME_IN_TEMP]}.{os.getpid()}.{unique}.tmp")


@contextlib.contextmanager
def _local_writer(path: str, encoding: str | None) -> Iterator[IO[Any]]:
    target = Path(os.path.realpath(path))
    temp_path = _temp_path(target)
    errors = encoding and _ESCAPED
    mode = "x" if encoding else "xb"
    file = open(temp_path, mode, encoding=encoding, errors=errors)  # noqa: SIM115
    try:
        yield file
        file.flush()
        os.fsync(file.fileno())
        file.close()
        os.replace(temp_path, target)
    except BaseException:
        # Closing flushes what is buffered, which fails again on a full disk.
        with contextlib.suppress(OSError):
            file.close()
        temp_path.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


@contextlib.contextmanager
def _remote_writer(path: str, encoding: str | None) -> Iterator[IO[Any]]:
    # Collected locally first: an object opened at once would be published half written when the
    # block raises, because leaving its own context closes and thereby commits it.
    blobfile = blobfile_module()
    with tempfile.TemporaryFile() as buffer:
        file: IO[Any] = io.TextIOWrapper(buffer, encoding, _ESCAPED) if encoding else buffer
        yield file
        file.flush()
        buffer.seek(0)
        with blobfile.BlobFile(path, "wb") as remote:
            shutil.copyfileobj(buffer, remote, CHUNK_BYTES)


def blobfile_module() -> Any:
    """The package that opens remote paths."""
    try:
        import blobfile
    except ImportError as error:
        raise ImportError("paths with '://' need blobfile: pip install blobfile") from error
    return blobfile


def _sync_folder(folder: Path) -> None:
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:  # a folder that may be written but not read
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(handle)
