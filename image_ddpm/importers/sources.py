"""From ``--source`` to its reader."""

from __future__ import annotations

from collections.abc import Callable

from image_ddpm.importers.cifar import read_cifar10
from image_ddpm.importers.digits import read_digits
from image_ddpm.importers.flags import CIFAR10, IMAGENET, LSUN, ImportFlags
from image_ddpm.importers.imagenet import read_imagenet
from image_ddpm.importers.items import ImageSource, Skip
from image_ddpm.importers.lsun import read_lsun


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
