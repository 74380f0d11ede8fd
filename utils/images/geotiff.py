"""Where the pixels of a TIFF lie on the ground or under the lens, and where finer ones lie.

The tags of GeoTIFF (OGC 19-008r4) and the resolution of TIFF 6.0. Raster coordinates count pixels
from the corner of the first one (RasterPixelIsArea) or from its centre (RasterPixelIsPoint).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

Floats = tuple[float, ...]
ExtraTag = tuple[int, str, int, Any, bool]

_SCALE, _TIE_POINTS, _TRANSFORMATION = 33550, 33922, 34264
_KEYS, _DOUBLES, _TEXTS = 34735, 34736, 34737
_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 282, 283, 296
# places that are not divided here: rational polynomials, Intergraph's matrix
_OTHERS = {50844: "rational polynomials", 33920: "a matrix of Intergraph"}
# GTRasterTypeGeoKey and its value for points
_RASTER_TYPE, _IS_POINT = 1025, 2
_KEYS_HEADER, _KEY_ENTRY, _TIE_POINT = 4, 4, 6


@dataclass(frozen=True)
class Placement:
    """What a TIFF says of the places of its pixels; empty of a picture.

    Attributes:
        scale: ModelPixelScale (x, y, z), model units a pixel.
        tie_points: ModelTiepoint, six numbers each: raster i, j, k and model x, y, z.
        transformation: ModelTransformation, 4×4 row by row: raster (i, j, k, 1) to model.
        keys: GeoKeyDirectory, 16-bit integers.
        doubles: GeoDoubleParams.
        texts: GeoAsciiParams.
        resolution: (x, y) pixels a unit, and the unit (2: inch, 3: cm); or None.
        left_out: words on what is there and not kept.
    """

    scale: Floats = ()
    tie_points: Floats = ()
    transformation: Floats = ()
    keys: tuple[int, ...] = ()
    doubles: Floats = ()
    texts: str = ""
    resolution: tuple[float, float, int] | None = None
    left_out: tuple[str, ...] = ()

    @property
    def has_geo_tags(self) -> bool:
        """Whether it says more than the resolution."""
        return bool(self.scale or self.tie_points or self.transformation or self.keys)

    @property
    def is_point(self) -> bool:
        """Whether raster coordinates are those of centres of pixels (RasterPixelIsPoint)."""
        entries = range(_KEYS_HEADER, len(self.keys), _KEY_ENTRY)
        found = (self.keys[at : at + _KEY_ENTRY] for at in entries)
        return any(key[:2] == (_RASTER_TYPE, 0) and key[3] == _IS_POINT for key in found)

    def divided(self, factor: int) -> Placement:
        """That of an image of `factor`² pixels in the place of each of this one.

        A corner a of a pixel, counted from the corner of the first one, becomes factor · a; a
        centre is p = a − ½. So every pixel covers what its block covers.
        """
        half = 0.5 if self.is_point else 0.0
        ties = [
            (value + half) * factor - half if place % _TIE_POINT < 2 else value
            for place, value in enumerate(self.tie_points)
        ]
        matrix = list(self.transformation)
        for row in range(0, 12 if matrix else 0, 4):
            a, b = matrix[row : row + 2]
            matrix[row : row + 2] = a / factor, b / factor
            # the raster place p of a finer centre p' is (p' + ½) / factor − ½
            matrix[row + 3] += (a + b) * (half / factor - half)
        found = replace(self, tie_points=tuple(ties), transformation=tuple(matrix))
        if self.scale:
            x, y, z = self.scale
            found = replace(found, scale=(x / factor, y / factor, z))
        if self.resolution is not None:
            x, y, unit = self.resolution
            found = replace(found, resolution=(x * factor, y * factor, unit))
        return found

    def extra_tags(self) -> list[ExtraTag]:
        """The geo tags as `tifffile.TiffWriter.write(extratags=…)` takes them."""
        numbers = (
            (_SCALE, "d", self.scale),
            (_TIE_POINTS, "d", self.tie_points),
            (_TRANSFORMATION, "d", self.transformation),
            (_KEYS, "H", self.keys),
            (_DOUBLES, "d", self.doubles),
        )
        found: list[ExtraTag] = [
            (code, kind, len(values), values, True) for code, kind, values in numbers if values
        ]
        if self.texts:
            found.append((_TEXTS, "s", 0, self.texts, True))
        return found


def placement_of(value_of: Callable[[int], Any]) -> Placement:
    """What the tags say; `value_of` gives the value of a tag by its number, None without it.

    Geo tags that contradict themselves are left out together, which `left_out` says.
    """
    others = tuple(f"its place by {words}" for code, words in _OTHERS.items() if value_of(code))
    found = Placement(resolution=_resolution(value_of), left_out=others)
    codes = (_SCALE, _TIE_POINTS, _TRANSFORMATION, _KEYS, _DOUBLES, _TEXTS)
    if all(value_of(code) is None for code in codes):
        return found
    scale, ties, matrix, doubles = (
        _floats(value_of(code)) for code in (_SCALE, _TIE_POINTS, _TRANSFORMATION, _DOUBLES)
    )
    keys, texts = _keys(value_of(_KEYS)), value_of(_TEXTS) or ""
    is_whole = isinstance(texts, str) and texts.isascii() and keys is not None
    if scale is None or ties is None or matrix is None or doubles is None or not is_whole:
        return replace(found, left_out=(*others, "its geo tags, which are damaged"))
    if len(scale) not in (0, 3) or len(matrix) not in (0, 16) or len(ties) % _TIE_POINT:
        return replace(found, left_out=(*others, "its geo tags, which are damaged"))
    return replace(
        found,
        scale=scale,
        tie_points=ties,
        transformation=matrix,
        keys=keys or (),
        doubles=doubles,
        texts=texts,
    )


def _floats(value: Any) -> Floats | None:
    """The numbers of a tag, none without it; None if they are no finite numbers."""
    values = () if value is None else value if isinstance(value, tuple) else (value,)
    if all(isinstance(one, (int, float)) and math.isfinite(one) for one in values):
        return tuple(map(float, values))
    return None


def _keys(value: Any) -> tuple[int, ...] | None:
    """The directory of keys, none without it; None if it is not as long as it says."""
    if value is None:
        return ()
    if not isinstance(value, tuple) or not all(isinstance(one, int) for one in value):
        return None
    is_whole = len(value) >= _KEYS_HEADER and all(0 <= one < 1 << 16 for one in value)
    if not is_whole or len(value) != _KEYS_HEADER + _KEY_ENTRY * value[3]:
        return None
    return value


def _resolution(value_of: Callable[[int], Any]) -> tuple[float, float, int] | None:
    sides = [_ratio(value_of(code)) for code in (_X_RESOLUTION, _Y_RESOLUTION)]
    unit = value_of(_RESOLUTION_UNIT)
    unit = 2 if unit is None else int(unit) if isinstance(unit, int) else 0
    if sides[0] is None or sides[1] is None or unit not in (1, 2, 3):
        return None
    return sides[0], sides[1], unit


def _ratio(value: Any) -> float | None:
    """A positive rational number of a tag, that fits into one again after a division."""
    is_pair = isinstance(value, Sequence) and len(value) == 2
    if not is_pair or not all(isinstance(one, int) and one > 0 for one in value):
        return None
    ratio: float = value[0] / value[1]
    return ratio if ratio < 1e6 else None
