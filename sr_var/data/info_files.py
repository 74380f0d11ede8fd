"""Writes the three info dicts of a data set; other ones that are there stay, unless told.

Which image is for training and which for testing must not change behind a training's back: a net
would be tested on images that it has seen.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping

from utils.images.folder import Info
from utils.process.errors import DataError
from utils.untrusted.pickles import dump_pickle, load_info_dict

ALL_FILE, TRAIN_FILE, TEST_FILE = (
    "data_info.pkl",
    "train_data_info.pkl",
    "to_sample_data_info.pkl",
)


def write_split(
    folder: str, parts: Mapping[str, Info], *, overwrite: bool, log: Callable[[str], None]
) -> None:
    """Writes the dicts.

    Files of another split go before the first one is written, so that a kill leaves no two splits
    beside each other.

    Args:
        folder: ``--output_dir``.
        parts: file name → content: all images, those for training, those for testing.
        overwrite: whether another split may be replaced.
        log: receives a line about each file, and what changes.

    Raises:
        DataError: if another split is there and may not be replaced; says how they differ.
    """
    there = [file for file in parts if os.path.lexists(os.path.join(folder, file))]
    changes = _changes(folder, there, parts)
    if changes and not overwrite:
        raise DataError(
            f"--output_dir {folder} holds another split: {changes}; give another --output_dir, or "
            "--overwrite True to replace it (nets that were trained on it have seen its training "
            "images)"
        )
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
        log(f"wrote {path}")


def _changes(folder: str, there: list[str], parts: Mapping[str, Info]) -> str:
    """What would change if the files that are there were replaced; empty if nothing would."""
    stored = {}
    for file in there:
        try:
            stored[file] = load_info_dict(os.path.join(folder, file))
        except (DataError, OSError):
            return f"{file} cannot be read"
    if all(dict(info) == parts[file] for file, info in stored.items()):
        return ""
    old, new = (_sides(dicts) for dicts in (stored, parts))
    (old_labels, old_train, old_test), (new_labels, new_train, new_test) = old, new
    both = old_labels.keys() & new_labels.keys()
    num_moved = len(old_train & new_test) + len(old_test & new_train)
    num_relabelled = sum(old_labels[name] != new_labels[name] for name in both)
    return (
        f"{num_moved} images would change sides between training and testing, "
        f"{len(new_labels.keys() - both)} would be new, {len(old_labels.keys() - both)} be gone, "
        f"{num_relabelled} have another label"
    )


def _sides(
    dicts: Mapping[str, Mapping[str, object]],
) -> tuple[dict[str, object], set[str], set[str]]:
    """(label of each image, training images, test images) of the dicts by file name."""
    labels: dict[str, object] = {}
    sides: dict[str, set[str]] = {TRAIN_FILE: set(), TEST_FILE: set()}
    for file, info in dicts.items():
        for entry in info.values():
            names = entry["file_names"]  # type: ignore[index]
            labels |= dict.fromkeys(names, entry["y"])  # type: ignore[index]
            sides.get(file, set()).update(names)
    return labels, sides[TRAIN_FILE], sides[TEST_FILE]
