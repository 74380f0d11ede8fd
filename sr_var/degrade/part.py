"""What every degradation is: a pure function of images, and of seeds where it is random.

Images are NCHW float in [-1, 1]; grey levels are 255ths of that range. Random numbers are drawn on
the CPU, from a generator an image, so that they are the same on every device, in every batch and in
every process.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from utils.machine.threads import chosen_threads, ordered_map
from utils.seeds import stable_seed


class Shown(NamedTuple):
    """What there is of an image on its way: `image` (N, C, h, w), and what else X tells of it.

    `extra`: masks, (N, 1, h, w) each.
    """

    image: Tensor
    extra: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Level:
    """The number of a degradation, or the range that it is drawn from, ends included.

    It is drawn evenly, anew for each image; `is_whole`: a whole number.
    """

    low: float
    high: float
    is_whole: bool = field(default=False, compare=False)

    @property
    def is_range(self) -> bool:
        """Whether it is drawn."""
        return self.low < self.high

    def of(self, seeds: Sequence[int]) -> Tensor:
        """The level of each image, (N,) float64 on the CPU."""
        if not self.is_range:
            return torch.full((len(seeds),), self.low, dtype=torch.float64)
        rows = [torch.rand((), generator=g, dtype=torch.float64) for g in generators(seeds)]
        share = torch.stack(rows)
        if self.is_whole:
            return self.low + (share * (self.high - self.low + 1)).floor()
        return self.low + share * (self.high - self.low)

    def scaled(self, level: Tensor) -> Tensor:
        """From -1 at the lower end of the range to 1 at the upper one."""
        return 2 * (level - self.low) / (self.high - self.low) - 1


@dataclass(frozen=True)
class Range:
    """Which levels a degradation has, `least` and `most` included; in words for messages."""

    least: float
    most: float
    words: str
    is_whole: bool = False


@dataclass(frozen=True)
class Part(ABC):
    """One degradation.

    Attributes:
        level: its number; of one without a number 0.
    """

    level: Level

    name: ClassVar[str]
    # in words: what the number is; None: it has none
    range: ClassVar[Range | None] = None
    may_be_drawn: ClassVar[bool] = True
    is_linear: ClassVar[bool] = False
    # whether X is a function of Y, of the level and of what X shows beside the image
    is_noise_free: ClassVar[bool] = True
    is_random: ClassVar[bool] = False
    # whether the processor makes it on any device: X is then made where images are loaded
    is_made_on_cpu: ClassVar[bool] = False

    @property
    def factor(self) -> int:
        """How many times smaller its result is along a side."""
        return 1

    @property
    def grain(self) -> int:
        """Side of the blocks of pixels of Y that it ties together: what X says of one of them."""
        return self.factor

    @property
    def num_extra(self) -> int:
        """Channels that it adds to X."""
        return 0

    @abstractmethod
    def apply(self, image: Tensor, level: Tensor, seeds: Sequence[int]) -> Tensor:
        """The degraded images (N, C, h, w).

        Args:
            image: (N, C, H, W).
            level: (N,) float64 on the CPU.
            seeds: N, of this part's own; of no use to a part that is not random.
        """

    def step(self, shown: Shown, level: Tensor, seeds: Sequence[int]) -> Shown:
        """`apply`, and what becomes of the masks beside the image: they stay."""
        return Shown(self.apply(shown.image, level, seeds), shown.extra)


def each(call: Callable[[int], Tensor], number: int) -> Tensor:
    """Results of calls for each of a number of images, stacked; on as many threads as pay.

    Which thread makes a call has no effect: an image has a generator of its own. A process that
    loads for a training is one of several already.
    """
    most = 1 if get_worker_info() else chosen_threads(-1)
    return torch.stack(list(ordered_map(call, range(number), min(number, most))))


def generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """A generator on the CPU for each seed."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def own_seeds(seeds: Sequence[int], *names: int | str) -> list[int]:
    """A further seed for each of those of images, by names."""
    return [stable_seed(seed, *names) for seed in seeds]


def by_image(level: Tensor, image: Tensor) -> Tensor:
    """Levels (N,) as (N, 1, 1, 1), in dtype and place of the images."""
    return level.to(image)[:, None, None, None]
