"""From a source to a folder: checks images and writes them, whichever source they come from.

An image that is there is whole (files are moved into place) and is not read again, so a stopped run
goes on where it was. What the folder was made with stands in `.image_data.json`.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from image_ddpm.importers.flags import CIFAR10, IMAGENET, LSUN, ImportFlags
from image_ddpm.importers.sources import (
    TEST,
    TRAIN,
    Content,
    ImageSource,
    Item,
    read_cifar10,
    read_digits,
    read_imagenet,
    read_lsun,
)
from utils.files.atomic import (
    remove_stale_temp_files,
    write_bytes_atomic,
)
from utils.files.records import require_same_settings
from utils.files.storage import make_folder
from utils.flags.groups import ENLARGE, ERROR
from utils.images.crops.dataset import (
    LEFT_OUT,
    ImageNotes,
    note_of,
    note_of_left_out,
    small_image_error,
)
from utils.images.files import (
    IMAGE_EXTENSIONS,
    BadImageError,
    ImageFacts,
    center_crop_arr,
    decode_image,
    image_format,
    naming,
    open_image,
    safe_join,
)
from utils.images.pictures import write_picture
from utils.machine.threads import chosen_threads
from utils.process.errors import DataError
from utils.runs.job import working
from utils.script_util import defaults
from utils.sizes import Size

SETTINGS_FILE = ".image_data.json"
_SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp"}
# what is read ahead of the threads
_CHUNK_ITEMS, _CHUNK_BYTES = 64, 1 << 26
_REMEDY = "Get it again, or leave damaged images out with --on_bad_image skip"
# settings of every record, in whichever version it was written
_ALWAYS = ("source", "image_size")
# so many images that are there are compared with those of the archive; versions of codecs differ by
# less than this, grey levels on average
_NUM_LOOKED_AT, _LARGEST_DIFFERENCE_255 = 16, 1.5
_MAX_MESSAGES = 10
_Chunk = list[tuple[Item, Content]]


def import_images(flags: ImportFlags, log: Callable[[str], None]) -> None:
    """Read, check and write all images of a source.

    Raises:
        StopRequested: if a signal came.
        DataError: a folder of other images, a damaged one (unless they are skipped), two of one
            name, none at all, or what the source raises.
    """
    num_skipped = 0

    def skip(message: str) -> None:
        nonlocal num_skipped
        num_skipped += 1
        if num_skipped <= _MAX_MESSAGES:
            log(f"passed by: {message}")

    # fails before the output folder is claimed
    if flags.source == CIFAR10:
        source = read_cifar10(flags.archive, skip)
    elif flags.source == IMAGENET:
        source = read_imagenet(flags.archive, skip, log, flags.on_bad_image)
    elif flags.source == LSUN:
        source = read_lsun(flags.archive)
    else:
        source = read_digits(Size.of(flags.image_size).height)
    try:
        ImageWriter(flags, log).write(source)
    finally:
        if num_skipped > _MAX_MESSAGES:
            log(f"passed by: {num_skipped} in all")


class ImageWriter:
    """Stores the images of one source; a dry run checks and counts only."""

    def __init__(self, flags: ImportFlags, log: Callable[[str], None]) -> None:
        self._flags, self._log = flags, log
        self._stems: dict[str, dict[str, str]] = {}
        self._taken: set[tuple[str, str]] = set()
        self._notes = ImageNotes(log, flags.image_size, sys.maxsize)
        self._seen: Counter[tuple[str, str]] = Counter()  # by output folder and label
        self.counts = Counter[str]()
        if not flags.dry_run:
            _claim_folder(flags)

    def write(self, source: ImageSource) -> None:
        """Store all images that are not there yet; errors as `import_images`."""
        with (
            ThreadPoolExecutor(chosen_threads(self._flags.num_threads)) as pool,
            working(source.total, "images", "image") as job,
        ):
            for num_seen, chunk in self._chunks(source):
                outcomes = list(pool.map(self._store, chunk))
                for outcome in outcomes:
                    self._count(outcome)
                self._notes.add(note for note in outcomes if isinstance(note, str))
                job.done(num_seen)
        if not self._seen:
            raise DataError(f"--archive {self._flags.archive} holds no image; see --source")
        self._log_outcome()

    def _chunks(self, source: ImageSource) -> Iterator[tuple[int, _Chunk]]:
        """(images seen, those to store with their contents), a little at a time."""
        chunk: _Chunk = []
        num_seen = num_bytes = 0
        for item in source.items:
            num_seen += 1
            if self._is_wanted(item):
                content = item.load()
                chunk.append((item, content))
                num_bytes += len(content) if isinstance(content, bytes) else content.nbytes
            if num_seen >= _CHUNK_ITEMS or num_bytes >= _CHUNK_BYTES:
                yield num_seen, chunk
                chunk, num_seen, num_bytes = [], 0, 0
        yield num_seen, chunk

    def _is_wanted(self, item: Item) -> bool:
        key = (item.folder, item.label)
        if self._flags.max_per_class and self._seen[key] >= self._flags.max_per_class:
            self.counts["beyond"] += 1
            return False
        self._seen[key] += 1
        name = (item.folder, item.stem)
        if name in self._taken:
            raise DataError(
                f"{item.where}: another image would be {'/'.join(filter(None, name))}, too; rename "
                "one of them or take it out"
            )
        self._taken.add(name)
        file = self._stems_in(item.folder).get(item.stem)
        if file is None:
            return True
        self.counts["kept"] += 1
        if self.counts["kept"] <= _NUM_LOOKED_AT:
            self._require_same(item, os.path.join(self._flags.output_dir, item.folder, file))
        return False

    def _require_same(self, item: Item, path: str) -> None:
        """Refuse to keep another image than the one of this name."""
        content = item.load()
        try:
            made, _, note = self._made(item, content)
            if note.startswith(LEFT_OUT) or _is_same_image(path, made, item.where):
                return
        except DataError:  # of one of the two, which nobody could train on
            return
        raise DataError(
            f"--output_dir {self._flags.output_dir} holds another image as "
            f"{'/'.join(filter(None, (item.folder, item.stem)))} than {item.where}; it was "
            "made from other data: choose another folder"
        )

    def _stems_in(self, folder: str) -> dict[str, str]:
        """File by stem of the images of an output folder, which is made if need be."""
        if folder not in self._stems:
            path = os.path.join(self._flags.output_dir, folder)
            files: list[str] = []
            if not self._flags.dry_run:
                make_folder(path)
                remove_stale_temp_files(path)
                files = _image_files(path)
            self._stems[folder] = {os.path.splitext(file)[0]: file for file in files}
        return self._stems[folder]

    def _store(self, pair: tuple[Item, Content]) -> str | DataError:
        """Check and write one image; its note, or what is wrong with it. Runs in threads."""
        item, content = pair
        try:
            content, suffix, note = self._made(item, content)
        except DataError as error:
            return error
        if self._flags.dry_run or note.startswith(LEFT_OUT):
            return note
        path = safe_join(os.path.join(self._flags.output_dir, item.folder), item.stem + suffix)
        if isinstance(content, bytes):
            write_bytes_atomic(path, content)
        else:
            write_picture(path, content)
        return note

    def _made(self, item: Item, content: Content) -> tuple[Content, str, str]:
        """What is stored of an image, the extension of its file, and its note."""
        if self._flags.image_size:
            return self._cut(item, content)
        if not isinstance(content, bytes):
            return content, ".png", ""
        decode_image(content, item.where, _REMEDY)
        return content, item.suffix or _SUFFIXES[image_format(content, item.where, _REMEDY)], ""

    def _cut(self, item: Item, content: Content) -> tuple[Content, str, str]:
        flags, size = self._flags, Size.of(self._flags.image_size)
        if isinstance(content, bytes):
            is_turned = flags.apply_orientation
            image, facts = decode_image(content, item.where, _REMEDY, apply_orientation=is_turned)
        else:
            facts = ImageFacts(*content.shape[1::-1])
            if facts.size == (size.width, size.height):
                return content, ".png", ""
            image = Image.fromarray(np.ascontiguousarray(content))
        if not facts.covers(size) and flags.small_images != ENLARGE:
            if flags.small_images == ERROR:
                raise small_image_error(item.where, facts, size)
            return content, ".png", note_of_left_out(item.where, facts)
        with naming(item.where, _REMEDY):
            return center_crop_arr(image, size), ".png", note_of(item.where, facts, size, flags)

    def _count(self, outcome: str | DataError) -> None:
        if isinstance(outcome, str):
            self.counts["written"] += not outcome.startswith(LEFT_OUT)
            return
        if self._flags.on_bad_image == ERROR or not isinstance(outcome, BadImageError):
            raise outcome
        self.counts["bad"] += 1
        self._log(f"left out: {outcome}")

    def _log_outcome(self) -> None:
        self._notes.tell()
        folders = sorted({folder for folder, _ in self._seen})
        for folder in folders:
            found = Counter(
                {y: count for (place, y), count in self._seen.items() if place == folder}
            )
            largest = ", ".join(f"{label} {count}" for label, count in found.most_common(3))
            name = os.path.join(self._flags.output_dir, folder)
            self._log(
                f"{name}: {found.total()} images of {len(found)} classes (largest: {largest})"
            )
        counts = self.counts
        self._log(
            f"{counts['written']} {'whole' if self._flags.dry_run else 'written'}, "
            f"{counts['kept']} were there, {counts['bad']} damaged, {counts['beyond']} beyond "
            "--max_per_class"
        )
        there = ((folder, stem) for folder, stems in self._stems.items() for stem in stems)
        num_others = sum(name not in self._taken for name in there)
        if num_others:
            self._log(
                f"notice: {self._flags.output_dir} holds {num_others} more images, of another "
                "--archive or beyond --max_per_class; a training on this folder sees them, too"
            )


def _image_files(folder: str) -> list[str]:
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.name[0] != "."]
    return [name for name in names if name.lower().endswith(IMAGE_EXTENSIONS)]


def _is_same_image(path: str, content: Content, where: str) -> bool:
    """Whether a file and a stored form show the same, but for what versions of codecs do."""
    if isinstance(content, bytes):
        image = decode_image(content, where, _REMEDY).image
    else:
        image = Image.fromarray(np.ascontiguousarray(content)).convert("RGB")
    one, two = (np.asarray(part, np.float64) for part in (open_image(path), image))
    return one.shape == two.shape and float(np.abs(one - two).mean()) <= _LARGEST_DIFFERENCE_255


def _claim_folder(flags: ImportFlags) -> None:
    """Note what the folder is made with, or compare it with what it was made with."""
    make_folder(flags.output_dir, "--output_dir")
    path = os.path.join(flags.output_dir, SETTINGS_FILE)
    settings = {
        "source": flags.source,
        "image_size": flags.image_size,
        "apply_orientation": bool(flags.image_size) and flags.apply_orientation,
    }
    if not os.path.exists(path):
        places = [os.path.join(flags.output_dir, folder) for folder in ("", TRAIN, TEST)]
        if any(_image_files(place) for place in places if os.path.isdir(place)):
            raise DataError(
                f"--output_dir {flags.output_dir} holds images that this script has not written; "
                "choose another folder"
            )
    # a record names all that there was when it was written
    since = {name: value for name, value in defaults(ImportFlags).items() if name not in _ALWAYS}
    require_same_settings(path, settings, defaults=since)
