"""The end of a script's process, where threads of a library would not live through the usual one.

Python's teardown destroys objects while such threads still run. One that drops a tensor then aborts
the process (SIGABRT), whatever the script has achieved: torch.distributed's do, on a busy machine.
"""

from __future__ import annotations

import atexit
import functools
import os
import sys
from typing import NoReturn

from utils.process.console import expendable

_skips_teardown = False
_code: int | None = None


@functools.cache
def prepare() -> None:
    """For the start of a script: what registers with ``atexit`` after this is not left out."""
    atexit.register(_end)


def skip_teardown() -> None:
    """Lets this process end, when all is closed and flushed, without Python's teardown."""
    global _skips_teardown
    _skips_teardown = True


def leave(code: int) -> NoReturn:
    """Ends the script with an exit code.

    Raises:
        SystemExit: as :func:`sys.exit`.
    """
    global _code
    _code = code
    sys.exit(code)


def _end() -> None:
    if _skips_teardown and _code is not None:
        for stream in (sys.stdout, sys.stderr):
            with expendable(stream):
                pass
        os._exit(_code)
