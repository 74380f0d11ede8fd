"""Every error a user can meet becomes one line and the exit code of its kind."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import pytest
import torch

from utils.process.errors import (
    EXIT_STOPPED,
    EXIT_USAGE,
    CheckpointError,
    DataError,
    StorageError,
    run_main,
)


def _raising(error: BaseException) -> Callable[[], int]:
    def main() -> int:
        raise error

    return main


@pytest.mark.parametrize("code", [0, 75])
def test_code_of_main_is_the_exit_code(code: int) -> None:
    with pytest.raises(SystemExit) as stop:
        run_main(lambda: code)
    assert stop.value.code == code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("bad flag"), 2),
        (DataError("no image"), 3),
        (FileNotFoundError(2, "No such file", "a.pkl"), 3),
        (StorageError(28, "disk full"), 3),
        (CheckpointError("damaged"), 4),
    ],
)
def test_error_for_users_is_one_line_and_its_exit_code(
    error: Exception, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        run_main(_raising(error))
    assert stop.value.code == code
    assert capsys.readouterr() == ("", f"error: {error}\n")


def _failing_cleanup() -> int:
    try:
        raise KeyboardInterrupt
    finally:
        raise AttributeError("a library's lock")


@pytest.mark.parametrize("main", [_raising(KeyboardInterrupt()), _failing_cleanup])
def test_ctrl_c_outside_of_a_loop_is_a_stop_of_one_line(
    main: Callable[[], int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where it hits a library that then fails in its own way."""
    with pytest.raises(SystemExit) as stop:
        run_main(main)
    assert stop.value.code == EXIT_STOPPED
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and "again" in said.err


def test_traceback_is_shown_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEBACK", "1")
    with pytest.raises(DataError):
        run_main(_raising(DataError("no image")))


def test_bug_keeps_its_traceback() -> None:
    with pytest.raises(KeyError):
        run_main(_raising(KeyError("bug")))


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EACCES, "permissions"),
        (errno.EISDIR, "folder away"),
        (errno.ELOOP, "remove"),
        (errno.ENAMETOOLONG, "shorten"),
    ],
)
def test_error_of_the_system_comes_with_a_remedy(
    number: int, remedy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run_main(_raising(OSError(number, os.strerror(number), "a/b.txt")))
    said = capsys.readouterr().err
    assert "a/b.txt" in said and remedy in said and said.count("\n") == 1


def _allocate() -> int:
    return len(torch.empty(10**15))


def _allocate_bytes() -> int:
    return len(bytearray(10**15))


def _allocate_on_a_gpu() -> int:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")


@pytest.mark.parametrize(
    ("main", "said"),
    [
        (_allocate, "tried to allocate"),
        (_allocate_bytes, "MemoryError"),
        (_allocate_on_a_gpu, "CUDA out of memory"),
    ],
)
def test_lack_of_memory_is_one_line_with_a_remedy(
    main: Callable[[], int], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        run_main(main)
    line = capsys.readouterr().err
    assert stop.value.code == EXIT_USAGE
    assert said in line and "--batch_size" in line and line.count("\n") == 1
