"""What people see of a process; what cannot be shown is lost, and the run goes on."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO

# shows what an encoding lacks as \xe9 or \u2192
_ESCAPED = "backslashreplace"


def prepare_streams() -> None:
    """Open the standard streams of this process and make printing raise nothing.

    For its start: the first file that is opened gets the number of a closed stream, and then takes
    what a library or a child prints. Streams that somebody has put in the place of the process's
    own (a test, a notebook) are left alone.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
            os.set_inheritable(number, True)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            # not by its number, which another file may have got before
            nowhere = open(os.devnull, "w", encoding="utf-8", errors=_ESCAPED)  # noqa: SIM115
            setattr(sys, name, nowhere)
        elif stream is getattr(sys, f"__{name}__"):
            setattr(sys, name, _lossy(stream))


def show(line: str, stream: TextIO | None, write: Callable[..., Any] = print) -> None:
    """Print a line, also where nobody has prepared the streams; no stream (None) shows nothing.

    `write` is given the line, and the stream as `file`.
    """
    if stream is None:
        return
    try:
        with output_that_may_fail(stream):
            write(line, file=stream)
    except UnicodeEncodeError:
        with output_that_may_fail(stream):
            write(line.encode("ascii", _ESCAPED).decode("ascii"), file=stream)


def dimmed(line: str, stream: TextIO | None) -> str:
    """A line that stands back on a terminal; as it is elsewhere, or where `NO_COLOR` is set."""
    is_plain = stream is None or not stream.isatty() or bool(os.environ.get("NO_COLOR"))
    return line if is_plain else f"\033[2m{line}\033[0m"


@contextlib.contextmanager
def output_that_may_fail(stream: TextIO) -> Iterator[None]:
    """Print inside a `with` block are not worth an error.

    A full disk, or a reader that has left the pipe, silences the stream from then on, so that what
    is still in its buffer does no harm when the process ends.
    """
    try:
        yield
        stream.flush()
    except OSError:
        _silence(stream)


class _Lossy(io.TextIOWrapper):
    """A stream like `output_that_may_fail` at every call, Python's own at the end included."""

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError:
            _silence(self)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            _silence(self)


def _lossy(stream: io.TextIOWrapper) -> _Lossy:
    """A stream beside another one, which stays usable for those who have it already."""
    with output_that_may_fail(stream):
        pass
    raw = io.FileIO(stream.fileno(), "w", closefd=False)
    return _Lossy(
        # without a buffer where there was none (python -u)
        raw if stream.write_through else io.BufferedWriter(raw),  # type: ignore[arg-type]
        stream.encoding,
        errors=_ESCAPED,
        newline="\n",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _silence(stream: TextIO) -> None:
    with contextlib.suppress(OSError, ValueError):  # it is no file: a test's, a notebook's
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
