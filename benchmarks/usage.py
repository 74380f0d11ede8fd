"""CPU seconds and memory that this process has taken since some moment (Linux)."""

from __future__ import annotations

import resource
import time


class Usage:
    """What is taken from its making on; before it, the peak of the memory begins anew."""

    def __init__(self) -> None:
        with open("/proc/self/clear_refs", "w", encoding="utf-8") as file:
            file.write("5")  # the peak begins anew
        self._memory, self._cpu, self._started = _memory(), _cpu_seconds(), time.perf_counter()

    def taken(self) -> dict[str, float]:
        """`cpu` of all threads and `wall`, s; MiB of `rss`, of that `private`, and the `peak`."""
        now, before = _memory(), self._memory
        gained = {kind: now[kind] - before["rss" if kind == "peak" else kind] for kind in now}
        wall = time.perf_counter() - self._started
        return {"cpu": _cpu_seconds() - self._cpu, "wall": wall, **gained}


def _memory() -> dict[str, float]:
    """MiB of this process: RSS, of that private, and the peak."""
    with open("/proc/self/status", encoding="utf-8") as file:
        lines = dict(line.split(":", 1) for line in file)
    kinds = {"rss": "VmRSS", "private": "RssAnon", "peak": "VmHWM"}
    return {kind: int(lines[name].split()[0]) / 1024 for kind, name in kinds.items()}


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
