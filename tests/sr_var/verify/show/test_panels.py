"""The panels of an image: its own pixels, titles above them, and the scale beside the maps."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from sr_var.results.folder import to_grey_bytes
from sr_var.results.maps import coloured, colours
from sr_var.verify.read.images import ImageData
from sr_var.verify.show.panels import titled_panels
from sr_var.verify.show.pictures import top_of_scale, uncertainty_maps
from tests.sr_var.verify.show.report_data import image_data
from tests.tiny import photo

_TITLE, _GAP = 20, 8


def _data(side: int) -> ImageData:
    return image_data(photo(1, (side, side)), 6, 1)[0]


@pytest.mark.parametrize("side", [32, 200])
def test_panels_hold_the_pixels_of_every_picture_in_blocks(side: int) -> None:
    data, factor = _data(side), -(-144 // side)
    shown = titled_panels(data)
    tile = factor * side
    assert shown.dtype == np.uint8 and shown.shape[0] == 2 * (_TITLE + tile + _GAP)
    maps = uncertainty_maps(data)
    expected = [
        [to_grey_bytes(one) for one in (data.high_res, data.bilinear, data.mean)],
        [coloured(values, top_of_scale([maps])) for values in maps],
    ]
    for row, pictures in enumerate(expected):
        for column, picture in enumerate(pictures):
            top = row * (_TITLE + tile + _GAP) + _TITLE
            left = column * (tile + _GAP)
            found = shown[top : top + tile : factor, left : left + tile : factor]
            np.testing.assert_array_equal(found, picture)


def test_titles_and_the_colour_scale_are_drawn() -> None:
    data = _data(32)
    shown = titled_panels(data)
    tile = 5 * 32
    below = _TITLE + tile + _GAP
    for top in (0, below):
        for column in range(3):
            title = shown[top : top + _TITLE, column * (tile + _GAP) : (column + 1) * (tile + _GAP)]
            assert (title < 128).any(), (top, column)  # black on white
    bar = shown[below + _TITLE : below + _TITLE + tile, 3 * (tile + _GAP)]
    np.testing.assert_array_equal(bar[[0, -1]], colours()[[-1, 0]])
    labels = shown[below:, 3 * (tile + _GAP) + 14 :]
    assert (labels < 128).any() and (shown[:below, 3 * (tile + _GAP) :] == 255).all()


def test_without_samples_all_panels_stand_in_one_row() -> None:
    shown = titled_panels(dataclasses.replace(_data(144), samples=None))
    assert shown.shape[0] == _TITLE + 144 + _GAP and shown.shape[1] > 5 * (144 + _GAP)


@pytest.mark.parametrize("has_samples", [True, False])
def test_std_between_nets_comes_last(has_samples: bool) -> None:
    data = _data(144)
    data = data if has_samples else dataclasses.replace(data, samples=None)
    more = dataclasses.replace(data, epistemic=np.full_like(data.mean, 9.0))
    one, two = titled_panels(data), titled_panels(more)
    assert two.shape == (one.shape[0], one.shape[1] + 144 + _GAP, 3)
    left = (3 if has_samples else 5) * (144 + _GAP)
    expected = coloured(np.full((1, 1), 3.0), top_of_scale([uncertainty_maps(data)]))[0, 0]
    np.testing.assert_array_equal(two[-_GAP - 1, left], expected)
