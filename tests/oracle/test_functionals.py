"""Variances of linear functionals and components of blocks: closed forms against draws."""

from __future__ import annotations

import pytest
import torch

from oracle.denoiser import posterior_mean_of_y
from oracle.functionals import leading_component, other_variance, trace, variance_of_functional
from oracle.law import OracleLaw, block_sums, oracle_law, repeat_blocks
from sr_var.functionals import Functional
from tests.oracle.photos import low_res_images

NUM_DRAWS = 20_000
TEXTS = ("block:2", "block:4+2,2", "block:3", "block:7", "filter:-1,1", "filter:1,2,3/0,-1,2@3+1,2")


@pytest.fixture(scope="module")
def law() -> OracleLaw:
    """Of one image of 4² pixels, as 16²."""
    return oracle_law(low_res_images(1, 4), 4)


@pytest.fixture(scope="module")
def deviations(law: OracleLaw) -> torch.Tensor:
    """Draws without their mean, (N, 3, 16, 16)."""
    wide = OracleLaw(*(part.repeat(NUM_DRAWS, 1, 1, 1) for part in vars(law).values()))
    return wide.sample(torch.Generator().manual_seed(0)) - law.mean


@pytest.mark.parametrize("text", TEXTS)
def test_variance_is_that_of_draws(law: OracleLaw, deviations: torch.Tensor, text: str) -> None:
    """Within five standard errors, of the draws' own fourth moment."""
    functional = Functional.parse(text)
    square = functional(deviations).square()
    exact = variance_of_functional(law, functional)[0]
    assert ((square.mean(dim=0) - exact).abs() < 5 * square.std(dim=0) / NUM_DRAWS**0.5).all()


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_means_of_aligned_blocks_have_variance_zero_and_pixels_their_own(factor: int) -> None:
    law = oracle_law(low_res_images(2, 6), factor)
    blocks = variance_of_functional(law, Functional.parse(f"block:{factor}"))
    assert blocks.shape == (2, 3, 6, 6)
    assert blocks.max() < 1e-12 * law.variance.max()  # kernels are float32
    moved = variance_of_functional(law, Functional.parse(f"block:{factor}+1,0"))
    assert moved.min() > 1e-4 * law.variance.max()
    pixels = variance_of_functional(law, Functional.parse("block:1"))
    torch.testing.assert_close(pixels, law.variance, rtol=1e-12, atol=0)


def test_leading_component_and_trace_are_those_of_the_draws(
    law: OracleLaw, deviations: torch.Tensor
) -> None:
    """Of a block with a strong edge: standard errors of 2·10⁴ draws are 1 %."""
    vectors, values = leading_component(law)
    place = divmod(int((values / other_variance(law)).argmax()), 4)
    blocks = deviations.unfold(2, 4, 4).unfold(3, 4, 4)[:, :, place[0], place[1]].flatten(1)
    exact = vectors.unfold(2, 4, 4).unfold(3, 4, 4)[0, :, place[0], place[1]].flatten()
    found, directions = torch.linalg.eigh(torch.cov(blocks.T))
    assert exact.norm().item() == pytest.approx(1, abs=1e-12)
    assert (directions[:, -1] @ exact).abs() > 0.999
    assert found[-1].item() == pytest.approx(values[0, 0][place].item(), rel=0.03)
    assert found[:3].abs().max() < 1e-12  # the mean of each channel is known
    # those between are equal: their average has 44 times as many draws
    assert found[3:-1].mean().item() == pytest.approx(
        other_variance(law)[0, 0][place].item(), rel=0.01
    )
    assert found.sum().item() == pytest.approx(trace(law)[0, 0][place].item(), rel=0.03)


def test_power_iterations_on_the_denoiser_find_the_same_components(law: OracleLaw) -> None:
    """Cov[Y | x_t, x] is (1 − ᾱ)/√ᾱ times the Jacobian of E[Y | x_t, x], which is symmetric.

    As ᾱ → 0, x_t tells nothing. Of blocks whose leading variance is 3 times the others': 3⁻¹² is
    left of those, √ᾱ of x_t.
    """
    alpha_bar = torch.tensor(1e-8, dtype=torch.float64)
    x_t = (alpha_bar.sqrt() * law.mean).requires_grad_()
    denoised = posterior_mean_of_y(law, x_t, alpha_bar)
    found = torch.randn(x_t.shape, generator=torch.Generator().manual_seed(3)).double()
    value = torch.zeros(())
    for _ in range(12):
        (change,) = torch.autograd.grad(denoised, x_t, found, retain_graph=True)
        change = (1 - alpha_bar) / alpha_bar.sqrt() * change
        value = block_sums(change.square(), 4).sum(dim=1, keepdim=True).sqrt()
        found = change / repeat_blocks(value, 4)
    vector, exact = leading_component(law)
    is_clear = exact > 3 * other_variance(law)
    assert is_clear.double().mean() > 0.3
    cosine = block_sums(found * vector, 4).sum(dim=1, keepdim=True).abs()
    assert (1 - cosine[is_clear]).max() < 1e-4
    torch.testing.assert_close(value[is_clear], exact[is_clear], rtol=1e-3, atol=0)


def test_flat_ground_has_no_leading_direction() -> None:
    law = oracle_law(torch.zeros(1, 3, 4, 4), 4)
    vectors, values = leading_component(law)
    assert not vectors.any()
    torch.testing.assert_close(values, other_variance(law))
