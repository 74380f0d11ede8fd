"""Which images are one exchangeable unit: tiles of a photograph are like one another.

A guarantee over n units holds if a further one might as well have been one of them. So n counts
photographs (patients, scenes), not the tiles that they were cut into.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence

from utils.images.files import ALL_EXTENSIONS
from utils.process.errors import DataError

AUTO, IMAGE, PHOTOGRAPH, FOLDER = "auto", "image", "photograph", "folder"
KINDS = (AUTO, IMAGE, PHOTOGRAPH, FOLDER)
# koala_012: place 12 of the photograph koala; koala_000012_0: draw 0 there, of oracle_data.py
_TILE = re.compile(r"_(\d{3}|\d{6}_\d{1,2})$")
_NUMBERED = re.compile(r"_(\d{6}_\d{1,2}|\d+)$")


def settled_kind(kind: str, names: Sequence[str]) -> str:
    """`photograph` for `auto` if all names are as NAME_004 and some differ in the number alone.

    Names of `oracle_data.py`, as NAME_000012_0, count likewise. Else `auto` is `image`; other kinds
    stay.
    """
    if kind != AUTO:
        return kind
    stems = [_stem(name) for name in names]
    are_tiles = all(map(_TILE.search, stems))
    return PHOTOGRAPH if are_tiles and len({*map(_whole, stems)}) < len({*stems}) else IMAGE


def unit_of(kind: str) -> Callable[[str], str]:
    """Name of an image → name of its unit.

    `image`: itself, `photograph`: without the number at its end, `folder`: the folder it lies in.
    """
    if kind == PHOTOGRAPH:
        return lambda name: _whole(_stem(name))
    if kind == FOLDER:
        return lambda name: os.path.dirname(name) or "."
    return lambda name: name


def group(names: Sequence[str], kind: str) -> dict[str, list[str]]:
    """Unit → names of its images, in the order of the names.

    Raises:
        DataError: `photograph`, and no name ends in a number.
    """
    if kind == PHOTOGRAPH and not any(_NUMBERED.search(_stem(name)) for name in names):
        raise DataError(
            f"--cluster {kind}: no image is named as a piece of a photograph, as NAME_004; give "
            f"--cluster {IMAGE}, or {FOLDER} where a folder holds what belongs together"
        )
    units: dict[str, list[str]] = {}
    find = unit_of(kind)
    for name in names:
        units.setdefault(find(name), []).append(name)
    return units


def _stem(name: str) -> str:
    stem, ending = os.path.splitext(name)
    return stem if ending.lower() in ALL_EXTENSIONS else name


def _whole(stem: str) -> str:
    return _NUMBERED.sub("", stem)
