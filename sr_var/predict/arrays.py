"""Images of the memory, arrays or tensors, as the networks see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sr_var.degrade.language import Degradation
from sr_var.predict.conditions import Beside, complete, missing_of, require_fit
from sr_var.predict.images import LowRes, Missing, is_bright, without_missing
from sr_var.values import Units
from utils.images.crops.native_crops import require_range
from utils.images.files import BadImageError
from utils.metrics import WHITE

Image: TypeAlias = npt.NDArray[Any] | Tensor


@dataclass(frozen=True)
class Extras:
    """What may be given beside an image, of networks that see more than an image.

    Attributes:
        mask: (h, w), of bright or True where the image is seen; several in a list.
        also: the further image of X, or a list of them.
        degradation_level: of the degradation whose level is drawn, in its unit; or a list.
    """

    mask: Image | Sequence[Image] | None = None
    also: Image | Sequence[Image] | None = None
    degradation_level: float | Sequence[float] | None = None


def to_low_res(
    image: Image, units: Units, degradation: Degradation | None, extras: Extras
) -> LowRes:
    """An image, and what is beside it, as networks of a degradation see them.

    Raises:
        ValueError: of another shape, type or range; or something is missing, or not seen.
    """
    masks, also, levels = map(_listed, (extras.mask, extras.also, extras.degradation_level))
    levels = [float(level) for level in levels]
    require_fit(degradation, num_images=len(also), num_masks=len(masks), levels=levels)
    try:
        given = [is_bright(_array(mask)) for mask in masks]
        images = [
            _of_memory(one, units, missing_of(degradation, i, given))
            for i, one in enumerate([image, *also])
        ]
        return complete(images[0], degradation, Beside(tuple(images[1:]), tuple(given), (*levels,)))
    except BadImageError as error:
        raise ValueError(f"an image of {tuple(image.shape)}: {error}") from None


def _of_memory(image: Image, units: Units, missing: Missing | None) -> LowRes:
    """An image without what is missing; a ValueError says what it should be."""
    pixels = _pixels_of(image, units.num_channels)
    if not units.is_8_bit:
        return _in_units(pixels, units, missing)
    if pixels.dtype == np.uint8:
        return without_missing(LowRes(pixels), missing)
    if not np.issubdtype(pixels.dtype, np.floating):
        remedy = "; divide it by 65535" if pixels.dtype == np.uint16 else ""
        raise ValueError(f"an image of {pixels.dtype}: give uint8, or floats in [0, 1]{remedy}")
    found = without_missing(LowRes(pixels, low=0.0, high=1.0), missing)
    low, high = float(found.pixels.min()), float(found.pixels.max())
    if not (low >= 0 and high <= 1):  # nan is neither
        raise ValueError(
            f"an image of floats from {low:g} to {high:g}: they must lie in [0, 1]; divide grey "
            f"levels by {WHITE}"
        )
    return found


def _in_units(pixels: npt.NDArray[Any], units: Units, missing: Missing | None) -> LowRes:
    """Pixels in the unit of the training's images."""
    is_float = np.issubdtype(pixels.dtype, np.floating)
    if not is_float and pixels.dtype not in (np.uint8, np.uint16):
        raise ValueError(
            f"an image of {pixels.dtype}: give uint8, uint16 or floats in {units.name}"
        )
    found = without_missing(LowRes(pixels, units.low, units.high), missing)
    if is_float and not np.isfinite(found.pixels).all():
        raise ValueError("an image with NaN or infinite values: fill them")
    type_range = None if is_float else (0.0, float(np.iinfo(pixels.dtype).max))
    try:
        require_range(found.pixels, type_range, units.low, units.high, units.whose)
    except BadImageError as error:
        raise ValueError(f"an image of other values: {error}") from None
    return found


def _array(image: Image) -> npt.NDArray[Any]:
    """A tensor (C, h, w) as an array (h, w, C); others as they are."""
    if not isinstance(image, Tensor):
        return np.asarray(image)
    tensor = image.detach().cpu()
    pixels = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return pixels.transpose(1, 2, 0) if pixels.ndim == 3 else pixels


def _pixels_of(image: Image, num_channels: int) -> npt.NDArray[Any]:
    """(h, w, C) of an array or a tensor; ValueError for other shapes."""
    wanted = f"({num_channels}, h, w)" if isinstance(image, Tensor) else f"(h, w, {num_channels})"
    pixels = _array(image)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.ndim == 3 and pixels.shape[2] == 1 < num_channels:
        pixels = np.broadcast_to(pixels, (*pixels.shape[:2], num_channels))
    if pixels.ndim != 3 or pixels.shape[2] != num_channels or not pixels.size:
        raise ValueError(
            f"an image of shape {tuple(image.shape)}: the networks take one of {wanted}, or (h, w)"
        )
    return pixels


def _listed(given: Any) -> list[Any]:
    """What is given, one or several or none, as a list."""
    if given is None:
        return []
    return list(given) if isinstance(given, list | tuple) else [given]
