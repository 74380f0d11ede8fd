"""The table of shifted inputs: what is done to images, and what is said of nets that are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks import shift
from benchmarks.shift import Judged, ShiftFlags, as_jpeg, blurred, noisy, pieces
from sr_var.degradation import bilinear_upsample
from tests.tiny import photo
from utils.metrics import HALF_RANGE_255
from utils.process.errors import DataError


def _low_res(num: int = 2, size: int = 16) -> Tensor:
    return torch.rand(num, 3, size, size, generator=torch.Generator().manual_seed(0)) - 0.5


def test_a_blur_keeps_the_mean_of_flat_images_and_spreads_a_point_by_its_std() -> None:
    flat = torch.full((1, 3, 9, 9), 0.3)
    torch.testing.assert_close(blurred(flat, 1.0), flat)
    point = torch.zeros(1, 1, 17, 17)
    point[0, 0, 8, 8] = 1
    spread = blurred(point, 1.0)[0, 0]
    places = torch.arange(17.0) - 8
    assert spread.sum() == pytest.approx(1, rel=1e-5)
    # a normal density on whole places, cut at 3 std: its variance is 1 less 2 %
    assert (spread.sum(dim=0) * places**2).sum() == pytest.approx(1, abs=0.03)
    assert torch.allclose(spread, spread.T)


def test_noise_has_its_std_and_a_jpeg_is_near_the_better_its_quality() -> None:
    low_res = _low_res()
    difference = (noisy(low_res, 10, seed=1) - low_res) * HALF_RANGE_255
    assert difference.std() == pytest.approx(10, rel=0.1)
    assert torch.equal(noisy(low_res, 10, seed=1), noisy(low_res, 10, seed=1))
    good, bad = ((as_jpeg(low_res, q) - low_res).square().mean() for q in (95, 20))
    assert 0 < good < bad


def test_pieces_lie_apart_and_none_is_flat() -> None:
    image = torch.zeros(3, 64, 64, dtype=torch.uint8)
    image[:, :, 32:] = torch.from_numpy(photo(0, (64, 32)).copy()).permute(2, 0, 1)
    found = pieces(image, 16, 5)
    assert 0 < len(found) <= 5
    assert all(piece.float().std() > 1 for piece in found)


class _Upsampled(nn.Module):
    """The bilinear upsampling, times a number."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, low_res: Tensor, size: Any) -> Tensor:
        return self.scale * bilinear_upsample(low_res, size)


class _Constant(nn.Module):
    """The same variance everywhere."""

    def forward(self, low_res: Tensor, mean: Tensor) -> Tensor:
        return torch.full_like(mean, (10 / HALF_RANGE_255) ** 2)


def test_a_row_is_that_of_the_nets() -> None:
    """Means x, x and 4x of a constant image: average 2x, unbiased variance 3x²."""
    level = 20 / HALF_RANGE_255
    images = torch.full((3, 3, 16, 16), 147, dtype=torch.uint8)  # 147/127.5 − 1 = 19.5/127.5
    nets = [_Upsampled(scale) for scale in (1.0, 1.0, 4.0)]
    row = Judged(nets, _Constant(), (16, 4)).row("flat", images, lambda x: x)
    assert row["between_std"] == pytest.approx(3**0.5 * 19.5, rel=1e-4)
    assert row["std"] == pytest.approx(10, rel=1e-5)
    assert row["rmse"] == pytest.approx(19.5, rel=1e-4)
    assert row["z2"] == pytest.approx(19.5**2 / 100, rel=1e-4)
    assert row["z2_total"] == pytest.approx(19.5**2 / (100 + 3 * 19.5**2), rel=1e-4)
    assert row["coverage_95"] == 1 and row["coverage_95_total"] == 1
    brighter = Judged(nets, _Constant(), (16, 4)).row("shifted", images, lambda x: x + level)
    assert brighter["coverage_95"] == 0 and brighter["coverage_95_total"] == 1
    table = shift.format_table([row, brighter])
    assert "100.0 %" in table and "| shifted |" in table


def test_images_of_another_kind_are_those_of_a_folder(tmp_path: Path) -> None:
    Image.fromarray(photo(1, (40, 40))).save(tmp_path / "a.png")
    flags = ShiftFlags(ensemble="0,1", other_dir=str(tmp_path), num_pieces=3)
    ((name, found),) = shift.other_images(flags, 16)
    assert name == tmp_path.name and found.shape == (3, 3, 16, 16)
    with pytest.raises(DataError, match="no picture with a piece of 64 pixels"):
        list(shift.other_images(flags, 64))
    kinds = dict(shift.other_images(ShiftFlags(ensemble="0,1"), 64))
    assert list(kinds) == list(shift.OTHERS)
    assert all(np.prod(images.shape[1:]) == 3 * 64 * 64 for images in kinds.values())


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        ({}, "--cross_fit K or --ensemble"),
        ({"ensemble": "0,1", "blur": "0"}, "--blur 0"),
        ({"ensemble": "0,1", "jpeg": "good"}, "--jpeg 'good'"),
    ],
)
def test_impossible_flags_are_named(flags: dict[str, str], part: str) -> None:
    with pytest.raises(ValueError, match=part):
        ShiftFlags(**flags)  # type: ignore[arg-type]
