"""The batch size at which a device is full: found by doubling, timed."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from utils.process.errors import is_out_of_memory

MAX_BATCH_SIZE = 1024
# a larger batch must be at least this much faster an item to be worth its memory
_WORTHWHILE = 1.05


def find_batch_size(
    run: Callable[[int], object],
    device: torch.device,
    log: Callable[[str], None],
    max_size: int = MAX_BATCH_SIZE,
) -> int:
    """The smallest power of two beyond which items no longer get faster, or do not fit.

    Args:
        run: processes a batch of so many items; called twice for each size, once to warm up.
        device: where it does.
        log: told what was found.
        max_size: not beyond this.

    Raises:
        RuntimeError: that of ``run``, if not even one item can be processed.
    """
    best, rate, size = 0, 0.0, 1
    while size <= max_size:
        try:
            own_rate = size / _seconds(run, size, device)
        except (MemoryError, RuntimeError) as error:
            if best == 0 or not is_out_of_memory(error):
                raise
            log(f"batch size {size} does not fit into memory")
            break
        if best and own_rate < _WORTHWHILE * rate:
            break
        best, rate, size = size, own_rate, size * 2
    if device.type == "cuda":
        torch.cuda.empty_cache()
    log(f"--batch_size auto: {best} ({rate:.4g} items a second)")
    return best


def _seconds(run: Callable[[int], object], size: int, device: torch.device) -> float:
    run(size)
    _wait_for(device)
    started = time.perf_counter()
    run(size)
    _wait_for(device)
    return max(time.perf_counter() - started, 1e-9)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
