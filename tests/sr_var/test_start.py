"""A fresh network for a positive variance starts at the spread of images, and only such a one."""

from __future__ import annotations

import pytest
import torch

from sr_var.baseline import gaussian_outputs
from sr_var.losses import START_STD_255
from sr_var.script_util import create_baseline_model, create_mean_model, create_var_model, new_model
from tests.tiny import REGRESSION_NET
from utils.flags.training import TrainFlags

FLAGS = {**REGRESSION_NET, "out_channels": 3}
X = torch.rand(2, 6, 32, 32) * 2 - 1


@pytest.mark.parametrize("kind", ["exp", "sigmoid", "softplus"])
def test_a_positive_variance_starts_at_ten_grey_levels(kind: str) -> None:
    model = new_model(create_var_model, {**FLAGS, "last_layer_type": kind}, TrainFlags())
    std_255 = model(X).sqrt() * 127.5
    assert torch.allclose(std_255, torch.tensor(START_STD_255), rtol=1e-4)


def test_other_networks_start_at_zero_as_before() -> None:
    variance = new_model(create_var_model, {**FLAGS, "last_layer_type": "none"}, TrainFlags())
    assert variance(X).abs().max() == 0
    assert new_model(create_mean_model, FLAGS, TrainFlags())(X[:, :3]).abs().max() == 0


@pytest.mark.parametrize("kind", ["exp", "softplus"])
def test_a_baseline_starts_there_with_its_variance_and_not_with_its_mean(kind: str) -> None:
    flags = {**FLAGS, "objective": "nll", "last_layer_type": kind}
    raw = new_model(create_baseline_model, flags, TrainFlags())(X[:, :3])
    mean, variance = gaussian_outputs(raw, None, kind)
    assert mean.abs().max() == 0
    assert torch.allclose(variance.sqrt() * 127.5, torch.tensor(START_STD_255), rtol=1e-2)
    quantiles = {**flags, "objective": "quantile", "quantiles": "0.25,0.75"}
    assert new_model(create_baseline_model, quantiles, TrainFlags())(X[:, :3]).abs().max() == 0
