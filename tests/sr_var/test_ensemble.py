"""Several nets as one: the average and the variance between them, of nets that are known."""

from __future__ import annotations

import argparse

import pytest
import torch
from torch import Tensor, nn

from sr_var.data.pairs import Photographs
from sr_var.ensemble import SRVarEnsembleTestLoop, mean_and_between
from sr_var.flags.nets import EnsembleFlags
from sr_var.results.folder import ResultFolder
from utils.script_util import from_args


class Scaled(nn.Module):
    """The low-res image, of the size of the mean, times a number."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x[:, -3:]  # of a variance net: the mean behind the low-res image


def test_the_variance_between_nets_is_unbiased() -> None:
    """Scales 1, 2 and 4: mean 7/3, unbiased variance 7/3; pixel by pixel the square of x."""
    x = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)) - 0.5
    mean, between = mean_and_between([Scaled(s) for s in (1.0, 2.0, 4.0)], x, (4, 4))
    torch.testing.assert_close(mean, 7 / 3 * x)
    torch.testing.assert_close(between, 7 / 3 * x.square())
    with pytest.raises(ValueError, match="at least two nets, got 1"):
        mean_and_between([Scaled(1.0)], x, (4, 4))


def test_each_variance_net_stands_on_its_own_mean_net() -> None:
    """v̂_k = a_k m̂_k with (a, m̂) = (1, 2x) and (3, 5x): the mean of 2x and 15x."""
    x = torch.rand(1, 3, 4, 4)
    loop = SRVarEnsembleTestLoop(
        model=nn.ModuleList([Scaled(1.0), Scaled(3.0)]),
        mean_model=nn.ModuleList([Scaled(2.0), Scaled(5.0)]),
        data=[],
        results=ResultFolder("", "var", 1, (), ()),
    )
    torch.testing.assert_close(loop.forward(x, Photographs(["a"], x)), 8.5 * x)


@pytest.mark.parametrize(
    ("flags", "path", "paths"),
    [
        ({}, "run/model.pt", ["run/model.pt"]),
        ({"ensemble": "a,b"}, "{run}/m_{run}.pt", ["a/m_a.pt", "b/m_b.pt"]),
        ({"cross_fit": 2}, "f{fold}.pt", ["f0.pt", "f1.pt"]),
    ],
)
def test_patterns_name_the_nets(flags: dict[str, object], path: str, paths: list[str]) -> None:
    found = from_args(EnsembleFlags, argparse.Namespace(**vars(EnsembleFlags(**flags))))  # type: ignore[arg-type]
    assert found.members(path, "model_path") == paths


@pytest.mark.parametrize(
    ("flags", "path", "part"),
    [
        ({"ensemble": "0"}, "{run}", "--ensemble 0 must name at least two"),
        ({"ensemble": "0,0"}, "{run}", "at least two different runs"),
        ({"ensemble": "0,,1"}, "{run}", "at least two different runs"),
        ({"ensemble": "0,1", "cross_fit": 2}, "{run}", "give one of them"),
        ({"cross_fit": 1}, "{fold}", "--cross_fit 1"),
        ({}, "a_{run}.pt", "give --ensemble"),
        ({}, "a_{fold}.pt", "give --cross_fit K"),
        ({"ensemble": "0,1"}, "a.pt", "must contain {run}"),
        ({"cross_fit": 2}, "a.pt", "must contain {fold}"),
        ({"ensemble": "0,1"}, "{fold}.pt", "give --cross_fit K"),
    ],
)
def test_flags_and_patterns_that_do_not_fit_are_named(
    flags: dict[str, object], path: str, part: str
) -> None:
    with pytest.raises(ValueError) as caught:
        EnsembleFlags(**flags).members(path, "model_path")  # type: ignore[arg-type]
    assert part in str(caught.value)
