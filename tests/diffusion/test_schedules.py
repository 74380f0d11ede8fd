"""Noise schedules: range, end points, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

from diffusion.schedules import get_named_beta_schedule


@pytest.mark.parametrize("num_steps", [20, 25, 100, 1000, 4000])
def test_linear_schedule_ends_at_the_same_noise_for_any_number_of_steps(num_steps: int) -> None:
    betas = get_named_beta_schedule("linear", num_steps)
    assert betas.dtype == np.float64
    assert betas.shape == (num_steps,)
    # The sum of betas is the exponent of the signal that is left: 1000·(1e-4 + 0.02)/2.
    assert betas.sum() == pytest.approx(10.05, rel=1e-12)
    assert np.diff(betas) == pytest.approx(betas[1] - betas[0])


@pytest.mark.parametrize("num_steps", [1, 2, 19])
def test_linear_schedule_of_too_few_steps_is_refused_with_a_remedy(num_steps: int) -> None:
    with pytest.raises(ValueError, match=rf"at least 20 steps, got {num_steps}.*respace"):
        get_named_beta_schedule("linear", num_steps)


@pytest.mark.parametrize("num_steps", [1, 2, 50, 1000])
def test_cosine_schedule_leaves_a_squared_cosine_of_the_signal(num_steps: int) -> None:
    betas = get_named_beta_schedule("cosine", num_steps)
    assert ((betas > 0) & (betas <= 0.999)).all()
    i = num_steps // 2
    signal = math.cos((i / num_steps + 0.008) / 1.008 * math.pi / 2) ** 2
    signal /= math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    assert np.prod(1 - betas[:i]) == pytest.approx(signal, rel=1e-9)


@pytest.mark.parametrize("num_steps", [2, 50, 1000])
def test_shifted_cosine_has_a_fifth_of_the_noise(num_steps: int) -> None:
    plain, shifted = (
        np.cumprod(1 - get_named_beta_schedule(name, num_steps))
        for name in ("cosine", "shifted_cosine")
    )
    noise = [np.sqrt((1 - share) / share)[:-1] for share in (plain, shifted)]
    np.testing.assert_allclose(noise[1], noise[0] / 5, rtol=1e-9)
    assert shifted[-1] <= shifted[0] * 0.0011  # next to nothing is left at the end


@pytest.mark.parametrize("num_steps", [0, -5])
def test_schedule_without_steps_is_refused(num_steps: int) -> None:
    with pytest.raises(ValueError, match=f"got {num_steps}"):
        get_named_beta_schedule("cosine", num_steps)


@pytest.mark.parametrize("num_steps", [20, 1000])
def test_sqrt_has_the_roots_of_linear_and_sqrt_linear_is_linear(num_steps: int) -> None:
    linear, root, same = (
        get_named_beta_schedule(name, num_steps) for name in ("linear", "sqrt", "sqrt_linear")
    )
    np.testing.assert_allclose(root**2, linear, rtol=1e-12)
    np.testing.assert_array_equal(same, linear)
    if num_steps == 1000:
        assert root[[0, -1]] == pytest.approx([0.01, 0.02**0.5])


def test_unknown_schedule_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'cosin'.*'linear', 'cosine', 'shifted_cosine'"):
        get_named_beta_schedule("cosin", 100)
