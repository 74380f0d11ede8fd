"""The flags of every task that trains on images from disk; no torch: parsers read them."""

from __future__ import annotations

from dataclasses import dataclass

from utils.script_util import flag


@dataclass(frozen=True)
class CropFlags:
    """Where the images are and how they are cut."""

    data_dir: str = flag("", "folder of the images")
    on_bad_image: str = flag("error", "what to do with a damaged image", ("error", "skip"))
    random_crop: bool = flag(False, "cut at a random place (training; default: the centre)")
    random_flip: bool = flag(False, "mirror half of the images (training)")
    num_workers: int = flag(-1, "loader processes; -1: by the cores (none without a GPU)")
