"""DnCNN, a published denoiser with its trained weights, for `--mean_module` (docs/restorers.md).

    pip download scico==0.0.7 --no-deps
    DNCNN_WHEEL=scico-0.0.7-py3-none-any.whl python sr_var_train.py \
        --mean_module examples.dncnn:dncnn6 --degradation noise:25 …

The network is that of Zhang et al. 2017 (arXiv 1608.03981); its weights, for grey images with
noise of a std near 0.1 of white, are of the SCICO developers (BSD-3-Clause). They are read out of
the wheel of their package, by the reader below: no code of the package runs. Their sha256 is part
of this file, so that of this file stands for them, too.
"""

from __future__ import annotations

import functools
import hashlib
import os
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

WHEEL = "DNCNN_WHEEL"
_DIGESTS = {
    6: "91a4c184bd67a44b4ca717ffdfadda77c54762abfc672236b481cdc98c0a9b68",
    17: "1b92262ccb8d7c9fc6cb7328fd1e0922499d2325afba65c2b161556deb7447cf",
}
# flax's number for an array among msgpack's extension types
_ARRAY = 1
_EPSILON = 1e-5
# letters of struct: of numbers by first byte, and of sizes by their width
_NUMBERS = {0xCA + i: f">{letter}" for i, letter in enumerate("fdBHIQbhiq")}
_SIZES = (">B", ">H", ">I")


def dncnn6(noisy: Tensor, size: tuple[int, int]) -> Tensor:
    """The network of 6 layers, each channel by itself; nothing is enlarged."""
    return _denoised(noisy, size, 6)


def dncnn17(noisy: Tensor, size: tuple[int, int]) -> Tensor:
    """The network of 17 layers, which takes four times as long."""
    return _denoised(noisy, size, 17)


def _denoised(noisy: Tensor, size: tuple[int, int], depth: int) -> Tensor:
    if tuple(noisy.shape[2:]) != tuple(size):
        raise ValueError("DnCNN enlarges nothing; train with --degradation noise:25")
    weights = {name: tensor.to(noisy.device) for name, tensor in _weights(depth).items()}
    planes = (noisy.flatten(0, 1)[:, None] + 1) / 2
    return (dncnn(planes, weights) * 2 - 1).reshape(noisy.shape)


def dncnn(planes: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """Return planes (N, 1, H, W), black 0 and white 1, less the noise that the network sees.

    Convolutions of 3×3 with circular borders; between the first and the last each is followed by a
    batch norm of stored moments and by a rectifier.
    """

    def conv(x: Tensor, name: str) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="circular"), weights[f"{name}/kernel"])

    x = F.relu(conv(planes, "params/conv_start"))
    blocks = sum(name.endswith("/Conv_0/kernel") for name in weights)
    for i in range(blocks):
        block, norm = f"ConvBNBlock_{i}", f"ConvBNBlock_{i}/BatchNorm_0"
        mean, var = (weights[f"batch_stats/{norm}/{kind}"] for kind in ("mean", "var"))
        scale, bias = (weights[f"params/{norm}/{kind}"] for kind in ("scale", "bias"))
        x = conv(x, f"params/{block}/Conv_0")
        x = F.relu(F.batch_norm(x, mean, var, scale, bias, eps=_EPSILON))
    return planes - conv(x, "params/conv_end")


@functools.cache
def _weights(depth: int) -> dict[str, Tensor]:
    path = os.environ.get(WHEEL, "")
    if not path:
        raise ValueError(f"set {WHEEL} to the wheel of scico 0.0.7 (pip download scico==0.0.7)")
    with zipfile.ZipFile(path) as wheel:
        data = wheel.read(f"scico/data/flax/dncnn{depth}M.mpk")
    if (found := hashlib.sha256(data).hexdigest()) != _DIGESTS[depth]:
        raise ValueError(f"{path}: the weights have the sha256 {found}, not {_DIGESTS[depth]}")
    return tensors(read_msgpack(data))


def tensors(tree: Any, path: str = "") -> dict[str, Tensor]:
    """Nested dicts of arrays as tensors by path; kernels (h, w, in, out) as (out, in, h, w)."""
    if isinstance(tree, dict):
        parts = (tensors(part, f"{path}/{name}") for name, part in tree.items())
        return {name: tensor for part in parts for name, tensor in part.items()}
    array = np.transpose(tree, (3, 2, 0, 1)) if tree.ndim == 4 else tree
    return {path.removeprefix("/"): torch.from_numpy(np.array(array, np.float32))}


def read_msgpack(data: bytes) -> Any:
    """Return what a msgpack file holds: dicts, lists, numbers, texts, and flax's arrays.

    Raises:
        ValueError: it is damaged, or holds another kind of thing.
    """
    reader = _Reader(data)
    found = reader.value()
    if reader.place != len(data):
        raise ValueError(f"{len(data) - reader.place} bytes follow the msgpack file")
    return found


class _Reader:
    """Reads values one after the other from `place` on."""

    def __init__(self, data: bytes) -> None:
        self._data, self.place = data, 0
        # last first byte of what is short, its base, and what reads so many parts
        self._short: list[tuple[int, int, Callable[[int], Any]]] = [
            (0x7F, 0x00, int),
            (0x8F, 0x80, self._mapping),
            (0x9F, 0x90, self._sequence),
            (0xBF, 0xA0, self._text),
        ]
        # lowest first byte of what is long, the first of `_SIZES` that it may have, and likewise
        self._long: list[tuple[int, int, Callable[[int], Any]]] = [
            (0xC4, 0, self._take),
            (0xC7, 0, self._extension),
            (0xD9, 0, self._text),
            (0xDC, 1, self._sequence),
            (0xDE, 1, self._mapping),
        ]

    def value(self) -> Any:
        """The next value."""
        first = self._take(1)[0]
        for last, base, read in self._short:
            if first <= last:
                return read(first - base)
        if first >= 0xE0:
            return first - 0x100
        if first in _NUMBERS:
            return self._number(_NUMBERS[first])
        if 0xD4 <= first <= 0xD8:
            return self._extension(1 << (first - 0xD4))
        for lowest, smallest, read in self._long:
            if 0 <= first - lowest < len(_SIZES) - smallest:
                return read(int(self._number(_SIZES[first - lowest + smallest])))
        if first in (0xC0, 0xC2, 0xC3):
            return {0xC0: None, 0xC2: False, 0xC3: True}[first]
        raise ValueError(f"byte {first:#x} begins nothing of msgpack")

    def _take(self, count: int) -> bytes:
        self.place += count
        if self.place > len(self._data):
            raise ValueError("the msgpack file ends too early")
        return self._data[self.place - count : self.place]

    def _number(self, letters: str) -> Any:
        return struct.unpack(letters, self._take(struct.calcsize(letters)))[0]

    def _text(self, count: int) -> str:
        return self._take(count).decode("utf-8")

    def _mapping(self, count: int) -> dict[Any, Any]:
        return {self.value(): self.value() for _ in range(count)}

    def _sequence(self, count: int) -> list[Any]:
        return [self.value() for _ in range(count)]

    def _extension(self, count: int) -> Any:
        if (kind := self._number(">b")) != _ARRAY:
            raise ValueError(f"an extension of type {kind} is no array")
        shape, name, content = read_msgpack(self._take(count))
        return np.frombuffer(content, np.dtype(str(name))).reshape(shape)
