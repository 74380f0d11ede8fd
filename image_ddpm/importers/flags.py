"""The flags of `image_data.py`; no torch, so that `--help` answers at once."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from utils.flags.groups import DryRun, Logged, ReadingFlags, Threads
from utils.script_util import flag, require_at_least
from utils.sizes import Size, require_sizes

CIFAR10, IMAGENET, LSUN, DIGITS = "cifar10", "imagenet", "lsun", "digits"
SOURCES = (CIFAR10, IMAGENET, LSUN, DIGITS)
DIGITS_SIZE = 16
MAX_SIZE = 4096


@dataclass(frozen=True)
class ImportFlags(ReadingFlags, Logged, Threads, DryRun):
    """Where the images come from, where they go, and at which size.

    `small_images` and `apply_orientation` matter with `image_size`: without, files are kept.
    """

    source: str = flag(DIGITS, "what the images are", SOURCES)
    archive: str = flag(
        "",
        "cifar10: cifar-10-python.tar.gz or its folder; imagenet: folder of class folders, tar of "
        "images, or tar of class tars; lsun: lmdb folder; digits: none",
        is_path=True,
    )
    output_dir: str = flag("", "folder of the images; empty: data/images/<source>")
    log_dir: str = "logs/image_data"
    image_size: int | str = flag(
        0,
        "side in pixels or HEIGHTxWIDTH, cropped and resized; 0: as they are (digits: "
        f"{DIGITS_SIZE})",
        is_size=True,
    )
    max_per_class: int = flag(0, "take the first so many of each class; 0: all")
    dry_run: bool = flag(False, "read, check and count, write nothing")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.source == DIGITS and self.archive:
            raise ValueError(f"--archive {self.archive}: the digits need none; leave it out")
        if self.source != DIGITS and not self.archive:
            raise ValueError(f"--archive is empty: say where the data of {self.source} is")
        require_sizes(self, "image_size", smallest=0)
        if max(size := Size.of(self.image_size)) > MAX_SIZE:
            raise ValueError(f"--image_size {self.image_size} must be between 0 and {MAX_SIZE}")
        if self.source == DIGITS and not size.is_square:
            raise ValueError(f"--image_size {size}: the digits are squares; give one side")
        require_at_least(self, max_per_class=0)
        for name in ("archive", "output_dir"):
            if "://" in getattr(self, name):
                raise ValueError(f"--{name} {getattr(self, name)} is remote; give a local path")
        folder, output = map(os.path.realpath, (self.archive, self.output_dir))
        if self.archive and self.output_dir and os.path.commonpath([folder, output]) == folder:
            raise ValueError(
                f"--output_dir {self.output_dir} lies in --archive {self.archive}, which is only "
                "read; choose another folder"
            )

    def filled_in(self) -> ImportFlags:
        """Return the flags with the folder, and the digits' size, that 'empty' and 0 stand for."""
        return replace(
            self,
            output_dir=self.output_dir or os.path.join("data", "images", self.source),
            image_size=self.image_size or (DIGITS_SIZE if self.source == DIGITS else 0),
        )
