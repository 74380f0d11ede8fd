"""Images on disk → crops, for training (shuffled, augmented) and for tests (in order).

They are uint8, or float in 255ths of a range of values (`utils.images.crops.native_crops`).

Also says what becomes of images on their way: scaled, enlarged, alpha dropped, not turned.
Decoding processes hand a line an image to the main process, which counts.
"""

from __future__ import annotations

import contextlib
import itertools
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch.utils.data import Dataset, default_collate

from utils import dist_util
from utils.files.atomic import JsonObject
from utils.files.records import PAIRS_KEY
from utils.flags.groups import (
    ENLARGE,
    ERROR,
    NATIVE,
    RESIZED,
    CropFlags,
    OrientationFlags,
    Reading,
    ReadingFlags,
)
from utils.flags.training import TrainFlags
from utils.images.crops.cache import crop_source
from utils.images.crops.measured import MeasuredPair, require_pairs
from utils.images.crops.native_crops import is_native_only
from utils.images.crops.patches import crop_recipe, random_flip, random_turn
from utils.images.crops.recipes import CenterCrop, CropRecipe, CropSource
from utils.images.files import (
    ALPHA,
    DEPTH,
    ORIENTATION,
    PAGES,
    BadImageError,
    Crop,
    ImageFacts,
    image_facts,
    in_channels,
    read_image,
    resolve_image_path,
)
from utils.images.listing import Entry, ImageList
from utils.images.native import read_native
from utils.loops.data import ItemKey, Pair, TrainData
from utils.machine.threads import num_cores
from utils.process.errors import DataError
from utils.seeds import item_rng
from utils.sizes import Size, SizeLike

Log = Callable[[str], None]
SMALL, LEFT_OUT = "small", "left out"
_NUM_SAMPLED = 200  # headers to look at before a training
_MAX_SHOWN = 5
_WORDS = MappingProxyType(
    {
        SMALL: "are smaller than {size} and enlarged, so that blurred "
        "ones count as true (see --small_images)",
        LEFT_OUT: "are smaller than {size} and left out",
        DEPTH: "have 16 bits a channel, of which 8 are kept",
        ALPHA: "have an alpha channel, which is dropped",
        PAGES: "have several pages, of which the first is read",
        ORIENTATION: "have an EXIF orientation that is not applied (see --apply_orientation)",
    }
)


def small_image_error(name: str, facts: ImageFacts, size: SizeLike) -> DataError:
    """The error of `--small_images error`."""
    return DataError(
        f"{name} is {facts.width}×{facts.height}, smaller than the {Size.of(size)} pixels of its "
        "crop; "
        "leave it out (--small_images skip does), or take it enlarged with --small_images enlarge"
    )


def note_of(name: str, facts: ImageFacts, size: SizeLike, flags: OrientationFlags) -> str:
    """What is to be said of an image that is used: a line each, empty if there is nothing."""
    told = {ORIENTATION} if flags.apply_orientation else set()
    told |= {DEPTH} if flags.values_range else set()
    kinds = [kind for kind in facts.changes if kind not in told]
    if not facts.covers(size):
        kinds.append(SMALL)
    return "\n".join(f"{kind}\t{_described(name, facts)}" for kind in kinds)


def note_of_left_out(name: str, facts: ImageFacts) -> str:
    """Likewise of a small image that is not used."""
    return f"{LEFT_OUT}\t{_described(name, facts)}"


def _in_words(size: SizeLike) -> str:
    wanted = Size.of(size)
    on = "on their short side" if wanted.is_square else "(height x width)"
    return f"{wanted} pixels {on}"


def _described(name: str, facts: ImageFacts) -> str:
    return f"{name}, {facts.width}×{facts.height}"


class ImageNotes:
    """Counts notes; tells the first of a kind at once, and sums whenever ten times more were seen.

    After `num_images` it counts no more: from there on images come again.
    """

    def __init__(self, log: Log, size: SizeLike, num_images: int) -> None:
        self._log, self._size, self._num_images = log, size, num_images
        # by kind, in the order in which they were seen
        self._found: dict[str, dict[str, None]] = {kind: {} for kind in _WORDS}
        self._unfit_names: dict[str, int] = dict.fromkeys(_WORDS, 0)
        self._num_seen = self._next = 0

    def add(self, notes: Iterable[str]) -> None:
        """Take the notes of some items, one string each; it may name others that were left out."""
        if self._num_seen >= self._num_images:
            return
        for note in notes:
            self._num_seen += 1
            for line in filter(None, note.split("\n")):
                kind, _, described = line.partition("\t")
                self._found[kind][described] = None
        is_due = self._num_seen >= min(self._next, self._num_images)
        if is_due or any(self._found[kind] and not self._unfit_names[kind] for kind in _WORDS):
            self.tell()

    def tell(self) -> None:
        """Log the counts that have grown."""
        of_seen = f"of {min(self._num_seen, self._num_images)} images"
        for kind, found in self._found.items():
            if len(found) > self._unfit_names[kind]:
                self._unfit_names[kind] = len(found)
                level = "warning" if kind == SMALL else "notice"
                which = "images" if kind == LEFT_OUT else of_seen
                words = _WORDS[kind].format(size=_in_words(self._size))
                self._log(f"{level}: {len(found)} {which} {words}; the first: {next(iter(found))}")
        self._next = 10 * self._num_seen


def look_at(
    names: Sequence[str], data_dir: str, flags: OrientationFlags, *, is_decoding: bool = False
) -> dict[str, ImageFacts]:
    """What the headers of images say; damaged and missing ones are left to those who read them.

    With `is_decoding` the images are decoded, so that all which are there are whole.
    """

    def look(name: str) -> ImageFacts | None:
        path, is_turned = resolve_image_path(data_dir, name), flags.apply_orientation
        with contextlib.suppress(OSError, BadImageError):
            if is_native_only(path):
                return read_native(path, apply_orientation=is_turned).facts
            if is_decoding:
                return read_image(path, apply_orientation=is_turned).facts
            return image_facts(path, apply_orientation=is_turned)
        return None

    # a network file system answers slowly, but many at a time
    with ThreadPoolExecutor(4 * num_cores()) as pool:
        found = zip(names, pool.map(look, names), strict=True)
        # few facts, each kept once, of what may be many images
        known: dict[ImageFacts, ImageFacts] = {}
        return {name: known.setdefault(one, one) for name, one in found if one is not None}


def note_changes(names: Sequence[str], data_dir: str, flags: OrientationFlags, log: Log) -> None:
    """Count what of some images does not reach their pixels."""
    facts = look_at(names, data_dir, flags)
    ImageNotes(log, 0, len(facts)).add(note_of(name, one, 0, flags) for name, one in facts.items())


def say_sizes(
    facts: Iterable[ImageFacts], size: SizeLike, num_images: int, log: Log, crop: str = RESIZED
) -> None:
    """Log how large images are, and what a crop of `size` pixels makes of the middle one.

    Nothing if all are of that size. `crop` is that of `ScaleFlags`.
    """
    known, wanted = list(facts), Size.of(size)
    if all(one.size == (wanted.width, wanted.height) for one in known):
        return
    sides = [statistics.median_low([one.size[axis] for one in known]) for axis in (0, 1)]
    # how far the side that limits the crop is longer than the crop
    ratios = [max(wanted.height / one.height, wanted.width / one.width) for one in known]
    scale = statistics.median_high(ratios)
    seen = "" if len(known) == num_images else f" of {len(known)} looked at"
    verb = "reduced" if scale < 1 else "enlarged"
    what = "the short side is" if wanted.is_square else "they are"
    to = f"to {wanted}" if wanted.is_square else f"to just cover {wanted} (height x width)"
    fate = f"{what} {verb} {to} before the crop" if scale != 1 else "not scaled"
    if crop == NATIVE and scale <= 1:
        fate = f"patches of {wanted.in_pixels()} pixels at their own resolution"
    log(f"{num_images} images, median{seen} {sides[0]}×{sides[1]}: {fate}")


def without_small(
    facts: Mapping[str, ImageFacts], size: SizeLike, flags: ReadingFlags, log: Log
) -> set[str]:
    """The names of images that `--small_images` leaves out; says what becomes of all others.

    `facts` are those of all images whose header can be read. Small images are a DataError if they
    are to be one, or if no other is left.
    """
    small = [name for name, one in facts.items() if not one.covers(size)]
    if small and flags.small_images == ERROR:
        shown = ", ".join(_described(name, facts[name]) for name in small[:_MAX_SHOWN])
        raise DataError(
            f"{len(small)} of {len(facts)} images are smaller than the {Size.of(size)} pixels of "
            f"their crop: {shown}{' …' if len(small) > _MAX_SHOWN else ''}; leave them out "
            "(--small_images skip does), or take them enlarged with --small_images enlarge"
        )
    left_out = set() if flags.small_images == ENLARGE else set(small)
    if len(left_out) == len(facts) > 0:
        raise DataError(
            f"--small_images skip leaves no image: all {len(facts)} are smaller than "
            f"{Size.of(size)} pixels"
        )
    notes = ImageNotes(log, size, len(facts))
    notes.add(
        note_of_left_out(name, one) if name in left_out else note_of(name, one, size, flags)
        for name, one in facts.items()
    )
    return left_out


class CropItem(NamedTuple):
    """One image as a data set hands it out.

    Attributes:
        image: (C, H, W) uint8, or float32 with `CropFlags.values_range`.
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
    """Several items: `image` (N, C, H, W); `label`, `place` and `position` (N,) int64.

    `seen` is what networks see of the images, where the process that loads them makes it.
    """

    image: torch.Tensor
    label: torch.Tensor
    name: list[str]
    place: torch.Tensor
    position: torch.Tensor
    bad: list[str]
    notes: list[str]
    seen: torch.Tensor | None = None

    @classmethod
    def of(cls, items: Sequence[CropItem], finish: Finish | None = None) -> CropBatch:
        """Collate the items; in a loader process their images go to shared memory at once."""
        image, label, name, place, position, bad, notes = zip(*items, strict=True)
        labels, places, positions = map(torch.tensor, (label, place, position))
        images: torch.Tensor = default_collate(list(image))
        replaced = list(itertools.chain(*bad))
        batch = cls(images, labels, list(name), places, positions, replaced, list(notes))
        return batch if finish is None else finish(batch)


Finish: TypeAlias = Callable[[CropBatch], CropBatch]


class Preparation(NamedTuple):
    """What becomes of a batch: in the process that loads it, then in that of the network.

    Attributes:
        pair: the pair that a loop wants, on its device.
        finish: what the loading process adds to a batch; it can be pickled. None: nothing.
    """

    pair: Callable[[CropBatch], Pair]
    finish: Finish | None = None


def _to_chw(crop: np.ndarray[Any, Any], num_channels: int) -> torch.Tensor:
    crop = in_channels(crop, num_channels)
    return torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1)))  # HWC → CHW


class CropDataset(Dataset[CropItem]):
    """Crops by stream key, uint8 as a rule; bad images raise, or are replaced by the next good one.

    So are images smaller than the crop, unless they are enlarged. The augmentation is a function of
    (seed, epoch, index), and with `--crop native` so is the place of a patch. With
    `flags.cache_dir` it raises what `utils.images.crops.cache.crop_source` does.

    Args:
        size: of the crop, pixels: a side, or (height, width).
        num_channels: 3, or 1 for grey levels (ITU-R 601 luma); any with `flags.values_range`.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        size: SizeLike,
        flags: CropFlags,
        seed: int,
        num_channels: int = 3,
    ) -> None:
        self._entries, self._size = ImageList.of(entries), size
        self._flags, self._seed = flags, seed
        self._recipe = crop_recipe(flags, size, num_channels)
        self._num_channels = self._recipe.shape[2]
        self._source = _source(self._entries, self._recipe, flags)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def entries(self) -> ImageList:
        """The images."""
        return self._entries

    def listing(self) -> JsonObject:
        """What tells these images and labels from others, or from the same read otherwise."""
        found = self._entries.digest()
        if isinstance(self._recipe, MeasuredPair):
            found[PAIRS_KEY] = self._recipe.digest(self._entries.names)
        return found | vars(Reading.of(self._flags))

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
            if facts.covers(self._size) or self._flags.small_images == ENLARGE:
                notes.append(note_of(entry.name, facts, self._size, self._flags))
                image, told = _to_chw(crop, self._num_channels), "\n".join(filter(None, notes))
                return CropItem(
                    image, entry.y, entry.name, place, position, bad=tuple(bad), notes=told
                )
            if self._flags.small_images == ERROR:
                raise small_image_error(entry.name, facts, self._size)
            notes.append(note_of_left_out(entry.name, facts))
        raise DataError(
            f"none of {num_entries} images is whole and is not smaller than {_in_words(self._size)}"
            "; see --small_images"
        )

    def _read(self, place: int, key: tuple[int, int]) -> Crop:
        flags, is_native = self._flags, self._flags.crop == NATIVE
        if not (flags.random_crop or flags.random_flip or flags.random_turn or is_native):
            return self._source.read(place)
        rng = item_rng(self._seed, *key)
        if flags.random_crop or is_native:
            crop, facts = self._recipe.cut_at_random(self._entries[place].name, rng)
        else:
            crop, facts = self._source.read(place)
        crop = random_flip(crop, rng) if flags.random_flip else crop
        return Crop(random_turn(crop, rng) if flags.random_turn else crop, facts)


def _source(entries: ImageList, recipe: CropRecipe, flags: CropFlags) -> CropSource:
    require_pairs(recipe, entries.names)
    return crop_source(entries.names, recipe, flags)


class TestCrops(Dataset[CropItem | None]):
    """Centre crops in order; a bad image raises, or its item is None.

    Args:
        size: of the crop, pixels: a side, or (height, width).
        on_bad_image: `error` or `skip`.
        source: of the same images' crops; None: decoded from their files.
    """

    __test__ = False  # no test case, whatever pytest thinks of the name

    def __init__(
        self,
        entries: Sequence[Entry],
        size: SizeLike,
        data_dir: str,
        on_bad_image: str = "error",
        num_channels: int = 3,
        source: CropSource | None = None,
        apply_orientation: bool = False,
    ) -> None:
        self._entries = ImageList.of(entries)
        self._num_channels, self._on_bad_image = num_channels, on_bad_image
        recipe = CenterCrop(data_dir, size, num_channels, apply_orientation)
        self._source = source or CropSource(self._entries.names, recipe)

    @classmethod
    def from_flags(
        cls, entries: Sequence[Entry], size: SizeLike, flags: CropFlags, num_channels: int = 3
    ) -> TestCrops:
        """The crops as the flags want them; see `utils.images.crops.cache.crop_source`."""
        recipe, images = crop_recipe(flags, size, num_channels), ImageList.of(entries)
        source, channels = _source(images, recipe, flags), recipe.shape[2]
        return cls(images, size, flags.data_dir, flags.on_bad_image, channels, source)

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
    size: SizeLike,
    flags: CropFlags,
    train: TrainFlags,
    prepare: Preparation,
    log: Callable[[str], None],
    num_channels: int = 3,
) -> TrainData:
    """Endless shuffled batches of crops, of which `prepare` makes the task's pairs.

    `log` receives how large images are, by some of them, which damaged ones were replaced by
    others, and what became of others.

    Raises:
        DataError: if a batch is larger than the data; see `CropDataset`.
    """
    images = ImageList.of(entries)
    chosen = images.names[:: max(1, -(-len(images) // _NUM_SAMPLED))]
    sizes = look_at(chosen, flags.data_dir, flags).values()
    say_sizes(sizes, size, len(images), log, flags.crop)
    counts = ImageNotes(log, size, len(images) // dist_util.get_world_size())
    told: set[str] = set()

    def noted(batch: CropBatch) -> Pair:
        bad = set(batch.bad) - told
        if bad:
            log(f"warning: damaged images replaced by others: {', '.join(sorted(bad))}")
            told.update(bad)
        counts.add(batch.notes)
        return prepare.pair(batch)

    return TrainData(
        CropDataset(images, size, flags, train.seed, num_channels),
        train.batch_size,
        noted,
        collate=partial(CropBatch.of, finish=prepare.finish),
        seed=train.seed,
        num_workers=flags.num_workers,
    )
