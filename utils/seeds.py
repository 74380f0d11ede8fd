"""Random numbers as functions of names: same key, same stream, on any rank, in any order."""

from __future__ import annotations

import hashlib

import numpy as np


def stable_seed(*parts: int | str) -> int:
    """A 63-bit seed from integers and strings; equal on every machine and Python version."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def item_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The generator for the augmentation of one item in one epoch."""
    return np.random.default_rng((seed, epoch, index))
