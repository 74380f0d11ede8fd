"""A loader's death is an error of its own; other errors pass (real deaths: R17)."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from utils.files.atomic import naming_disk_errors
from utils.loops.data import loaded, naming_loader_deaths
from utils.process.errors import DataError


@pytest.fixture(autouse=True)
def handler_as_before() -> Iterator[None]:
    handler = signal.getsignal(signal.SIGCHLD)
    yield
    signal.signal(signal.SIGCHLD, handler)


@pytest.mark.parametrize(
    "said",
    [
        "DataLoader worker (pid 7) is killed by signal: Bus error. ",
        "DataLoader worker (pid(s) 7, 8) exited unexpectedly",
        "Caught RuntimeError\n\nunable to write to file </torch_7_1_0>: No space left (28)",
    ],
)
def test_death_comes_with_a_remedy(said: str) -> None:
    with pytest.raises(DataError, match="fewer --num_workers") as raised, naming_loader_deaths():
        raise RuntimeError(said)
    assert said.strip().splitlines()[-1] in str(raised.value)
    assert "\n" not in str(raised.value)


def test_torch_does_not_raise_once_more_on_the_way_out() -> None:
    def handler(number: int, frame: object) -> None:
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    signal.signal(signal.SIGCHLD, handler)
    with pytest.raises(DataError):
        try:
            list(loaded(_resetting()))  # type: ignore[arg-type]
        finally:
            os.kill(os.getpid(), signal.SIGCHLD)


def _resetting() -> Iterator[int]:
    yield 1
    raise ConnectionResetError(104, "Connection reset")


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shapes differ"), naming_loader_deaths():
        raise RuntimeError("shapes differ")


@pytest.mark.parametrize("error", [ConnectionResetError(104, "Connection reset"), EOFError()])
def test_death_while_a_batch_is_handed_over_comes_with_the_same_remedy(error: Exception) -> None:
    def batches() -> Iterator[int]:
        yield 1
        raise error

    found = loaded(batches())  # type: ignore[arg-type]
    assert next(found) == 1
    with pytest.raises(DataError, match=r"(Connection reset|EOFError).*--num_workers"):
        next(found)


class _EndedProcess:
    """One of a torch loader's two: ended, or at work."""

    def __init__(self, pid: int, is_alive: bool) -> None:
        self.pid = pid
        self.is_alive = lambda: is_alive

    def join(self, timeout: float) -> None:
        assert timeout < 1


class _CutConnection:
    """What torch gives, as it is while a batch is handed over by a process that has ended."""

    _workers = (_EndedProcess(7, is_alive=False), _EndedProcess(8, is_alive=True))

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        raise ConnectionResetError(104, "Connection reset")


def test_the_process_that_cut_its_connection_is_named() -> None:
    with pytest.raises(DataError, match=r"Connection reset, pid\(s\) 7\)"):
        next(loaded(_CutConnection()))  # type: ignore[arg-type]


def test_death_while_a_checkpoint_is_written_is_no_full_disk(tmp_path: Path) -> None:
    class _Interrupted(io.BytesIO):
        def write(self, data: object) -> int:
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    with (
        pytest.raises(DataError, match="fewer --num_workers"),
        naming_loader_deaths(),
        naming_disk_errors(tmp_path / "opt000001.pt"),
    ):
        torch.save({"weight": torch.zeros(1000)}, _Interrupted())
