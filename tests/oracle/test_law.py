"""The oracle's law: its moments against draws, its identities exactly."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from oracle.law import (
    BICUBIC,
    BILINEAR,
    OracleLaw,
    block_sums,
    oracle_law,
    remove_block_means,
    repeat_blocks,
    smooth_base,
)
from sr_var.degradation import area_downsample
from tests.oracle.photos import low_res_images

NUM_DRAWS = 100_000
FACTORS = pytest.mark.parametrize("factor", [2, 3, 4, 8])


def _draws(law: OracleLaw, num: int, chunk: int = 1000) -> Tensor:
    """Central moments 1 to 4 about the exact mean, (4, N, C, H, W), of ``num`` draws."""
    generator = torch.Generator().manual_seed(1)
    wide = OracleLaw(*(part.repeat(chunk, 1, 1, 1) for part in vars(law).values()))
    sums = torch.zeros(4, *law.base.shape[1:], dtype=torch.float64)
    for _ in range(num // chunk):
        deviation = wide.sample(generator) - law.mean
        sums += torch.stack([(deviation**k).sum(dim=0) for k in (1, 2, 3, 4)])
    return sums / num


@pytest.fixture(scope="module", params=[BILINEAR, BICUBIC])
def law(request: pytest.FixtureRequest) -> OracleLaw:
    return oracle_law(low_res_images(1, 4), 4, base=request.param)


@pytest.fixture(scope="module")
def drawn(law: OracleLaw) -> Tensor:
    return _draws(law, NUM_DRAWS)


def test_mean_and_variance_are_those_of_a_hundred_thousand_draws(
    law: OracleLaw, drawn: Tensor
) -> None:
    std_error = (law.variance / NUM_DRAWS).sqrt()
    assert (drawn[0] / std_error).abs().max() < 5
    fourth = law.fourth_central_moment
    std_error = ((fourth - law.variance**2) / NUM_DRAWS).sqrt()
    assert ((drawn[1] - law.variance) / std_error).abs().max() < 5


def test_third_and_fourth_moments_are_those_of_the_draws(law: OracleLaw, drawn: Tensor) -> None:
    # Normal moments of the same scale bound the scatter of these: E z⁶ = 15, E z⁸ = 105.
    third_error = (15 * law.variance**3 / NUM_DRAWS).sqrt()
    assert ((drawn[2] - law.third_central_moment) / third_error).abs().max() < 5
    fourth_error = (96 * law.variance**4 / NUM_DRAWS).sqrt()
    assert ((drawn[3] - law.fourth_central_moment) / fourth_error).abs().max() < 5
    # and they are told apart from those of a normal law, so the comparison can fail
    assert (law.third_central_moment / third_error).abs().max() > 5
    normal_fourth = 3 * law.variance**2
    assert ((drawn[3] - normal_fourth) / fourth_error).abs().max() > 5


BASES = pytest.mark.parametrize("kind", [BILINEAR, BICUBIC])


@BASES
@FACTORS
def test_the_area_of_every_draw_is_the_low_res_image(factor: int, kind: str) -> None:
    low_res = low_res_images(2, 6)
    law = oracle_law(low_res, factor, base=kind)
    for seed in range(3):
        draw = law.sample(torch.Generator().manual_seed(seed))
        assert (area_downsample(draw, 6) - low_res).abs().max() < 1e-14


@BASES
@FACTORS
def test_base_is_the_upsampling_but_for_the_block_means(factor: int, kind: str) -> None:
    low_res = low_res_images(2, 6)
    base = smooth_base(low_res, factor, kind)
    assert torch.allclose(F.avg_pool2d(base, factor), low_res, atol=1e-15)
    change = base - F.interpolate(low_res, tuple(base.shape[2:]), mode=kind, align_corners=False)
    assert torch.allclose(remove_block_means(change, factor), torch.zeros_like(change), atol=1e-15)


def test_another_base_changes_the_mean_and_nothing_else() -> None:
    low_res = low_res_images(2, 6)
    usual, other = oracle_law(low_res, 4), oracle_law(low_res, 4, base=BICUBIC)
    assert torch.equal(usual.base, smooth_base(low_res, 4))
    for name in ("variance", "third_central_moment", "fourth_central_moment"):
        assert torch.equal(getattr(usual, name), getattr(other, name)), name
    assert torch.allclose(other.mean - usual.mean, other.base - usual.base, atol=1e-15)
    assert (other.base - usual.base).abs().max() > 0.01


def test_base_of_an_image_that_is_linear_is_the_same_line_inside() -> None:
    ramp = torch.linspace(-0.5, 0.5, 8, dtype=torch.float64).expand(1, 3, 8, 8)
    base = smooth_base(ramp, 4)
    step = (ramp[0, 0, 0, 1] - ramp[0, 0, 0, 0]) / 4
    inside = base[0, 0, 0, 4:-4].diff()
    assert torch.allclose(inside, step.expand_as(inside), atol=1e-14)


def test_flat_ground_has_no_edge_and_the_smallest_noise() -> None:
    law = oracle_law(torch.full((1, 3, 4, 4), 0.2, dtype=torch.float64), 4)
    assert law.edge.abs().max() == 0
    assert torch.allclose(law.variance, torch.tensor(0.04**2 * 15 / 16, dtype=torch.float64))
    assert torch.allclose(law.mean, torch.tensor(0.2, dtype=torch.float64))


def test_an_upright_edge_is_a_step_across_the_columns() -> None:
    image = torch.zeros(1, 3, 5, 5, dtype=torch.float64)
    image[..., 3:] = 0.4
    law = oracle_law(image, 4)
    block = law.edge[0, 0, 8:12, 8:12]  # gradient 0.2 at the pixel beside the edge
    height = 0.25 * 0.2 / 0.28 * 0.2 / 0.201
    across = torch.tensor([-1, -1, 1, 1], dtype=torch.float64) * height
    along = 0.25 * 0.2 / 0.28 * (1 - 0.2 / 0.201)
    down = torch.tensor([-1, -1, 1, 1], dtype=torch.float64) * along
    assert torch.allclose(block, across[None] + down[:, None], atol=1e-12)


def test_the_middle_of_an_odd_block_has_no_edge() -> None:
    law = oracle_law(low_res_images(1, 4), 3)
    assert law.edge[0, 0, 1::3, 1::3].abs().max() == 0
    assert F.avg_pool2d(law.edge, 3).abs().max() < 1e-16


@pytest.mark.parametrize("level", [0.01, 0.05, 0.25, 0.5, 0.9, 0.99])
def test_a_quantile_is_where_the_law_says(law: OracleLaw, level: float) -> None:
    assert (law.cdf(law.quantile(level)) - level).abs().max() < 1e-12


def test_quantiles_are_those_of_the_draws(law: OracleLaw) -> None:
    num = 20_000
    wide = OracleLaw(*(part.repeat(num, 1, 1, 1) for part in vars(law).values()))
    draws = wide.sample(torch.Generator().manual_seed(2))
    for level in (0.1, 0.5, 0.9):
        share = (draws <= law.quantile(level)).double().mean(dim=0)
        assert (share - level).abs().max() < 5 * math.sqrt(level * (1 - level) / num)


def test_polarity_is_shared_by_the_channels_and_the_block(law: OracleLaw) -> None:
    noiseless = OracleLaw(law.base, law.edge, law.sigma * 0, law.probability)
    draw = noiseless.sample(torch.Generator().manual_seed(3)) - law.base
    polarity = torch.sign(block_sums(draw[:, :1] * law.edge, 4))
    assert {-1.0, 1.0} <= set(polarity.unique().tolist())
    assert torch.allclose(draw, repeat_blocks(polarity, 4) * law.edge, atol=1e-15)


def test_spread_of_photographs_is_five_to_twenty_four_grey_levels_and_stays_in_range() -> None:
    import numpy as np
    from PIL import Image

    from tests.tiny import ROOT

    paths = sorted((ROOT / "data" / "demo" / "test").glob("*.jpg"))
    photos = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    tiles = np.stack([photo[:192, :192] for photo in photos])
    low_res = 0.5 * (torch.from_numpy(tiles).permute(0, 3, 1, 2).double() / 127.5 - 1)
    law = oracle_law(low_res, 4)
    std = (law.variance.sqrt() * 127.5).numpy()[:, 0]
    low, high = np.quantile(std, [0.05, 0.95])
    assert 5.2 < low < 5.7 and 23 < high < 25
    draw = law.sample(torch.Generator().manual_seed(0))
    assert (draw.abs() > 1).double().mean() < 6e-5


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="factor of 2"):
        oracle_law(low_res_images(1, 4), 1)
    with pytest.raises(ValueError, match="nearest"):
        oracle_law(low_res_images(1, 4), 4, base="nearest")
    with pytest.raises(ValueError, match="between 0 and 1"):
        oracle_law(low_res_images(1, 4), 4).quantile(1.0)
