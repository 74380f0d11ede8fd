"""How often a test of this folder repeats what it does: seldom by default, in full on request."""

from __future__ import annotations

import os


def extent(short: int, full: int) -> int:
    """``full`` under ``RELIABILITY=full`` (``make test-reliability``), else ``short``."""
    return full if os.environ.get("RELIABILITY") == "full" else short
