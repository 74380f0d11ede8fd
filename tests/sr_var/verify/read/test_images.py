"""What the verification reads and writes: float moments or pictures, and messages for the rest."""

from __future__ import annotations

import math
import os
import pickle
import shlex
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sr_var.verify.read.images import load_image_data, load_reference
from sr_var.verify.run import verify_image, verify_images, without_arrays
from tests.sr_var.hand_made import (
    MEAN_STEP,
    SHAPE,
    SIZE,
    VAR_STEP,
    Results,
    flat,
    make_results,
    stack,
)
from tests.tiny import tree
from utils.images.listing import Entry
from utils.metrics import Moments
from utils.process.errors import DataError
from utils.untrusted.pickles import dump_pickle, load_array

A = Entry("a.png", 0)


def reference_moments(folder: str, num_samples: int, side: int) -> tuple[Moments, bool]:
    """What the samples say, and whether in float."""
    found = load_reference(folder, num_samples, side, side)
    return found.moments, found.is_float


@pytest.fixture
def results(tmp_path: Path) -> Results:
    """Three images whose metrics are known."""
    return make_results(tmp_path)


def _samples(n: int, seed: int = 0) -> np.ndarray:  # type: ignore[type-arg]
    return np.random.default_rng(seed).uniform(20, 230, (n, *SHAPE))


def test_float_moments_are_preferred_to_pictures(tmp_path: Path) -> None:
    """Samples 100.3 and 100.4 are the same picture; only the float moments know their variance."""
    samples = stack(100.3, 100.4, 100.3, 100.4)
    folder = Results(tmp_path).add_samples("a", samples, has_moments=True)
    moments, is_float = reference_moments(str(folder), 4, SIZE)
    assert is_float
    np.testing.assert_allclose(moments.mean, 100.35, rtol=1e-6)
    np.testing.assert_allclose(moments.variance, 0.01 / 3, rtol=1e-4)
    os.remove(folder / "moments.npz")
    moments, is_float = reference_moments(str(folder), 4, SIZE)
    assert not is_float
    assert np.all(moments.mean == 100.0) and np.all(moments.variance == 0.0)


def test_moments_of_other_samples_than_the_pictures_are_refused(tmp_path: Path) -> None:
    """The bound holds for every sample that is counted, however far from the mean it is."""
    results = Results(tmp_path)
    folder = results.add_samples("a", stack(0, 0, 0, 200), has_moments=True)
    reference_moments(str(folder), 4, SIZE)  # the last one lies on the bound
    beyond = results.add_samples("b", stack(250, 270, 260, 255), has_moments=True)
    reference_moments(str(beyond), 4, SIZE)  # pictures are clipped
    others = results.add_samples("a", stack(0, 0, 0, 203), has_moments=False)
    with pytest.raises(DataError, match=r"moments\.npz .*sample_3\.png"):
        reference_moments(str(others), 4, SIZE)
    for picture in (folder / "high_res_samples").iterdir():
        picture.unlink()
    reference_moments(str(folder), 4, SIZE)  # moments alone are enough
    results.add_samples("a", stack(9, 9, 9, 9), has_moments=False)
    (folder / "moments.npz").unlink()
    moments, is_float = reference_moments(str(folder), 4, SIZE)
    assert not is_float and np.all(moments.mean == 9)


@pytest.mark.parametrize("n", [2, 7, 8, 9, 20])
def test_pictures_give_the_moments_of_their_bytes(tmp_path: Path, n: int) -> None:
    samples = _samples(n)
    folder = Results(tmp_path).add_samples("a", samples, has_moments=False)
    moments, _ = reference_moments(str(folder), n, SIZE)
    pictures = np.rint(samples)
    assert moments.count == n
    np.testing.assert_allclose(moments.mean, pictures.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.variance, pictures.var(axis=0, ddof=1), rtol=1e-10)


def test_the_two_ways_agree_up_to_the_rounding_of_pictures(tmp_path: Path) -> None:
    """Rounding adds 1/12 to the variance and nothing to the mean."""
    n = 200
    samples = _samples(n, seed=1)
    folder = Results(tmp_path).add_samples("a", samples, has_moments=True)
    exact, _ = reference_moments(str(folder), n, SIZE)
    os.remove(folder / "moments.npz")
    rounded, _ = reference_moments(str(folder), n, SIZE)
    scatter = 1 / math.sqrt(12 * n)
    assert np.abs(rounded.mean - exact.mean).max() < 5 * scatter
    # the covariance of a uniform sample and its rounding error is 0 up to its standard error
    difference = rounded.variance - exact.variance
    standard_error = difference.std() / math.sqrt(difference.size)
    assert abs(difference.mean() - 1 / 12) < 3 * standard_error


@pytest.mark.parametrize("has_moments", [True, False])
def test_fewer_samples_than_there_are_mean_the_first_ones_and_nothing_is_cached(
    tmp_path: Path, has_moments: bool
) -> None:
    samples = _samples(6)
    folder = Results(tmp_path).add_samples("a", samples, has_moments=has_moments)
    for n in (2, 3, 6, 3):
        moments, is_float = reference_moments(str(folder), n, SIZE)
        assert is_float == (has_moments and n == 6)
        source = samples if is_float else np.rint(samples)
        assert moments.count == n
        np.testing.assert_allclose(moments.variance, source[:n].var(axis=0, ddof=1), rtol=1e-6)


def test_more_samples_than_there_are_is_an_error_with_the_remedy(results: Results) -> None:
    with pytest.raises(DataError, match=r"2 of 6 .*sample_4\.png.*--num_samples"):
        verify_image(A, results.flags(num_samples=6), keeps_data=False)


def test_memory_does_not_grow_with_the_number_of_samples(tmp_path: Path) -> None:
    side, peaks = 32, []
    for n in (20, 200):
        samples = np.random.default_rng(0).uniform(20, 230, (n, side, side, 3))
        folder = Results(tmp_path / str(n)).add_samples("a", samples, has_moments=False)
        reference_moments(str(folder), 8, side)  # imports and caches
        tracemalloc.start()
        reference_moments(str(folder), n, side)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # 180 more samples of 3 kB would be 550 kB; their paths and tasks, which are kept, are 70
    assert peaks[1] - peaks[0] < 180 * 1000


def test_little_is_left_of_an_image_that_was_compared(results: Results) -> None:
    """Of a hundred thousand images 0.2 GB; as dicts of floats it was 1.3."""
    result = verify_image(A, results.flags(num_samples=4), keeps_data=False)
    data = pickle.dumps(result)
    first = without_arrays(result)
    np.testing.assert_equal(dict(first.metrics), result.metrics)
    np.testing.assert_equal(dict(first.means), result.means)
    assert [*first.metrics] == [*result.metrics] and "mean.mse" in first.metrics
    tracemalloc.start()
    kept = [without_arrays(pickle.loads(data)) for _ in range(20)]
    size = tracemalloc.get_traced_memory()[0] / len(kept)
    tracemalloc.stop()
    assert 8 * len(first.metrics) < size < 4000


def test_rounded_mean_and_float_variance_are_written_beside_the_samples(tmp_path: Path) -> None:
    results, n = Results(tmp_path), 4
    results.add_image("a.png")
    samples = stack(10.0, 11.0, 11.0, 11.0) + np.arange(3) / 10  # means 10.75, 10.85, 10.95
    folder = results.add_samples("a.png", samples, has_moments=True)
    results.add_nets("a.png", flat(11.0), flat(1.0))
    verify_image(A, results.flags(num_samples=n), keeps_data=False)
    picture = np.asarray(Image.open(folder / "high_res_mean.png"))
    np.testing.assert_array_equal(picture, 11)  # truncation would say 10
    content = (folder / "high_res_var.pkl").read_bytes()
    assert content[:2] == b"\x80\x04"  # protocol 4
    variance = load_array(folder / "high_res_var.pkl", shape=SHAPE)
    assert variance.dtype == np.float64
    np.testing.assert_allclose(variance, 0.25, rtol=1e-5)
    np.testing.assert_array_equal(variance, pickle.loads(content))


def test_metrics_of_hand_made_results_have_their_closed_forms(results: Results) -> None:
    flags = results.flags(num_samples=4)
    found = list(verify_images([A, Entry("folder/b.png", 0), Entry("c.png", 0)], flags, num_kept=1))
    assert [result.name for result in found] == ["a.png", "folder/b.png", "c.png"]
    assert [result.is_float for result in found] == [True, True, False]
    assert [result.data is not None for result in found] == [True, False, False]
    k2 = 500 / 3
    metrics = [result.metrics for result in found]
    assert [f["mean.mse"] for f in metrics] == pytest.approx([0.0, 4.0, 36.0], abs=1e-9)
    assert [f["var.var_error"] for f in metrics] == pytest.approx([k2 - 64, k2, 0], abs=2e-5)
    assert [f["var.std_error"] for f in metrics] == pytest.approx(
        [math.sqrt(k2) - 8, math.sqrt(k2), 0], abs=1e-5
    )
    assert [f["var.num_negative"] for f in metrics] == [0, 192, 0]
    assert metrics[1]["high_res.psnr_net"] == pytest.approx(10 * math.log10(255**2 / 73**2))
    assert metrics[1]["high_res.psnr_bilinear"] > 100  # a flat photograph


def test_float_mean_is_preferred_to_its_picture(results: Results) -> None:
    folder = results.add_nets("a.png", flat(25.4), flat(1.0))
    data = load_image_data(A, results.flags(num_samples=4))
    np.testing.assert_allclose(data.mean, 25.4, rtol=1e-6)
    os.remove(folder / f"high_res_mean_{MEAN_STEP}.npy")
    data = load_image_data(A, results.flags(num_samples=4))
    assert np.all(data.mean == 25.0)


def test_bilinear_baseline_has_the_factor_of_the_conditioning_image(results: Results) -> None:
    gradient = np.broadcast_to(np.arange(SIZE, dtype=np.uint8)[None, :, None] * 20, SHAPE)
    Image.fromarray(np.ascontiguousarray(gradient)).save(results.root / "images" / "a.png")
    low_res_path = results.root / "samples" / "a.png" / "low_res.png"
    for small_size in (4, 2, None):  # a quarter where no conditioning image was kept
        num_blocks = small_size or SIZE // 4
        if small_size is None:
            low_res_path.unlink()
        else:
            Image.fromarray(np.zeros((small_size, small_size, 3), np.uint8)).save(low_res_path)
        blocks = np.arange(SIZE).reshape(num_blocks, -1).mean(axis=1) * 20
        data = load_image_data(A, results.flags(num_samples=4))
        assert data.bilinear[0, 0, 0] == pytest.approx(blocks[0], abs=1e-4)
        assert data.bilinear[0, -1, 0] == pytest.approx(blocks[-1], abs=1e-4)


def test_dry_run_of_one_image_writes_nothing(results: Results) -> None:
    before = tree(results.root)
    verify_image(A, results.flags(num_samples=4, dry_run=True), keeps_data=True)
    assert tree(results.root) == before


def test_missing_result_names_the_script_that_writes_it(results: Results) -> None:
    nets = results.root / "nets" / "a.png"
    (nets / f"high_res_var_{VAR_STEP}.pkl").unlink()
    with pytest.raises(DataError, match=r"high_res_var_50\.pkl .*sr_var_test\.py"):
        load_image_data(A, results.flags(num_samples=4))
    for path in nets.iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"high_res_mean_70\.png .*sr_mean_test\.py"):
        load_image_data(A, results.flags(num_samples=4))
    with pytest.raises(DataError, match="high_res_mean_71"):
        load_image_data(Entry("c.png", 0), results.flags(num_samples=4, mean_model_step=71))


def test_result_of_another_size_is_an_error(results: Results) -> None:
    with pytest.raises(DataError, match="--large_size 16"):
        load_image_data(A, results.flags(num_samples=4, large_size=16))
    with pytest.raises(DataError, match=r"sample_0\.png .*8×8.*--large_size 16"):
        load_image_data(Entry("c.png", 0), results.flags(num_samples=4, large_size=16))
    np.save(results.root / "nets" / "a.png" / f"high_res_mean_{MEAN_STEP}.npy", np.zeros((4, 4, 3)))
    with pytest.raises(DataError, match=r"high_res_mean_70\.npy .*\(4, 4, 3\)"):
        load_image_data(A, results.flags(num_samples=4))


def test_damaged_and_hostile_results_are_errors_without_side_effect(results: Results) -> None:
    nets, marker = results.root / "nets" / "a.png", results.root / "marker"
    mean_path = nets / f"high_res_mean_{MEAN_STEP}.npy"
    whole = mean_path.read_bytes()
    broken = (whole[:200], b"", b"x" * 300, whole[:20] + b"\xff" + whole[21:])
    for content in broken:
        mean_path.write_bytes(content)
        with pytest.raises(DataError, match=r"high_res_mean_70\.npy"):
            load_image_data(A, results.flags(num_samples=4))
    np.save(mean_path, np.full(SHAPE, np.nan, np.float32))
    with pytest.raises(DataError, match="not finite"):
        load_image_data(A, results.flags(num_samples=4))
    mean_path.write_bytes(whole)
    var_path = nets / f"high_res_var_{VAR_STEP}.pkl"
    var_path.write_bytes(b'cos\nsystem\n(S"touch ' + shlex.quote(str(marker)).encode() + b'"\ntR.')
    with pytest.raises(DataError, match=r"high_res_var_50\.pkl"):
        load_image_data(A, results.flags(num_samples=4))
    dump_pickle(np.full(SHAPE, np.inf, np.float32), var_path)
    with pytest.raises(DataError, match=r"high_res_var_50\.pkl"):
        load_image_data(A, results.flags(num_samples=4))
    assert not marker.exists()
    (results.root / "samples" / "c.png" / "high_res_samples" / "sample_2.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"sample_2\.png"):
        load_image_data(Entry("c.png", 0), results.flags(num_samples=4))


def test_error_in_one_image_ends_the_run_with_its_message(results: Results) -> None:
    (results.root / "nets" / "c.png" / f"high_res_var_{VAR_STEP}.pkl").unlink()
    entries = [A, Entry("folder/b.png", 0), Entry("c.png", 0)]
    with pytest.raises(DataError, match=r"c\.png"):
        list(verify_images(entries, results.flags(num_samples=4), num_kept=0))
