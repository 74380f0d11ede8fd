"""Tiny archives of every kind, whole and hostile, for the tests of ``image_data.py``."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.tiny import photo

CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
BATCHES = (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch")
CIFAR_FOLDER = "cifar-10-batches-py"


def python_2_pickle(value: Any) -> bytes:
    """What Python 2's cPickle writes in protocol 2 for dicts with text keys, lists, arrays."""
    state = [0]
    return b"\x80\x02" + _written(value, state) + b"."


def _put(memo: list[int]) -> bytes:
    memo[0] += 1  # its indices count from 1
    is_short = memo[0] < 256
    return b"q" + bytes(memo) if is_short else b"r" + struct.pack("<I", memo[0])


def _written(value: Any, memo: list[int]) -> bytes:
    if isinstance(value, bool):
        return b"\x88" if value else b"\x89"
    if isinstance(value, int):
        if 0 <= value < 256:
            return b"K" + bytes([value])
        is_short = 0 <= value < 65536
        return b"M" + struct.pack("<H", value) if is_short else b"J" + struct.pack("<i", value)
    if isinstance(value, str):
        data = value.encode("latin-1")
        head = b"U" + bytes([len(data)]) if len(data) < 256 else b"T" + struct.pack("<i", len(data))
        return head + data + _put(memo)
    if isinstance(value, list):
        return b"]" + _put(memo) + b"(" + b"".join(_written(v, memo) for v in value) + b"e"
    if isinstance(value, dict):
        head = b"}" + _put(memo) + b"("
        return head + b"".join(_written(v, memo) for pair in value.items() for v in pair) + b"u"
    return _written_array(value, memo)


def _written_array(array: NDArray[Any], memo: list[int]) -> bytes:
    raw = array.tobytes()
    return b"".join(
        (
            b"cnumpy.core.multiarray\n_reconstruct\n" + _put(memo),
            b"cnumpy\nndarray\n" + _put(memo),
            b"K\x00\x85" + _put(memo) + b"U\x01b\x87" + _put(memo) + b"R" + _put(memo),
            b"(K\x01" + b"".join(_written(size, memo) for size in array.shape) + b"\x86",
            b"cnumpy\ndtype\n" + _put(memo) + b"U\x02u1K\x00K\x01\x87" + _put(memo) + b"R",
            _put(memo) + b"(K\x03U\x01|NNN" + b"J\xff\xff\xff\xff" * 2 + b"K\x00tb",
            b"\x89T" + struct.pack("<i", len(raw)) + raw + b"tb",
        )
    )


def cifar_meta() -> bytes:
    """The file ``batches.meta`` of the published archive, byte for byte."""
    return python_2_pickle(
        {"num_cases_per_batch": 10000, "label_names": list(CLASSES), "num_vis": 3072}
    )


def cifar_images(name: str, num: int = 4) -> tuple[NDArray[np.uint8], list[int]]:
    """Images (N, 32, 32, 3) and labels of a batch; the last label is 9, the first 0."""
    seed = BATCHES.index(name)
    images = np.stack([photo(10 * seed + i, (32, 32)) for i in range(num)])
    return images, [0, *((seed + i) % 10 for i in range(num - 2)), 9]


def cifar_batch(name: str) -> dict[str, Any]:
    """The dict of a batch."""
    images, labels = cifar_images(name)
    return {
        "batch_label": f"{name} of 6",
        "labels": labels,
        "data": images.transpose(0, 3, 1, 2).reshape(len(images), -1),
        "filenames": [f"caf\xe9_s_{i:06d}.png" for i in range(len(images))],
    }


def cifar_files() -> dict[str, bytes]:
    """Name → bytes of all files of the archive; meta is not the first."""
    batches = {name: python_2_pickle(cifar_batch(name)) for name in reversed(BATCHES)}
    files = {**batches, "readme.html": b"<html>", "batches.meta": cifar_meta()}
    return {f"{CIFAR_FOLDER}/{name}": data for name, data in files.items()}


def tar_bytes(files: Mapping[str, bytes], extra: tuple[tarfile.TarInfo, ...] = ()) -> bytes:
    """A tar with folders of their own for the files, the extra members between them."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for info in extra:
            tar.addfile(info)
        for name, data in files.items():
            tar.addfile(member(name, size=len(data)), io.BytesIO(data))
    return buffer.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> Any:
    """The header of a member."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


def write_cifar(path: Path, files: Mapping[str, bytes] | None = None) -> Path:
    """``cifar-10-python.tar.gz`` with four images a batch."""
    path.write_bytes(gzip.compress(tar_bytes(cifar_files() if files is None else files)))
    return path


def image_bytes(seed: int, kind: str = "JPEG", size: tuple[int, int] = (20, 28)) -> bytes:
    """A file with a photo of (height, width) pixels."""
    buffer = io.BytesIO()
    Image.fromarray(photo(seed, size)).save(buffer, kind)
    return buffer.getvalue()


def class_tars(num: int = 3) -> dict[str, dict[str, bytes]]:
    """Class → name → bytes, as the official training archive has them."""
    classes = ("n01440764", "n01443537")
    return {
        key: {f"{key}_{i}.JPEG": image_bytes(10 * c + i) for i in range(num)}
        for c, key in enumerate(classes)
    }
