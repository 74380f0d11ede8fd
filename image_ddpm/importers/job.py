"""The job of ``image_data.py``: from a source to a folder."""

from __future__ import annotations

from collections.abc import Callable

from image_ddpm.importers.cifar import read_cifar10
from image_ddpm.importers.flags import CIFAR10, IMAGENET, LSUN, ImportFlags
from image_ddpm.importers.imagenet import read_imagenet
from image_ddpm.importers.items import ImageSource, Skip, read_digits
from image_ddpm.importers.lsun import read_lsun
from image_ddpm.importers.writer import ImageWriter


def open_source(flags: ImportFlags, skip: Skip, log: Callable[[str], None]) -> ImageSource:
    """The images that the flags ask for.

    Args:
        flags: of the script.
        skip: is told of everything in the archive that is passed by.
        log: is told what a folder's listing leaves out.

    Raises:
        DataError: names the archive, what is wrong with it, and the remedy.
    """
    if flags.source == CIFAR10:
        return read_cifar10(flags.archive, skip)
    if flags.source == IMAGENET:
        return read_imagenet(flags.archive, skip, log, flags.on_bad_image)
    if flags.source == LSUN:
        return read_lsun(flags.archive)
    return read_digits(flags.image_size)


_MAX_MESSAGES = 10


def make_folder(flags: ImportFlags, log: Callable[[str], None]) -> None:
    """Reads, checks and writes all images.

    Raises:
        DataError, StopRequested: see :class:`ImageWriter` and :func:`open_source`.
    """
    num_skipped = 0

    def skip(message: str) -> None:
        nonlocal num_skipped
        num_skipped += 1
        if num_skipped <= _MAX_MESSAGES:
            log(f"passed by: {message}")

    source = open_source(flags, skip, log)  # fails before the output folder is claimed
    try:
        ImageWriter(flags, log).write(source)
    finally:
        if num_skipped > _MAX_MESSAGES:
            log(f"passed by: {num_skipped} in all")
