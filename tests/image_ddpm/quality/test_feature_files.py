"""What an input path holds is told from its content, and checked before it is used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from image_ddpm.quality.distances import feature_statistics
from image_ddpm.quality.inputs import (
    FeatureSet,
    ImageSet,
    choose,
    read_input,
    save_features,
    statistics_of,
)
from tests.image_ddpm.quality.sets import pictures, write_folder, write_samples
from utils.process.errors import DataError


def _features(count: int = 12, dimension: int = 3) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(0).standard_normal((count, dimension)).astype(np.float32)


def _stats(**changes: Any) -> dict[str, Any]:
    features = _features()
    found = feature_statistics(features)
    arrays = {"mean": found.mean, "covariance": found.covariance, "count": np.int64(found.count)}
    merged = {**arrays, "features": features, **changes}
    return {key: value for key, value in merged.items() if value is not None}


def test_a_folder_and_an_array_give_the_same_pictures(tmp_path: Path) -> None:
    images = pictures(7)
    folder = read_input("--samples", str(write_folder(tmp_path / "f", images)), 0, 0)
    array = read_input("--samples", str(write_samples(tmp_path / "a.npz", images)), 0, 0)
    assert isinstance(folder, ImageSet) and isinstance(array, ImageSet)
    assert len(folder) == len(array) == 7
    order = sorted(range(7), key=lambda k: ("image" if k % 3 else "more") + f"{k:03d}")
    for k, index in enumerate(order):
        np.testing.assert_array_equal(folder.picture(k), images[index])
        np.testing.assert_array_equal(array.picture(k), images[k])
    assert [len(batch) for batch in array.batches(3)] == [3, 3, 1]


def test_grey_samples_have_three_equal_channels(tmp_path: Path) -> None:
    images = pictures(2, shape=(8, 9, 1))
    found = read_input("--samples", str(write_samples(tmp_path / "a.npz", images)), 0, 0)
    assert isinstance(found, ImageSet) and found.picture(1).shape == (8, 9, 3)
    np.testing.assert_array_equal(found.picture(1), np.repeat(images[1], 3, axis=2))


def test_a_limit_draws_by_seed_and_length_alone() -> None:
    np.testing.assert_array_equal(choose(50, 8, 3), choose(50, 8, 3))
    assert len(set(choose(50, 8, 3).tolist())) == 8
    assert choose(50, 8, 3).tolist() != choose(50, 8, 4).tolist()
    for limit in (0, 50, 60):
        np.testing.assert_array_equal(choose(50, limit, 3), np.arange(50))


def test_features_are_limited_and_have_their_statistics(tmp_path: Path) -> None:
    path, features = tmp_path / "f.npz", _features(40)
    np.savez(path, features)
    found = read_input("--reference", str(path), 9, 1)
    assert isinstance(found, FeatureSet) and found.features is not None and found.name == ""
    np.testing.assert_array_equal(found.features, features[choose(40, 9, 1)])
    assert found.statistics.count == 9


def test_statistics_of_many_features_equal_those_of_one_pass() -> None:
    features = np.random.default_rng(2).standard_normal((9000, 3)) + 5.0
    one, other = statistics_of(features), feature_statistics(features)
    np.testing.assert_allclose(one.mean, other.mean, rtol=1e-13)
    np.testing.assert_allclose(one.covariance, other.covariance, rtol=1e-10, atol=1e-13)


def test_saved_features_come_back(tmp_path: Path) -> None:
    features = _features()
    made = FeatureSet("--reference", "x", feature_statistics(features), features, "pixels")
    path = tmp_path / "new" / "stats.npz"
    save_features(str(path), made)
    found = read_input("--reference", str(path), 0, 0)
    assert isinstance(found, FeatureSet) and found.name == "pixels"
    np.testing.assert_array_equal(found.features, features)
    np.testing.assert_array_equal(found.statistics.covariance, made.statistics.covariance)
    assert (found.statistics.mean == made.statistics.mean).all() and found.statistics.count == 12


def test_statistics_need_no_features(tmp_path: Path) -> None:
    path = tmp_path / "stats.npz"
    np.savez(path, **_stats(features=None))
    found = read_input("--reference", str(path), 0, 0)
    assert isinstance(found, FeatureSet) and found.features is None


@pytest.mark.parametrize(
    ("arrays", "part"),
    [
        ({"other": np.zeros(3)}, "neither arr_0"),
        ({"arr_0": np.zeros((2, 4, 4, 3))}, "float (N, D)"),
        ({"arr_0": np.zeros((2, 4, 4, 3), np.int64)}, "uint8"),
        ({"arr_0": np.zeros((2, 4, 4, 4), np.uint8)}, "uint8"),
        ({"arr_0": np.zeros((4, 4, 3), np.uint8)}, "uint8"),
        ({"arr_0": np.zeros((0, 4, 4, 3), np.uint8)}, "uint8"),
        ({"arr_0": np.array(["a", "b"])}, "uint8"),
        ({"arr_0": np.zeros((1, 3))}, "2 or more"),
        ({"arr_0": np.full((3, 2), np.nan)}, "not finite"),
        ({"arr_0": np.full((3, 2), 1e300)}, "beyond"),
        ({"arr_0": np.ones((3, 2)), "features_name": np.zeros(2)}, "features_name"),
        (_stats(count=None), "no count"),
        (_stats(count=np.int64(1)), "count must"),
        (_stats(count=np.float64(12)), "count must"),
        (_stats(count=np.array([12])), "count must"),
        (_stats(mean=np.zeros((3, 1)), features=None), "mean has"),
        (_stats(mean=np.array([1, 2, 3])), "mean must"),
        (_stats(mean=np.array([np.inf, 0, 0])), "finite"),
        (_stats(covariance=np.eye(4), features=None), "covariance of"),
        (_stats(covariance=-np.eye(3), features=None), "negative eigenvalue"),
        (_stats(covariance=np.triu(np.ones((3, 3))), features=None), "not symmetric"),
        (_stats(count=np.int64(13)), "(12, 3)"),
        (_stats(mean=np.ones(3)), "its features"),
        (_stats(covariance=np.eye(3) * 2), "its features"),
        (_stats(features=np.zeros((12, 3), np.int32)), "features are"),
    ],
)
def test_content_that_is_none_of_the_kinds_is_refused(
    tmp_path: Path, arrays: dict[str, Any], part: str
) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, **arrays)
    with pytest.raises(DataError) as caught:
        read_input("--samples", str(path), 0, 0)
    assert str(caught.value).startswith(f"--samples {path}")
    assert part in str(caught.value)


def test_a_folder_without_images_and_a_damaged_image_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--samples .* no image"):
        read_input("--samples", str(tmp_path), 0, 0)
    (tmp_path / "a.png").write_bytes(b"no image")
    found = read_input("--samples", str(tmp_path), 0, 0)
    assert isinstance(found, ImageSet)
    with pytest.raises(DataError, match=r"--samples: .*a\.png"):
        found.picture(0)
