"""glibc's allocator for networks on a CPU: keep large activations instead of returning them.

By default every large activation is a mapping of its own, given back to the kernel when it dies and
faulted in again page by page at the next layer. No effect on results, only on time and on memory
that stays with the process. ``TUNED_MALLOC=0`` in the environment leaves the allocator alone.
"""

from __future__ import annotations

import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def tune_allocator() -> bool:
    """Sets the allocator; returns whether it was (a glibc is there, and nobody switched it off)."""
    if os.environ.get("TUNED_MALLOC") == "0":
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, -1))
