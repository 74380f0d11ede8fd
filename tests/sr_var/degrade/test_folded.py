"""Images of full size beside a smaller one: blocks are channels, and a mean net weighs them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from models.config import SubpixelConfig
from models.layers import smooth_base
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


def _body_input(model: torch.nn.Module, run: Callable[[], object]) -> torch.Tensor:
    """What enters the body of a sub-pixel net while it runs, by torch's layers."""
    seen: list[torch.Tensor] = []
    hook = model.head.register_forward_hook(lambda _, given, __: seen.append(given[0]))  # type: ignore[union-attr,operator]
    run()
    hook.remove()
    return seen[0]


@pytest.mark.parametrize("words", ["noise:25", "mask:0.5"])
def test_the_bodies_see_what_the_image_is_above_the_smooth_base(words: str) -> None:
    flags = {**SUBPIXEL, **SIZES, "degradation": f"area & {words}"}
    model, x = _net(**flags)
    var_net = create_var_model(**flags)
    image, z = x[:, :3], F.pixel_shuffle(x[:, 3:51], 4)
    base = smooth_base(image, 4)
    mean = torch.zeros_like(z)
    assert var_net.reach == model.reach == 6  # 3×3 blocks, and the smooth base
    of_mean = _body_input(model, lambda: mean_of(model, x, (24, 24)))
    of_variance = _body_input(var_net, lambda: variance_of(var_net, x, mean))
    assert torch.equal(F.pixel_shuffle(of_variance[:, -48:], 4), mean - base)
    for seen in (of_mean, of_variance):
        assert torch.equal(seen[:, :3], image)
        left = F.pixel_shuffle(seen[:, 3:51], 4)
        if words == "noise:25":
            assert torch.equal(left, z - base)
            continue
        mask = F.pixel_shuffle(x[:, 51:], 4)
        torch.testing.assert_close(left * mask, (z - base) * mask)
        # what a block's sum lacks is in its hidden pixels
        torch.testing.assert_close(area_downsample(left, 6), torch.zeros_like(image))
        torch.testing.assert_close(seen[:, 51:67], 0.1 * x[:, 51:])


@pytest.mark.parametrize("consistent", [False, True])
def test_a_mean_net_keeps_the_pixels_that_a_mask_shows(consistent: bool) -> None:
    model, x = _net(degradation="area & mask:0.5", consistent=consistent)
    torch.nn.init.normal_(model.out[0].weight)  # type: ignore[arg-type,index,union-attr]
    with torch.no_grad():
        mean = mean_of(model, x, (24, 24))
    seen = (F.pixel_shuffle(x[:, 51:], 4) == 1).expand_as(mean)
    assert 0.4 < float(seen.float().mean()) < 0.6
    assert torch.equal(mean[seen], _image()[seen])
    off = (area_downsample(mean, 6) - x[:, :3]).abs().max()
    assert (float(off) < 1e-5) is consistent


def test_pixels_that_a_mask_shows_have_next_to_no_variance_and_blocks_have_theirs() -> None:
    model, x = _net(degradation="area & mask:0.5")
    flags = {**SUBPIXEL, **SIZES, "degradation": "area & mask:0.5", "last_layer_type": "softplus"}
    seen = (F.pixel_shuffle(x[:, 51:], 4) == 1).expand(-1, 3, -1, -1)
    with torch.no_grad():
        mean = mean_of(model, x, (24, 24))
        of_pixels = variance_of(create_var_model(**flags), x, mean)
        of_blocks = variance_of(create_var_model(**flags, functional="block:4"), x, mean)
    assert 0 < float(of_pixels[seen].max()) < 1e-7 and (of_pixels[~seen] > 0.1).all()
    assert (of_blocks > 0.1).all()


@pytest.mark.parametrize(
    ("words", "is_masked"),
    [
        ("area & mask:0.5", True),
        ("bicubic:4 & mask:0.5", True),
        ("area & noise:5", False),
        ("area & noise:5+mask:0.5", False),  # what is seen is no pixel of Y
        ("area & mask:0.5+mask:0.5", False),  # two masks follow
        ("area & mask:0.5 & noise:5", False),  # an image follows
        ("area+mask:0.5 & mask:0.5", False),  # the other mask is the first one
    ],
)
def test_a_mask_is_told_from_other_channels(words: str, is_masked: bool) -> None:
    made = Degradation.parse(words, 4)
    assert made.shows_whole and made.masks_whole is is_masked


def test_pointwise_blocks_see_a_pixel_of_the_low_res_image_each() -> None:
    model, x = _net(res_block="pointwise", num_res_blocks=4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
        changed = x.clone()
        changed[0, :, 0, 0] += 0.1
        moved = (mean_of(model, changed, (24, 24)) - mean_of(model, x, (24, 24))).abs()
    places = moved[0].amax(dim=(0, 1)).nonzero()
    assert model.reach == 4 and int(places.max()) // 4 == 4


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
