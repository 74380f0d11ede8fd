"""Walks over tar archives from anybody's hands: nothing is unpacked, nothing in them is trusted.

A member is handed out if it is a plain file with a harmless name; links, devices and names that
lead elsewhere are passed by with a message. Sizes are believed only as far as the bytes go: headers
get a small budget, members a limit, and a gzip file that unpacks to many times its size ends the
walk. `tarfile` reads the headers; where it would take damage for the end, this module does not.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import stat
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import IO, Any

from utils.files.storage import problem_with_name
from utils.process.errors import DataError

Skip = Callable[[str], None]
MAX_IMAGE_BYTES = 1 << 26
MAX_MEMBERS = 20_000_000
# of one member with its long names; the standard library's parser is quadratic in it
MAX_HEADER_BYTES = 1 << 14
# photographs and pickles of pixels hardly shrink; zeros shrink a thousandfold
MAX_GZIP_RATIO, GZIP_ALLOWANCE = 100, 1 << 26
_CHUNK = 1 << 20
_GZIP_MAGIC = b"\x1f\x8b"
_DAMAGE = (
    tarfile.TarError,
    EOFError,
    zlib.error,
    gzip.BadGzipFile,
    ValueError,
    OverflowError,
    RecursionError,
)


@dataclass(frozen=True)
class Member:
    """A plain file in an archive; to be read before the walk goes on."""

    name: str
    size: int
    where: str
    open: Callable[[], IO[bytes]]

    def read(self) -> bytes:
        """All its bytes; DataError for more than `MAX_IMAGE_BYTES`, or an archive cut off there."""
        if self.size > MAX_IMAGE_BYTES:
            raise DataError(
                f"{self.where}: {self.size} bytes are more than {MAX_IMAGE_BYTES}, too many for "
                "what it should be; get the archive again from its maker"
            )
        with _naming_damage(self.where):
            with self.open() as file:
                data = file.read()
            if len(data) != self.size:
                raise EOFError(f"{len(data)} bytes instead of {self.size}")
            return data


class _ForwardFile:
    """What `tarfile` needs of a file, within a budget and never going back but by one byte.

    `packed` is the compressed file below it, if there is one: its position tells the ratio.
    """

    def __init__(self, file: IO[bytes], packed: IO[bytes] | None = None) -> None:
        self._file, self._packed = file, packed
        self._pos = self._budget = 0
        self._last = b""  # tarfile looks at the last byte of a member once more
        self._is_back = False

    def allow(self, num_bytes: int) -> None:
        """Set how many bytes may be read from here on."""
        self._budget = num_bytes

    def read(self, size: int) -> bytes:
        """The next bytes; fewer at the end."""
        if size > self._budget or size < 0:
            raise tarfile.ReadError(f"a header asks for {size} bytes")
        self._budget -= size
        back = self._last if self._is_back and size else b""
        self._is_back = self._is_back and not size
        data = back + self._file.read(size - len(back))
        self._pos += len(data)
        self._last = data[-1:] or self._last
        self._check_ratio()
        return data

    def seek(self, pos: int) -> None:
        """Go forward, or back by one byte."""
        if pos == self._pos - 1 and self._last and not self._is_back:
            self._is_back, self._pos = True, pos
            return
        missing = pos - self._pos
        if missing < 0:
            raise tarfile.ReadError("members overlap")
        if missing and self._is_back:
            self._is_back, missing = False, missing - 1
        if missing and self._packed is None:
            try:
                self._file.seek(missing, os.SEEK_CUR)
            except OSError:  # a size beyond what files can have
                raise EOFError("unexpected end of data") from None
        while missing and self._packed is not None:
            skipped = len(self._file.read(min(missing, _CHUNK)))
            if not skipped:
                raise EOFError("unexpected end of data")
            missing -= skipped
            self._check_ratio(pos - self._pos - missing)
        self._last = self._last if pos == self._pos else b""
        self._pos = pos

    def _check_ratio(self, num_skipped: int = 0) -> None:
        if self._packed is None:
            return
        unpacked = self._pos + num_skipped
        if unpacked > MAX_GZIP_RATIO * self._packed.tell() + GZIP_ALLOWANCE:
            raise tarfile.ReadError(f"unpacks to over {MAX_GZIP_RATIO} times its size")

    def drain(self) -> None:
        """Read to the end, where gzip's checksum stands."""
        self.allow(_CHUNK)
        while self.read(_CHUNK):
            self.allow(_CHUNK)

    def tell(self) -> int:
        """The position in the tar."""
        return self._pos

    def seekable(self) -> bool:
        """Whether readers of members may seek."""
        return True


class _StrictInfo(tarfile.TarInfo):
    """A header that does not pass for the end of the archive when it is damaged or missing."""

    @classmethod
    def frombuf(cls, buf: Any, encoding: Any, errors: Any) -> Any:
        """The header in a block of 512 bytes; zeros mark the end."""
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise
            raise EOFError(str(error) if buf else "it ends without an end mark") from None


def tar_members(path: str, skip: Skip) -> Iterator[Member]:
    """The plain files of a tar or tar.gz, in its order; `skip` is told of those that are passed by.

    Raises:
        DataError: missing, no tar, damaged or cut off; names the file and the last whole member.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise DataError(f"{path} is neither a folder nor a file")
        with open(path, "rb") as raw:
            is_packed = raw.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
            raw.seek(0)
            if not is_packed:
                yield from _walk(_ForwardFile(raw), path, skip)
                return
            with gzip.GzipFile(fileobj=raw) as unpacked:
                file = _ForwardFile(unpacked, raw)  # type: ignore[arg-type]
                yield from _walk(file, path, skip)
                with _naming_damage(path):
                    file.drain()
    except FileNotFoundError:
        raise DataError(f"{path} is missing; see --archive") from None


def inner_members(member: Member, skip: Skip) -> Iterator[Member]:
    """The plain files of a tar within a tar; see `tar_members`."""
    yield from _walk(_ForwardFile(member.open()), member.where, skip)


def _walk(file: _ForwardFile, where: str, skip: Skip) -> Iterator[Member]:
    last = where
    file.allow(MAX_HEADER_BYTES)
    with _naming_damage(where):
        tar = tarfile.TarFile(fileobj=file, tarinfo=_StrictInfo)  # type: ignore[arg-type]
    for _ in range(MAX_MEMBERS):
        file.allow(MAX_HEADER_BYTES)
        with _naming_damage(f"{last}, or behind it"):
            info = tar.next()
        if info is None:
            return
        # millions of headers need not stay in memory, nor what one of them says about all others
        tar.members.clear()  # type: ignore[attr-defined]
        tar.pax_headers.clear()  # type: ignore[attr-defined]
        name = info.name.removeprefix("./")
        last = f"{where}: member {ascii(name)[:200]}"
        problem = _problem(info, name)
        if problem:
            skip(f"{last} {problem}")
        elif not info.isdir():
            yield Member(name, info.size, last, partial(_open_member, tar, info, file))
    raise DataError(f"{where}: more than {MAX_MEMBERS} members; split it")


def _problem(info: tarfile.TarInfo, name: str) -> str | None:
    if info.isdir():
        return None
    if info.issym() or info.islnk():
        return "is a link; links are not followed"
    if not info.isreg() or info.issparse():
        return "is no plain file"
    return problem_with_name(name)


def _open_member(tar: tarfile.TarFile, info: tarfile.TarInfo, file: _ForwardFile) -> IO[bytes]:
    file.allow(info.size)
    content = tar.extractfile(info)
    assert content is not None  # it is a plain file
    return content


@contextlib.contextmanager
def _naming_damage(where: str) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except _DAMAGE as error:
        cause = "headers within headers" if isinstance(error, RecursionError) else error
        raise DataError(
            f"{where}: damaged or cut off ({cause}). Get the archive again (compare its size or "
            "checksum with its maker's), then run again to go on"
        ) from None
