"""Metrics do not wrap on 8-bit arrays; streaming moments equal direct ones and are unbiased."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from utils.metrics import Moments, mean_abs_error, mse, nmse, percent, psnr, ssim

Float64Array = NDArray[np.float64]


def _uint8(*levels: int) -> NDArray[np.uint8]:
    return np.array(levels, dtype=np.uint8)


def test_8_bit_differences_do_not_wrap() -> None:
    for a, b in ((10, 30), (30, 10)):
        assert mse(_uint8(a), _uint8(b)) == 400.0
        assert mean_abs_error(_uint8(a), _uint8(b)) == 20.0
    assert nmse(_uint8(10, 0), _uint8(30, 0)) == 4.0
    assert psnr(_uint8(0), _uint8(255)) == 0.0


@pytest.mark.parametrize("metric", [mse, mean_abs_error, nmse, psnr])
def test_metrics_of_8_bit_arrays_equal_those_of_floats(
    metric: Callable[[object, object], float],
) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (2, 9, 8, 3), dtype=np.uint8)
    assert metric(a, b) == metric(a.astype(np.float64), b.astype(np.float64))
    assert metric(a, b) == metric(a.astype(np.int16), b.astype(np.float32))


def test_metrics_equal_their_definitions() -> None:
    a = np.array([[1.0, 2.0], [3.0, 4.0]])
    b = np.array([[1.0, 0.0], [6.0, 4.0]])
    assert mse(a, b) == (4 + 9) / 4
    assert mean_abs_error(a, b) == (2 + 3) / 4
    assert nmse(a, b) == pytest.approx(13 / 30, rel=1e-15)
    assert psnr(a, b, data_range=10.0) == pytest.approx(10 * math.log10(100 / 3.25), rel=1e-15)


def test_psnr_of_identical_images_is_infinite_without_a_warning() -> None:
    with np.errstate(all="raise"):
        assert psnr(_uint8(1, 2), _uint8(1, 2)) == math.inf


def test_psnr_of_a_dark_image_uses_the_range_of_the_format() -> None:
    dark = np.full((4, 4), 63, dtype=np.uint8)
    darker = dark - np.uint8(2)
    assert psnr(dark, darker) == pytest.approx(20 * math.log10(255 / 2), rel=1e-14)
    assert psnr(dark, darker) == psnr(dark + np.uint8(100), darker + np.uint8(100))


def test_psnr_does_not_depend_on_the_unit() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (2, 50), dtype=np.uint8)
    in_unit_range = psnr(a / 127.5 - 1.0, b / 127.5 - 1.0, data_range=2.0)
    assert in_unit_range == pytest.approx(psnr(a, b), rel=1e-12)


def test_nmse_does_not_depend_on_scale_and_has_limits_at_zero() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 50))
    assert nmse(7 * a, 7 * b) == pytest.approx(nmse(a, b), rel=1e-12)
    assert nmse([0.0], [0.0]) == 0.0
    assert nmse([0.0], [1.0]) == math.inf


@pytest.mark.parametrize("metric", [mse, mean_abs_error, nmse, psnr, ssim])
def test_different_shapes_and_empty_arrays_are_refused(
    metric: Callable[[object, object], float],
) -> None:
    for a, b in ((np.zeros(3), np.zeros((3, 1))), (np.zeros(3), 0.0), (np.zeros(0), np.zeros(0))):
        with pytest.raises(ValueError, match="shapes"):
            metric(a, b)


@pytest.mark.parametrize("data_range", [0.0, -1.0, math.nan])
def test_psnr_and_ssim_refuse_a_range_that_is_not_positive(data_range: float) -> None:
    with pytest.raises(ValueError, match="data_range"):
        psnr([1.0], [2.0], data_range=data_range)
    with pytest.raises(ValueError, match="data_range"):
        ssim(np.zeros((11, 11)), np.zeros((11, 11)), data_range=data_range)


@pytest.mark.parametrize("shape", [(11, 11), (30, 17), (11, 40, 3), (25, 32, 1), (64, 48, 3)])
def test_ssim_equals_that_of_scikit_image(shape: tuple[int, ...]) -> None:
    from skimage import metrics

    rng = np.random.default_rng(sum(shape))
    slope = np.linspace(0, 200, shape[1]).reshape(1, -1, *[1] * (len(shape) - 2))
    a = np.clip(slope + rng.normal(0, 20, shape), 0, 255).astype(np.uint8)
    b = np.clip(a + rng.normal(3, 15, shape), 0, 255).astype(np.uint8)
    for one, other, data_range in ((a, b, 255.0), (a / 127.5 - 1.0, b / 127.5 - 1.0, 2.0)):
        expected = metrics.structural_similarity(
            one.astype(np.float64),
            other.astype(np.float64),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=data_range,
            channel_axis=-1 if len(shape) == 3 else None,
        )
        assert abs(ssim(one, other, data_range=data_range) - expected) < 1e-12


def test_ssim_of_flat_images_has_its_closed_form() -> None:
    """Without variance only the luminance term is left, and C₁ = (0.01 · 255)²."""
    c1 = 2.55**2
    flat = [np.full((12, 13, 3), level, dtype=np.uint8) for level in (100, 200)]
    expected = (2 * 100 * 200 + c1) / (100**2 + 200**2 + c1)
    assert ssim(*flat) == pytest.approx(expected, rel=1e-12)


def test_ssim_is_one_for_equal_images_symmetric_and_free_of_the_unit() -> None:
    a, b = np.random.default_rng(0).integers(0, 256, (2, 16, 20, 3), dtype=np.uint8)
    assert ssim(a, a) == pytest.approx(1.0, abs=1e-14)
    assert ssim(a, b) == pytest.approx(ssim(b, a), rel=1e-12)
    assert ssim(a, 255 - a) < 0.0
    assert ssim(a * 7.0, b * 7.0, data_range=7 * 255.0) == pytest.approx(ssim(a, b), rel=1e-10)


def test_ssim_refuses_images_that_its_window_does_not_fit_into() -> None:
    for shape in ((10, 30), (30, 10, 3), (200,), (2, 20, 20, 3)):
        with pytest.raises(ValueError, match="sides of 11"):
            ssim(np.zeros(shape), np.zeros(shape))


def _fields(moments: Moments) -> list[Float64Array]:
    return [moments.mean, moments.m2, moments.m3, moments.m4]


def _assert_close(a: Moments, b: Moments) -> None:
    """Equality to 1e-12 of count · rms^p, since third moments may cancel to nothing."""
    assert a.count == b.count
    np.testing.assert_allclose(a.mean, b.mean, rtol=1e-12)
    rms = math.sqrt(float(b.m2.max()) / b.count)
    for order, one, other in zip((2, 3, 4), _fields(a)[1:], _fields(b)[1:], strict=True):
        np.testing.assert_allclose(one, other, rtol=0.0, atol=1e-12 * b.count * rms**order)


def test_moments_equal_direct_ones() -> None:
    samples = np.random.default_rng(0).gamma(2.0, 3.0, (50, 4, 5, 3))
    moments = Moments.from_samples(samples)
    deviation = samples - samples.mean(axis=0)
    np.testing.assert_allclose(moments.mean, samples.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(moments.variance, samples.var(axis=0, ddof=1), rtol=1e-13)
    np.testing.assert_allclose(moments.third_central_moment, (deviation**3).mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(
        moments.fourth_central_moment, (deviation**4).mean(axis=0), rtol=1e-12
    )


def test_moments_of_8_bit_samples_equal_those_of_floats() -> None:
    samples = np.random.default_rng(0).integers(0, 256, (9, 5), dtype=np.uint8)
    moments = Moments.from_samples(samples)
    _assert_close(moments, Moments.from_samples(samples.astype(np.float64)))
    assert Moments.from_samples(_uint8(10, 30)).variance == 200.0


@pytest.mark.parametrize("sizes", [(1, 1), (1, 30), (30, 1), (2, 3), (50, 50), (3, 97)])
def test_merging_equals_the_moments_of_all_samples(sizes: tuple[int, int]) -> None:
    samples = np.random.default_rng(1).gamma(1.0, 2.0, (sum(sizes), 7)) + 5.0
    a, b = samples[: sizes[0]], samples[sizes[0] :]
    merged = Moments.merge(Moments.from_samples(a), Moments.from_samples(b))
    _assert_close(merged, Moments.from_samples(samples))


def test_merging_is_associative_and_commutative() -> None:
    rng = np.random.default_rng(2)
    a, b, c = (Moments.from_samples(rng.gamma(1.0, 1.0, (n, 6)) + n) for n in (4, 9, 1))
    left = Moments.merge(Moments.merge(a, b), c)
    _assert_close(Moments.merge(a, Moments.merge(b, c)), left)
    _assert_close(Moments.merge(c, Moments.merge(b, a)), left)


def test_merging_one_by_one_equals_all_at_once_far_from_zero() -> None:
    samples = np.random.default_rng(3).standard_normal((200, 3)) + 1000.0
    streamed = Moments.from_samples(samples[:1])
    for sample in samples[1:]:
        streamed = Moments.merge(streamed, Moments.from_samples(sample[None]))
    direct = Moments.from_samples(samples)
    # The mean carries 1e-13 rounding, relative to deviations of 1: 1e-9 holds with a wide margin.
    for one, other in zip(_fields(streamed), _fields(direct), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)


def test_merging_leaves_its_arguments_alone() -> None:
    a, b = (Moments.from_samples(np.arange(6.0).reshape(3, 2) * k) for k in (1, 2))
    before = [field.copy() for moments in (a, b) for field in _fields(moments)]
    Moments.merge(a, b)
    after = [field for moments in (a, b) for field in _fields(moments)]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


def test_moments_come_back_from_stored_statistics() -> None:
    samples = np.random.default_rng(4).gamma(1.0, 1.0, (30, 5))
    direct = Moments.from_samples(samples)
    stored = Moments.from_central_moments(
        direct.count,
        direct.mean,
        direct.variance,
        direct.third_central_moment,
        direct.fourth_central_moment,
    )
    _assert_close(stored, direct)
    zeros = np.zeros(5)
    single = Moments.from_central_moments(1, zeros, np.full(5, math.nan), zeros, zeros)
    _assert_close(Moments.merge(single, direct), Moments.from_samples([zeros, *samples]))


@pytest.mark.parametrize("num_samples", [4, 5, 6])
def test_estimators_are_unbiased_over_every_possible_sample(num_samples: int) -> None:
    """Expectation by enumeration of all samples of a skewed three-point law."""
    values, weights = np.array([-1.0, 0.5, 4.0]), np.array([0.2, 0.5, 0.3])
    deviation = values - weights @ values
    variance, fourth = weights @ deviation**2, weights @ deviation**4
    kappa_4 = fourth - 3.0 * variance**2

    draws = np.array(list(itertools.product(range(3), repeat=num_samples)))  # (3^n, n)
    probability = weights[draws].prod(axis=1)  # (3^n,)
    moments = Moments.from_samples(values[draws].T)
    true_variance_of_k2 = probability @ (moments.variance - variance) ** 2

    assert probability.sum() == pytest.approx(1.0, rel=1e-12)
    assert probability @ moments.variance == pytest.approx(variance, rel=1e-12)
    assert probability @ moments.k4 == pytest.approx(kappa_4, rel=1e-11)
    assert probability @ moments.variance_of_variance == pytest.approx(
        true_variance_of_k2, rel=1e-11
    )


def test_two_point_sample_has_its_closed_form_moments() -> None:
    moments = Moments.from_samples([0.0, 0.0, 2.0, 2.0])
    assert (moments.mean, moments.m2, moments.m3, moments.m4) == (1.0, 4.0, 0.0, 4.0)
    assert moments.variance == pytest.approx(4.0 / 3.0, rel=1e-15)
    assert moments.k4 == pytest.approx((4 * 5 * 4 - 3 * 3 * 16) / 6, rel=1e-15)


def test_constant_samples_have_no_variance_at_all() -> None:
    moments = Moments.from_samples(np.full((100, 3), 0.1))
    for field in (moments.variance, moments.k4, moments.variance_of_variance):
        np.testing.assert_allclose(field, 0.0, atol=1e-30)


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Moments.from_samples(np.zeros((0, 3)))
    with pytest.raises(ValueError, match="at least one"):
        Moments.from_samples(3.0)
    with pytest.raises(ValueError, match="2 samples"):
        _ = Moments.from_samples([1.0]).variance
    with pytest.raises(ValueError, match="4 samples"):
        _ = Moments.from_samples([1.0, 2.0, 3.0]).variance_of_variance
    with pytest.raises(ValueError, match="shapes"):
        Moments.merge(Moments.from_samples(np.zeros((2, 3))), Moments.from_samples(np.zeros(2)))


@pytest.mark.parametrize(
    ("share", "said"),
    [(0.0, "0"), (0.00025, "0.025"), (0.0137, "1.4"), (0.998, "100"), (1.0, "100"), (1.42, "142")]
    + [(-0.405, "-40"), (-2.5, "-250")],
)
def test_per_cent_have_two_digits_and_no_exponent(share: float, said: str) -> None:
    assert percent(share) == said
