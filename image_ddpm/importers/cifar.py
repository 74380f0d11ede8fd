"""CIFAR-10 in its python version: pickles of Python 2, read without running anything in them.

Each of ``data_batch_1`` to ``data_batch_5`` and ``test_batch`` is a dict with ``data``, uint8
(N, 3072): the red, green and blue planes of 32×32 pixels, row by row; and ``labels``, N integers.
``batches.meta`` has ``label_names``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from image_ddpm.importers.archives import Member, tar_members
from image_ddpm.importers.items import TEST, TRAIN, ImageSource, Item, Skip, class_label
from utils.files.atomic import open_binary
from utils.process.errors import DataError
from utils.untrusted.pickles import loads_pickle

SIDE = 32
MAX_PER_BATCH = 10_000
_META = "batches.meta"
_FOLDER = "cifar-10-batches-py"
# file → (folder of its images, what their numbers begin behind)
_BATCHES = {f"data_batch_{k + 1}": (TRAIN, k * MAX_PER_BATCH) for k in range(5)}
_BATCHES["test_batch"] = (TEST, 0)
_REMEDY = "get cifar-10-python.tar.gz again"


def read_cifar10(archive: str, skip: Skip) -> ImageSource:
    """All images in the order of the archive, (32, 32, 3); numbers count from 1 in each folder.

    `archive` is the tar.gz, or the folder that came out of it, or the one around that.

    Raises:
        DataError: here or while the images are read: files missing, damaged, or not CIFAR-10's.
    """
    label_names: list[str] = []
    found: list[str] = []
    for file in _files(archive, skip):
        if file.name in found:
            raise DataError(f"{archive} holds two files {file.name}; {_REMEDY}")
        found.append(file.name)
        if file.name == _META:
            label_names = _label_names(file)
    missing = [name for name in (_META, *_BATCHES) if name not in found]
    if missing:
        raise DataError(f"{archive} lacks {', '.join(missing)} of CIFAR-10; {_REMEDY}")
    return ImageSource(_items(archive, label_names), len(_BATCHES) * MAX_PER_BATCH)


def _files(archive: str, skip: Skip) -> Iterator[Member]:
    """Meta and batches, to be read one by one."""
    wanted = (_META, *_BATCHES)
    if not os.path.isdir(archive):
        for member in tar_members(archive, skip):
            name = member.name.rpartition("/")[2]
            if name in wanted:
                yield replace(member, name=name)
        return
    inner = os.path.join(archive, _FOLDER)
    folder = inner if os.path.isdir(inner) else archive
    for name in wanted:
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            yield Member(name, os.path.getsize(path), path, partial(open_binary, path))


def _items(archive: str, label_names: list[str]) -> Iterator[Item]:
    # the first pass has told what is passed by
    for file in _files(archive, lambda message: None):
        if file.name == _META:
            continue
        folder, offset = _BATCHES[file.name]
        images, labels = _batch(file, len(label_names))
        for i, (image, y) in enumerate(zip(images, labels, strict=True)):
            stem = f"{label_names[y]}_{offset + i + 1:05d}"
            where = f"{file.where}: image {i}"
            yield Item(folder, label_names[y], stem, "", where, image.copy)


def _content(file: Member) -> dict[str, object]:
    """The dict of a file; keys of Python 2 and 3 alike."""
    content = loads_pickle(file.read(), name=file.where)
    if not isinstance(content, dict):
        raise DataError(f"{file.where} holds no dict; {_REMEDY}")
    return {_text(key): value for key, value in content.items()}


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _label_names(file: Member) -> list[str]:
    names = _content(file).get("label_names")
    if not isinstance(names, list) or not names:
        raise DataError(f"{file.where} holds no label_names; {_REMEDY}")
    labels = [class_label(_text(name), file.where) for name in names]
    if len(set(labels)) != len(labels):
        raise DataError(f"{file.where} names a class twice; {_REMEDY}")
    return labels


def _batch(file: Member, num_classes: int) -> tuple[NDArray[np.uint8], list[int]]:
    """Images (N, 32, 32, 3) and their labels."""
    content = _content(file)
    data, labels = content.get("data"), content.get("labels")
    size = 3 * SIDE * SIDE
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (size,):
        raise DataError(f"{file.where}: 'data' is not uint8 of shape (N, {size}); {_REMEDY}")
    if not isinstance(labels, list) or len(labels) != len(data) or len(data) > MAX_PER_BATCH:
        raise DataError(
            f"{file.where}: 'labels' is no list of a label for each of its {len(data)} images (at "
            f"most {MAX_PER_BATCH}); {_REMEDY}"
        )
    for y in labels:
        if type(y) is not int or not 0 <= y < num_classes:
            raise DataError(
                f"{file.where}: label {ascii(y)[:80]}, not 0 to {num_classes - 1}; {_REMEDY}"
            )
    return data.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1), labels
