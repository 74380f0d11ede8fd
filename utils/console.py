"""Lines for whoever watches a run; what cannot be shown is lost, and the run goes on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TextIO


@contextlib.contextmanager
def expendable(stream: TextIO) -> Iterator[None]:
    """Prints inside a ``with`` block are not worth an error.

    A full disk, or a reader that has left the pipe, silences the stream from then on, so that what
    is still in its buffer does no harm when the process ends.
    """
    try:
        yield
        stream.flush()
    except OSError:
        _silence(stream)


def _silence(stream: TextIO) -> None:
    with contextlib.suppress(OSError, ValueError):  # it is no file: a test's, a notebook's
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
