"""Linear functionals of an image, whose variance a network can learn like that of a pixel.

Of each channel of an image y, with a kernel a of h×w numbers, a stride s and a start (t, u),

    (Ay)[i, j] = Σ_kl a[k, l] · y[t + s·i + k, u + s·j + l]          (docs/theory.md, eq. 57)

wherever the kernel lies within the image. `--functional` names one:

    block:4              means of blocks of 4×4 pixels, side by side
    block:4+2,2          the same blocks, the first one 2 rows down and 2 columns to the right
    filter:-1,1          a kernel, its rows separated by /, at every pixel where it fits
    filter:K.npy@4+0,2   the kernel (h, w) of a file, at every 4th pixel from row 0, column 2
"""

from __future__ import annotations

import argparse
import hashlib
import math
import re
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from utils.process.errors import DataError
from utils.script_util import with_values
from utils.sizes import Size, SizeLike
from utils.untrusted.arrays import read_npy

BLOCK, FILTER = "block", "filter"
COMPONENTS = "pc:"
_FORM = re.compile(r"(block|filter):(.+?)(?:@(\d+))?(?:\+(\d+),(\d+))?")
_EXAMPLES = "block:4, block:4+2,2, filter:-1,1, filter:KERNEL.npy or pc:2"
_SLUG_DIGITS = 8


@dataclass(frozen=True, eq=False)
class Functional:
    """A linear map of images, (N, C, H, W) → (N, C, H′, W′) with H′ = ⌊(H − t − h)/s⌋ + 1.

    Attributes:
        text: what `--functional` says; empty: the pixels themselves.
        kernel: (h, w) float32, finite, not all 0.
        stride: s ≥ 1, pixels between two values.
        start: (t, u) row and column of the first value's kernel, below the stride.
    """

    text: str
    kernel: Tensor
    stride: int
    start: tuple[int, int]

    @classmethod
    def parse(cls, text: str) -> Functional:
        """The functional that `--functional` says.

        Raises:
            ValueError: it says none, the kernel is of no use, or the start skips a value.
        """
        if not text:
            return PIXELS
        form = _FORM.fullmatch(text)
        if form is None:
            raise ValueError(f"--functional {text!r} is none; give {_EXAMPLES}")
        kind, what, stride, *start = form.groups()
        kernel = _block(text, what) if kind == BLOCK else _numbers(text, what)
        step = int(stride or (len(kernel) if kind == BLOCK else 1))
        top, left = (int(part or 0) for part in start)
        if step < 1 or max(top, left) >= step:
            raise ValueError(
                f"--functional {text!r}: the stride {step} must be at least 1, and the start "
                f"{top},{left} less than it in both directions"
            )
        return cls(text, kernel, step, (top, left))

    @property
    def slug(self) -> str:
        """The functional in the name of a file, as `block_4_2_2`: letters, digits, underscores."""
        kind, _, rest = self.text.partition(":")
        if kind == FILTER:
            rest = hashlib.sha256(rest.encode()).hexdigest()[:_SLUG_DIGITS]
        return re.sub(r"\W", "_", f"{kind}_{rest}")

    def require_fit(self, size: SizeLike) -> None:
        """Refuse a kernel that fits nowhere into an image of so many pixels."""
        image = Size.of(size)
        if min(self._shape(*image)) < 1:
            height, width = self.kernel.shape
            raise ValueError(
                f"--functional {self.text!r}: its {height}×{width} pixels, from "
                f"{self.start[0]},{self.start[1]} on, do not fit into an image of "
                f"{image.in_pixels()}"
            )

    def __call__(self, image: Tensor, power: int = 1) -> Tensor:
        """Ay for images (N, C, H, W), (N, C, H′, W′); with a `power`, of the kernel's powers."""
        if not self.text:
            return image
        (top, left), channels = self.start, image.shape[1]
        kernel = self.kernel.to(image).pow(power).expand(channels, 1, -1, -1)
        return F.conv2d(image[..., top:, left:], kernel, stride=self.stride, groups=channels)

    def at_places(self, image: Tensor) -> Tensor:
        """What a map (N, C, H, W) has in the middle of each value's kernel, (N, C, H′, W′).

        So the output of any network becomes one of the values of Ay: as positive as it was, and
        any function of its input if it was one.
        """
        if not self.text:
            return image
        rows, columns = (
            slice(first + (length - 1) // 2, None, self.stride)
            for first, length in zip(self.start, self.kernel.shape, strict=True)
        )
        height, width = self._shape(*image.shape[2:])
        return image[..., rows, columns][..., :height, :width]

    def _shape(self, *size: int) -> tuple[int, ...]:
        parts = zip(size, self.start, self.kernel.shape, strict=True)
        return tuple((side - first - length) // self.stride + 1 for side, first, length in parts)


def num_components(text: str) -> int:
    """K of the flag's `pc:K`, the leading components of blocks (`sr_var.components`); 0: no such.

    Raises:
        ValueError: K is no number from 1 on.
    """
    if not text.startswith(COMPONENTS):
        return 0
    number = text.removeprefix(COMPONENTS)
    if not number.isdecimal() or int(number) < 1:
        raise ValueError(f"--functional {text!r}: give a number of components, as pc:2")
    return int(number)


PIXELS = Functional("", torch.ones(1, 1), 1, (0, 0))


def settle_functional(args: argparse.Namespace) -> argparse.Namespace:
    """The arguments with a kernel's file replaced by its numbers, which checkpoints keep.

    Raises:
        DataError: the file is damaged, or holds no (h, w) real numbers.
        FileNotFoundError: it does not exist.
    """
    form = _FORM.fullmatch(args.functional)
    if form is None or form[1] != FILTER or not form[2].endswith(".npy"):
        return args
    kernel = read_npy(form[2])
    if kernel.ndim != 2 or kernel.dtype.kind not in "fiu" or not kernel.size:
        raise DataError(
            f"--functional {args.functional}: {form[2]} has shape {kernel.shape} of "
            f"{kernel.dtype}; a kernel is an array (h, w) of real numbers"
        )
    rows = [",".join(map(str, row)) for row in kernel.astype(np.float32)]
    numbers = "/".join(rows).replace("e+", "e")  # a + is for the start
    text = args.functional.replace(form[2], numbers)
    return with_values(args, functional=text)


def _block(text: str, what: str) -> Tensor:
    if not what.isdecimal() or int(what) < 1:
        raise ValueError(f"--functional {text!r}: the side of a block is a number of pixels, as 4")
    side = int(what)
    return torch.full((side, side), 1.0 / side**2)


def _numbers(text: str, what: str) -> Tensor:
    try:
        rows = [[float(number) for number in row.split(",")] for row in what.split("/")]
    except ValueError:
        rows = []
    kernel = [number for row in rows for number in row]
    if len({len(row) for row in rows}) != 1 or not all(map(math.isfinite, kernel)):
        raise ValueError(
            f"--functional {text!r}: a kernel is rows of as many finite numbers, as -1,1 or "
            "0,-1,0/-1,4,-1/0,-1,0, or a .npy file"
        )
    if not any(kernel):
        raise ValueError(f"--functional {text!r}: a kernel of zeros says nothing")
    return torch.tensor(rows)
