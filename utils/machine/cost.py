"""What a network's passes took, kept beside the results: a rate that outlives stopped runs.

A record is ``{"seconds": …, "num_items": …, "device": …}``; every run adds its share. It counts the
network and, in sampling, the solver; neither reading nor writing of pictures.
"""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass
from typing import Any

import torch

from utils.files.atomic import write_json_atomic
from utils.files.json import read_json
from utils.files.lock import try_lock

_NUM_TRIES, _PAUSE = 50, 0.1


@dataclass
class Stopwatch:
    """Adds up seconds on a device, whose queue is waited for before the clock is read."""

    device: torch.device
    seconds: float = 0.0
    num_items: int = 0
    _started: float = 0.0

    def start(self) -> None:
        """Begins a pass; one that is never stopped counts nothing."""
        self._wait()
        self._started = time.perf_counter()

    def stop(self, num_items: int) -> None:
        """Ends a pass over ``num_items`` items."""
        self._wait()
        self.seconds += time.perf_counter() - self._started
        self.num_items += num_items

    def save(self, path: str) -> None:
        """Adds to the record at ``path``, as several processes may; without items it is left alone.

        A damaged record, or one of another device, is begun anew: rates of two devices have no sum.
        """
        if self.num_items == 0:
            return
        seconds, num_items, device = self.seconds, self.num_items, _device_name(self.device)
        with _patient_lock(f"{path}.lock"):
            stored = _read(path)
            if stored is not None and stored["device"] == device:
                seconds, num_items = seconds + stored["seconds"], num_items + stored["num_items"]
            record = {"seconds": seconds, "num_items": num_items, "device": device}
            write_json_atomic(path, record)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


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
    stored = _read(path)
    return None if stored is None else float(stored["seconds"] / stored["num_items"])


def _read(path: str) -> dict[str, Any] | None:
    try:
        content = read_json(path)
        seconds, num_items = float(content["seconds"]), int(content["num_items"])
        device = str(content["device"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None
    if not math.isfinite(seconds) or num_items < 1:
        return None
    return {"seconds": seconds, "num_items": num_items, "device": device}


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"
