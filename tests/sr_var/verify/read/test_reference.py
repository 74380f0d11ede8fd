"""The reference of an image: its moments and block means, from either source."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sr_var.results.moments import SampleMoments, block_means, load_moments
from sr_var.verify.read.images import load_reference
from tests.sr_var.hand_made import SHAPE, SIZE, Results
from utils.process.errors import DataError

Array = NDArray[np.float64]
SMALL = SIZE // 4


def _samples(n: int, std: float = 3.0) -> Array:
    rng = np.random.default_rng(n)
    return rng.uniform(30, 220, SHAPE) + std * rng.standard_normal((n, *SHAPE))


def test_block_means_are_those_of_the_blocks() -> None:
    image = np.random.default_rng(0).normal(0, 1, (5, 12, 12, 3))
    expected = image.reshape(5, 4, 3, 4, 3, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(block_means(image, 4), expected, rtol=1e-12)
    np.testing.assert_array_equal(block_means(image, 12), image)


def test_reference_does_not_depend_on_the_number_of_threads(tmp_path: Path) -> None:
    n = 33
    folder = str(Results(tmp_path).add_samples("a", _samples(n), has_moments=False))
    one, three = (load_reference(folder, n, SIZE, SMALL, num_threads=k) for k in (1, 3))
    for name in ("mean", "m2", "m3", "m4"):
        np.testing.assert_array_equal(getattr(one.moments, name), getattr(three.moments, name))
    assert one.block_variance is not None and three.block_variance is not None
    np.testing.assert_array_equal(one.block_variance, three.block_variance)


def test_damaged_picture_is_named_whichever_thread_reads_it(tmp_path: Path) -> None:
    folder = Results(tmp_path).add_samples("a", _samples(9), has_moments=False)
    (folder / "high_res_samples" / "sample_6.png").write_bytes(b"no picture")
    for num_threads in (1, 3):
        with pytest.raises(DataError, match=r"sample_6\.png"):
            load_reference(str(folder), 9, SIZE, SMALL, num_threads=num_threads)


def test_block_means_of_bytes_are_those_of_floats_bit_for_bit() -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 12, 12, 3), dtype=np.uint8)
    for small_size in (1, 2, 4, 12):
        floats = block_means(images.astype(np.float64), small_size)
        np.testing.assert_array_equal(block_means(images, small_size), floats)


@pytest.mark.parametrize("factor", [16, 17])
def test_white_blocks_do_not_overflow(factor: int) -> None:
    """Up to 16 pixels a side 16 bits hold their sum."""
    white = np.full((factor, 2 * factor, 3), 255, np.uint8)
    np.testing.assert_array_equal(block_means(white, (1, 2)), np.full((1, 2, 3), 255.0))


@pytest.mark.parametrize("has_moments", [True, False])
def test_block_means_are_those_of_the_samples(tmp_path: Path, has_moments: bool) -> None:
    n = 9
    samples = _samples(n)
    folder = Results(tmp_path).add_samples("a", samples, has_moments=False)
    if has_moments:
        counted = SampleMoments().add(samples, range(n), SMALL)
        counted.save(str(folder / "moments.npz"), is_final=True)
        for path in (folder / "high_res_samples").iterdir():
            path.unlink()
    else:
        samples = np.rint(samples)
    found = load_reference(str(folder), n, SIZE, SMALL)
    assert found.is_float == has_moments
    assert found.block_variance is not None
    expected = block_means(samples, SMALL).var(axis=0, ddof=1)
    np.testing.assert_allclose(found.block_variance, expected, rtol=1e-5)


def test_moments_file_without_block_means_takes_them_from_the_pictures(tmp_path: Path) -> None:
    n, samples = 6, _samples(6)
    folder = Results(tmp_path).add_samples("a", samples, has_moments=True)
    found = load_reference(str(folder), n, SIZE, SMALL)
    assert found.is_float and found.block_variance is not None
    expected = block_means(np.rint(samples), SMALL).var(axis=0, ddof=1)
    np.testing.assert_allclose(found.block_variance, expected, rtol=1e-9)
    np.testing.assert_allclose(found.moments.variance, samples.var(axis=0, ddof=1), rtol=1e-5)
    os.remove(folder / "high_res_samples" / "sample_5.png")
    assert load_reference(str(folder), n, SIZE, SMALL).block_variance is None


def test_file_with_moments_of_half_of_the_samples_stays_readable(tmp_path: Path) -> None:
    """Earlier versions kept mean and variance of the samples of even index."""
    samples, path = _samples(6), tmp_path / "moments.npz"
    SampleMoments().add(samples, range(6), SMALL).save(str(path), is_final=True)
    with np.load(path) as file:
        now = dict(file)
    assert not any(name.startswith("even") for name in now)
    even = samples[::2]
    np.savez(path, **now, even_mean=even.mean(axis=0), even_variance=even.var(axis=0, ddof=1))
    stored = load_moments(str(path))
    assert stored is not None and stored.moments is not None and stored.blocks is not None
    np.testing.assert_array_equal(stored.moments.mean, now["mean"])


@pytest.mark.parametrize("order", [range(7), (6, 1, 3, 0, 2, 5, 4), (1, 3, 5, 0, 2, 4, 6)])
def test_block_means_do_not_depend_on_stops_and_order(
    tmp_path: Path, order: tuple[int, ...]
) -> None:
    """One sample at a time, each time through the file, with a sample drawn twice."""
    samples, path = _samples(7), str(tmp_path / "moments.npz")
    found = SampleMoments()
    for index in (*order, order[0]):
        found = found.add(samples[[index]], [index], SMALL)
        found.save(path, is_final=False)
        found = load_moments(path) or SampleMoments()
    assert found.blocks is not None
    expected = block_means(samples, SMALL)
    assert found.blocks.count == 7
    np.testing.assert_allclose(found.blocks.variance, expected.var(axis=0, ddof=1), rtol=1e-9)


def test_file_that_never_knew_its_block_means_does_not_make_them_up(
    tmp_path: Path,
) -> None:
    samples, path = _samples(8), tmp_path / "moments.npz"
    SampleMoments().add(samples[:4], range(4), SMALL).save(str(path), is_final=False)
    with np.load(path) as file:
        old = {n: file[n] for n in file if not n.startswith("block")}
    np.savez(path, **old)
    stored = load_moments(str(path))
    assert stored is not None and stored.blocks is None
    more = stored.add(samples[4:], range(4, 8), SMALL)
    assert more.blocks is None
    assert more.moments is not None and more.moments.count == 8
