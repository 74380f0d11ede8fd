"""Writes which images of a folder have which label and which are for testing (`split`).

Reading the dicts is the business of `base_dataset`.
"""

from __future__ import annotations

import contextlib
import os
import statistics
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from ddpm.info_dict import ClassInfo, load_info_dict, make_info
from sr_var.data.measured import check_pairs, write_pairs
from sr_var.data.split import NO_CLASS, classes, split
from sr_var.flags.scripts import DataInfoFlags
from utils.files.atomic import write_through
from utils.files.storage import make_folder
from utils.flags.groups import ENLARGE, ERROR, NATIVE
from utils.images.crops.dataset import say_sizes, without_small
from utils.images.crops.native_crops import is_native_only
from utils.images.files import (
    ALL_EXTENSIONS,
    BadImageError,
    ImageFacts,
    read_image,
    resolve_image_path,
)
from utils.images.folder import file_stamps, scan
from utils.images.native import read_native
from utils.machine.threads import chosen_threads
from utils.process.errors import DataError
from utils.runs.job import working
from utils.sizes import Size
from utils.untrusted.pickles import dump_pickle, load_pickle

Info = dict[str, ClassInfo]
ALL_FILE, TRAIN_FILE, TEST_FILE = (
    "data_info.pkl",
    "train_data_info.pkl",
    "to_sample_data_info.pkl",
)


def write_split(
    folder: str, parts: Mapping[str, Info], *, overwrite: bool, log: Callable[[str], None]
) -> None:
    """Write the dicts, `parts` by file name, into `--output_dir`.

    Files of another split, a DataError without `overwrite`, go before the first one is written, so
    that a kill leaves no two splits beside each other.
    """
    changes = require_replaceable(folder, parts, overwrite=overwrite)
    there = _there(folder, parts)
    if changes:
        log(f"replacing another split: {changes}")
        for file in there:
            with contextlib.suppress(FileNotFoundError):
                os.remove(os.path.join(folder, file))
    for file, info in parts.items():
        path = os.path.join(folder, file)
        if file in there and not changes:
            log(f"{path}: the same list is there already")
            continue
        dump_pickle(info, path)
        num_images = sum(len(entry["file_names"]) for entry in info.values())
        log(f"wrote {path}: {num_images} images")


def require_replaceable(folder: str, parts: Mapping[str, Info], *, overwrite: bool) -> str:
    """Refuse, without `overwrite`, to replace another split; return what would change, or ""."""
    changes = _changes(folder, _there(folder, parts), parts)
    if changes and not overwrite:
        raise DataError(
            f"--output_dir {folder} holds another split: {changes}; give another --output_dir, or "
            "--overwrite True to replace it (nets that were trained on it have seen its training "
            "images)"
        )
    return changes


def _there(folder: str, files: Iterable[str]) -> list[str]:
    return [file for file in files if os.path.lexists(os.path.join(folder, file))]


def _stored(path: str) -> Info:
    """A list that is there; also one without any image, as a folder for testing only has."""
    try:
        return load_info_dict(path)
    except DataError:
        if load_pickle(path) == {}:
            return {}
        raise


def _changes(folder: str, there: list[str], parts: Mapping[str, Info]) -> str:
    """What would change if the files that are there were replaced; empty if nothing would."""
    stored = {}
    for file in there:
        try:
            stored[file] = _stored(os.path.join(folder, file))
        except (DataError, OSError):
            return f"{file} cannot be read"
    if all(dict(info) == parts[file] for file, info in stored.items()):
        return ""
    (old_labels, old_train, old_test), (new_labels, new_train, new_test) = map(
        _sides, (stored, parts)
    )
    both = old_labels.keys() & new_labels.keys()
    num_moved = len(old_train & new_test) + len(old_test & new_train)
    num_relabelled = sum(old_labels[name] != new_labels[name] for name in both)
    return (
        f"{num_moved} images would change sides between training and testing, "
        f"{len(new_labels.keys() - both)} would be new, {len(old_labels.keys() - both)} be gone, "
        f"{num_relabelled} have another label"
    )


def _sides(dicts: Mapping[str, Info]) -> tuple[dict[str, int], set[str], set[str]]:
    """(label of each image, training images, test images) of the dicts by file name."""
    labels: dict[str, int] = {}
    sides: dict[str, set[str]] = {TRAIN_FILE: set(), TEST_FILE: set()}
    for file, info in dicts.items():
        for entry in info.values():
            names = entry["file_names"]
            labels |= dict.fromkeys(names, entry["y"])
            sides.get(file, set()).update(names)
    return labels, sides[TRAIN_FILE], sides[TEST_FILE]


_CHECKED_FILE = ".checked.txt"


def look_at_all(
    names: Sequence[str], flags: DataInfoFlags, log: Callable[[str], None]
) -> dict[str, ImageFacts]:
    """Decode every image: those that are whole, and what their files say.

    Raises:
        StopRequested: if a signal came; what was found is remembered.
        DataError: at the end, naming the damaged images, unless `on_bad_image` is `skip`.
    """
    journal = os.path.join(flags.output_dir, _CHECKED_FILE)
    good: dict[str, ImageFacts] = {}
    known: dict[ImageFacts, ImageFacts] = {}  # few of what may be many images
    if not flags.dry_run:
        good = _still_good(_read_journal(journal, flags.data_dir), names, flags)
    bad: set[str] = set()
    todo = [name for name in names if name not in good]
    look = partial(_look, flags=flags)
    num_threads = chosen_threads(flags.num_threads)
    num_done = len(names) - len(todo)
    with (
        open(os.devnull if flags.dry_run else journal, "ab", buffering=0) as file,
        ThreadPoolExecutor(num_threads) as pool,
        working(len(names), "checking images", "image", done=num_done) as job,
    ):
        for start in range(0, len(todo), 1024):
            chunk = todo[start : start + 1024]
            marks = _marks(chunk, flags)
            for name, found in zip(chunk, pool.map(look, chunk), strict=True):
                if isinstance(found, BadImageError):
                    bad.add(name)
                    log(f"damaged: {found}")
                else:
                    good[name] = known.setdefault(found, found)
                    line = f"{os.path.join(flags.data_dir, name)}\t{marks[name]}\t{found}\n"
                    write_through(journal, file.fileno(), line.encode(errors="surrogateescape"))
                job.bar.update()
            job.check()
    if bad and flags.on_bad_image == ERROR:
        raise DataError(
            f"{len(bad)} images cannot be opened: {', '.join(sorted(bad)[:5])}"
            f"{' …' if len(bad) > 5 else ''}; mend them, or leave them out with --on_bad_image skip"
        )
    return {name: good[name] for name in names if name not in bad}


def _look(name: str, flags: DataInfoFlags) -> ImageFacts | BadImageError:
    path = resolve_image_path(flags.data_dir, name)
    try:
        if is_native_only(path):
            return read_native(path, apply_orientation=flags.apply_orientation).facts
        return read_image(path, apply_orientation=flags.apply_orientation).facts
    except BadImageError as error:
        return error


def _marks(names: Sequence[str], flags: DataInfoFlags) -> dict[str, str]:
    """What the facts of each image depend on: size and time of change of its file, and the flag."""
    stamps = file_stamps(names, flags.data_dir)
    return {
        name: f"{size} {changed} {flags.apply_orientation}"
        for name, (size, changed) in zip(names, stamps.tolist(), strict=True)
    }


def _still_good(
    found: Mapping[str, tuple[str, ImageFacts]], names: Sequence[str], flags: DataInfoFlags
) -> dict[str, ImageFacts]:
    """The facts of images that are what they were; one that has changed is looked at again."""
    marks = _marks([name for name in names if name in found], flags)
    return {name: found[name][1] for name, mark in marks.items() if found[name][0] == mark}


def _read_journal(path: str, data_dir: str) -> dict[str, tuple[str, ImageFacts]]:
    """What an earlier, stopped check of the same folder found: mark and facts by name.

    A damaged line says nothing, so that its image is checked again.
    """
    if not os.path.exists(path):
        return {}
    prefix, found = os.path.join(data_dir, ""), {}
    with open(path, "rb") as file:
        for line in file:
            with contextlib.suppress(ValueError):
                place, mark, facts = line.decode("utf-8").rsplit("\t", 2)
                if facts.endswith("\n") and place.startswith(prefix):
                    name = place.removeprefix(prefix)
                    found[name] = mark, ImageFacts.parse(facts[:-1])
    return found


def _usable(
    names: Sequence[str],
    facts: Mapping[str, ImageFacts],
    flags: DataInfoFlags,
    log: Callable[[str], None],
) -> list[str]:
    """The images that are whole and large enough; says how many and how large they are."""
    if not facts:
        raise DataError(f"--data_dir {flags.data_dir}: all {len(names)} images are damaged")
    log(f"{len(facts)} images open, {len(names) - len(facts)} were left out")
    _say_sides(list(facts.values()), flags, log)
    small = without_small(facts, flags.large_size, flags, log)
    return [name for name in facts if name not in small]


def _say_sides(
    facts: Sequence[ImageFacts], flags: DataInfoFlags, log: Callable[[str], None]
) -> None:
    """How large the images are, and what of them is used at the scale that `--crop` says."""
    size = Size.of(flags.large_size)
    say_sizes(facts, size, len(facts), log, flags.crop)
    sides = sorted(min(one.size) for one in facts)
    num_small = sum(not one.covers(size) for one in facts)
    log(
        f"short sides from {sides[0]} to {sides[-1]} pixels, median "
        f"{statistics.median_low(sides)}; {num_small} of {len(sides)} images are smaller than "
        f"--large_size {size}"
    )
    if flags.crop == NATIVE:
        num_patches = sum((one.height // size.height) * (one.width // size.width) for one in facts)
        log(
            f"{num_patches} patches of {size.in_pixels()} pixels lie side by side in "
            f"{len(sides) - num_small} images; train and test with --crop {NATIVE}, too"
        )


def write_info(flags: DataInfoFlags, log: Callable[[str], None]) -> None:
    """Scan, split, check, write the three pickles.

    What names and flags make impossible is an error before an image is decoded.

    Raises:
        StopRequested: if a signal came during the check.
        DataError: for damaged images, for what is no pair of `--pairs_dir`, or if another split is
            there.
    """
    names = scan(flags.data_dir, log, on_bad_image=flags.on_bad_image, endings=ALL_EXTENSIONS)
    pairs = check_pairs(names, flags, log) if flags.pairs_dir else None
    names = pairs.names if pairs else names
    class_by_name = classes(names, flags, log)
    parts = _parts(class_by_name, flags)
    is_known = flags.on_bad_image == ERROR and flags.small_images in (ENLARGE, ERROR)
    if is_known or not flags.check_images:
        require_replaceable(flags.output_dir, parts, overwrite=flags.overwrite)
    if not flags.dry_run:
        make_folder(flags.output_dir, "--output_dir")
    if flags.check_images:
        usable = _usable(names, look_at_all(names, flags, log), flags, log)
        left_out = set(names).difference(usable)
        class_by_name = {name: class_by_name[name] for name in usable}
        parts = _parts(class_by_name, flags, left_out)
    _say_parts(parts, class_by_name, flags, log)
    if flags.dry_run:
        return
    write_split(flags.output_dir, parts, overwrite=flags.overwrite, log=log)
    if pairs:
        write_pairs(pairs, list(class_by_name), flags, log)
    # a finished job is done anew when asked for again: the images may have changed
    with contextlib.suppress(FileNotFoundError):
        os.remove(os.path.join(flags.output_dir, _CHECKED_FILE))


def _parts(
    class_by_name: Mapping[str, str], flags: DataInfoFlags, left_out: Collection[str] = ()
) -> dict[str, Info]:
    """The three dicts by file name."""
    train, test = split(class_by_name, flags, left_out)
    members = {ALL_FILE: list(class_by_name), TRAIN_FILE: train, TEST_FILE: test}
    return {file: make_info(part, class_by_name) for file, part in members.items()}


def _say_parts(
    parts: Mapping[str, Info],
    class_by_name: Mapping[str, str],
    flags: DataInfoFlags,
    log: Callable[[str], None],
) -> None:
    counts = Counter(class_by_name.values())
    num_train, num_test = (
        sum(len(entry["file_names"]) for entry in parts[file].values())
        for file in (TRAIN_FILE, TEST_FILE)
    )
    has_classes = set(counts) != {NO_CLASS}
    head = f"{len(counts)} classes" if has_classes else "no classes"
    log(f"{head}: {num_train} training and {num_test} test images")
    if has_classes:
        log("largest classes: " + ", ".join(f"{key} {n}" for key, n in counts.most_common(3)))
    elif not (flags.test_share or flags.test_folder or flags.test_list):
        log(
            f"notice: --num_test_per_class {flags.num_test_per_class} takes images of each class, "
            "of which there is none here; --test_share 0.2 tests on a fifth"
        )
    if not num_train:
        log("notice: nothing is left to train on (--test_share 1); the list for it is empty")
