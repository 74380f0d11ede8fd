"""The errors a user can meet, the exit code each one becomes, and the end of a script's process.

Exit codes: 0 done; 2 usage, or a lack of memory; 3 data; 4 checkpoint; 75 stopped on request, run
again to continue.

Python's teardown destroys objects while threads of libraries still run. One that drops a tensor
then aborts the process (SIGABRT), whatever the script has achieved: torch.distributed's do, on a
busy machine. Such a process asks to `skip_teardown`.
"""

from __future__ import annotations

import atexit
import errno
import functools
import os
import sys
from collections.abc import Callable, Iterator

from utils.process import stop as stop_util
from utils.process.console import output_that_may_fail, prepare_streams, show

EXIT_DONE = 0
EXIT_USAGE = 2
EXIT_DATA = 3
EXIT_CHECKPOINT = 4
EXIT_STOPPED = 75

FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)
SHORTEN = "shorten the names of its folders and of itself (most file systems take 255 bytes each)"
_ADVICE = {
    **dict.fromkeys(FORBIDDEN, "; change its permissions or name another folder"),
    errno.EISDIR: "; move the folder away, a file belongs there",
    errno.ENAMETOOLONG: f"; {SHORTEN}",
    errno.ELOOP: "; remove the links, which lead in a circle",
}


class DataError(ValueError):
    """Something about the data is wrong: a folder, an image, a list of them, a result."""


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged, or not one of this model; or a run lost its footing."""


class StorageError(OSError):
    """A file could not be written; the message names the path and the free space."""


def run_main(main: Callable[[], int]) -> None:
    """Run a script's `main` and exit with the contract's code.

    Errors meant for users print one `error:` line; `TRACEBACK=1` in the environment shows the
    whole trace instead. So does Ctrl-C where no loop would notice it, with the code of a stop.
    Anything else is a bug and keeps its traceback (exit code 1). Once it was asked to stop, the
    process hears no further signal until its end.
    """
    global _code
    prepare_streams()
    _prepare_end()
    stop_util.first_stop_is_last()
    try:
        code = main()
    except stop_util.StopRequested as request:
        show(str(request), sys.stderr)
        code = EXIT_STOPPED
    except (KeyboardInterrupt, Exception) as error:
        is_interrupt = any(isinstance(one, KeyboardInterrupt) for one in with_causes(error))
        is_for_users = isinstance(error, (ValueError, OSError)) or is_out_of_memory(error)
        if not (is_for_users or is_interrupt) or os.environ.get("TRACEBACK") == "1":
            raise
        if is_interrupt:
            show(stop_util.stop_line("received SIGINT", where="outside of any loop"), sys.stderr)
            code = EXIT_STOPPED
        else:
            words = _without_trace(str(error)) or type(error).__name__
            show(f"error: {words}{_advice(error)}", sys.stderr)
            code = _exit_code(error)
    _code = code
    sys.exit(code)


_skips_teardown = False
_code: int | None = None


@functools.cache
def _prepare_end() -> None:
    """For the start of a script: what registers with `atexit` after this is not left out."""
    atexit.register(_end)


def skip_teardown() -> None:
    """Let this process end, when all is closed and flushed, without Python's teardown."""
    global _skips_teardown
    _skips_teardown = True


def _end() -> None:
    if _skips_teardown and _code is not None:
        for stream in (sys.stdout, sys.stderr):
            with output_that_may_fail(stream):
                pass
        os._exit(_code)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, or torch on a CPU or GPU, got no memory; told without importing torch."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    # the allocator of a CPU has no exception of its own
    refusals = ("can't allocate memory", "not enough memory")
    return isinstance(error, RuntimeError) and any(words in str(error) for words in refusals)


def with_causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and one after the other those that it came from: libraries wrap what they meet."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _without_trace(message: str) -> str:
    """The message itself of an error that a loader process has wrapped into its traceback."""
    if "Original Traceback" not in message:
        return message
    return message.strip().splitlines()[-1].partition(": ")[2]


def _advice(error: BaseException) -> str:
    if is_out_of_memory(error):
        return "; give a smaller --batch_size, --microbatch or network, or more memory"
    number = getattr(error, "errno", None)
    if isinstance(error, StorageError) or number is None:
        return ""
    return _ADVICE.get(number, "")


def _exit_code(error: BaseException) -> int:
    if isinstance(error, CheckpointError):
        return EXIT_CHECKPOINT
    if isinstance(error, (DataError, OSError)):
        return EXIT_DATA
    return EXIT_USAGE
