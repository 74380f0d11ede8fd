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
    fast_crop: bool = flag(
        False, "resize only the crop: a few values in 100000 differ by a grey level"
    )
    cache_dir: str = flag(
        "", "folder that keeps the decoded centre crops from run to run; empty: decode every time"
    )
    num_workers: int = flag(-1, "loader processes; -1: by the cores (none without a GPU)")
    dry_run: bool = flag(False, "build all, one step or batch, print what it costs, write nothing")

    def __post_init__(self) -> None:
        """Refuses crops that are both kept and drawn anew.

        Raises:
            ValueError: names the flags.
        """
        if self.cache_dir and self.random_crop:
            raise ValueError(
                f"--cache_dir {self.cache_dir} keeps centre crops and does not go with "
                "--random_crop True; leave one of them out (--random_flip may stay)"
            )
