"""The gallery's compact form: what is kept is exact, and the page stays within its budget."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sr_var.verify.numbers.floors import std_of_samples
from sr_var.verify.show import gallery as gallery_module
from sr_var.verify.show.gallery import (
    NUM_BINS,
    Gallery,
    colour_map,
    histogram_counts,
    layout,
    std_codes,
)
from tests.sr_var.verify.show.report_data import image_data, write_samples
from tests.tiny import photo


def _pixels(text: str) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB"))


def _gallery(folder: Path, side: int, num_samples: int = 12) -> tuple[Gallery, Any, Any]:
    data, samples = image_data(photo(1, (side, side)), num_samples, 1)
    write_samples(folder, "a", samples)
    gallery = Gallery(str(folder), num_samples, print)
    gallery.add("a", data)
    return gallery, data, samples


def test_maps_of_a_small_image_are_exact_to_a_level_in_every_channel(tmp_path: Path) -> None:
    gallery, data, _ = _gallery(tmp_path, 32)
    content = gallery.content()
    assert content["channels"] == ["red", "green", "blue"] and content["stride"] == 1
    for channel, part in enumerate(content["images"][0]["channels"]):
        values, codes = _pixels(part["values"]), _pixels(part["stds"]).astype(np.float64)
        np.testing.assert_array_equal(values[..., 0], data.high_res[..., channel])
        expected = np.stack([data.mean, data.samples.mean])[..., channel].clip(0, 255)
        assert np.abs(np.moveaxis(values[..., 1:], -1, 0) - expected).max() <= 0.5
        stds = part["largest_std"] * (codes[..., :2] / 255) ** 2
        both = np.stack([np.sqrt(data.variance), std_of_samples(data.samples)])
        wanted = both[..., channel]
        assert np.abs(np.moveaxis(stds, -1, 0) - wanted).max() <= part["largest_std"] / 250


def test_histograms_hold_every_sample_and_lie_around_the_mean(tmp_path: Path) -> None:
    gallery, _, samples = _gallery(tmp_path, 32)
    part = gallery.content()["images"][0]["channels"][0]
    counts = _pixels(part["histograms"])[..., 0].reshape(32, NUM_BINS, 32)
    assert (counts.sum(axis=1) == len(samples)).all()
    centre = (counts * np.arange(NUM_BINS)[None, :, None]).sum(axis=1) / len(samples)
    assert np.abs(centre - NUM_BINS // 2).max() < 1.2


def test_bins_are_whole_grey_levels_around_the_rounded_mean() -> None:
    samples = np.array([90, 99, 100, 100, 101, 250], np.uint8)[:, None, None]
    counts = histogram_counts(
        samples, np.full((1, 1), 100, np.uint8), np.zeros((1, 1), np.uint8), 9
    )
    expected = np.zeros(NUM_BINS)
    expected[[0, 6, 7, 8, 14]] = 1, 1, 2, 1, 1
    np.testing.assert_array_equal(counts[0, 0], expected)


def test_more_samples_than_a_byte_counts_become_shares_of_the_fullest_bin() -> None:
    samples = np.repeat(np.array([99, 100], np.uint8), [200, 400])[:, None, None]
    counts = histogram_counts(
        samples, np.full((1, 1), 100, np.uint8), np.zeros((1, 1), np.uint8), 9
    )
    assert counts[0, 0, 7] == 255 and counts[0, 0, 6] in (127, 128)


def test_std_codes_are_zero_for_maps_without_spread_and_finer_for_small_stds() -> None:
    assert not std_codes(np.zeros((2, 2)), 0.0).any()
    std = np.array([0.0, 0.1, 1.0, 100.0])
    back = 100 * (std_codes(std, 100.0) / 255.0) ** 2
    np.testing.assert_allclose(back, std, rtol=0.05)


def test_large_images_keep_one_channel_and_histograms_at_a_stride(tmp_path: Path) -> None:
    assert layout(64)["histogram_stride"] == 1
    assert layout(256) | {"channels": ["green"], "histogram_stride": 4} == layout(256)
    assert layout(512)["stride"] == 2 and layout(512)["histogram_stride"] == 8
    gallery, data, samples = _gallery(tmp_path, 128)
    content = gallery.content()
    part = content["images"][0]["channels"][0]
    np.testing.assert_array_equal(_pixels(part["values"])[..., 0], data.high_res[..., 1])
    counts = _pixels(part["histograms"])[..., 0]
    assert counts.shape == (64, 64 * NUM_BINS)
    centre, codes = (_pixels(part[key])[::2, ::2] for key in ("values", "stds"))
    found = histogram_counts(
        samples[:, ::2, ::2, 1], centre[..., 2], codes[..., 1], part["largest_std"]
    )
    np.testing.assert_array_equal(counts.reshape(64, NUM_BINS, 64).transpose(0, 2, 1), found)


@pytest.mark.parametrize("fault", ["missing", "damaged", "size"])
def test_without_every_sample_picture_there_is_no_histogram(tmp_path: Path, fault: str) -> None:
    data, samples = image_data(photo(1, (32, 32)), 3, 1)
    write_samples(tmp_path, "a", samples)
    path = tmp_path / "a" / "high_res_samples" / "sample_1.png"
    path.unlink()
    if fault == "damaged":
        path.write_bytes(b"x")
    elif fault == "size":
        Image.fromarray(samples[0, :8]).save(path)
    said: list[str] = []
    gallery = Gallery(str(tmp_path), 3, said.append)
    gallery.add("a", data)
    assert gallery.images[0]["channels"][0]["histograms"] is None
    assert len(said) == (fault == "damaged")


def test_fifty_large_images_stay_below_twenty_megabytes(tmp_path: Path) -> None:
    gallery, _, _ = _gallery(tmp_path, 256, num_samples=40)
    size = sum(len(str(value)) for value in (gallery.content(),))
    assert 50 * size < 19e6


def test_images_beyond_the_budget_are_left_out_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery, data, _ = _gallery(tmp_path, 32)
    one = gallery_module._size(gallery.images[0])
    monkeypatch.setattr(gallery_module, "MAX_BYTES", int(2.5 * one))
    for name in "bcd":
        gallery.add(name, data)
    assert len(gallery.images) in (2, 3) and gallery.num_left_out == 4 - len(gallery.images)


def test_colours_are_the_256_of_the_panels() -> None:
    colours = colour_map()
    assert len(colours) == 6 * 256 and bytes.fromhex(colours[:6]) < bytes.fromhex(colours[-6:])
