"""The words that name a degradation: `blur:1.2+area:2+noise:5-50&mask:0.5`.

`+` puts degradations one after the other, `&` puts results side by side into the channels of X.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional as F

from sr_var.degrade.coding import Bits, Jpeg
from sr_var.degrade.linear import Area, Bicubic, Blur, Grey
from sr_var.degrade.mask import DIGEST_MARK, FileMask, Mask, digest_of, read_mask
from sr_var.degrade.measured import Measured, kind_of
from sr_var.degrade.noise import Noise, Poisson
from sr_var.degrade.part import Level, Part, Shown, own_seeds
from sr_var.flags.degradation import is_measured
from utils.images.crops.measured import Kind

AREA = "area"
FLAG = "--degradation"
_KINDS: tuple[type[Part], ...] = (Area, Bicubic, Blur, Noise, Poisson, Jpeg, Mask, Grey, Bits)
REGISTRY = MappingProxyType({kind.name: kind for kind in _KINDS})
_NUMBER = r"-?(?:\d+\.?\d*|\.\d+)"
_LEVEL = re.compile(rf"({_NUMBER})(?:-({_NUMBER}))?")
_NEAR = 0.4


@dataclass(frozen=True)
class MaskPlace:
    """Where a mask is drawn.

    Attributes:
        part: the mask.
        branch: which of the images of X it is of, from 0 on.
        factor: how many times smaller than Y, along a side, the image is there.
        is_last: whether that image of X is hidden by it, since nothing but masks follows.
    """

    part: Mask
    branch: int
    factor: int
    is_last: bool


@dataclass(frozen=True)
class Degradation:
    """How X comes from Y, of one factor between their sides.

    X begins with an image of the channels of Y (`image_channels`: unless X was measured); masks,
    further images and levels follow it.

    Attributes:
        text: its words.
        branches: what stands beside each other, each one part after the other.
        num_channels: of Y.
        factor: how many times smaller X is along a side.
        has_level: whether drawn levels are channels of X, too.
        told: of networks that were trained on another one, the levels of its parts: those that
            were ranges are channels, in the scale of that range.
    """

    text: str = field(compare=False)
    branches: tuple[tuple[Part, ...], ...]
    num_channels: int
    factor: int
    has_level: bool = False
    told: tuple[Level, ...] = ()

    @classmethod
    def parse(
        cls, text: str, factor: int, num_channels: int = 3, *, has_level: bool = False
    ) -> Degradation:
        """The degradation of a text, for sides of which one is `factor` times the other.

        An `area` without a number has what is left of the factor.

        Raises:
            ValueError: the text names none, a number is out of range, or the factor is another.
        """
        if is_measured(text):
            pairs = Measured(Level(factor, factor), kind_of(text))
            return cls(text, ((pairs,),), num_channels, factor)
        branches = tuple(
            _branch(text, words.split("+"), factor, num_channels) for words in text.split("&")
        )
        made = cls(text, branches, num_channels, factor, has_level)
        made._require_fit()
        if has_level and not made.drawn:
            raise ValueError(
                f"--condition_on_level True: {FLAG} {text!r} has no range whose level could be "
                "told, as noise:5-50: leave it out"
            )
        return made

    def in_test(self, text: str) -> Degradation:
        """Another one of the same factor, as networks that were trained on this one see it.

        Raises:
            ValueError: the text names none, or X would have other channels; or the networks are
                told levels, and it has other parts.
        """
        flag = f"--test_degradation {text!r}"
        try:
            other = self.parse(text, self.factor, self.num_channels)
        except ValueError as error:
            raise ValueError(f"--test_degradation: {error}") from None
        if self.is_measured or other.is_measured:
            raise ValueError(f"{flag} is not for measured pairs, of which X is in files alone")
        if self.has_level:
            own, asked = ([type(part) for part in one.parts] for one in (self, other))
            if own != asked:
                raise ValueError(
                    f"{flag} has other parts than {self.text}, whose levels the networks are told: "
                    "give the same with other numbers"
                )
            told = tuple(part.level for part in self.parts)
            other = replace(other, has_level=True, told=told)
        if other.num_extra != self.num_extra:
            raise ValueError(
                f"{flag} makes X of {other.num_channels + other.num_extra} channels, the networks "
                f"see {self.num_channels + self.num_extra} ({self.text}): give one of as many"
            )
        return other

    def _require_fit(self) -> None:
        first, *further = self.factors
        if self.factor not in self.factors or any(
            one % self.factor and self.factor % one for one in further
        ):
            made = " and ".join(map(str, dict.fromkeys(self.factors)))
            raise ValueError(
                f"{FLAG} {self.text!r} makes images {made} times smaller along a side, "
                f"--large_size and --small_size {self.factor} times: make them fit"
                + ("" if max(self.factors) > 1 else ", or reduce with +area")
            )
        if first % self.factor:
            raise ValueError(
                f"{FLAG} {self.text!r}: X begins with an image of --small_size, and the first one "
                f"is only {first} times smaller than --large_size: put a smaller one first"
            )

    @property
    def factors(self) -> list[int]:
        """How many times smaller than Y the image of each branch is."""
        return [math.prod(part.factor for part in branch) for branch in self.branches]

    @property
    def parts(self) -> list[Part]:
        """All degradations in it."""
        return [part for branch in self.branches for part in branch]

    @property
    def masks(self) -> list[MaskPlace]:
        """All masks, in the order of their channels."""
        found = []
        for i, branch in enumerate(self.branches):
            for j, part in enumerate(branch):
                if isinstance(part, Mask):
                    factor = math.prod(one.factor for one in branch[:j])
                    is_last = all(isinstance(one, Mask) for one in branch[j:])
                    found.append(MaskPlace(part, i, factor, is_last))
        return found

    @property
    def drawn(self) -> list[Part]:
        """Those whose level is drawn."""
        return [part for part in self.parts if part.level.is_range]

    @property
    def _scales(self) -> Sequence[Level]:
        """In which scale networks are told the level of each part; of those that are ranges."""
        return self.told or [part.level for part in self.parts]

    @property
    def is_area(self) -> bool:
        """Whether X is the block means of Y, and no more."""
        return len(self.branches) == 1 and [type(part) for part in self.parts] == [Area]

    @property
    def is_measured(self) -> bool:
        """Whether X is read from a file beside that of Y."""
        return [type(part) for part in self.parts] == [Measured]

    @property
    def is_made_on_cpu(self) -> bool:
        """Whether a part of it is made on the processor, whatever the device is."""
        return any(part.is_made_on_cpu for part in self.parts)

    @property
    def measured(self) -> Kind | None:
        """The kind of measured images that are not like true ones; else None."""
        return next((part.kind for part in self.parts if isinstance(part, Measured)), None)

    @property
    def image_channels(self) -> int:
        """Channels of the image that X begins with."""
        return self.num_channels if self.measured is None else self.measured.num_channels

    @property
    def is_linear(self) -> bool:
        """Whether X is linear in Y, but for noise that is added."""
        return all(part.is_linear for part in self.parts)

    @property
    def is_noise_free(self) -> bool:
        """Whether X is a function of Y, of levels and of masks."""
        return all(part.is_noise_free for part in self.parts)

    @property
    def has_consistency(self) -> bool:
        """Whether E[Y | X] is degraded to X itself: it is where X is linear in Y without noise."""
        return self.is_linear and self.is_noise_free

    @property
    def is_random(self) -> bool:
        """Whether X is another one with other seeds."""
        return bool(self.drawn) or any(part.is_random for part in self.parts)

    @property
    def num_extra(self) -> int:
        """Channels of X beside those of an image."""
        found = sum(level.is_range for level in self._scales) if self.has_level else 0
        for i, (branch, factor) in enumerate(zip(self.branches, self.factors, strict=True)):
            own = self.num_channels * (i > 0) + sum(part.num_extra for part in branch)
            found += own * max(self.factor // factor, 1) ** 2
        return found

    @property
    def shows_block_means(self) -> bool:
        """Whether the image that X begins with is the block means of Y."""
        return [type(part) for part in self.branches[0]] == [Area] and (
            self.factors[0] == self.factor
        )

    @property
    def shows_whole(self) -> bool:
        """Whether an image of the size of Y follows it, in blocks of pixels as channels."""
        return self.factor > 1 and len(self.branches) > 1 and self.factors[1] == 1

    @property
    def masks_whole(self) -> bool:
        """Whether that image is Y itself behind one mask, whose blocks follow it."""
        return (
            self.shows_whole
            and len(self.branches) == 2
            and (
                [isinstance(part, Mask) for part in self.branches[1]] == [True]
                and not any(isinstance(part, Mask) for part in self.branches[0])
            )
        )

    def apply(self, high_res: Tensor, seeds: Sequence[int]) -> Tensor:
        """X, (N, C + num_extra, H/f, W/f), of Y (N, C, H, W) in [-1, 1].

        Args:
            high_res: Y.
            seeds: of each image; without effect unless `is_random`.

        Raises:
            ValueError: the factor does not divide the sides of Y.
            DataError: a mask is of another size, or cannot be read.
        """
        images: list[Tensor] = []
        extras: list[Tensor] = []
        levels: list[Tensor] = []
        place = 0
        size = [side // self.factor for side in high_res.shape[2:]]
        for branch in self.branches:
            shown = Shown(high_res)
            for part in branch:
                level = part.level.of(own_seeds(seeds, place, "level"))
                shown = part.step(shown, level, own_seeds(seeds, place, part.name))
                scale = self._scales[place]
                if scale.is_range:
                    levels.append(scale.scaled(level).to(high_res))
                place += 1
            images.append(_fitted(shown.image, size))
            extras += [_fitted(mask, size) for mask in shown.extra]
        told = [level[:, None, None, None].expand(-1, 1, *size) for level in levels]
        return torch.cat([*images, *extras, *(told if self.has_level else ())], dim=1)

    @property
    def shows_pixels(self) -> bool:
        """Whether X shows pixels of Y as they are: where a branch is of masks alone."""
        return any(all(isinstance(part, Mask) for part in branch) for branch in self.branches)

    def hidden(self, size: Sequence[int], seeds: Sequence[int]) -> Tensor | None:
        """Which pixels of Y no branch of X shows as they are, (N, 1, H, W), on the CPU.

        None without `shows_pixels`.

        Args:
            size: of Y, (H, W).
            seeds: as for `apply`.
        """
        hidden: Tensor | None = None
        place = 0
        for branch in self.branches:
            masks = [part for part in branch if isinstance(part, Mask)]
            if len(masks) == len(branch):
                shown = torch.ones(len(seeds), 1, *size, dtype=torch.bool)
                for i, part in enumerate(masks, place):
                    level = part.level.of(own_seeds(seeds, i, "level"))
                    shown &= part.masks(size, level, own_seeds(seeds, i, part.name)) > 0
                hidden = ~shown if hidden is None else hidden & ~shown
            place += len(branch)
        return hidden

    def image_of(self, x: Tensor) -> Tensor:
        """The image that X begins with, (N, C, h, w)."""
        return x[:, : self.image_channels]

    def images_of(self, x: Tensor) -> Tensor:
        """All images in X, (N, C·branches, h, w): without masks and levels."""
        return x[:, : self.image_channels * len(self.branches)]


def settle_masks(text: str) -> str:
    """The words with the digest of each mask's file behind it, which checkpoints keep.

    Raises:
        DataError: there is no such file.
    """

    def settled(words: str) -> str:
        name, _, what = words.strip().partition(":")
        is_file = name == Mask.name and what and not _LEVEL.fullmatch(what)
        if not is_file or DIGEST_MARK in what:
            return words.strip()
        read_mask(what, "")
        return f"{name}:{what}{DIGEST_MARK}{digest_of(what)}"

    return "&".join("+".join(map(settled, branch.split("+"))) for branch in text.split("&"))


def _fitted(image: Tensor, size: Sequence[int]) -> Tensor:
    """An image at another size: a pixel of a smaller one fills a block of pixels.

    A block of pixels of a larger one becomes channels of a pixel, (C, i, j) to C·f² + i·f + j.
    """
    if list(image.shape[2:]) == list(size):
        return image
    if image.shape[2] > size[0] > 0:
        folded: Tensor = F.pixel_unshuffle(image, image.shape[2] // size[0])
        return folded
    return F.interpolate(image, tuple(size), mode="nearest")


def _branch(text: str, words: Sequence[str], factor: int, num_channels: int) -> tuple[Part, ...]:
    """The parts of one branch; an `area` of no number takes what others leave of the factor."""
    named = [_part(text, word.strip(), num_channels) for word in words]
    parts = [part for part in named if part is not None]
    if len(named) - len(parts) > 1:
        raise ValueError(f"{FLAG} {text!r}: of two areas say the factors, as area:2")
    rest, left_over = divmod(factor, math.prod(part.factor for part in parts))
    if len(parts) < len(named) and (left_over or not rest):
        raise ValueError(
            f"{FLAG} {text!r}: --large_size and --small_size are {factor} times apart, which its "
            "factors do not divide: make them fit"
        )
    area = Area(Level(rest, rest))
    return tuple(area if part is None else part for part in named)


def _part(text: str, word: str, num_channels: int) -> Part | None:
    """The part of a word; None of an `area` that follows from the sizes."""
    name, colon, what = word.partition(":")
    if name == AREA and not colon:
        return None
    kind = REGISTRY.get(name)
    if kind is None:
        near = difflib.get_close_matches(name, REGISTRY, n=1, cutoff=_NEAR)
        meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(REGISTRY)}"
        raise ValueError(f"{FLAG} {text!r}: {name!r} is no degradation; {meant}")
    if (kind is Grey and num_channels != 3) or (kind is Jpeg and num_channels not in (1, 3)):
        needed = "3" if kind is Grey else "1 or 3"
        raise ValueError(
            f"{FLAG} {text!r}: {name} is of images of {needed} channels, --in_channels is "
            f"{num_channels}"
        )
    if kind.range is None:
        if colon:
            raise ValueError(f"{FLAG} {text!r}: {name} has no number: leave {colon}{what} out")
        return kind(Level(0, 0))
    if kind is Mask and what and not _LEVEL.fullmatch(what):
        path, _, digest = what.partition(DIGEST_MARK)
        return FileMask(path=path, digest=digest)
    return kind(_level(text, kind, what))


def _level(text: str, kind: type[Part], what: str) -> Level:
    assert kind.range is not None
    form, allowed = _LEVEL.fullmatch(what), kind.range
    remedy = f"give {allowed.words}"
    if form is None:
        raise ValueError(f"{FLAG} {text!r}: {kind.name}:{what} has no number; {remedy}")
    low, high = float(form[1]), float(form[2] or form[1])
    is_fit = allowed.least <= low <= high <= allowed.most
    if allowed.is_whole:
        is_fit &= low.is_integer() and high.is_integer()
    if not is_fit:
        raise ValueError(f"{FLAG} {text!r}: {kind.name}:{what} is out of range; {remedy}")
    if low < high and not kind.may_be_drawn:
        raise ValueError(f"{FLAG} {text!r}: {kind.name} takes no range; {remedy}")
    return Level(low, high, allowed.is_whole)
