"""What a network's passes took, kept beside the results: a rate that outlives stopped runs.

A record is `{"seconds": …, "num_items": …, "device": …}`; every run adds its share. It counts the
network and, in sampling, the solver; neither reading nor writing of pictures.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from utils.files.atomic import JsonObject, write_json_atomic
from utils.files.lock import try_lock
from utils.files.records import find_record, require_numbers
from utils.process.errors import is_out_of_memory

_NUM_TRIES, _PAUSE = 50, 0.1


@dataclass
class Stopwatch:
    """Adds up seconds on a device, whose queue is waited for before the clock is read."""

    device: torch.device
    seconds: float = 0.0
    num_items: int = 0
    _started: float = 0.0

    def start(self) -> None:
        """Begin a pass; one that is never stopped counts nothing."""
        wait_for(self.device)
        self._started = time.perf_counter()

    def stop(self, num_items: int) -> None:
        """End a pass over `num_items` items."""
        wait_for(self.device)
        self.seconds += time.perf_counter() - self._started
        self.num_items += num_items

    def save(self, path: str) -> None:
        """Add to the record at `path`, as several processes may; without items it is left alone.

        A damaged record, or one of another device, is begun anew: rates of two devices have no sum.
        """
        if self.num_items == 0:
            return
        seconds, num_items, device = self.seconds, self.num_items, _device_name(self.device)
        with _patient_lock(f"{path}.lock"):
            stored = find_record(path, _rate)
            if stored is not None and stored[2] == device:
                seconds, num_items = seconds + stored[0], num_items + stored[1]
            record = {"seconds": seconds, "num_items": num_items, "device": device}
            write_json_atomic(path, record)


def _patient_lock(path: str) -> contextlib.AbstractContextManager[Any]:
    """The lock; none after seconds of waiting: a rate is not worth more."""
    for _ in range(_NUM_TRIES):
        lock = try_lock(path)
        if lock is not None:
            return lock
        time.sleep(_PAUSE)
    return contextlib.nullcontext()


def seconds_per_item(path: str) -> float | None:
    """Seconds of one item; None without a (readable) record."""
    stored = find_record(path, _rate)
    return None if stored is None else float(stored[0] / stored[1])


def _rate(content: JsonObject) -> tuple[float, int, str]:
    seconds, num_items, device = content["seconds"], content["num_items"], content["device"]
    require_numbers([seconds, num_items])
    if num_items < 1 or not isinstance(device, str):
        raise ValueError("no rate")
    return seconds, num_items, device


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"


MAX_BATCH_SIZE = 1024
# a larger batch must be at least this much faster an item to be worth its memory
_WORTHWHILE = 1.05


def find_batch_size(
    run: Callable[[int], object], device: torch.device, log: Callable[[str], None]
) -> int:
    """The smallest power of two beyond which items no longer get faster, or do not fit.

    `run` processes a batch of so many items; it is called twice for each size, once to warm up.
    If not even one item can be processed, its error is raised.
    """
    best, rate, size = 0, 0.0, 1
    while size <= MAX_BATCH_SIZE:
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
    watch = Stopwatch(device)
    watch.start()
    run(size)
    watch.stop(size)
    return max(watch.seconds, 1e-9)


def wait_for(device: torch.device) -> None:
    """Wait for the queue of a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
