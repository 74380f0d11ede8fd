"""Images that a network is judged on while it trains: drawn by name, decoded once, kept in memory.

They are crops of the centre; no augmentation touches them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

from utils import dist_util
from utils.flags.groups import ERROR, CropFlags
from utils.images.crops.dataset import CropItem, TestCrops, look_at, without_small
from utils.images.listing import Entry
from utils.loops.data import num_bytes
from utils.loops.validation import drawn, share_of_rank
from utils.process.errors import DataError
from utils.sizes import SizeLike

Log = Callable[[str], None]


class HeldOut(NamedTuple):
    """The images of all processes, and this one's crops by their places."""

    entries: list[Entry]
    crops: dict[int, CropItem]

    def words(self, source: str, interval: int) -> str:
        """The line of the log: how many there are, when they are judged, what they take.

        `source` says what they are of; `interval` is that of `Validation`.
        """
        every = f"every {interval} steps and " if interval else ""
        size = num_bytes([item.image for item in self.crops.values()]) / 2**20
        return (
            f"validation on {len(self.entries)} images of {source}, {every}where a checkpoint is "
            f"saved; their crops take {size:.1f} MiB"
        )


def load_held_out(
    entries: Sequence[Entry],
    size: SizeLike,
    number: int,
    flags: CropFlags,
    log: Log,
    num_channels: int = 3,
) -> HeldOut:
    """Draw `number` of the images (0: all) and decode this process's share; all call it together.

    They are in an order of their own, by name, so that lists in another order agree. `size` is
    that of a crop in pixels; `log` hears what becomes of images.

    Raises:
        DataError: an image is damaged, small where that is to be an error, or none is left.
        OSError: a file cannot be read.
    """
    chosen = drawn({entry.name for entry in entries}, number or None)
    small = without_small(look_at(chosen, flags.data_dir, flags), size, flags, log)
    wanted = {*chosen}.difference(small)
    by_name = {entry.name: entry for entry in entries if entry.name in wanted}
    kept = [by_name[name] for name in chosen if name in wanted]
    crops, error = {}, None
    try:
        crops = _decoded(kept, size, flags, num_channels)
    except (DataError, OSError) as caught:
        error = caught
    dist_util.raise_together(error)
    return HeldOut(kept, crops)


def _decoded(
    entries: Sequence[Entry], size: SizeLike, flags: CropFlags, num_channels: int
) -> dict[int, CropItem]:
    """Place → crop of this process's images; a damaged one is always an error."""
    mine = share_of_rank(len(entries))
    plain = dataclasses.replace(
        flags,
        cache_dir="",
        on_bad_image=ERROR,
        random_crop=False,
        random_flip=False,
        random_turn=False,
    )
    crops = TestCrops.from_flags([entries[i] for i in mine], size, plain, num_channels)
    found = {}
    for i, place in enumerate(mine):
        item = crops[i]
        assert item is not None
        found[place] = item
    return found
