"""The picture of a std map: pixels where they were, one scale from 0, and room for its numbers."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
from numpy.typing import NDArray

from sr_var.results.spread import spread_files, std_picture


def _colour(share: float) -> NDArray[np.float64]:
    return np.rint(255 * np.array(matplotlib.colormaps["inferno"](share)[:3]))


def test_map_lies_in_the_corner_pixel_by_pixel_in_the_colours_of_its_scale() -> None:
    std = np.zeros((100, 120, 3), np.float32)
    std[:, 60:] = 8.0
    std[10, 20] = [3.0, 4.0, 5.0]  # mean 4, half of the top
    picture = std_picture(std)
    assert picture.dtype == np.uint8 and picture.shape[0] == 100 and picture.shape[1] > 140
    for place, share in (((0, 0), 0.0), ((99, 119), 1.0), ((10, 20), 0.5)):
        np.testing.assert_allclose(picture[place], _colour(share), atol=3)
    # the bar runs from the top of the scale down to 0
    bar = picture[:, 120 + 10]
    np.testing.assert_array_equal(bar[0], _colour(1.0))
    np.testing.assert_array_equal(bar[-1], _colour(0.0))
    # black figures on white
    labels = picture[:, 144:].reshape(-1, 3)
    assert (labels.min(axis=0) < 100).all() and (labels == 255).all(axis=1).mean() > 0.7


@pytest.mark.parametrize(("side", "factor"), [(8, 12), (64, 2), (95, 2), (96, 1), (256, 1)])
def test_small_maps_are_enlarged_by_a_whole_factor(side: int, factor: int) -> None:
    std = np.random.default_rng(0).uniform(0, 9, (side, side, 3)).astype(np.float32)
    picture = std_picture(std)
    assert picture.shape[0] == factor * side
    blocks = picture[:, : factor * side].reshape(side, factor, side, factor, 3)
    assert (blocks == blocks[:, :1, :, :1]).all()


def test_a_few_bright_pixels_do_not_darken_the_others() -> None:
    std = np.ones((100, 100, 3))
    std[0, :20] = 200.0
    np.testing.assert_array_equal(std_picture(std)[50, 50], _colour(1.0))


def test_map_without_spread_is_dark_and_leaves_its_argument() -> None:
    std = np.zeros((96, 96, 3))
    picture = std_picture(std)
    assert picture[:, :96].max() <= 5 and not std.any()


def test_variance_of_the_contract_is_written_last() -> None:
    assert spread_files(50000)[-1] == "high_res_var_50000.pkl"
