"""Starts a function on several ranks of a gloo group; no assertions."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from tests.processes import free_port
from tests.utils.processes import Child
from utils.dist_util import process_group
from utils.process.errors import EXIT_DONE
from utils.machine.launch import Launch


def start_ranks(work: Callable[..., Any], *args: Any, world_size: int = 2) -> list[Child]:
    """Runs ``work(say, *args)`` on every rank; it returns its exit code, or None or a bool: 0."""
    port = free_port()
    return [
        Child(_join, work, Launch(rank, rank, world_size), port, args) for rank in range(world_size)
    ]


def run_ranks(work: Callable[..., Any], *args: Any, world_size: int = 2) -> list[list[Any]]:
    """What each rank said, in rank order.

    Raises:
        RuntimeError: if one of them failed.
    """
    children = start_ranks(work, *args, world_size=world_size)
    words = [child.words() for child in children]
    codes = [child.exit_code() for child in children]
    if any(codes):
        raise RuntimeError(f"exit codes {codes}")
    return words


def exit_codes(children: list[Child]) -> list[int]:
    """Waits for all."""
    return [child.exit_code() for child in children]


def _join(
    say: Callable[[Any], None],
    work: Callable[..., Any],
    launch: Launch,
    port: int,
    args: tuple[Any, ...],
) -> int:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with process_group(launch):
        code = work(say, *args)
    return EXIT_DONE if code is None or isinstance(code, bool) else code
