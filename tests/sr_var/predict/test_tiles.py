"""Tiles: sub-pixel networks give the same for any, those of U-Nets fade into each other."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from sr_var.predict.images import LowRes
from sr_var.predict.tiles import fading, finished_rows, make_plan, side_by_side, tile_sizes
from tests.sr_var.predict.pairs import FACTOR, subpixel_pair, unet_pair
from tests.tiny import SMALL, photo

IMAGE = LowRes(photo(3, (37, 53)))


def _result(pair: Any, tile: int, overlap: int = -1, batch_size: int = 1) -> np.ndarray[Any, Any]:
    """Mean and variance of the image in [-1, 1], (2, H, W, C)."""
    plan = make_plan(pair, *IMAGE.pixels.shape[:2], *tile_sizes(pair, tile, overlap))
    rows = list(finished_rows(pair, IMAGE, plan, batch_size))
    mean, variance = (np.concatenate(part) for part in zip(*rows, strict=True))
    return np.stack([mean / 127.5 - 1, variance / 127.5**2])


@pytest.mark.parametrize("tile", [1, 7, 16, 37, 52, 1000])
def test_subpixel_networks_give_the_same_for_any_tile(tile: int) -> None:
    pair = subpixel_pair()
    assert pair.reach == 10
    whole = _result(pair, 1000)
    assert whole.std() > 0.01
    np.testing.assert_allclose(_result(pair, tile), whole, rtol=0, atol=1e-5)


def test_an_overlap_below_the_reach_is_seen() -> None:
    """So the test above could fail; what is farthest away counts least."""
    pair = subpixel_pair()
    whole, cut = _result(pair, 1000), _result(pair, 16, overlap=3)
    assert np.abs(whole - cut).max() > 1e-4


def test_the_whole_image_is_what_the_networks_say() -> None:
    pair = subpixel_pair()
    x = torch.from_numpy(IMAGE.pixels).permute(2, 0, 1)[None].float() / 127.5 - 1
    mean, variance = (part[0].permute(1, 2, 0).numpy() for part in pair(x))
    np.testing.assert_allclose(_result(pair, 20), [mean, variance], rtol=0, atol=1e-5)


def test_batches_of_tiles_change_nothing() -> None:
    for pair in (subpixel_pair(), unet_pair()):
        one, four = _result(pair, 8), _result(pair, 8, batch_size=4)
        np.testing.assert_allclose(four, one, rtol=0, atol=1e-3)


def test_a_unet_sees_squares_of_its_training() -> None:
    pair = unet_pair()
    assert pair.reach is None and tile_sizes(pair) == (SMALL, SMALL // 4)
    plan = make_plan(pair, 37, 53, *tile_sizes(pair))
    assert plan.seen == (SMALL, SMALL)
    assert {span.stop - span.start for span in (*plan.rows, *plan.columns)} == {SMALL}


def test_tiles_of_a_unet_agree_with_it_where_one_alone_counts() -> None:
    pair = unet_pair()
    x = torch.from_numpy(IMAGE.pixels[:SMALL, :SMALL]).permute(2, 0, 1)[None].float() / 127.5 - 1
    corner = pair(x)[0][0].permute(1, 2, 0).numpy()
    end = 4 * FACTOR  # the next tiles begin at 6 or before
    found = _result(pair, SMALL)[0][:end, :end]
    np.testing.assert_allclose(found, corner[:end, :end], rtol=0, atol=1e-4)


def test_an_odd_image_of_a_unet_is_padded_and_cut_again() -> None:
    pair = unet_pair(channel_mult="1,1,1,2", attention_resolutions="4")
    assert pair.multiple == 2
    mean, variance = pair(torch.zeros(1, 3, 5, 3))
    assert mean.shape == variance.shape == (1, 3, 20, 12)
    padded = pair(torch.zeros(1, 3, 6, 4))[0]
    torch.testing.assert_close(mean, padded[..., :20, :12])


def test_a_consistent_mean_stays_consistent_through_the_seams() -> None:
    pair = unet_pair(consistent=True)
    mean = torch.from_numpy(_result(pair, SMALL)[0]).permute(2, 0, 1)[None].double()
    blocks = torch.nn.functional.avg_pool2d(mean, FACTOR)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(blocks, IMAGE.pixels / 127.5 - 1, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("size", "tile", "shared"), [(37, 8, 2), (9, 8, 4), (64, 16, 0), (5, 8, 2)]
)
def test_weights_add_up_to_one_and_tiles_reach_the_end(size: int, tile: int, shared: int) -> None:
    total, spans = np.zeros(size), list(fading(size, tile, shared))
    for span in spans:
        assert span.stop - span.start == min(tile, size) and (span.weight > 0).all()
        total[span.first : span.last] += span.weight
    np.testing.assert_allclose(total, 1, atol=1e-6)
    for one, two in itertools.pairwise(spans):
        assert one.stop - two.start >= shared


def test_weights_fall_linearly_across_a_seam() -> None:
    one, two = fading(12, 8, 4)
    np.testing.assert_allclose(two.weight[:4], [0.2, 0.4, 0.6, 0.8], atol=1e-6)
    np.testing.assert_allclose(one.weight[4:], [0.8, 0.6, 0.4, 0.2], atol=1e-6)


def test_tiles_side_by_side_cover_all_once() -> None:
    spans = list(side_by_side(10, 4, 3))
    assert [(span.first, span.last) for span in spans] == [(0, 4), (4, 8), (8, 10)]
    assert [(span.start, span.stop) for span in spans] == [(0, 7), (1, 10), (5, 10)]


def test_an_overlap_of_more_than_half_of_a_unets_tile_is_refused() -> None:
    with pytest.raises(ValueError, match="--overlap 5"):
        tile_sizes(unet_pair(), 8, 5)


def test_output_that_is_not_finite_is_refused() -> None:
    pair = subpixel_pair()
    pair.var_net.out[0].bias.fill_(float("nan"))  # type: ignore[index,union-attr]
    with pytest.raises(ValueError, match="not finite"):
        _result(pair, 16)
