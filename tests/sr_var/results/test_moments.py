"""``moments.npz``: each sample counted once, in float, and damage is told from content."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sr_var.results.moments import SampleMoments, load_moments
from utils.process.errors import DataError

Array = NDArray[np.float64]
NUM = 7


def _samples() -> Array:
    return np.random.default_rng(0).gamma(2.0, 30.0, (NUM, 4, 5, 3))


def _central(samples: Array, order: int) -> Array:
    moment: Array = ((samples - samples.mean(axis=0)) ** order).mean(axis=0)
    return moment


def _assert_moments_of(found: SampleMoments, samples: Array, rtol: float) -> None:
    assert found.moments is not None
    tight = {"rtol": rtol, "atol": 1e-9}
    np.testing.assert_allclose(found.moments.mean, samples.mean(axis=0), **tight)
    np.testing.assert_allclose(found.moments.variance, samples.var(axis=0, ddof=1), **tight)
    third, fourth = found.moments.third_central_moment, found.moments.fourth_central_moment
    np.testing.assert_allclose(third, _central(samples, 3), rtol=rtol, atol=1e-6)
    np.testing.assert_allclose(fourth, _central(samples, 4), **tight)


@pytest.mark.parametrize("sizes", [(7,), (1,) * 7, (3, 4), (2, 5), (6, 1)])
def test_moments_do_not_depend_on_how_samples_were_batched(sizes: tuple[int, ...]) -> None:
    samples, found, start = _samples(), SampleMoments(), 0
    for size in sizes:
        found = found.add(samples[start : start + size], range(start, start + size))
        start += size
    assert set(found.indices) == set(range(NUM))
    _assert_moments_of(found, samples, rtol=1e-12)


def test_moments_do_not_depend_on_the_order_of_samples() -> None:
    samples = _samples()[:4]
    for order in itertools.permutations(range(4)):
        found = SampleMoments()
        for index in order:
            found = found.add(samples[[index]], [index])
        _assert_moments_of(found, samples, rtol=1e-11)


def test_a_sample_drawn_again_is_not_counted_twice() -> None:
    samples = _samples()
    found = SampleMoments().add(samples[:5], range(5))
    assert found.add(samples[2:4], [2, 3]) is found
    _assert_moments_of(found.add(samples[3:], range(3, NUM)), samples, rtol=1e-12)


def test_adding_leaves_the_arguments_alone() -> None:
    samples = _samples()
    first = SampleMoments().add(samples[:3], range(3))
    first.add(samples[3:], range(3, NUM))
    _assert_moments_of(first, samples[:3], rtol=1e-12)
    np.testing.assert_array_equal(samples, _samples())


@pytest.mark.parametrize(
    ("is_final", "dtype", "rtol"), [(False, np.float64, 1e-12), (True, np.float32, 2e-7)]
)
def test_file_holds_what_the_contract_says(
    tmp_path: Path, is_final: bool, dtype: type, rtol: float
) -> None:
    samples = _samples()
    path = tmp_path / "moments.npz"
    indices = [3, 0, 9, 1, 4, 20, 6]
    SampleMoments().add(samples, indices).save(str(path), is_final=is_final)
    with np.load(path, allow_pickle=False) as file:
        names = {"mean", "variance", "third_central_moment", "fourth_central_moment"}
        assert set(file) == names | {"count", "indices"}
        assert all(file[name].dtype == dtype and file[name].shape == (4, 5, 3) for name in names)
        assert file["count"] == NUM and list(file["indices"]) == sorted(indices)
        np.testing.assert_allclose(file["variance"], samples.var(axis=0, ddof=1), rtol=rtol)
    found = load_moments(str(path))
    assert found is not None
    assert found.indices == tuple(sorted(indices))
    assert found.moments is not None and found.moments.mean.dtype == np.float64
    _assert_moments_of(found, samples, rtol=10 * rtol)


def test_one_sample_has_no_variance_yet_but_can_be_gone_on_from(tmp_path: Path) -> None:
    samples, path = _samples(), str(tmp_path / "moments.npz")
    SampleMoments().add(samples[:1], [0]).save(path, is_final=False)
    found = load_moments(path)
    assert found is not None
    _assert_moments_of(found.add(samples[1:], range(1, NUM)), samples, rtol=1e-12)


def test_missing_file_is_no_moments(tmp_path: Path) -> None:
    assert load_moments(str(tmp_path / "moments.npz")) is None


def test_file_without_indices_counts_the_first_samples(tmp_path: Path) -> None:
    samples, path = _samples(), tmp_path / "moments.npz"
    SampleMoments().add(samples, range(NUM)).save(str(path), is_final=False)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file if name != "indices"}
    np.savez(path, **arrays)
    found = load_moments(str(path))
    assert found is not None and found.indices == tuple(range(NUM))


def test_every_flipped_byte_is_refused_by_name_or_harmless(tmp_path: Path) -> None:
    """A damaged file never shows as another exception, and never as other numbers."""
    samples = _samples()[:, :2, :1]
    path = tmp_path / "moments.npz"
    SampleMoments().add(samples, range(NUM)).save(str(path), is_final=False)
    content = path.read_bytes()
    num_refused = 0
    for place in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[place] ^= 0x55
        path.write_bytes(damaged)
        try:
            found = load_moments(str(path))
        except DataError as error:
            assert str(path) in str(error)
            num_refused += 1
            continue
        assert found is not None and found.indices == tuple(range(NUM))
        _assert_moments_of(found, samples, rtol=1e-12)
    assert num_refused > len(content) / 7 / 4


@pytest.mark.parametrize("content", [b"", b"PK", b"\x80\x04N."])
def test_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "moments.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"moments\.npz .*whole"):
        load_moments(str(path))


@pytest.mark.parametrize(
    "change",
    [
        {"count": np.int64(3)},
        {"count": np.int64(0), "indices": np.zeros(0, np.int64)},
        {"count": np.arange(3)},
        {"mean": np.zeros((2, 2))},
        {"variance": np.full((4, 5, 3), np.nan)},
        {"indices": np.zeros(NUM, np.int64)},
        {"mean": np.array([object()])},
    ],
    ids=["count", "none", "counts", "shape", "nan", "twice", "object"],
)
def test_contradictory_content_is_refused(tmp_path: Path, change: dict[str, Array]) -> None:
    path = tmp_path / "moments.npz"
    SampleMoments().add(_samples(), range(NUM)).save(str(path), is_final=False)
    with np.load(path) as file:
        arrays = {**{name: file[name] for name in file}, **change}
    np.savez(path, **arrays)
    with pytest.raises(DataError, match=r"moments\.npz"):
        load_moments(str(path))
