"""What the networks see, by the flags; networks of every degradation."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ddpm.flags import DiffusionFlags
from sr_var.data.folds import FoldedInput, FoldedMean
from sr_var.degradation import Labelled, area_downsample, mean_of, variance_of
from sr_var.degrade.language import Degradation
from sr_var.degrade.view import View, require_same_view
from sr_var.flags.scripts import MeanModelFlags, SRDiffusionModelFlags
from sr_var.script_util import (
    create_mean_model,
    create_sr_model,
    create_var_model,
    denoiser_flags,
)
from tests.sr_var.degrade.test_parts import _image
from utils.process.errors import CheckpointError

SUBPIXEL: dict[str, Any] = {"network": "subpixel", "model_channels": 8, "num_res_blocks": 1}
UNET: dict[str, Any] = {
    "model_channels": 8,
    "num_res_blocks": 1,
    "attention_resolutions": "",
    "channel_mult": "1,2",
    "num_heads": 1,
}
SAME = {"large_size": 24, "small_size": 24}
TASKS: dict[str, dict[str, Any]] = {
    "noise": {**SAME, "degradation": "noise:5-50"},
    "told": {**SAME, "degradation": "noise:5-50", "condition_on_level": True},
    "mask": {**SAME, "degradation": "mask:0.5"},
    "grey": {**SAME, "degradation": "grey"},
    "both": {**SAME, "degradation": "area:4&noise:25"},
    "chain": {"large_size": 24, "small_size": 12, "degradation": "blur:1.2+area+noise:5&bicubic:2"},
}


@pytest.mark.parametrize("net", [SUBPIXEL, UNET], ids=["subpixel", "unet"])
@pytest.mark.parametrize("task", TASKS)
def test_both_nets_take_what_the_degradation_makes(task: str, net: dict[str, Any]) -> None:
    flags = {**net, **TASKS[task]}
    view, high_res = View.of(MeanModelFlags(**flags)), _image((24, 24))
    x = view.x_of(high_res, ["a", "b"])
    assert x.shape[2:] == view.sizes[1]
    mean_net = create_mean_model(**flags)
    mean = mean_of(mean_net, x, high_res.shape[2:])
    assert mean.shape == high_res.shape
    if net is SUBPIXEL and task != "chain":  # a new net answers with the image that X begins with
        assert torch.equal(mean, x[:, :3])
    variance = variance_of(create_var_model(**flags), x, mean)
    assert variance.shape == high_res.shape
    # every channel of X enters
    assert sum(p.shape[1] for p in mean_net.parameters() if p.ndim == 4) > 0
    first = next(p for p in mean_net.parameters() if p.ndim == 4)
    assert first.shape[1] == x.shape[1]


@pytest.mark.parametrize("task", TASKS)
def test_both_denoisers_take_it_and_project_on_block_means_alone(task: str) -> None:
    subpixel = {"network": "subpixel", "num_channels": 8, "num_res_blocks": 1}
    process = DiffusionFlags(diffusion_steps=100, predict_xstart=True)
    unet = {**UNET, "predict_residual": True}
    unet["num_channels"] = unet.pop("model_channels")
    high_res, t = _image((24, 24)), torch.tensor([3, 9])
    for net in (subpixel, unet):
        flags = SRDiffusionModelFlags(**net, **TASKS[task])
        model = create_sr_model(**denoiser_flags(flags, process))
        x = View.of(flags).x_of(high_res, ["a", "b"])
        condition = model.condition(x, tuple(high_res.shape[2:]))
        x_t = torch.randn(high_res.shape, generator=torch.Generator().manual_seed(1))
        output = model(x_t, t, **condition)
        assert output.shape == high_res.shape
        if net is subpixel:
            means = area_downsample(output, x.shape[-1])
            assert not torch.allclose(means, x[:, :3], atol=1e-3)


def test_nets_of_folds_and_of_classes_take_it_too() -> None:
    flags = {**SUBPIXEL, **TASKS["mask"], "class_cond": True, "num_classes": 3}
    high_res, y = _image((24, 24)), torch.tensor([0, 2])
    x = View.of(MeanModelFlags(**flags)).x_of(high_res, ["a", "b"])
    nets = [create_mean_model(**flags) for _ in range(2)]
    for k, net in enumerate(nets):
        net.out[0].bias.data += k  # a fold's answer is told by it
    folded = FoldedMean(nets)
    mean = folded.of_folds(FoldedInput(Labelled(x, y), torch.tensor([1, 0])), (24, 24))
    assert torch.equal(mean[0], x[0, :3] + 1)
    assert torch.equal(mean[1], x[1, :3])


def test_block_means_are_seen_as_before_whatever_their_seed() -> None:
    view = View.of(MeanModelFlags(large_size=24, small_size=6), seed=5, net="mean")
    assert view.degradation is None
    assert view.record() == {}
    assert torch.equal(view.x_of(_image((24, 24))), area_downsample(_image((24, 24)), 6))


def test_what_is_drawn_is_a_function_of_seed_net_and_item() -> None:
    flags, high_res = MeanModelFlags(**TASKS["mask"]), _image((24, 24))
    first = View.of(flags, 1, "mean").x_of(high_res, [4, 5])
    assert torch.equal(View.of(flags, 1, "mean").x_of(high_res[1:], [5]), first[1:])
    others = [View.of(flags, 2, "mean"), View.of(flags, 1, "variance"), View.of(flags, 1)]
    for other in others:
        assert not torch.equal(other.x_of(high_res, [4, 5]), first)
    tested = [View.of(flags, 1, net).for_tests() for net in ("mean", "variance")]
    by_name, too = (view.x_of(high_res, ["a", "b"]) for view in tested)
    assert torch.equal(by_name, too)


def test_what_a_network_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="--consistent True is of block means"):
        create_mean_model(**SUBPIXEL, **TASKS["noise"], consistent=True)
    with pytest.raises(ValueError, match="--small_size 4 times"):
        create_mean_model(**SUBPIXEL, large_size=24, small_size=6, degradation="noise:5")
    with pytest.raises(ValueError, match="--functional pc:2"):
        create_var_model(**SUBPIXEL, **TASKS["chain"], functional="pc:2")


def test_networks_that_see_something_else_are_no_pair() -> None:
    def flags(degradation: str, **more: Any) -> MeanModelFlags:
        return MeanModelFlags(large_size=24, small_size=12, degradation=degradation, **more)

    require_same_view("m.pt", flags("area+noise:5"), flags("area:2+noise:5.0"))
    require_same_view("m.pt", flags("area"), flags("area:2"))
    for there, here in (
        (flags("area+noise:5"), flags("area+noise:6")),
        (flags("area"), flags("bicubic:2")),
        (flags("area+noise:5-9"), flags("area+noise:5-9", condition_on_level=True)),
    ):
        with pytest.raises(CheckpointError, match="sees --degradation"):
            require_same_view("m.pt", there, here)


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("mask:0.4", [3]),
        ("mask:0.2-0.6", [3]),
        ("mask:0.5&mask:0.5", [6, 7]),
        ("grey&mask:0.5", [6]),
        ("noise:5&mask:0.5", [6]),
    ],
)
def test_hidden_pixels_are_those_that_no_mask_of_x_shows(text: str, places: list[int]) -> None:
    view = View(8, 8, Degradation.parse(text, 1), seed=3)
    x, hidden = view.x_of(torch.rand(2, 3, 8, 8), ["a", "b"]), view.hidden(["a", "b"])
    assert hidden is not None and view.degradation is not None and view.degradation.shows_pixels
    torch.testing.assert_close(hidden[:, 0], (x[:, places] == 0).all(dim=1))


def test_one_mask_on_another_hides_what_either_hides() -> None:
    view = View(8, 8, Degradation.parse("mask:0.5+mask:0.5", 1), seed=3)
    x, hidden = view.x_of(torch.rand(1, 3, 8, 8), ["a"]), view.hidden(["a"])
    assert hidden is not None
    torch.testing.assert_close(hidden[:, 0], (x[:, [3, 4]] == 0).any(dim=1))


@pytest.mark.parametrize("text", ["noise:25", "mask:0.5+noise:5", "blur:1+mask:0.5", "jpeg:20"])
def test_nothing_is_shown_as_it_is_where_a_mask_is_not_alone(text: str) -> None:
    view = View(8, 8, Degradation.parse(text, 1))
    assert view.hidden(["a"]) is None
    assert View(8, 4).hidden(["a"]) is None
