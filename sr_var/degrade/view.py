"""What the networks see of an image: the sizes, the degradation, and its random numbers."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from sr_var.degradation import area_downsample
from sr_var.degrade.language import FLAG, Degradation, settle_masks
from sr_var.flags.degradation import AREA, MEASURED
from sr_var.results.folder import SEEN_KEYS, SHIFT_KEY, TRAINED_KEY
from utils.files.atomic import JsonObject
from utils.images.crops.measured import PairSize, split_pair
from utils.images.pixels import bytes_to_image
from utils.process.errors import CheckpointError
from utils.script_util import with_values
from utils.seeds import stable_seed
from utils.sizes import Size, SizeLike, require_sizes, require_whole_factor

# of samples whose network sees what it was trained on
NO_SHIFT = MappingProxyType({SHIFT_KEY: ""})


class HasDegradation(Protocol):
    """Flags of a network: its sizes, and what it sees."""

    @property
    def sizes(self) -> tuple[Size, Size]:
        """Large and small."""

    @property
    def in_channels(self) -> int:
        """Of an image."""

    @property
    def degradation(self) -> str:
        """See `DegradationFlags`."""

    @property
    def condition_on_level(self) -> bool:
        """See `DegradationFlags`."""


@dataclass(frozen=True)
class View:
    """What the networks see of an image.

    Attributes:
        large: the size of Y: a side, or (height, width).
        small: that of X.
        degradation: None: block means, of any whole factor.
        seed: of all that is drawn.
        net: who is trained; nets meet other draws, so that no residual holds noise that the mean
            net may have learned. Empty in tests, where all see the same X of an image.
        trained: the words of what the networks were trained on, where that is something else.
    """

    large: SizeLike
    small: SizeLike
    degradation: Degradation | None = None
    seed: int = 0
    net: str = ""
    trained: str = ""

    @classmethod
    def of(cls, flags: HasDegradation, seed: int = 0, net: str = "") -> View:
        """What the flags of a network say.

        Raises:
            ValueError: the degradation is none, or does not fit sizes or channels.
        """
        return cls.seeing(flags.sizes, degradation_of(flags), seed, net)

    @classmethod
    def of_test(
        cls, flags: HasDegradation, seed: int, test_degradation: str, log: Callable[[str], None]
    ) -> View:
        """What networks see in a test: another degradation, or without one their own.

        Raises:
            ValueError, DataError: as `of`, `Degradation.in_test` and `settle_masks`.
        """
        view = cls.of(flags, seed)
        if not test_degradation:
            return view
        of = factor_of(flags), flags.in_channels
        own = view.degradation or Degradation.parse(AREA, *of)
        made = own.in_test(settle_masks(test_degradation))
        if replace(made, told=()) == own:
            return view
        log(f"notice: the networks were trained on {FLAG} {own.text}, the test is on {made.text}")
        return replace(view, degradation=made, trained=own.text)

    @classmethod
    def seeing(
        cls, sizes: tuple[Size, Size], made: Degradation | None, seed: int = 0, net: str = ""
    ) -> View:
        """A degradation at sizes (large, small); crops of measured pairs hold both images."""
        large, small = sizes
        if made is not None and made.is_measured:
            large = PairSize.over(large, made.factor, made.measured)
        return cls(large, small, made, seed, net)

    @classmethod
    def of_sizes(cls, sizes: Sizes) -> View:
        """Block means of sizes (large, small); a view is itself."""
        return sizes if isinstance(sizes, View) else cls(*sizes)

    @property
    def sizes(self) -> tuple[Size, Size]:
        """Large and small."""
        return Size.of(self.large), Size.of(self.small)

    @property
    def has_consistency(self) -> bool:
        """Whether E[Y | X] is degraded to X itself."""
        return self.degradation is None or self.degradation.has_consistency

    @property
    def is_measured(self) -> bool:
        """Whether X is read from a file beside that of Y."""
        return self.degradation is not None and self.degradation.is_measured

    def for_tests(self) -> View:
        """The same, of images by name as tests see them."""
        return replace(self, net="")

    def x_of(self, high_res: Tensor, items: Sequence[int | str] = ()) -> Tensor:
        """X, (N, C + extra, h, w), of Y (N, C, H, W) in [-1, 1].

        Items are places in the stream of the training data, or names of images that are judged; N
        of them, of no use to what is not random.
        """
        if self.degradation is None:
            return area_downsample(high_res, self.small)
        return self.degradation.apply(high_res, self._seeds(items, len(high_res)))

    def hidden(self, items: Sequence[int | str]) -> Tensor | None:
        """Which pixels of the images of these items X does not show as they are, (N, 1, H, W).

        Of masks; None where X shows no pixel as it is. Items as for `x_of`.
        """
        if self.degradation is None:
            return None
        return self.degradation.hidden(self.sizes[0], self._seeds(items, len(items)))

    def _seeds(self, items: Sequence[int | str], num_images: int) -> list[int]:
        """Of the degradation of each image; 0 where it is not random."""
        if self.degradation is None or not self.degradation.is_random:
            return [0] * num_images
        of_net = (self.net,) if self.net else ()
        return [stable_seed(self.seed, "degradation", *of_net, item) for item in items]

    @property
    def has_own_kind(self) -> bool:
        """Whether X was measured in other channels, or another range of values, than Y."""
        return self.degradation is not None and self.degradation.measured is not None

    @property
    def image_channels(self) -> int | None:
        """Channels of the image that X begins with; None of block means: those of Y."""
        return None if self.degradation is None else self.degradation.image_channels

    def image_of(self, x: Tensor) -> Tensor:
        """The image that X begins with."""
        return x if self.degradation is None else self.degradation.image_of(x)

    def images_of(self, x: Tensor) -> Tensor:
        """The images in X side by side, without masks and levels."""
        return x if self.degradation is None else self.degradation.images_of(x)

    @property
    def is_made_on_cpu(self) -> bool:
        """Whether X is made on the processor, so that the processes that load may make it."""
        return self.degradation is not None and self.degradation.is_made_on_cpu

    def pair(
        self,
        high_res_uint8: Tensor,
        items: Sequence[int | str],
        device: torch.device,
        seen: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """(X, Y) on the device, of (N, C, H, W) bytes or 255ths; items as for `x_of`.

        Of measured pairs the crops hold both (`utils.images.crops.measured`). X may be there
        (`seen`).
        """
        high_res = bytes_to_image(high_res_uint8.to(device, non_blocking=True))
        if seen is not None:
            return seen.to(device, non_blocking=True), high_res
        if self.is_measured:
            assert self.degradation is not None
            made = self.degradation
            high_res, measured = split_pair(high_res, made.factor, made.num_channels)
            return measured.contiguous(), high_res.contiguous()
        return self.x_of(high_res, items), high_res

    def shift(self) -> dict[str, str]:
        """What samples depend on beside the flags of their network, as `NO_SHIFT` of no shift."""
        made = self.degradation
        return {SHIFT_KEY: made.text} if made is not None and self.trained else {**NO_SHIFT}

    def record(self) -> JsonObject:
        """What results depend on, for a record in JSON; nothing of block means."""
        if self.degradation is None:
            return {}
        text, factor, seed = SEEN_KEYS
        made: JsonObject = {text: self.degradation.text, factor: self.degradation.factor}
        made |= {TRAINED_KEY: self.trained} if self.trained else {}
        return made | ({seed: self.seed} if self.degradation.is_random else {})


# (large, small) for block means, or all that is seen
Sizes: TypeAlias = tuple[SizeLike, SizeLike] | View


def factor_of(flags: HasDegradation) -> int:
    """How many times smaller X is along a side.

    Raises:
        ValueError: sizes do not divide, or the mean of a consistent net would be its input.
    """
    large, small = flags.sizes
    require_sizes(flags, "large_size")
    factor = require_whole_factor(flags)
    is_area = flags.degradation == AREA  # of others `degradation_of` tells
    if large == small and is_area and getattr(flags, "consistent", False):
        raise ValueError(
            f"--consistent True: at --large_size {large} = --small_size {small} the mean would be "
            "the input; leave it out"
        )
    return factor


def degradation_of(flags: HasDegradation) -> Degradation | None:
    """The degradation of the flags of a network; None for block means.

    Raises:
        ValueError: as `View.of`; or a consistent net is to see something else than block means.
    """
    if flags.degradation == AREA and not flags.condition_on_level:
        return None
    has_level, of = flags.condition_on_level, (factor_of(flags), flags.in_channels)
    made = Degradation.parse(flags.degradation, *of, has_level=has_level)
    if made.is_area:
        return None
    if getattr(flags, "consistent", False) and not made.shows_block_means:
        raise ValueError(
            f"--consistent True is of block means, not of {FLAG} {flags.degradation}: leave it out"
        )
    return made


def settle_degradation(args: argparse.Namespace) -> argparse.Namespace:
    """The arguments with the degradation as checkpoints keep it: masks by what they hold.

    Measured pairs are a degradation of their own.

    Raises:
        DataError: there is no such mask.
        ValueError: X is to be both measured and computed.
    """
    pairs_dir = getattr(args, "pairs_dir", "")
    if pairs_dir:
        if args.degradation not in (AREA, MEASURED):
            raise ValueError(
                f"--pairs_dir {pairs_dir} and {FLAG} {args.degradation} say both what X is: leave "
                "one of them out"
            )
        given = frozenset(args.given_flags) | {"degradation"}
        return with_values(args, degradation=MEASURED, given_flags=given)
    settled = settle_masks(args.degradation)
    return args if settled == args.degradation else with_values(args, degradation=settled)


def require_same_view(path: str, there: HasDegradation, here: HasDegradation) -> None:
    """Refuse the network of `path` beside one that sees something else.

    Raises:
        CheckpointError: names both degradations.
    """
    if degradation_of(there) == degradation_of(here):
        return
    told = " and the level" * there.condition_on_level, " and the level" * here.condition_on_level
    raise CheckpointError(
        f"{path} sees {FLAG} {there.degradation}{told[0]}, the other network {here.degradation}"
        f"{told[1]}; name two networks that see the same"
    )
