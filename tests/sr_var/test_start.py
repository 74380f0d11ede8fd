"""A fresh network for a positive variance starts at the spread of images, and only such a one."""

from __future__ import annotations

import pytest
import torch

from sr_var.baseline import gaussian_outputs
from sr_var.flags.nets import BaselineModelFlags
from sr_var.flags.scripts import VarModelFlags
from sr_var.losses import START_STD_255, start_at_usual_spread
from sr_var.script_util import create_baseline_model, create_mean_model, create_var_model
from tests.tiny import REGRESSION_NET

FLAGS = {**REGRESSION_NET, "out_channels": 3}
X = torch.rand(2, 6, 32, 32) * 2 - 1


def fresh_var_net(kind: str) -> torch.nn.Module:
    """A variance net as a training begins with it."""
    flags = VarModelFlags(**FLAGS, last_layer_type=kind)
    model = create_var_model(**vars(flags))
    start_at_usual_spread(model.out, flags)
    return model


def fresh_baseline(**own: str) -> torch.nn.Module:
    """A baseline likewise."""
    flags = BaselineModelFlags(**FLAGS, **own)
    model = create_baseline_model(**vars(flags))
    start_at_usual_spread(model.out, flags)
    return model


@pytest.mark.parametrize("kind", ["exp", "sigmoid", "softplus"])
def test_a_positive_variance_starts_at_ten_grey_levels(kind: str) -> None:
    std_255 = fresh_var_net(kind)(X).sqrt() * 127.5
    assert torch.allclose(std_255, torch.tensor(START_STD_255), rtol=1e-4)


def test_other_networks_start_at_zero_as_before() -> None:
    assert fresh_var_net("none")(X).abs().max() == 0
    assert create_mean_model(**FLAGS)(X[:, :3]).abs().max() == 0


def test_every_pixel_of_a_sub_pixel_net_starts_there() -> None:
    sizes = {"network": "subpixel", "small_size": 8, "large_size": 32, "model_channels": 8}
    flags = VarModelFlags(**sizes, last_layer_type="softplus")
    model = create_var_model(**vars(flags))
    start_at_usual_spread(model.out, flags)
    std_255 = model(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 32, 32)).sqrt() * 127.5
    assert torch.allclose(std_255, torch.tensor(START_STD_255), rtol=1e-4)
    both = BaselineModelFlags(**sizes, objective="nll")
    model = create_baseline_model(**vars(both))
    start_at_usual_spread(model.out, both)
    mean, variance = gaussian_outputs(model(torch.rand(1, 3, 8, 8)), None, "softplus")
    assert mean.abs().max() == 0
    assert torch.allclose(variance.sqrt() * 127.5, torch.tensor(START_STD_255), rtol=1e-2)


@pytest.mark.parametrize("kind", ["exp", "softplus"])
def test_a_baseline_starts_there_with_its_variance_and_not_with_its_mean(kind: str) -> None:
    raw = fresh_baseline(objective="nll", last_layer_type=kind)(X[:, :3])
    mean, variance = gaussian_outputs(raw, None, kind)
    assert mean.abs().max() == 0
    assert torch.allclose(variance.sqrt() * 127.5, torch.tensor(START_STD_255), rtol=1e-2)
    quantiles = {"objective": "quantile", "quantiles": "0.25,0.75"}
    assert fresh_baseline(**quantiles, last_layer_type=kind)(X[:, :3]).abs().max() == 0
