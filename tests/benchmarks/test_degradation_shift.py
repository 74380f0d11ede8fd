"""The table of a shift of the degradation: metrics of nets that are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.degradation_shift import Judged, calibrated_share, format_table, judge, row_of
from sr_var.degrade.view import View
from sr_var.flags.scripts import MeanModelFlags
from utils.metrics import HALF_RANGE_255
from utils.process.errors import DataError

_STD = 10.0
_FLAGS = MeanModelFlags(large_size=16, small_size=16, degradation=f"noise:{_STD:g}")


class _Same(nn.Module):
    """The input is the mean."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class _Constant(nn.Module):
    """The variance of the training's noise."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.full_like(x[:, :3], (_STD / HALF_RANGE_255) ** 2)


def _judged(text: str, num: int = 24) -> Judged:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(60, 200, (num, 3, 16, 16), generator=generator).to(torch.uint8)
    view = View.of_test(_FLAGS, 0, text, print)
    return judge((_Same(), _Constant()), view, images, [f"i{k}" for k in range(num)])


def test_twice_the_noise_is_seen_and_a_calibration_on_it_mends_the_level() -> None:
    own, twice = _judged(""), _judged(f"noise:{2 * _STD:g}")
    row = row_of("a", own, own, 0.9)
    assert row["psnr"] == row["psnr_input"] == pytest.approx(28.13, abs=0.1)
    assert row["coverage_95"] == pytest.approx(0.95, abs=0.01)
    assert row["z2"] == pytest.approx(1, abs=0.03)
    shifted = row_of("b", twice, own, 0.9)
    assert shifted["z2"] == pytest.approx(4, abs=0.1)
    # P(|e| < 0.98) of a normal law
    assert shifted["coverage_95"] == pytest.approx(0.673, abs=0.02)
    # n = 23: (0.1 n - 0.9)/n may lie outside, at 1.87 std, half of which are left of twice the std
    assert shifted["calibrated_own"] == pytest.approx(0.65, abs=0.02)
    assert shifted["calibrated_here"] == pytest.approx(0.939, abs=0.01)
    assert "| `b` |" in format_table([row, shifted], 0.9)


def test_too_few_images_are_refused() -> None:
    few = _judged("", num=5)
    with pytest.raises(DataError, match="5 images are too few"):
        calibrated_share(few, few, 0.9)
    assert 0.5 < calibrated_share(few, few, 0.5) <= 1
    assert np.isfinite(few.z2).all()
