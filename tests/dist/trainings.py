"""Trainings for :mod:`tests.dist.ranks` to start on every rank; no assertions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.utils.training_loops import training_loop
from utils import dist_util
from utils.process.errors import EXIT_DONE, EXIT_STOPPED
from utils.logger import RunLogger

Say = Callable[[Any], None]


def train(say: Say, folder: Path, flags: dict[str, Any]) -> int:
    """Trains and tells the indices that this rank used; logs beside the folder."""
    log_dir = str(folder.with_name(f"{folder.name}_log")) if dist_util.is_main() else None
    logger = RunLogger(log_dir, is_quiet=True)
    loop = training_loop(folder, logger=logger, **flags)
    try:
        is_done = loop.run_loop()
    finally:
        logger.close()
    say(loop.data.seen)
    return EXIT_DONE if is_done else EXIT_STOPPED


def merged(words: Sequence[Sequence[Any]], batch_size: int) -> list[int]:
    """The indices that ``train`` told on all ranks, in the order of the stream."""
    seen = [rank[0] for rank in words]
    starts = range(0, len(seen[0]), batch_size)
    return [i for start in starts for rank in seen for i in rank[start : start + batch_size]]
