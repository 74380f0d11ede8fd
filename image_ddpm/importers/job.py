"""The job of ``image_data.py``: from a source to a folder."""

from __future__ import annotations

from collections.abc import Callable

from image_ddpm.importers.flags import ImportFlags
from image_ddpm.importers.sources import open_source
from image_ddpm.importers.writer import ImageWriter

_MAX_MESSAGES = 10


def make_folder(flags: ImportFlags, log: Callable[[str], None]) -> bool:
    """Reads, checks and writes all images.

    Returns:
        False if a signal stopped it.

    Raises:
        DataError: see :class:`ImageWriter` and :func:`open_source`.
    """
    num_skipped = 0

    def skip(message: str) -> None:
        nonlocal num_skipped
        num_skipped += 1
        if num_skipped <= _MAX_MESSAGES:
            log(f"passed by: {message}")

    source = open_source(flags, skip, log)  # fails before the output folder is claimed
    is_done = ImageWriter(flags, log).write(source)
    if num_skipped > _MAX_MESSAGES:
        log(f"passed by: {num_skipped} in all")
    return is_done
