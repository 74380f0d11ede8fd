"""Where pixels lie, and finer ones in their places: GeoTIFF's tags and the resolution."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.native_files import geo_keys, geo_tiff, tiff_of
from utils.images.geotiff import Placement, placement_of
from utils.images.native import read_native

pytest.importorskip("tifffile")
FACTOR = 4
MATRIX = (9.0, 1.5, 0, 300.0, 2.0, -8.0, 0, 700.0, 0.25, 0.5, 1, 3.0, 0, 0, 0, 1.0)
TIES = (2.0, 3.0, 0, 400.0, 900.0, 5.0)
KINDS = {
    "scale and tie point": {"scale": (10.0, 20.0, 1.0), "tie_points": TIES},
    "transformation": {"transformation": MATRIX},
}


def where(placement: Placement, x: float, y: float) -> Any:
    """Model (x, y, z) of the point that lies x, y pixels from the corner of the first pixel."""
    shift = 0.5 if placement.is_point else 0.0
    i, j = x - shift, y - shift
    if placement.transformation:
        return (np.reshape(placement.transformation, (4, 4)) @ (i, j, 0, 1))[:3]
    (sx, sy, _), (i0, j0, _, x0, y0, z0) = placement.scale, placement.tie_points
    return np.array([x0 + (i - i0) * sx, y0 - (j - j0) * sy, z0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("raster_type", [1, 2])
def test_every_point_keeps_its_place(kind: str, raster_type: int) -> None:
    """The formulas of the standard before and after, for the raster of areas and of points."""
    placement = Placement(**KINDS[kind], keys=geo_keys(raster_type))
    assert placement.is_point == (raster_type == 2)
    finer = placement.divided(FACTOR)
    for x, y in ((0, 0), (0.5, 0.5), (3, 7), (11.25, 2.5)):
        np.testing.assert_allclose(where(finer, FACTOR * x, FACTOR * y), where(placement, x, y))
    assert finer.keys == placement.keys and finer != placement


def test_several_tie_points_keep_their_model_points() -> None:
    finer = Placement(tie_points=TIES + (0, 0, 7, 1, 2, 3)).divided(2)
    assert finer.tie_points == (4.0, 6.0, 0, 400.0, 900.0, 5.0, 0, 0, 7, 1, 2, 3)


def test_resolution_grows_and_a_picture_has_no_place() -> None:
    assert Placement(resolution=(100.0, 50.0, 3)).divided(4).resolution == (400.0, 200.0, 3)
    assert Placement().divided(4) == Placement() and not Placement().has_geo_tags


@pytest.mark.parametrize("raster_type", [1, 2])
def test_tags_of_a_file_are_read(tmp_path: Any, raster_type: int) -> None:
    path = tmp_path / "x.tif"
    path.write_bytes(geo_tiff(np.zeros((4, 5), np.uint16), raster_type, resolution=(30, 60)))
    found = read_native(path).placement
    assert found.scale == (10.0, 20.0, 0.0) and found.tie_points == (0, 0, 0, 500.0, 900.0, 0)
    assert found.keys == geo_keys(raster_type) and found.texts == "somewhere|"
    assert found.doubles == (6378137.0,) and found.resolution == (30.0, 60.0, 2)
    assert not found.left_out


def test_a_turned_image_has_no_place(tmp_path: Any) -> None:
    path, tag = tmp_path / "x.tif", (274, "H", 1, 6, True)
    path.write_bytes(geo_tiff(np.zeros((4, 5), np.uint16), 1, more=[tag]))
    assert read_native(path).placement.has_geo_tags
    found = read_native(path, apply_orientation=True).placement
    assert not found.has_geo_tags and "turned" in found.left_out[0]


@pytest.mark.parametrize(
    ("code", "value"),
    [
        (33550, (1.0, 2.0)),
        (33550, (1.0, float("nan"), 0.0)),
        (33922, (1.0,) * 7),
        (34264, (1.0,) * 12),
        (34735, (1, 1, 0, 9)),
        (34735, (1, 1)),
        (34735, 7),
        (34736, ("a",)),
        (34737, b"\xff"),
        (34737, "\xe9"),
    ],
)
def test_damaged_tags_are_left_out_and_told(code: int, value: Any) -> None:
    tags = {33550: (1.0, 1.0, 0.0), 33922: TIES, code: value}
    found = placement_of(tags.get)
    assert not found.has_geo_tags and "damaged" in found.left_out[0]


def test_rational_polynomials_are_left_out_and_told(tmp_path: Any) -> None:
    path, tag = tmp_path / "x.tif", (50844, "d", 92, (1.0,) * 92, True)
    path.write_bytes(tiff_of(np.zeros((4, 5), np.uint8), extratags=[tag]))
    assert "rational polynomials" in read_native(path).placement.left_out[0]


@pytest.mark.parametrize("value", [(0, 1), (1, 0), 7, None, (1.5, 1), (1 << 31, 1)])
def test_resolution_of_no_use_is_none(value: Any) -> None:
    assert placement_of({282: (72, 1), 283: value}.get).resolution is None
    assert placement_of({282: (72, 1), 283: (72, 1), 296: 9}.get).resolution is None
