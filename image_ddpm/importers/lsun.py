"""LSUN's lmdb exports: a folder a category, with ``data.mdb`` whose values are WebP or JPEG files.

The lmdb library maps the file into memory and trusts it: a damaged page can end the process. So a
process of its own reads, and this one gets bytes through a pipe; if it dies, that is an error like
any other.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
from collections.abc import Generator, Iterator
from functools import partial
from multiprocessing.connection import Connection

from image_ddpm.importers.items import MAX_IMAGE_BYTES, ImageSource, Item, class_label
from utils.images.folder import is_hidden
from utils.process.errors import DataError
from utils.process.stop import leave_stopping_to_parent

_FILE = "data.mdb"
_SPLIT = re.compile(r"(?P<category>.+?)(?:_(?P<split>train|val|test))?(?:_lmdb)?")
_MAX_SECONDS_TO_END = 10.0
_IMAGE, _ENTRIES, _BAD = b"i", b"n", b"e"
_REMEDY = "Unpack the category's zip file again, or get it again"


def read_lsun(archive: str) -> ImageSource:
    """The images of one category, or of all whose folders lie in ``archive``, in order of keys.

    ``church_outdoor_train_lmdb`` gives ``church-outdoor_train_0000001``.

    Raises:
        DataError: here or while the images are read: lmdb is not installed, no export, or a
            damaged one.
    """
    try:
        import lmdb  # noqa: F401
    except ImportError:
        raise DataError(
            "--source lsun needs the package lmdb: pip install lmdb (or pip install -r "
            "requirements-lsun.txt)"
        ) from None
    folders = [archive]
    if not os.path.isfile(os.path.join(archive, _FILE)):
        entries = sorted(os.listdir(archive)) if os.path.isdir(archive) else []
        paths = [os.path.join(archive, entry) for entry in entries if not is_hidden(entry)]
        folders = [path for path in paths if _is_export(path)]
    if not folders:
        raise DataError(
            f"{archive} holds no {_FILE}, nor does a folder in it; unpack LSUN's zip file and give "
            "its folder, as church_outdoor_train_lmdb"
        )
    streams = [_Stream(folder) for folder in folders]
    total = sum(stream.num_entries() for stream in streams)
    return ImageSource((item for stream in streams for item in stream.items()), total)


def _is_export(folder: str) -> bool:
    """Whether a folder is an export; DataError if it cannot be looked at, lest it be missing."""
    try:
        return _FILE in os.listdir(folder)
    except NotADirectoryError:
        return False
    except OSError as error:
        raise DataError(
            f"--archive: folder {folder} cannot be listed ({error.strerror}); make it readable, or "
            "move it away"
        ) from None


class _Stream:
    """One export: how many images, and the images."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        match = _SPLIT.fullmatch(os.path.basename(os.path.abspath(folder)))
        assert match is not None
        self._label = class_label(match["category"], folder)
        self._prefix = f"{self._label}_{match['split']}_" if match["split"] else f"{self._label}_"

    def num_entries(self) -> int:
        """The number of keys, as the file's header claims it."""
        with contextlib.closing(self._messages()) as messages:
            return int(next(messages)[1:])

    def items(self) -> Iterator[Item]:
        """The images in order of their keys."""
        with contextlib.closing(self._messages()) as messages:
            next(messages)
            for number, message in enumerate(messages, 1):
                stem = f"{self._prefix}{number:07d}"
                where = f"{self._folder}: image {number}"
                yield Item("", self._label, stem, "", where, partial(bytes, message[1:]))

    def _messages(self) -> Generator[bytes, None, None]:
        # spawn: a forked copy would share this process's threads and signal handlers
        context = multiprocessing.get_context("spawn")
        receiver, sender = context.Pipe(duplex=False)
        reader = context.Process(target=_serve, args=(self._folder, sender), daemon=True)
        reader.start()
        sender.close()
        num_images = num_entries = 0
        try:
            while True:
                message = receiver.recv_bytes(MAX_IMAGE_BYTES + 1)
                if message[:1] == _BAD:
                    problem = message[1:].decode("utf-8", "replace")
                    raise DataError(f"{self._folder}, behind image {num_images}: {problem}")
                num_images += message[:1] == _IMAGE
                num_entries = int(message[1:]) if message[:1] == _ENTRIES else num_entries
                if num_images > num_entries:
                    raise EOFError  # pages that lead in circles
                yield message
        except EOFError:
            receiver.close()
            reader.join(_MAX_SECONDS_TO_END)
            if reader.exitcode != 0 or num_images != num_entries:
                raise DataError(
                    f"{self._folder}/{_FILE}: damaged: of {num_entries} images, {num_images} could "
                    f"be read (the reader ended with {reader.exitcode}). {_REMEDY}"
                ) from None
        finally:
            receiver.close()  # the reader's next message fails, and it ends
            reader.join(_MAX_SECONDS_TO_END)
            reader.kill()


def _serve(folder: str, sender: Connection) -> None:
    """Runs in a process of its own: sends the number of entries, then every value."""
    import lmdb

    leave_stopping_to_parent()
    with contextlib.suppress(BrokenPipeError):
        try:
            with lmdb.open(folder, readonly=True, lock=False, readahead=False) as env:
                _check_length(env, os.path.join(folder, _FILE))
                sender.send_bytes(_ENTRIES + str(env.stat()["entries"]).encode())
                with env.begin(buffers=True) as transaction:
                    _send_values(transaction.cursor(), sender)
        except (lmdb.Error, ValueError) as error:
            sender.send_bytes(_BAD + f"{error}. {_REMEDY}".encode())


def _check_length(env: object, path: str) -> None:
    """Reading a page beyond the end of the file would end the process."""
    info, stat = env.info(), env.stat()  # type: ignore[attr-defined]
    size, expected = os.path.getsize(path), (info["last_pgno"] + 1) * stat["psize"]
    if size < expected:
        raise ValueError(f"{_FILE} is cut off: {size} of {expected} bytes")


def _send_values(cursor: object, sender: Connection) -> None:
    for value in cursor.iternext(keys=False, values=True):  # type: ignore[attr-defined]
        if len(value) > MAX_IMAGE_BYTES:
            raise ValueError(f"a value of {len(value)} bytes, more than {MAX_IMAGE_BYTES}")
        sender.send_bytes(_IMAGE + bytes(value))
