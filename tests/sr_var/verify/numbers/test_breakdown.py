"""Groups by std, range and frequency, classes and worst images, on laws that are known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sr_var.verify.numbers.breakdown import Breakdown, image_sums
from sr_var.verify.numbers.by_image import class_rows, worst_images
from sr_var.verify.numbers.calibration import calibrate
from sr_var.verify.numbers.metrics import ImageResult, image_result
from sr_var.verify.numbers.spectrum import NUM_BANDS, band_power
from sr_var.verify.read.images import ImageData
from utils.metrics import Moments

Array = NDArray[np.float64]
SHAPE = (64, 64, 3)


def _image(seed: int, *, n: int = 19, bias: float = 0.0, low: float = 60.0) -> ImageData:
    """Exact nets (but for a bias in stds) and n exact samples of a normal law, with pictures."""
    rng = np.random.default_rng(seed)
    mean, std = rng.uniform(low, 190, SHAPE), np.exp(rng.uniform(1, 3, SHAPE))
    drawn = mean + std * rng.standard_normal((n + 1, *SHAPE))
    members = np.clip(np.rint(drawn[1:]), 0, 255).astype(np.uint8)
    y = np.clip(np.rint(drawn[0]), 0, 255)
    moments = Moments.from_samples(drawn[1:])
    return ImageData(mean + bias * std, std**2, moments, y, mean, members=members)


def _sections(images: list[ImageData], n: int = 19) -> dict[str, object]:
    total = Breakdown()
    for i, image in enumerate(images):
        total.add(image_sums(f"{i}.png", image, 0))
    return total.sections(n, {})


def test_exact_nets_and_samples_are_right_in_every_fifth() -> None:
    """Four images: 9830 pixels a fifth tell z² to 1.4 % and a share of 90 % to 0.3 %."""
    found = _sections([_image(seed) for seed in range(4)])
    groups = found["groups"]
    fifths = groups["std"]["nets"]
    assert [row["num_pixels"] for row in fifths] == [pytest.approx(9830, abs=1)] * 5
    stds = [row["std"] for row in fifths]
    assert stds == sorted(stds) and stds[0] < 4 < 16 < stds[-1]
    for row in fifths:
        assert row["z2"] == pytest.approx(1, abs=0.07)
        assert row["rmse"] == pytest.approx(row["std"], rel=0.04)
        assert row["coverage_90"] == pytest.approx(0.9, abs=0.015)
    # fifths of 19 samples are chosen by a std that is noisy: the lowest has too little
    assert groups["std"]["samples"][0]["z2"] > 1.15
    for route in ("nets", "samples"):
        assert found["pit"][route]["distance"] < 0.015
        assert sum(found["pit"][route]["share"]) == pytest.approx(1, abs=1e-3)
    assert found["ranks"]["num_members"] == 19 and found["ranks"]["distance"] < 0.02


def test_a_mean_that_is_off_tilts_the_histogram_and_raises_every_fifth() -> None:
    found = _sections([_image(0, bias=0.5)])
    share = found["pit"]["nets"]["share"]
    assert share[0] > 0.08 > 0.02 > share[-1]
    assert all(row["z2"] == pytest.approx(1.25, abs=0.12) for row in found["groups"]["std"]["nets"])
    # the samples do not know of it
    assert found["pit"]["samples"]["distance"] < 0.03


def test_pixels_near_the_ends_are_chosen_by_the_prediction() -> None:
    image = _image(1, low=5.0)
    std = np.sqrt(image.variance)
    is_near = (image.mean - 2 * std < 0) | (image.mean + 2 * std > 255)
    inside, near = _sections([image])["groups"]["range"]["nets"]
    assert near["num_pixels"] == is_near.sum() > 500
    assert inside["num_pixels"] + near["num_pixels"] == is_near.size
    assert near["z2"] < 0.93 < inside["z2"]  # values are cut off at the ends


def test_powers_of_the_bands_add_up_to_the_mean_square() -> None:
    rng = np.random.default_rng(0)
    for shape in ((32, 32, 3), (15, 21, 1)):
        image = rng.normal(0, 5, shape)
        power = band_power(image)
        assert power.shape == (NUM_BANDS,)
        assert power.sum() == pytest.approx((image**2).mean(), rel=1e-5)
    column = np.arange(64)
    wave = np.broadcast_to(np.cos(2 * np.pi * 0.22 * 64 / 64 * column)[None, :, None], (64, 64, 1))
    found = band_power(wave)
    assert found.argmax() == 3 and found[3] > 0.9 * found.sum()  # 0.1875 to 0.25 cycles a pixel


def test_spread_of_exact_samples_is_the_error_of_an_exact_mean_at_every_frequency() -> None:
    found = _sections([_image(seed) for seed in range(4)])["groups"]["frequency"]
    # the lowest band has 600 coefficients, which tell a power to 8 %
    np.testing.assert_allclose(found["samples_spread"], found["nets_error"], rtol=0.15)
    expected = np.array(found["samples_spread"]) * (1 + 1 / 19)
    np.testing.assert_allclose(found["samples_error"], expected, rtol=0.15)
    assert set(found) == {"nets_error", "samples_error", "samples_spread", "difference"}


def test_samples_that_are_left_out_show_what_the_real_image_of_their_law_does() -> None:
    """A bimodal law, ±20 with noise of 8; 16 384 values an image tell a share to 1 %, 4 images."""
    rng, n, images, covered = np.random.default_rng(5), 19, [], []
    for _ in range(4):
        sign = rng.choice([-20.0, 20.0], (n + 1, *SHAPE))
        drawn = np.rint(128 + sign + 8 * rng.standard_normal((n + 1, *SHAPE)))
        moments = Moments.from_samples(drawn[1:])
        mean, v = np.full(SHAPE, 128.0), np.full(SHAPE, 464.0)
        members = drawn[1:].astype(np.uint8)
        images.append(ImageData(mean, v, moments, drawn[0], mean, members=members))
        covered.append(
            calibrate(drawn[0], moments.mean, moments.variance * (1 + 1 / n))[0],
        )
    found = _sections(images)["sampler_law"]
    for name in ("coverage_50", "coverage_68", "coverage_90", "coverage_95"):
        shown = np.mean([row[name] for row in covered])
        assert found[name] == pytest.approx(shown, abs=0.025), name
    assert found["z2"] == pytest.approx(np.mean([row["z2"] for row in covered]), abs=0.03)
    assert found["coverage_50"] < 0.3 and found["coverage_90"] > 0.93  # far from a normal law's


def test_what_not_every_image_has_is_law_of_sampler() -> None:
    with_pictures, without = _image(0), _image(1)
    without = ImageData(*list(vars(without).values())[:5])
    found = _sections([with_pictures, without])
    assert "ranks" not in found and "samples_spread" not in found["groups"]["frequency"]
    assert found["groups"]["std"]["samples"]


def _result(name: str, group: str, image: ImageData) -> ImageResult:
    found = image_result(name, image, num_scatter=1, seed=0)
    return ImageResult(**{**vars(found), "group": group})


def test_classes_are_told_apart_and_the_worst_images_named() -> None:
    rows = [_result(f"{i}.png", "ab"[i % 2], _image(i, bias=0.4 * (i % 2))) for i in range(8)]
    one, other = class_rows(rows)
    assert (one["class"], one["num_images"]) == ("a", 4)
    assert one["z2"] == pytest.approx(1, abs=0.06) and other["z2"] == pytest.approx(1.16, abs=0.06)
    assert other["mean_rms_error"] == pytest.approx(0.4, abs=0.03)
    worst = worst_images(rows)
    assert set(worst) == {"calibration.nets.z2", "mean.relative_mse"}
    for listed in worst.values():
        values = [row["value"] for row in listed]
        assert len(listed) == 5 and values == sorted(values, reverse=True)
        assert {row["name"] for row in listed[:4]} == {f"{i}.png" for i in (1, 3, 5, 7)}
    assert class_rows(rows[::2]) == []
