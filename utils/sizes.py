"""Sizes of images: `64` is a square, `96x64` is 96 pixels high and 64 wide; no torch.

A square's size is a whole number wherever it is stored (flags, manifests, records), as it was when
there were only squares; any other is the text `HEIGHTxWIDTH`. Arithmetic is done on a `Size`.
"""

from __future__ import annotations

import re
from typing import NamedTuple, TypeAlias

# as flags and files have it: a side, or HEIGHTxWIDTH
StoredSize: TypeAlias = int | str
# what functions that take a size accept
SizeLike: TypeAlias = int | str | tuple[int, int]

MOST_PIXELS_A_SIDE = 1_000_000
_TEXT = re.compile(r"\s*(\d{1,9})\s*[xX×]\s*(\d{1,9})\s*", re.ASCII)
_REMEDY = "give a side in pixels as 64, or HEIGHTxWIDTH as 96x64"


class Size(NamedTuple):
    """Height and width of an image, pixels."""

    height: int
    width: int

    @classmethod
    def of(cls, value: SizeLike) -> Size:
        """The size that a side, a text `96x64` or a pair (height, width) means.

        Raises:
            ValueError: it is none, or a side of a text is not between 1 and a million pixels.
        """
        if isinstance(value, int):
            return cls(value, value)
        if not isinstance(value, str):
            return cls(*value)
        match = _TEXT.fullmatch(value)
        if match is None:
            raise ValueError(f"{value!r} is no size: {_REMEDY}")
        found = cls(*map(int, match.groups()))
        if not 1 <= found.short_side <= max(found) <= MOST_PIXELS_A_SIDE:
            raise ValueError(
                f"{value!r}: sides must be at least 1 pixel, and at most {MOST_PIXELS_A_SIDE}"
            )
        return found

    @property
    def short_side(self) -> int:
        """Pixels."""
        return min(self)

    @property
    def is_square(self) -> bool:
        """Whether both sides are as long."""
        return self.height == self.width

    @property
    def stored(self) -> StoredSize:
        """As flags and files have it: the side of a square, else `HEIGHTxWIDTH`."""
        return self.height if self.is_square else f"{self.height}x{self.width}"

    @property
    def plain(self) -> int | tuple[int, int]:
        """As networks have it: the side of a square, else (height, width)."""
        return self.height if self.is_square else (self.height, self.width)

    def __str__(self) -> str:
        """As it is stored."""
        return str(self.stored)

    def in_pixels(self) -> str:
        """Both sides in words, as in `96×64`, the height first."""
        return f"{self.height}×{self.width}"

    def factor_over(self, small: SizeLike) -> int | None:
        """How many times as long both sides are as those of `small`; None unless alike and whole.

        So is every factor over a size with a side below 1.
        """
        low = Size.of(small)
        if low.short_side < 1:
            return None
        factor = self.height // low.height
        fits = factor >= 1 and self == (factor * low.height, factor * low.width)
        return factor if fits else None


def require_sizes(flags: object, *names: str, smallest: int = 1) -> None:
    """Refuse size flags that mean no image; a ValueError names flag, value and remedy.

    `smallest` is of a square's side: 0 where that has a meaning of its own.
    """
    for name in names:
        value = getattr(flags, name)
        try:
            short_side = Size.of(value).short_side
        except ValueError as error:
            raise ValueError(f"--{name} {error}") from None
        if short_side < smallest:
            raise ValueError(f"--{name} {value} must be at least {smallest}")


def require_whole_factor(
    flags: object, large: str = "large_size", small: str = "small_size"
) -> int:
    """The factor between two size flags.

    Raises:
        ValueError: it is not whole, or height and width have different ones; names both flags,
            their values and a size that would do.
    """
    high, low = (Size.of(getattr(flags, name)) for name in (large, small))
    factor = high.factor_over(low)
    if factor is None:
        whole = max(high.height // max(low.height, 1), 1)
        would = Size(whole * low.height, whole * low.width)
        raise ValueError(
            f"--{large} {high} must be a multiple of --{small} {low}, the same one in height and "
            f"width: give for example --{large} {would}"
        )
    return factor
