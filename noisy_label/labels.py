"""Noisy labels as files, and what they were drawn for; read safely.

`<noise_type>_noisy_label_<alpha>.pkl` is a list of (label, law q of each class), one item a
training image; the same with `_test` is of the test images, whose labels nobody trains on. A record
beside a file, `<file>.json`, tells which images (`files.describe_split`) it is of, and
`noise_type`, `alpha`, `seed` and `net` (the sha256 of the clean net's file, or empty) of its draw.
A file of another tool has none.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from noisy_label.files import Log, Record, digest_of
from noisy_label.flags import BIASED, UNIFORM
from noisy_label.noise import NUM_CLASSES, Array, Labels, NoisyLabels, biased_law, uniform_law
from utils.files.atomic import write_json_atomic
from utils.files.records import differences, read_record
from utils.files.storage import make_folder
from utils.process.errors import DataError
from utils.untrusted.pickles import dump_pickle, load_pickle

_SUM_TOLERANCE = 1e-4
_DRAWN_HOW = ("noise_type", "alpha", "seed", "net")
_NAMED = re.compile(rf"({UNIFORM}|{BIASED})_noisy_label_([0-9.e-]+)(_test)?\.pkl")
_SHOWN_DIGITS = 12
# laws that differ less than this from those of other images say nothing about which they are of
_LEAST_CONTRAST = 0.05
_REMEDY = "make it again with --task generate_noisy_label"


def held_out_file(path: str) -> str:
    """Where those of the test images are, given the file of the training images."""
    stem, extension = os.path.splitext(path)
    return f"{stem}_test{extension}"


def save_labels(path: str, noisy: NoisyLabels) -> None:
    """Write a file."""
    make_folder(os.path.dirname(path) or ".")
    rows = zip(noisy.labels.tolist(), noisy.law.tolist(), strict=True)
    dump_pickle([(label, law) for label, law in rows], path)


def load_labels(path: str, num_images: int, num_classes: int = NUM_CLASSES) -> NoisyLabels:
    """Read a file, whoever wrote it; nothing in it is executed.

    Raises:
        DataError: if it is missing, damaged, of another number of images, or holds no laws.
    """
    if not os.path.exists(path):
        raise DataError(
            f"{path} is missing: make it with --task generate_noisy_label, or give another "
            "--noise_label_file"
        )
    content = load_pickle(path)
    count = len(content) if isinstance(content, (list, tuple)) else type(content).__name__
    if count != num_images:
        raise DataError(
            f"{path} holds labels of {count} images, the data set has {num_images}; {_REMEDY}"
        )
    try:
        labels = np.array([_whole(label) for label, _ in content], np.int64)
        law = np.array([np.asarray(row, np.float64) for _, row in content])
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"{path} is no list of (label, {num_classes} probabilities)") from None
    problem = _problem_with_labels(labels, law, num_classes)
    if problem:
        raise DataError(f"{path}: {problem}; {_REMEDY}")
    return NoisyLabels(labels, law)


def _whole(label: Any) -> int:
    if isinstance(label, bool) or int(label) != label:
        raise ValueError("a label is a whole number")
    return int(label)


def _problem_with_labels(labels: Labels, law: Array, num_classes: int) -> str:
    if law.ndim != 2 or law.shape[1] != num_classes:
        return f"an image has {num_classes} probabilities, here the shape is {law.shape}"
    if labels.min() < 0 or labels.max() >= num_classes:
        return f"labels run from {labels.min()} to {labels.max()}, not 0 to {num_classes - 1}"
    if not np.isfinite(law).all() or law.min() < 0:
        return "a probability is negative or not finite"
    worst = float(np.abs(law.sum(axis=1) - 1).max())
    if worst > _SUM_TOLERANCE:
        return f"the probabilities of an image sum to 1 only within {worst:.2g}"
    return ""


def save_with_record(path: str, noisy: NoisyLabels, data: Record, drawn: Record) -> None:
    """Write labels of the images `data`, and the record of how they were drawn."""
    make_folder(os.path.dirname(path) or ".")
    content = {"labels": _digest(noisy), "data": dict(data), **drawn}
    write_json_atomic(f"{path}.json", content)
    save_labels(path, noisy)


def load_for(
    path: str,
    right: Labels,
    data: Record,
    noise: Record,
    log: Log,
    num_classes: int = NUM_CLASSES,
) -> NoisyLabels:
    """Read labels that were drawn for the images `data`, of which `right` are the right ones.

    A file without a record is taken for theirs with a notice, unless its name tells of a law that
    these images do not have. `noise` is the `noise_type` and `alpha` that is asked for.

    Raises:
        DataError: for labels of other images or of other noise, besides what `load_labels` finds.
    """
    noisy = load_labels(path, len(right), num_classes)
    record = _read_record(path)
    if record is None:
        log(f"notice: {path} has no record beside it and is taken for labels of these images")
        _require_plausible(path, noisy.law, right)
        return noisy
    if record.get("labels") != _digest(noisy):
        raise DataError(
            f"{path} is not the file that {path}.json tells of; {_REMEDY}, or delete the record if "
            "another tool wrote the file"
        )
    if record.get("data") != dict(data):
        raise DataError(
            f"{path} holds labels drawn for other images ({_shown(record.get('data'))}) than those "
            f"of --data_dir ({_shown(data)}); {_REMEDY}, or give the --data_dir it was made for"
        )
    found = differences(record, noise, {})
    if found:
        raise DataError(
            f"{path} was drawn otherwise: {', '.join(map(str, found))}; give the same flags, or "
            "another --noise_label_file"
        )
    return noisy


def refuse_to_replace(path: str, data: Record, drawn: Record, log: Log) -> None:
    """Refuse (DataError) to replace labels that were drawn otherwise, or for other images.

    A file without a record is replaced with a notice.
    """
    record = _read_record(path) if os.path.exists(path) else {}
    if record is None:
        log(f"notice: {path}, of which no record tells how it was drawn, is replaced")
    if not record:
        return
    found = differences(record, {**drawn, "data": dict(data)}, {})
    if found:
        raise DataError(
            f"{path} was drawn otherwise: {', '.join(map(str, found))}; nets may have been trained "
            "on it: name another --noise_label_file, or replace it with --overwrite True"
        )


def require_one_draw(path: str, held_out_path: str) -> None:
    """Refuse (DataError) labels of training and test images that two runs drew, where both say."""
    one, other = _read_record(path), _read_record(held_out_path)
    if one is None or other is None:
        return
    found = differences(other, {name: one.get(name) for name in _DRAWN_HOW}, {})
    if found:
        raise DataError(
            f"{held_out_path} and {path} are of two runs of --task generate_noisy_label: "
            f"{', '.join(map(str, found))}; make both again"
        )


def _read_record(path: str) -> Record | None:
    try:
        return read_record(f"{path}.json", _REMEDY, dict)
    except FileNotFoundError:
        return None


def _require_plausible(path: str, law: Array, right: Labels) -> None:
    """Refuse laws that are nearer to those of other images, where the file's name tells them."""
    match = _NAMED.fullmatch(os.path.basename(path))
    if match is None:
        return
    try:
        alpha = float(match[2])
    except ValueError:
        return
    if not 0 <= alpha <= 1:
        return
    law_of = uniform_law if match[1] == UNIFORM else biased_law
    expected = law_of(right, alpha, law.shape[1])
    others = np.random.default_rng(0).permutation(expected)
    contrast = float(np.abs(others - expected).sum(axis=1).mean() / 2)
    distance = float(np.abs(law - expected).sum(axis=1).mean() / 2)
    if contrast > _LEAST_CONTRAST and distance > contrast / 2:
        raise DataError(
            f"{path}: its laws are not those that its name tells of the images of --data_dir, by "
            f"{distance:.2f} of the probability on average, and so of other images; {_REMEDY}"
        )


def _digest(noisy: NoisyLabels) -> str:
    return digest_of(noisy.labels.astype("<i8"), noisy.law.astype("<f8"))


def _shown(data: object) -> str:
    if not isinstance(data, Mapping):
        return "not recorded"
    shown = {name: str(value)[:_SHOWN_DIGITS] for name, value in data.items()}
    return ", ".join(f"{name} {value}" for name, value in shown.items())
