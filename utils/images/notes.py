"""Says what becomes of images on their way to crops: scaled, enlarged, alpha dropped, not turned.

Decoding processes hand a line an image to the main process, which counts.
"""

from __future__ import annotations

import contextlib
import os
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType

from utils.files.atomic import is_remote
from utils.flags.groups import ENLARGE, ERROR, OrientationFlags, ReadingFlags
from utils.images.files import (
    ALPHA,
    DEPTH,
    ORIENTATION,
    BadImageError,
    ImageFacts,
    image_facts,
    read_image,
    resolve_image_path,
)
from utils.machine.threads import num_cores
from utils.process.errors import DataError

Log = Callable[[str], None]
Stamp = tuple[int, int]
# a remote store has no time that is cheap to ask for: only the name counts there
_NO_STAMP: Stamp = (-1, -1)
SMALL, LEFT_OUT = "small", "left out"
_NUM_SAMPLED = 200  # headers to look at before a training
_MAX_SHOWN = 5
_WORDS = MappingProxyType(
    {
        SMALL: "are smaller than {size} pixels on their short side and enlarged, so that blurred "
        "ones count as true (see --small_images)",
        LEFT_OUT: "are smaller than {size} pixels on their short side and left out",
        DEPTH: "have 16 bits a channel, of which 8 are kept",
        ALPHA: "have an alpha channel, which is dropped",
        ORIENTATION: "have an EXIF orientation that is not applied (see --apply_orientation)",
    }
)


def small_image_error(name: str, facts: ImageFacts, size: int) -> DataError:
    """The error of `--small_images error`."""
    return DataError(
        f"{name} is {facts.width}×{facts.height}, smaller than the {size} pixels of its crop; "
        "leave it out (--small_images skip does), or take it enlarged with --small_images enlarge"
    )


def note_of(name: str, facts: ImageFacts, size: int, flags: OrientationFlags) -> str:
    """What is to be said of an image that is used: a line each, empty if there is nothing."""
    kinds = [kind for kind in facts.changes if kind != ORIENTATION or not flags.apply_orientation]
    if facts.short_side < size:
        kinds.append(SMALL)
    return "\n".join(f"{kind}\t{_described(name, facts)}" for kind in kinds)


def note_of_left_out(name: str, facts: ImageFacts) -> str:
    """Likewise of a small image that is not used."""
    return f"{LEFT_OUT}\t{_described(name, facts)}"


def _described(name: str, facts: ImageFacts) -> str:
    return f"{name}, {facts.width}×{facts.height}"


class ImageNotes:
    """Counts notes; tells the first of a kind at once, and sums whenever ten times more were seen.

    After `num_images` it counts no more: from there on images come again.
    """

    def __init__(self, log: Log, size: int, num_images: int) -> None:
        self._log, self._size, self._num_images = log, size, num_images
        # by kind, in the order in which they were seen
        self._found: dict[str, dict[str, None]] = {kind: {} for kind in _WORDS}
        self._told: dict[str, int] = dict.fromkeys(_WORDS, 0)
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
        if is_due or any(self._found[kind] and not self._told[kind] for kind in _WORDS):
            self.tell()

    def tell(self) -> None:
        """Log the counts that have grown."""
        of_seen = f"of {min(self._num_seen, self._num_images)} images"
        for kind, found in self._found.items():
            if len(found) > self._told[kind]:
                self._told[kind] = len(found)
                level = "warning" if kind == SMALL else "notice"
                which = "images" if kind == LEFT_OUT else of_seen
                words = _WORDS[kind].format(size=self._size)
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
            if is_decoding:
                return read_image(path, apply_orientation=is_turned).facts
            return image_facts(path, apply_orientation=is_turned)
        return None

    # a network file system answers slowly, but many at a time
    with ThreadPoolExecutor(4 * num_cores()) as pool:
        found = zip(names, pool.map(look, names), strict=True)
        return {name: facts for name, facts in found if facts is not None}


def look_at_some(
    names: Sequence[str], data_dir: str, size: int, flags: OrientationFlags, log: Log
) -> None:
    """Say how large the images are, by some of them, and what becomes of that."""
    chosen = names[:: max(1, -(-len(names) // _NUM_SAMPLED))]
    say_sizes(look_at(chosen, data_dir, flags).values(), size, len(names), log)


def note_changes(names: Sequence[str], data_dir: str, flags: OrientationFlags, log: Log) -> None:
    """Count what of some images does not reach their pixels."""
    facts = look_at(names, data_dir, flags)
    ImageNotes(log, 0, len(facts)).add(note_of(name, one, 0, flags) for name, one in facts.items())


def say_sizes(facts: Iterable[ImageFacts], size: int, num_images: int, log: Log) -> None:
    """Log how large images are, and what a crop of `size` pixels makes of the middle one.

    Nothing if all are squares of `size` pixels.
    """
    known = list(facts)
    if all(one.size == (size, size) for one in known):
        return
    sides = [statistics.median_low([one.size[axis] for one in known]) for axis in (0, 1)]
    short = statistics.median_low([one.short_side for one in known])
    seen = "" if len(known) == num_images else f" of {len(known)} looked at"
    verb = "reduced" if short > size else "enlarged" if short < size else "left"
    fate = f"the short side is {verb} to {size} before the crop" if short != size else "not scaled"
    log(f"{num_images} images, median{seen} {sides[0]}×{sides[1]}: {fate}")


def without_small(
    facts: Mapping[str, ImageFacts], size: int, flags: ReadingFlags, log: Log
) -> set[str]:
    """The names of images that `--small_images` leaves out; says what becomes of all others.

    `facts` are those of all images whose header can be read.

    Raises:
        DataError: for small images, if they are to be an error, or if no other is left.
    """
    small = [name for name, one in facts.items() if one.short_side < size]
    if small and flags.small_images == ERROR:
        shown = ", ".join(_described(name, facts[name]) for name in small[:_MAX_SHOWN])
        raise DataError(
            f"{len(small)} of {len(facts)} images are smaller than the {size} pixels of their "
            f"crop: {shown}{' …' if len(small) > _MAX_SHOWN else ''}; leave them out "
            "(--small_images skip does), or take them enlarged with --small_images enlarge"
        )
    left_out = set() if flags.small_images == ENLARGE else set(small)
    if len(left_out) == len(facts) > 0:
        raise DataError(
            f"--small_images skip leaves no image: all {len(facts)} are smaller than {size} pixels"
        )
    notes = ImageNotes(log, size, len(facts))
    notes.add(
        note_of_left_out(name, one) if name in left_out else note_of(name, one, size, flags)
        for name, one in facts.items()
    )
    return left_out


def file_stamps(names: Sequence[str], data_dir: str) -> list[Stamp]:
    """Size and time of change of every image's file, in order; FileNotFoundError without one."""
    if is_remote(data_dir):
        return [_NO_STAMP] * len(names)
    num_threads = 4 * num_cores()  # a network file system answers slowly, but many at a time

    def ask(first: int) -> list[Stamp]:
        return [_stamp(resolve_image_path(data_dir, name)) for name in names[first::num_threads]]

    stamps = [_NO_STAMP] * len(names)
    with ThreadPoolExecutor(num_threads) as pool:
        for first, share in enumerate(pool.map(ask, range(num_threads))):
            stamps[first::num_threads] = share
    return stamps


def _stamp(path: str) -> Stamp:
    try:
        status = os.stat(path)
    except FileNotFoundError as error:
        if not os.path.islink(path):
            raise FileNotFoundError(
                f"{path}: no such image; check data_dir and the list of images"
            ) from error
        status = os.lstat(path)  # a link to nothing is a damaged image, until it is mended
    return status.st_size, status.st_mtime_ns
