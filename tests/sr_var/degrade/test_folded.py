"""Images of full size beside a smaller one: blocks are channels, and a mean net weighs them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from models.config import SubpixelConfig
from sr_var.degradation import area_downsample, mean_of, variance_of
from sr_var.degrade.language import Degradation
from sr_var.degrade.view import View
from sr_var.flags.scripts import MeanModelFlags, VarModelFlags
from sr_var.script_util import create_mean_model, create_var_model

SUBPIXEL: dict[str, Any] = {"network": "subpixel", "model_channels": 8, "num_res_blocks": 1}
SIZES = {"large_size": 24, "small_size": 6}


def _image() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 3, 24, 24, generator=generator) - 0.5


@pytest.mark.parametrize(("words", "further"), [("noise:25", 48), ("mask:0.5", 64)])
def test_a_larger_image_is_folded_into_blocks_and_nothing_of_it_is_lost(
    words: str, further: int
) -> None:
    y = _image()
    folded = Degradation.parse(f"area & {words}", 4)
    repeated = Degradation.parse(f"area:4 & {words}", 1)
    x, at_large = folded.apply(y, [3, 4]), repeated.apply(y, [3, 4])
    assert x.shape == (2, 3 + further, 6, 6) and folded.num_extra == further
    torch.testing.assert_close(x[:, :3], area_downsample(y, 6))
    # the same draws, at the side of Y
    assert torch.equal(F.pixel_shuffle(x[:, 3:51], 4), at_large[:, 3:6])
    assert torch.equal(F.pixel_shuffle(x[:, 51:], 4), at_large[:, 6:]) or words[0] == "n"
    assert folded.shows_whole and folded.shows_block_means and not repeated.shows_whole


def test_images_of_three_sizes_meet_at_that_of_x() -> None:
    found = Degradation.parse("area:4 & area:2 & noise:5-9 & bicubic:8", 4, has_level=True)
    x = found.apply(_image(), [1, 2])
    assert x.shape[1:] == (3 + 12 + 48 + 3 + 1, 6, 6) and found.num_extra == 64
    assert not found.shows_whole  # the first further image is not of full size
    assert torch.equal(F.pixel_shuffle(x[:, 3:15], 2), area_downsample(_image(), 12))


@pytest.mark.parametrize("text", ["noise:5 & area", "area:2 & noise:5", "area:8", "area:4&area:3"])
def test_sizes_that_do_not_meet_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="--small_size"):
        Degradation.parse(text, 4)


def _net(**more: Any) -> tuple[torch.nn.Module, torch.Tensor]:
    flags = {**SUBPIXEL, **SIZES, "degradation": "area & noise:25", **more}
    x = View.of(MeanModelFlags(**flags)).x_of(_image(), ["a", "b"])
    return create_mean_model(**flags), x


def test_a_mean_net_weighs_the_pixels_of_the_image_of_full_size() -> None:
    model, x = _net()
    whole = F.pixel_shuffle(x[:, 3:51], 4)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        new = mean_of(model, x, (24, 24))
        bias = model.out[0].bias  # type: ignore[index,union-attr]
        bias[48:] = 30.0  # all of the weight
        torch.testing.assert_close(mean_of(model, x, (24, 24)), whole)
        bias[48:] = -30.0  # none of it
        smooth = mean_of(model, x, (24, 24))
        torch.testing.assert_close(area_downsample(smooth, 6), x[:, :3])
        weight = torch.sigmoid(torch.tensor(-1.5))
        torch.testing.assert_close(new, torch.lerp(smooth, whole, weight))
        bias[:48].normal_(generator=generator)
        shift = mean_of(model, x, (24, 24)) - smooth
        torch.testing.assert_close(shift, shift[:1, :, :4, :4].repeat(2, 1, 6, 6))


def test_with_consistent_true_it_keeps_the_block_means_that_it_sees() -> None:
    model, x = _net(consistent=True)
    with torch.no_grad():
        mean = mean_of(model, x, (24, 24))
    torch.testing.assert_close(area_downsample(mean, 6), x[:, :3])
    with pytest.raises(ValueError, match="--consistent True is of block means"):
        _net(consistent=True, degradation="bicubic:4 & noise:25")


def test_a_variance_net_sees_it_too() -> None:
    model, x = _net()
    flags = {**SUBPIXEL, **SIZES, "degradation": "area & noise:25"}
    var_net = create_var_model(**flags, last_layer_type="softplus")
    assert VarModelFlags(**flags).degradation == "area & noise:25"
    torch.nn.init.normal_(var_net.out[0].weight)
    with torch.no_grad():
        mean = mean_of(model, x, (24, 24))
        variance = variance_of(var_net, x, mean)
        moved = x.clone()
        moved[0, 20, 3, 3] += 1.0
        other = variance_of(var_net, moved, mean)
    assert variance.shape == (2, 3, 24, 24) and (variance > 0).all()
    assert not torch.equal(other[0], variance[0]) and torch.equal(other[1], variance[1])


def test_a_config_without_room_for_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match="full size"):
        SubpixelConfig(factor=4, extra_channels=47, shows_whole=True)
