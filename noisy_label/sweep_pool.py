"""Runs of a sweep, several at once: a process a core, each with one thread."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

import torch

from noisy_label.flags import SweepFlags
from noisy_label.sweep import SweepRun, do_run, result_of
from utils.machine.threads import num_cores
from utils.process.console import prepare_streams
from utils.process.progress import Progress
from utils.process.stop import StopFlag

_SECONDS_BETWEEN_LOOKS = 0.5


def run_all(
    runs: Sequence[SweepRun], flags: SweepFlags, stop: StopFlag, progress: Progress
) -> bool:
    """Does what is not finished; False if a signal asked to stop (started runs have saved).

    Raises:
        DataError, CheckpointError: of a run; the others are stopped.
    """
    open_runs = [run for run in runs if result_of(run, flags.output_dir) is None]
    progress.update(len(runs) - len(open_runs))
    if not open_runs:
        return True
    count = num_cores() if flags.num_processes < 1 else flags.num_processes
    # spawned, not forked: torch's threads do not survive a fork
    pool = ProcessPoolExecutor(
        min(count, len(open_runs)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
    )
    pending = {pool.submit(do_run, run, flags) for run in open_runs}
    try:
        return _collect(pending, stop, progress)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()  # a run that is under way saves and ends
        pool.shutdown(wait=True)


def _collect(pending: set[Future[bool]], stop: StopFlag, progress: Progress) -> bool:
    while pending:
        done, pending = wait(pending, _SECONDS_BETWEEN_LOOKS, FIRST_COMPLETED)
        try:
            is_whole = not [future for future in done if not future.result()]
        except BrokenProcessPool:
            if stop.reason:
                return False
            raise
        progress.update(len(done))
        if stop.reason or not is_whole:
            return False
    return True


def _begin() -> None:
    prepare_streams()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
