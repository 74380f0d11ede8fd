"""The files of the task, read safely: images, and noisy labels of them.

`training.pt` and `test.pt` are tuples of uint8 images (N, 28, 28) and int64 labels (N,), made from
the four IDX files of MNIST or of a set of EMNIST, or from scikit-learn's handwritten digits.

`<noise_type>_noisy_label_<alpha>.pkl` is a list of (label, law q of each class), one item a
training image; the same with `_test` is of the test images, whose labels nobody trains on. A record
beside a file, `<file>.json`, tells which images (`describe_split`) it is of, and `noise_type`,
`alpha`, `seed` and `net` (the sha256 of the clean net's file, or empty) of its draw. A file of
another tool has none.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import torch

from noisy_label.flags import BIASED, EMNIST_SETS, IMAGE_SIDE, UNIFORM
from noisy_label.noise import NUM_CLASSES, Array, Labels, NoisyLabels, biased_law, uniform_law
from utils.files.atomic import atomic_write, open_binary, write_json_atomic
from utils.files.records import differences, read_record
from utils.files.storage import make_folder
from utils.images.digits import load_digit_images
from utils.process.errors import CheckpointError, DataError
from utils.untrusted.pickles import dump_pickle, load_pickle
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
_SUM_TOLERANCE = 1e-4
_DRAWN_HOW = ("noise_type", "alpha", "seed", "net")
_NAMED = re.compile(rf"({UNIFORM}|{BIASED})_noisy_label_([0-9.e-]+)(_test)?\.pkl")
_SHOWN_DIGITS = 12
# laws that differ less than this from those of other images say nothing about which they are of
_LEAST_CONTRAST = 0.05
_REMEDY = "make it again with --task generate_noisy_label"


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
