"""Degradation by masks: X shows some pixels, and which they are."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sr_var.degrade.part import Level, Part, Range, Shown, by_image, each, generators
from utils.files.atomic import sha256_of
from utils.images.files import open_image
from utils.process.errors import DataError

DIGEST_MARK = "#"
DIGEST_DIGITS = 12
_NONE = Level(0, 0)


class Mask(Part):
    """X = m·Y, and m beside it, 1 where Y is seen; each pixel is hidden with the probability p.

    Hidden pixels are 0, the middle of the range.
    """

    name = "mask"
    range = Range(0, 1, "shares of hidden pixels from 0 to 1")
    is_linear = True
    is_random = True
    is_made_on_cpu = True

    @property
    def num_extra(self) -> int:
        """The mask itself."""
        return 1

    def masks(self, size: Sequence[int], level: Tensor, seeds: Sequence[int]) -> Tensor:
        """(N, 1, H, W) of 0 and 1, float32 on the CPU."""
        own, shape = generators(seeds), (1, *size)
        hidden = each(lambda i: torch.rand(shape, generator=own[i], dtype=torch.float64), len(own))
        return (hidden >= by_image(level, hidden)).float()

    def apply(self, image: Tensor, level: Tensor, seeds: Sequence[int]) -> Tensor:
        """The images where they are seen."""
        return image * self.masks(image.shape[2:], level, seeds).to(image)

    def step(self, shown: Shown, level: Tensor, seeds: Sequence[int]) -> Shown:
        """The images where they are seen, and the mask beside them."""
        mask = self.masks(shown.image.shape[2:], level, seeds).to(shown.image)
        return Shown(shown.image * mask, (*shown.extra, mask))


@dataclass(frozen=True)
class FileMask(Mask):
    """The same with one mask for all images: what a picture shows bright is seen.

    Attributes:
        path: of the picture.
        digest: the first digits of its sha256; empty: whatever it holds.
    """

    level: Level = _NONE
    path: str = ""
    digest: str = ""
    is_random = False
    is_made_on_cpu = False

    def masks(self, size: Sequence[int], level: Tensor, seeds: Sequence[int]) -> Tensor:
        """(N, 1, H, W) of 0 and 1, float32 on the CPU."""
        mask = read_mask(self.path, self.digest)
        if mask.shape != tuple(size):
            raise DataError(
                f"--degradation mask:{self.path} has {mask.shape[1]}×{mask.shape[0]} pixels, the "
                f"images there {size[1]}×{size[0]}: give a mask of that size"
            )
        return mask.expand(len(seeds), 1, -1, -1)


def read_mask(path: str, digest: str) -> Tensor:
    """(H, W) of 0 and 1, float32: 1 where the picture's mean channel is 128 or more.

    Raises:
        DataError: it is missing or damaged, or another one than that of the digest.
    """
    if not os.path.isfile(path):  # nor a pipe, which a checkpoint of others may name
        raise DataError(f"--degradation mask:{path}: there is no such file; name a picture")
    return _read(path, digest, os.stat(path).st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _read(path: str, digest: str, _time_ns: int) -> Tensor:
    picture, found = open_image(path), digest_of(path)
    if digest and digest != found:
        raise DataError(
            f"--degradation mask:{path} holds another mask (sha256 {found}) than that of the "
            f"training ({digest}): give back that file"
        )
    pixels = np.asarray(picture, np.float64)
    return torch.from_numpy((pixels.mean(axis=2) >= 128).astype(np.float32))


def digest_of(path: str) -> str:
    """The first digits of a file's sha256."""
    return sha256_of(path)[:DIGEST_DIGITS]
