"""``training.pt`` and ``test.pt``: a tuple of uint8 images (N, 28, 28) and int64 labels (N,).

Made from the four IDX files of MNIST, or from scikit-learn's handwritten digits, which need no
download. Reading is safe: nothing in the files is executed.
"""

from __future__ import annotations

import os
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
        raise DataError(f"{path} {problem}; make it again with python mnist_data.py")
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
