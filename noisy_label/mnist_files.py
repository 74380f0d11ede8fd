"""``training.pt`` and ``test.pt``: a tuple of uint8 images (N, 28, 28) and int64 labels (N,).

Made from the four IDX files of MNIST, or from scikit-learn's handwritten digits, which need no
download. Reading is safe: nothing in the files is executed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from noisy_label.flags import IMAGE_SIDE
from noisy_label.idx_files import find_idx, read_idx
from noisy_label.noise import NUM_CLASSES
from utils.atomic_file import atomic_write
from utils.digit_images import load_digit_images
from utils.errors import CheckpointError, DataError
from utils.state_dict_io import read_torch_file
from utils.storage_util import make_folder

TRAINING, TEST = "training", "test"
SIDE = IMAGE_SIDE
_IDX_STEMS = {TRAINING: "train", TEST: "t10k"}
Split = tuple[torch.Tensor, torch.Tensor]


def load_split(data_dir: str, split: str) -> Split:
    """(images, labels) of ``training`` or ``test``.

    Raises:
        DataError: names the file, what is wrong, and how to make it.
    """
    path = os.path.join(data_dir, f"{split}.pt")
    if not os.path.exists(path):
        raise DataError(
            f"{path} is missing: make it with python mnist_data.py --output_dir {data_dir} "
            "(--source digits needs no download), or give another --data_dir"
        )
    try:
        content = read_torch_file(path)
    except CheckpointError as error:
        raise DataError(str(error)) from None
    problem = _problem(content)
    if problem:
        raise DataError(f"{path} {problem}; make it again: python mnist_data.py --overwrite True")
    images, labels = content
    return images, labels


def _problem(content: Any) -> str:
    if not isinstance(content, (tuple, list)) or len(content) != 2:
        return "is no pair of images and labels"
    images, labels = content
    if not isinstance(images, torch.Tensor) or not isinstance(labels, torch.Tensor):
        return "is no pair of tensors"
    if images.dtype != torch.uint8 or images.ndim != 3 or images.shape[1:] != (SIDE, SIDE):
        return f"holds images {tuple(images.shape)} of {images.dtype}, not uint8 (N, 28, 28)"
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1] or len(labels) == 0:
        return f"holds labels {tuple(labels.shape)} of {labels.dtype} for {len(images)} images"
    if int(labels.min()) < 0 or int(labels.max()) >= NUM_CLASSES:
        return f"holds labels from {int(labels.min())} to {int(labels.max())}, not 0 to 9"
    return ""


def save_split(data_dir: str, split: str, images: torch.Tensor, labels: torch.Tensor) -> str:
    """Writes one of the two files; returns its path."""
    make_folder(data_dir)
    path = os.path.join(data_dir, f"{split}.pt")
    with atomic_write(path) as file:
        torch.save((images, labels), file)
    return path


def read_mnist(folder: str) -> dict[str, Split]:
    """Both splits from the four IDX files in a folder.

    Raises:
        DataError: names the file that is missing or wrong.
    """
    found = {}
    for split, stem in _IDX_STEMS.items():
        images_path = find_idx(folder, f"{stem}-images-idx3-ubyte")
        labels_path = find_idx(folder, f"{stem}-labels-idx1-ubyte")
        images, labels = read_idx(images_path, (SIDE, SIDE)), read_idx(labels_path, ())
        if len(images) != len(labels):
            raise DataError(
                f"{images_path} holds {len(images)} images, {labels_path} {len(labels)} labels; "
                "they are not of one set"
            )
        if int(labels.max()) >= NUM_CLASSES:
            raise DataError(f"{labels_path} holds a label {labels.max()}; 0 to 9 are possible")
        found[split] = (torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64)))
    return found


def read_digits(seed: int = 0) -> dict[str, Split]:
    """The 1797 handwritten digits of scikit-learn, 8×8 resized to 28×28: 1437 and 360 images.

    Raises:
        DataError: if scikit-learn is not installed.
    """
    found = load_digit_images(SIDE, seed)
    images, labels = torch.from_numpy(found.images), torch.from_numpy(found.labels)
    parts = {TRAINING: torch.from_numpy(found.training), TEST: torch.from_numpy(found.test)}
    return {name: (images[places], labels[places]) for name, places in parts.items()}


def describe_split(images: torch.Tensor, labels: torch.Tensor) -> dict[str, Any]:
    """What tells a split from others: number, and the sha256 of images and of right labels."""
    return {
        "num_images": len(images),
        "images": hashlib.sha256(images.contiguous().numpy().tobytes()).hexdigest(),
        "right_labels": hashlib.sha256(labels.numpy().astype("<i8").tobytes()).hexdigest(),
    }


def write_splits(
    data_dir: str, splits: Mapping[str, Split], *, overwrite: bool = False
) -> list[str]:
    """Writes both files; what is there with the same content stays.

    Files of other content go before the first one is written, so that a kill leaves none of two
    data sets beside each other.

    Args:
        data_dir: where to.
        splits: by name.
        overwrite: whether other files may be replaced.

    Returns:
        a line about each file.

    Raises:
        DataError: if a file of other content is there and may not be replaced.
    """
    paths = {name: os.path.join(data_dir, f"{name}.pt") for name in splits}
    is_same = {name: _is_there(data_dir, name, split) for name, split in splits.items()}
    others = [path for name, path in paths.items() if is_same[name] is False]
    if others and not overwrite:
        raise DataError(
            f"{' and '.join(others)} hold another data set than this one; give another "
            "--output_dir, or --overwrite True to replace it (noisy labels and nets made from it "
            "do not go with the new one)"
        )
    for path in others:
        os.remove(path)
    lines = []
    for name, (images, labels) in splits.items():
        if not is_same[name]:
            save_split(data_dir, name, images, labels)
        there = " (there already)" if is_same[name] else ""
        lines.append(f"{paths[name]}: {len(images)} images{there}")
    return lines


def _is_there(data_dir: str, name: str, split: Split) -> bool | None:
    """Whether the file holds this split; None if there is no file."""
    if not os.path.lexists(os.path.join(data_dir, f"{name}.pt")):
        return None
    try:
        images, labels = load_split(data_dir, name)
    except DataError:
        return False
    return torch.equal(images, split[0]) and torch.equal(labels, split[1])
