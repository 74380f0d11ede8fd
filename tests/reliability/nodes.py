"""Machines that share a folder on which ``flock`` keeps nobody out, each a process of its own."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import sr_var.sampling
from tests.sr_var.samplers import make_sampler
from tests.tiny import TinyData
from tests.utils.processes import Child
from utils.files import claims
from utils.files.lock import AUTO, LOCKS_VARIABLE
from utils.process.errors import EXIT_DONE, EXIT_STOPPED


def _become(number: int, lease: float, locks: str, has_flock: bool) -> None:
    """Make this process one of another machine, whose locks others do not see."""
    os.environ[LOCKS_VARIABLE] = locks
    if not has_flock:
        fcntl.flock = lambda file, operation: None  # type: ignore[assignment]
    claims._machine = lambda: f"machine {number}"  # type: ignore[assignment]
    claims._SECONDS_OF_BEAT = 0.2
    os.environ[claims.LEASE_VARIABLE] = str(lease)


class Node:
    """A sampler of the tiny data on machine ``number``.

    It appends each sample that it writes to ``folder``'s journal, and sends itself ``fault``
    (SIGKILL, SIGSTOP) behind the first. Its ``flock`` keeps nobody out unless told otherwise.
    """

    def __init__(
        self,
        data: TinyData,
        folder: Path,
        number: int,
        lease: float,
        *,
        fault: int = 0,
        locks: str = AUTO,
        has_flock: bool = False,
    ) -> None:
        self._child = Child(_sample, data, folder, fault, (number, lease, locks, has_flock))
        self.pid = self._child.process.pid or 0

    def said(self) -> list[str]:
        """All its lines, until it ends."""
        return self._child.words()

    def exit_code(self) -> int:
        """Waits for its end."""
        return self._child.exit_code()


def is_stopped(pid: int) -> bool:
    """Whether a process stands still."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("T")


def journal(folder: Path) -> list[str]:
    """Each sample that was written, by whomever."""
    path = folder / "journal"
    return path.read_text().splitlines() if path.exists() else []


def _sample(
    say: Callable[[Any], None],
    data: TinyData,
    folder: Path,
    fault: int,
    place: tuple[int, float, str, bool],
) -> int:
    _become(*place)
    real = sr_var.sampling.save_image

    def recorded(path: str, image: torch.Tensor) -> None:
        real(path, image)
        if os.path.basename(path).startswith("sample_"):
            with open(folder / "journal", "a", encoding="utf-8") as file:
                file.write(f"{os.path.relpath(path, folder)}\n")
            if fault and len(written) == 0:
                os.kill(os.getpid(), fault)
            written.append(path)

    written: list[str] = []
    sr_var.sampling.save_image = recorded
    is_done = make_sampler(data, folder, log=say, batch_size=2).run_loop(place[0] % 3, 3)
    return EXIT_DONE if is_done else EXIT_STOPPED


def wake(pid: int) -> None:
    """End a SIGSTOP."""
    os.kill(pid, signal.SIGCONT)
