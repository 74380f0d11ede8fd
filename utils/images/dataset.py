"""Images on disk → uint8 crops, for training (shuffled, augmented) and for tests (in order)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset, default_collate

from utils import dist_util
from utils.files.atomic import JsonObject
from utils.files.records import list_digest
from utils.flags.groups import ENLARGE, ERROR, CropFlags
from utils.flags.training import TrainFlags
from utils.images.cache import crop_source
from utils.images.files import (
    BadImageError,
    CenterCrop,
    Crop,
    CropSource,
    in_channels,
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
from utils.loops.data import ItemKey, Pair, TrainData
from utils.process.errors import DataError
from utils.seeds import item_rng


@dataclass(frozen=True)
class Entry:
    """One image.

    Attributes:
        name: relative to `data_dir`; also its output folder.
        y: its label.
        group: name of its class.
    """

    name: str
    y: int
    group: str = field(default="", compare=False)


class CropItem(NamedTuple):
    """One image as a data set hands it out.

    Attributes:
        image: (C, size, size) uint8.
        label: of its entry.
        name: of its entry.
        place: of its entry in the list.
        position: in the stream of training data.
        bad: names of damaged images that it stands in for.
        notes: what became of it and of others that were left out, a line each.
    """

    image: torch.Tensor
    label: int
    name: str
    place: int
    position: int = 0
    bad: tuple[str, ...] = ()
    notes: str = ""


class CropBatch(NamedTuple):
    """Several items: `image` (N, C, size, size); `label`, `place` and `position` (N,) int64."""

    image: torch.Tensor
    label: torch.Tensor
    name: list[str]
    place: torch.Tensor
    position: torch.Tensor
    bad: list[str]
    notes: list[str]

    @classmethod
    def of(cls, items: Sequence[CropItem]) -> CropBatch:
        """Collate the items; in a loader process their images go to shared memory at once."""
        image, label, name, place, position, bad, notes = zip(*items, strict=True)
        labels, places, positions = map(torch.tensor, (label, place, position))
        images: torch.Tensor = default_collate(list(image))
        replaced = list(itertools.chain(*bad))
        return cls(images, labels, list(name), places, positions, replaced, list(notes))


def _to_chw(crop: np.ndarray[Any, Any], num_channels: int) -> torch.Tensor:
    crop = in_channels(crop, num_channels)
    return torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1)))  # HWC → CHW


class CropDataset(Dataset[CropItem]):
    """Square uint8 crops by stream key; bad images raise, or are replaced by the next good one.

    So are images smaller than the crop, unless they are enlarged. The augmentation is a function of
    (seed, epoch, index). With `flags.cache_dir` it raises what `utils.images.cache.crop_source`
    does.

    Args:
        size: side of the crop, pixels.
        num_channels: 3, or 1 for grey levels (ITU-R 601 luma).
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

    def listing(self) -> JsonObject:
        """What tells these images and labels from others, or from the same another way up."""
        found = list_digest([(entry.name, entry.y) for entry in self._entries])
        return found | {"apply_orientation": self._flags.apply_orientation}

    def __getitem__(self, key: ItemKey) -> CropItem:
        """The crop of the key's image, or of the next one that can be used."""
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
                image, told = _to_chw(crop, self._num_channels), "\n".join(filter(None, notes))
                return CropItem(
                    image, entry.y, entry.name, place, position, bad=tuple(bad), notes=told
                )
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


class TestCrops(Dataset[CropItem | None]):
    """Centre crops in order; a bad image raises, or its item is None.

    Args:
        size: side of the crop, pixels.
        on_bad_image: `error` or `skip`.
        source: of the same images' crops; None: decoded from their files.
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
        """The crops as the flags want them; see `utils.images.cache.crop_source`."""
        source = _source(entries, size, flags, num_channels)
        return cls(entries, size, flags.data_dir, flags.on_bad_image, num_channels, source)

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> CropItem | None:
        """The crop of an image; None for one that was skipped."""
        entry = self._entries[index]
        try:
            crop = self._source.read(index).pixels
        except BadImageError as error:
            if self._on_bad_image == "error":
                raise
            print(f"warning: skipped {entry.name}: {error}")
            return None
        return CropItem(_to_chw(crop, self._num_channels), entry.y, entry.name, index)


def train_crops(
    entries: Sequence[Entry],
    size: int,
    flags: CropFlags,
    train: TrainFlags,
    prepare: Callable[[CropBatch], Pair],
    log: Callable[[str], None],
    num_channels: int = 3,
) -> TrainData:
    """Endless shuffled batches of crops, of which `prepare` makes the task's pairs.

    `log` receives how large images are, by some of them, which damaged ones were replaced by
    others, and what became of others.

    Raises:
        DataError: if a batch is larger than the data; see `CropDataset`.
    """
    look_at_some([entry.name for entry in entries], flags.data_dir, size, flags, log)
    counts = ImageNotes(log, size, len(entries) // dist_util.get_world_size())
    told: set[str] = set()

    def noted(batch: CropBatch) -> Pair:
        bad = set(batch.bad) - told
        if bad:
            log(f"warning: damaged images replaced by others: {', '.join(sorted(bad))}")
            told.update(bad)
        counts.add(batch.notes)
        return prepare(batch)

    return TrainData(
        CropDataset(entries, size, flags, train.seed, num_channels),
        train.batch_size,
        noted,
        collate=CropBatch.of,
        seed=train.seed,
        num_workers=flags.num_workers,
    )
