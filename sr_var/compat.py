"""Paths that the documented commands misspell, and what they mean."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

# The info dicts are in data/sr_imagenet/; a --log_dir lacks its slash in one command.
_SLIPS = (
    (r"data/imagenet/", "data/sr_imagenet/"),
    (r"(?<!/)((?:mean|var)_model_args\.pkl)$", r"/\1"),
)


def existing_path(path: str, log: Callable[[str], None] = print) -> str:
    """Return the path, or what is meant where only that exists; `log` receives a notice then."""
    if os.path.exists(path):
        return path
    for slip, correction in _SLIPS:
        meant = re.sub(slip, correction, path)
        if meant != path and os.path.exists(meant):
            log(f"notice: {path} does not exist; using {meant}")
            return meant
    return path
