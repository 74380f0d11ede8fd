"""Images on disk → uint8 crops, for training (shuffled, augmented) and for tests (in order)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from utils import dist_util
from utils.files.records import list_digest
from utils.flags.groups import ENLARGE, ERROR, CropFlags
from utils.images.cache import CenterCrop, Crop, CropSource, crop_source, in_channels
from utils.images.files import (
    BadImageError,
    random_crop_arr,
    random_flip,
    read_crop,
    resolve_image_path,
)
from utils.images.notes import (
    ImageNotes,
    look_at_some,
    note_of,
    note_of_left_out,
    small_image_error,
)
from utils.loops.data import ItemKey
from utils.process.errors import DataError
from utils.seeds import item_rng


@dataclass(frozen=True)
class Entry:
    """One image.

    Attributes:
        name: relative to ``data_dir``; also its output folder.
        y: its label.
        group: name of its class.
    """

    name: str
    y: int
    group: str = field(default="", compare=False)


def _to_chw(crop: NDArray[np.uint8], num_channels: int) -> torch.Tensor:
    crop = in_channels(crop, num_channels)
    return torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1)))  # HWC → CHW


class CropDataset(Dataset[dict[str, Any]]):
    """Square uint8 crops by stream key; bad images raise, or are replaced by the next good one.

    So are images smaller than the crop, unless they are enlarged.

    Args:
        entries: the images.
        size: side of the crop, pixels.
        flags: where the files are and how to augment.
        seed: of the augmentation, a function of (seed, epoch, index).
        num_channels: 3, or 1 for grey levels (ITU-R 601 luma).

    With ``flags.cache_dir`` it raises what ``utils.images.cache.crop_source`` does.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        size: int,
        flags: CropFlags,
        seed: int,
        num_channels: int = 3,
    ) -> None:
        self._entries, self._size, self._flags, self._seed = entries, size, flags, seed
        self._num_channels = num_channels
        self._source = _source(entries, size, flags, num_channels)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def entries(self) -> Sequence[Entry]:
        """The images."""
        return self._entries

    def listing(self) -> dict[str, Any]:
        """What tells these images and labels from others, or from the same another way up."""
        found = list_digest([(entry.name, entry.y) for entry in self._entries])
        return found | {"apply_orientation": self._flags.apply_orientation}

    def __getitem__(self, key: ItemKey) -> dict[str, Any]:
        """``high_res`` (C, size, size) uint8, ``y``, ``position``, and ``place`` in the entries.

        ``bad`` and ``notes`` are for :func:`noting`: skipped images, and what became of others.
        """
        position, epoch, index = key
        bad: list[str] = []
        notes: list[str] = []
        num_entries = len(self._entries)
        for place in itertools.chain(range(index, num_entries), range(index)):
            entry = self._entries[place]
            try:
                crop, facts = self._read(place, (epoch, index))
            except BadImageError:
                bad.append(entry.name)
                if self._flags.on_bad_image == ERROR or len(bad) == num_entries:
                    raise
                continue
            if facts.short_side >= self._size or self._flags.small_images == ENLARGE:
                notes.append(note_of(entry.name, facts, self._size, self._flags))
                return {
                    "high_res": _to_chw(crop, self._num_channels),
                    "y": entry.y,
                    "place": place,
                    "position": position,
                    "bad": "\n".join(bad),
                    "notes": "\n".join(filter(None, notes)),
                }
            if self._flags.small_images == ERROR:
                raise small_image_error(entry.name, facts, self._size)
            notes.append(note_of_left_out(entry.name, facts))
        raise DataError(
            f"none of {num_entries} images is whole and has {self._size} pixels on its short side; "
            "see --small_images"
        )

    def _read(self, place: int, key: tuple[int, int]) -> Crop:
        flags = self._flags
        if not (flags.random_crop or flags.random_flip):
            return self._source.read(place)
        rng = item_rng(self._seed, *key)
        if flags.random_crop:
            crop, facts = read_crop(
                resolve_image_path(flags.data_dir, self._entries[place].name),
                lambda image: random_crop_arr(image, self._size, rng),
                apply_orientation=flags.apply_orientation,
            )
        else:
            crop, facts = self._source.read(place)
        return Crop(random_flip(crop, rng) if flags.random_flip else crop, facts)


def _source(entries: Sequence[Entry], size: int, flags: CropFlags, num_channels: int) -> CropSource:
    recipe = CenterCrop(flags.data_dir, size, num_channels, flags.apply_orientation)
    return crop_source([entry.name for entry in entries], recipe, flags)


class TestCrops(Dataset[dict[str, Any]]):
    """Centre crops in order; a bad image raises, or its item is None.

    Args:
        entries: the images.
        size: side of the crop, pixels.
        data_dir: where the files are.
        on_bad_image: ``error`` or ``skip``.
        num_channels: 3, or 1 for grey levels.
        source: of the same images' crops; None: decoded from their files.
        apply_orientation: see ``utils.images.files.decode_image``; not with a source.
    """

    __test__ = False  # no test case, whatever pytest thinks of the name

    def __init__(
        self,
        entries: Sequence[Entry],
        size: int,
        data_dir: str,
        on_bad_image: str = "error",
        num_channels: int = 3,
        source: CropSource | None = None,
        apply_orientation: bool = False,
    ) -> None:
        self._entries, self._num_channels, self._on_bad_image = entries, num_channels, on_bad_image
        names = [entry.name for entry in entries]
        recipe = CenterCrop(data_dir, size, num_channels, apply_orientation)
        self._source = source or CropSource(names, recipe)

    @classmethod
    def from_flags(
        cls, entries: Sequence[Entry], size: int, flags: CropFlags, num_channels: int = 3
    ) -> TestCrops:
        """The crops as the flags want them; see ``utils.images.cache.crop_source``."""
        source = _source(entries, size, flags, num_channels)
        return cls(entries, size, flags.data_dir, flags.on_bad_image, num_channels, source)

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> dict[str, Any] | None:  # type: ignore[override]
        """``high_res`` (C, size, size) uint8, ``y`` and ``name``; or None for a skipped image."""
        entry = self._entries[index]
        try:
            crop = self._source.read(index).pixels
        except BadImageError as error:
            if self._on_bad_image == "error":
                raise
            print(f"warning: skipped {entry.name}: {error}")
            return None
        return {"high_res": _to_chw(crop, self._num_channels), "y": entry.y, "name": entry.name}


def noting(
    entries: Sequence[Entry], size: int, flags: CropFlags, log: Callable[[str], None]
) -> Callable[[dict[str, Any]], None]:
    """Says how large images are, by some of them; returns what is to see every training batch.

    It logs which damaged images were replaced and what became of others, and takes both from the
    batch.
    """
    look_at_some([entry.name for entry in entries], flags.data_dir, size, flags, log)
    counts = ImageNotes(log, size, len(entries) // dist_util.get_world_size())
    told: set[str] = set()

    def note(batch: dict[str, Any]) -> None:
        bad = {name for names in filter(None, batch.pop("bad")) for name in names.split("\n")}
        if bad - told:
            log(f"warning: damaged images replaced by others: {', '.join(sorted(bad - told))}")
            told.update(bad)
        counts.add(batch.pop("notes"))

    return note
