"""How often a test repeats what it does: seldom by default, in full on request."""

from __future__ import annotations

import os

# the name under which a test's report carries its figures to the process that prints them
FIGURE = "reliability figure"


def is_full() -> bool:
    """Whether the long forms were asked for: ``RELIABILITY=full``, as ``.ci/run`` does."""
    return os.environ.get("RELIABILITY") == "full"


def extent(short: int, full: int) -> int:
    """``full`` under ``RELIABILITY=full`` (``make test-reliability``), else ``short``."""
    return full if is_full() else short
