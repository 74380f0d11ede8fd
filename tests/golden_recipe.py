"""Weights, images and noise of the golden cases: each array follows from its name alone.

Not for tests that need random data of their own; those seed a `torch.Generator`.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

GOLDENS_DIR = Path(__file__).parent / "goldens"

Float32Array = NDArray[np.float32]


def rng(name: str) -> np.random.Generator:
    """Return the generator seeded by the CRC-32 of `name`."""
    return np.random.default_rng(zlib.crc32(name.encode("utf-8")))


def weight(name: str, shape: tuple[int, ...]) -> Float32Array:
    """Return the parameter called `name`: fan-in scaled, near 1 for gains, small for biases."""
    values = rng(name).standard_normal(shape)
    if len(shape) >= 2:
        values = values / np.sqrt(np.prod(shape[1:]))
    elif name.endswith("weight"):
        values = 1.0 + 0.1 * values
    else:
        values = 0.1 * values
    return values.astype(np.float32)


def image(name: str, shape: tuple[int, ...]) -> Float32Array:
    """Return an image-like array in [-1, 1]."""
    return np.clip(0.5 * rng(name).standard_normal(shape), -1.0, 1.0).astype(np.float32)


def gauss(name: str, shape: tuple[int, ...]) -> Float32Array:
    """Return standard normal noise."""
    return rng(name).standard_normal(shape).astype(np.float32)
