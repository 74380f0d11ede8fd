"""Which images are one unit, by their names."""

from __future__ import annotations

import pytest

from sr_var.calibrate.units import group, settled_kind, unit_of
from utils.process.errors import DataError

TILES = ["cal/koala_003.png", "cal/koala_010.png", "cal/moose_000.png"]


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (TILES, "photograph"),
        ([*TILES, "cal/whole.png"], "image"),
        (["a_001.png", "b_002.png"], "image"),  # one of each: no pieces
        (["n01440764_10026", "n01440764_3"], "image"),  # ImageNet's numbers
        (["0001.png", "0002.png"], "image"),
    ],
)
def test_auto_takes_names_for_tiles_where_all_end_in_three_digits(
    names: list[str], kind: str
) -> None:
    assert settled_kind("auto", names) == kind
    assert settled_kind("folder", names) == "folder"


def test_images_of_a_unit_stand_together() -> None:
    koala = ["cal/koala_003.png", "cal/koala_010.png"]
    assert group(TILES, "photograph") == {"cal/koala": koala, "cal/moose": TILES[2:]}
    assert len(group(TILES, "image")) == 3
    assert group([*TILES, "x.png"], "folder") == {"cal": TILES, ".": ["x.png"]}
    assert unit_of("photograph")("n01440764_12") == "n01440764"


def test_photographs_without_pieces_are_refused() -> None:
    with pytest.raises(DataError, match="--cluster image"):
        group(["a.png", "b.png"], "photograph")
