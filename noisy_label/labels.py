"""Noisy labels on disk: a list of (label, law q of each class), one item an image.

``<noise_type>_noisy_label_<alpha>.pkl`` for the training images; the same with ``_test`` for the
test images, whose labels nobody trains on.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from noisy_label.noise import NUM_CLASSES, Array, Labels
from utils.files.names import number_name
from utils.files.storage import make_folder
from utils.process.errors import DataError
from utils.untrusted.pickles import dump_pickle, load_pickle

_SUM_TOLERANCE = 1e-4


@dataclass(frozen=True)
class NoisyLabels:
    """Labels (N,) drawn from the law (N, K) of each image."""

    labels: Labels
    law: Array


def label_file(data_dir: str, noise_type: str, alpha: float) -> str:
    """Where the labels of the training images are kept."""
    return os.path.join(data_dir, f"{noise_type}_noisy_label_{number_name(alpha)}.pkl")


def held_out_file(path: str) -> str:
    """Where those of the test images are, given the file of the training images."""
    stem, extension = os.path.splitext(path)
    return f"{stem}_test{extension}"


def save_labels(path: str, noisy: NoisyLabels) -> None:
    """Writes a file."""
    make_folder(os.path.dirname(path) or ".")
    rows = zip(noisy.labels.tolist(), noisy.law.tolist(), strict=True)
    dump_pickle([(label, law) for label, law in rows], path)


def load_labels(path: str, num_images: int, num_classes: int = NUM_CLASSES) -> NoisyLabels:
    """Reads a file, whoever wrote it; nothing in it is executed.

    Raises:
        DataError: if it is missing, damaged, of another number of images, or holds no laws.
    """
    if not os.path.exists(path):
        raise DataError(
            f"{path} is missing: make it with --task generate_noisy_label, or give another "
            "--noise_label_file"
        )
    content = load_pickle(path)
    if not isinstance(content, (list, tuple)) or len(content) != num_images:
        count = len(content) if isinstance(content, (list, tuple)) else type(content).__name__
        raise DataError(
            f"{path} holds labels of {count} images, the data set has {num_images}; make it again "
            "with --task generate_noisy_label"
        )
    try:
        labels = np.array([_whole(label) for label, _ in content], np.int64)
        law = np.array([np.asarray(row, np.float64) for _, row in content])
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"{path} is no list of (label, {num_classes} probabilities)") from None
    problem = _problem(labels, law, num_classes)
    if problem:
        raise DataError(f"{path}: {problem}; make it again with --task generate_noisy_label")
    return NoisyLabels(labels, law)


def _whole(label: Any) -> int:
    if isinstance(label, bool) or int(label) != label:
        raise ValueError("a label is a whole number")
    return int(label)


def _problem(labels: Labels, law: Array, num_classes: int) -> str:
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
