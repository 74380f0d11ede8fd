"""What X holds beside the image that it begins with: further images, masks, levels.

`complete` puts them beside an image in the order of `Degradation.apply`, so that networks see of
X that is given what they saw of X that was computed. Where the things come from, files or the
memory, is not known here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from sr_var.degrade.language import Degradation, MaskPlace
from sr_var.degrade.mask import FileMask, Mask, read_mask
from sr_var.degrade.part import Part
from sr_var.predict.images import Bools, LowRes, Missing
from utils.images.files import BadImageError
from utils.process.errors import DataError
from utils.sizes import Size

MASK, ALSO, LEVEL = "--mask", "--also", "--degradation_level"
# stds that chance takes a share from its probability
_CHANCE = 5.0
ScalarT = TypeVar("ScalarT", bound=np.generic)


@dataclass(frozen=True)
class Beside:
    """What is given beside an image.

    Attributes:
        images: the further images of X, in its order.
        masks: (h, w) each, True where something is seen, in the order of the words; none: what the
            images say themselves (`LowRes.seen`), or that of the training.
        levels: of the degradations that are drawn, in their order and unit; those of masks may all
            be left out, which then are their shares of hidden pixels.
    """

    images: tuple[LowRes, ...] = ()
    masks: tuple[Bools, ...] = ()
    levels: tuple[float, ...] = ()


def missing_of(
    degradation: Degradation | None, branch: int, masks: Sequence[Bools]
) -> Missing | None:
    """What may be missing of one of the images of X; None: nothing, since no mask hides it.

    Args:
        branch: which image, from 0 on.
        masks: as of `Beside`.
    """
    places = [] if degradation is None else degradation.masks
    own = [i for i, place in enumerate(places) if place.is_last and place.branch == branch]
    return Missing(masks[own[0]] if masks else None) if own else None


def require_fit(
    degradation: Degradation | None, *, num_images: int, num_masks: int, levels: Sequence[float]
) -> None:
    """Refuse what the networks do not see, and levels that they were not trained on.

    Args:
        degradation: what they see; None: block means.
        num_images: how many further images are given.
        num_masks: how many masks; none may be given where images tell theirs.
        levels: as of `Beside`.

    Raises:
        ValueError: names the flag, what is expected, and the remedy.
    """
    text = "area" if degradation is None else degradation.text
    wanted = 0 if degradation is None else len(degradation.branches) - 1
    if num_images != wanted:
        remedy = "leave it out" if not wanted else f"give {wanted}, in the order of these words"
        raise ValueError(
            f"{ALSO}: {num_images} further images, the networks see {wanted} (--degradation "
            f"{text}): {remedy}"
        )
    wanted = 0 if degradation is None else len(degradation.masks)
    if num_masks not in (0, wanted):
        remedy = "leave it out" if not wanted else f"give {wanted}, in the order of these words"
        raise ValueError(
            f"{MASK}: {num_masks} masks, the networks see {wanted} (--degradation {text}): {remedy}"
        )
    told, asked = told_levels(degradation), asked_levels(degradation)
    if levels and not told:
        raise ValueError(
            f"{LEVEL} {_listed(levels)}: the networks are told no level (--degradation {text}): "
            "leave it out"
        )
    if len(levels) not in (len(told), len(asked)):
        names = " and ".join(f"{part.name} ({_range(part)})" for part in asked or told)
        raise ValueError(
            f"{LEVEL} {_listed(levels) or 'is missing'}: the networks are told the level of "
            f"{names}: give {'it' if len(asked or told) == 1 else 'all, comma separated'}"
        )
    for part, level in zip(told if len(levels) == len(told) else asked, levels, strict=True):
        is_whole = float(level).is_integer() or not part.level.is_whole
        if not (part.level.low <= level <= part.level.high and is_whole):
            raise ValueError(
                f"{LEVEL} {level:g}: the networks were trained on {part.name} {_range(part)}; give "
                "a number of it, or name networks of another range"
            )


def complete(image: LowRes, degradation: Degradation | None, beside: Beside) -> LowRes:
    """The image with all that the networks see beside it.

    An image that is smaller than X is repeated to blocks, as in the training.

    Args:
        image: what X begins with.
        degradation: of the networks; None: block means, which nothing is beside.
        beside: what is given; fits (`require_fit`).

    Raises:
        BadImageError: something has another size, or a mask is missing or hides all; without the
            name of the image.
        DataError: the mask of the training is gone or another one, and none is given.
    """
    if degradation is None or not degradation.num_extra:
        return image
    factor, factors = degradation.factor, degradation.factors
    size = Size(*(side * (factors[0] // factor) for side in image.size))
    images = [image, *beside.images]
    for i, one in enumerate(images):
        _require_size(f"{ALSO}: its image {i + 1}", one.size, _over(size, factor, factors[i]))
    masks: list[Bools] = []
    unlike: list[str] = []
    for i, place in enumerate(degradation.masks):
        wanted = _over(size, factor, place.factor)
        given = beside.masks[i] if beside.masks else None
        mask = _mask(place, wanted, given, images[place.branch])
        unlike += _unlike(place.part, mask)
        masks.append(mask)
        if place.is_last:
            images[place.branch] = images[place.branch].hiding(mask)
    first, *others = (_enlarged(one, size) for one in images)
    layers = [*others]
    for place, mask in zip(degradation.masks, masks, strict=True):
        shares = _block_means(mask, factors[place.branch] // place.factor)
        layers.append(_enlarged(_as_layer(shares), size))
    if degradation.has_level:
        for part, level in _levels(degradation, beside.levels, masks):
            scaled = part.level.scaled(torch.tensor(level, dtype=torch.float64)).float().numpy()
            layers.append(_as_layer(np.broadcast_to(scaled, size)))
    return replace(first, layers=tuple(layers), unlike=tuple(unlike))


def told_levels(degradation: Degradation | None) -> list[Part]:
    """The degradations whose level is a channel of X."""
    return degradation.drawn if degradation is not None and degradation.has_level else []


def asked_levels(degradation: Degradation | None) -> list[Part]:
    """Those of them whose level must be given: masks tell theirs."""
    return [part for part in told_levels(degradation) if not isinstance(part, Mask)]


def _listed(levels: Sequence[float]) -> str:
    return ",".join(f"{level:g}" for level in levels)


def _range(part: Part) -> str:
    whole = ", whole numbers" if part.level.is_whole else ""
    return f"from {part.level.low:g} to {part.level.high:g}{whole}"


def _over(size: Size, factor: int, other: int) -> Size:
    """The size of an image `other` times smaller than Y, beside X of `factor`; 0 where none is."""
    sides = (side * factor / other for side in size)
    return Size(*(int(side) if side.is_integer() else 0 for side in sides))


def _require_size(what: str, found: Size, wanted: Size) -> None:
    if found != wanted:
        raise BadImageError(
            f"{what} is {found.width}×{found.height}, and must be {wanted.width}×{wanted.height}"
        )


def _mask(place: MaskPlace, size: Size, given: Bools | None, image: LowRes) -> Bools:
    """The mask at a place of X: given, of the training, or of the image; and what that misses."""
    own = image.seen if place.is_last else None
    found = own if given is None else given
    if given is None and isinstance(place.part, FileMask):
        stored = stored_mask(place.part, size, is_needed=own is None)
        found = own if stored is None else stored
    if found is None:
        or_else = ", or hide its pixels by transparency or NaN" if place.is_last else ""
        raise BadImageError(
            f"the networks see which of its pixels are hidden: give {MASK} (bright: seen){or_else}"
        )
    _require_size(f"{MASK}: its mask", Size(*found.shape), size)
    if own is not None:
        found = found & own
    if not found.any():
        raise BadImageError(
            f"{MASK}: its mask hides all pixels, bright ones are seen: invert it, or leave the "
            "image out"
        )
    return found


def stored_mask(part: FileMask, size: Size, *, is_needed: bool) -> Bools | None:
    """The mask of the training, (h, w); None if it is of another size, or gone and not needed.

    Raises:
        DataError: it is gone or another one, and needed.
    """
    try:
        mask = np.asarray(read_mask(part.path, part.digest).numpy() > 0)
    except DataError as error:
        if not is_needed:
            return None
        raise DataError(f"{error}, or give {MASK}") from None
    return mask if mask.shape == size else None


def _unlike(part: Mask, mask: Bools) -> list[str]:
    """What of a mask is unlike those of the training, in words."""
    hidden = ~mask
    share = float(hidden.mean())
    told = f"{100 * share:.3g} % of the pixels are hidden"
    if isinstance(part, FileMask):
        stored = stored_mask(part, Size(*mask.shape), is_needed=False)
        is_same = stored is not None and bool((stored == mask).all())
        return [] if is_same else [f"{told}, by another mask"]
    # by chance the share beside a hidden pixel is that of all
    beside = float((hidden[:, 1:] & hidden[:, :-1]).sum() / max(hidden[:, :-1].sum(), 1))
    low, high = part.level.low, part.level.high
    few, many = (
        _CHANCE * (p * (1 - p) / max(count, 1)) ** 0.5
        for p, count in ((low, hidden.size), (high, hidden[:, :-1].sum()))
    )
    if low - few <= share <= high + many and beside <= high + many:
        return []
    range_ = f"{low:g}" if low == high else f"{low:g}-{high:g}"
    return [f"{told}, {100 * beside:.3g} % of those beside a hidden one (trained on mask:{range_})"]


def _levels(
    degradation: Degradation, given: Sequence[float], masks: Sequence[Bools]
) -> Iterator[tuple[Part, float]]:
    """All that is drawn with its level; masks tell theirs where it is not given."""
    of_masks = {
        id(place.part): float(np.clip(1 - mask.mean(), place.part.level.low, place.part.level.high))
        for place, mask in zip(degradation.masks, masks, strict=True)
    }
    rest = iter(given)
    for part in degradation.drawn:
        is_told = len(given) == len(degradation.drawn) or not isinstance(part, Mask)
        yield part, next(rest) if is_told else of_masks[id(part)]


def _block_means(mask: Bools, factor: int) -> npt.NDArray[Any]:
    """The shares of blocks that are seen; of single pixels the mask itself."""
    if factor == 1:
        return mask
    height, width = (side // factor for side in mask.shape)
    blocks = mask.reshape(height, factor, width, factor)
    shares: npt.NDArray[Any] = blocks.mean(axis=(1, 3), dtype=np.float32)
    return shares


def _as_layer(values: npt.NDArray[Any]) -> LowRes:
    """Values (h, w) that the networks see as they are."""
    return LowRes(values[..., None], -1.0, 1.0)


def _enlarged(image: LowRes, size: Size) -> LowRes:
    """An image that is smaller than X, with a block in the place of a pixel; others as they are."""
    if image.size.height >= size.height:
        return image
    factor = size.height // image.size.height

    def repeated(array: npt.NDArray[ScalarT]) -> npt.NDArray[ScalarT]:
        return array.repeat(factor, 0).repeat(factor, 1)

    seen = None if image.seen is None else repeated(image.seen)
    return replace(image, pixels=repeated(image.pixels), seen=seen)
