"""The oracle with noisy or missing pixels, as files: floats, and moments given what is seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from oracle.posterior import PosteriorLaw, given_noisy, given_pixels
from sr_var.base_dataset import load_entries
from sr_var.data.oracle import law_of, write_oracle
from sr_var.data.oracle_observed import Observation, read_float_image
from sr_var.degrade.view import View
from sr_var.flags.scripts import MeanModelFlags, OracleDataFlags
from sr_var.results.moments import load_moments, load_truth
from tests.tiny import run, tree, words, write_photos
from utils.images.pixels import image_to_255, to_hwc
from utils.process.errors import DataError

LARGE, SMALL, NUM_SAMPLES = 16, 4, 60
NOISE, MASK = "area & noise:25", "area:4&mask:0.5"


def _flags(root: Path, degradation: str) -> OracleDataFlags:
    write_photos(root / "photos", ["train/a_1", "train/a_2", "train/b_1.png", "test/c_1"])
    return OracleDataFlags(
        data_dir=str(root / "photos"),
        output_dir=str(root / "data"),
        sample_dir=str(root / "exact"),
        log_dir=str(root / "log"),
        large_size=LARGE,
        small_size=SMALL,
        num_train_crops=5,
        num_draws=2,
        num_test_crops=4,
        num_samples=NUM_SAMPLES,
        degradation=degradation,
        num_threads=2,
    )


@pytest.fixture(scope="module", params=[NOISE, MASK])
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> object:
    flags = _flags(tmp_path_factory.mktemp("oracle"), request.param)
    write_oracle(flags, lambda line: None)
    return flags


def _test_images(flags: OracleDataFlags) -> list[tuple[Path, Path]]:
    """The file of Y and the folder of samples of each."""
    images = Path(flags.output_dir) / "images"
    entries = load_entries(f"{flags.output_dir}/to_sample_data_info.pkl", str(images))
    return [(images / entry.name, Path(flags.sample_dir) / entry.name) for entry in entries]


def _exact(flags: OracleDataFlags, folder: Path) -> PosteriorLaw:
    """p(Y | X) by the low-res picture and what is seen, both from the folder of the samples."""
    law = law_of(np.asarray(Image.open(folder / "low_res.png")), 4)
    seen = torch.from_numpy(np.load(folder / "observed.npy").transpose(2, 0, 1).copy())[None]
    seen = seen.double()
    if flags.degradation == NOISE:
        assert seen.shape[1] == 6
        return given_noisy(law, seen[:, 3:], 25 / 127.5)
    return given_pixels(law, seen[:, 3:6], seen[:, 6:])


def test_images_are_floats_whose_block_means_are_the_low_res_picture(
    written: OracleDataFlags,
) -> None:
    values = []
    for path, folder in _test_images(written):
        assert path.suffix == ".npy"
        grey = read_float_image(str(path))
        assert grey.dtype == np.float32 and grey.shape == (LARGE, LARGE, 3)
        means = grey.astype(np.float64).reshape(SMALL, 4, SMALL, 4, 3).mean(axis=(1, 3))
        assert np.abs(means - np.asarray(Image.open(folder / "low_res.png"))).max() < 1e-4
        values.append(grey)
    assert np.mean(np.stack(values) % 1 == 0) < 0.01  # nothing is rounded
    train = load_entries(f"{written.output_dir}/train_data_info.pkl", written.data_dir)
    assert len(train) == 5 * 2 and all(entry.name.endswith(".npy") for entry in train)


def test_moments_and_samples_are_those_of_the_law_given_what_is_seen(
    written: OracleDataFlags,
) -> None:
    z2, ratio, error = [], [], []
    for path, folder in _test_images(written):
        law, truth = _exact(written, folder), load_truth(str(folder), LARGE)
        assert truth is not None
        for name, exact, power in (
            ("mean", image_to_255(law.mean), 0),
            ("variance", law.variance, 2),
            ("third", law.third_central_moment, 3),
            ("fourth", law.fourth_central_moment, 4),
        ):
            found = getattr(truth, name) / 127.5**power
            np.testing.assert_allclose(found, to_hwc(exact[0]), rtol=1e-6, atol=1e-12)
        drawn = load_moments(str(folder / "moments.npz"))
        assert drawn is not None and drawn.moments is not None
        some = truth.variance > 1e-6
        spread = np.sqrt(truth.variance[some] / NUM_SAMPLES)
        z2.append((((drawn.moments.mean - truth.mean)[some] / spread) ** 2).mean())
        ratio.append((drawn.moments.variance[some] / truth.variance[some]).mean())
        error.append((np.square(read_float_image(str(path)) - truth.mean)).mean())
        error[-1] /= truth.variance.mean()
    assert 0.8 < np.mean(z2) < 1.2 and abs(np.mean(ratio) - 1) < 0.05
    assert 0.6 < np.mean(error) < 1.5  # the image itself is a draw of that law


def test_what_is_seen_is_the_image_with_noise_or_without_hidden_pixels(
    written: OracleDataFlags,
) -> None:
    for path, folder in _test_images(written):
        seen = np.load(folder / "observed.npy")
        image = read_float_image(str(path)) / 127.5 - 1
        if written.degradation == NOISE:
            noise = (seen[..., 3:] - image) * 127.5
            assert abs(noise.mean()) < 5 and 22 < noise.std() < 28
        else:
            mask = seen[..., 6:]
            assert {*np.unique(mask)} == {0.0, 1.0} and 0.3 < mask.mean() < 0.7
            np.testing.assert_allclose(seen[..., 3:6], mask * image, atol=1e-6)
            truth = load_truth(str(folder), LARGE)
            assert truth is not None and (truth.variance[mask[..., 0] == 1] == 0).all()


def test_a_second_run_and_one_thread_write_the_same_and_a_lost_image_comes_back(
    written: OracleDataFlags, tmp_path: Path
) -> None:
    before = {**tree(Path(written.output_dir)), **tree(Path(written.sample_dir))}
    _test_images(written)[1][0].unlink()
    write_oracle(written, lambda line: None)
    assert {**tree(Path(written.output_dir)), **tree(Path(written.sample_dir))} == before
    folders = {"output_dir": str(tmp_path / "data"), "sample_dir": str(tmp_path / "exact")}
    write_oracle(replace(written, num_threads=1, **folders), lambda line: None)
    assert {**tree(tmp_path / "data"), **tree(tmp_path / "exact")} == before


def test_another_degradation_needs_another_folder(written: OracleDataFlags) -> None:
    other = "area & mask:0.2"
    with pytest.raises(DataError, match=r"--degradation"):
        write_oracle(replace(written, degradation=other), lambda line: None)


@pytest.mark.parametrize(
    "degradation",
    ["noise:25", "area & noise:5-50", "area & noise:25+mask:0.5", "area & blur:1", "area:2",
     "area & noise:25 & mask:0.5", "area & nois:25", "area & mask:FILE.png", "blur:1 & noise:25"],
)  # fmt: skip
def test_a_degradation_without_a_known_law_is_a_usage_error(
    degradation: str, tmp_path: Path
) -> None:
    flags = _flags(tmp_path, "area")
    outcome = run("oracle_data", words({**vars(flags), "degradation": degradation}))
    assert outcome.code == 2 and "--degradation" in outcome.err
    assert not (tmp_path / "data").exists()


def test_area_alone_is_the_data_set_as_it_was() -> None:
    assert Observation.parse("area", 4) is None and Observation.parse("area:4", 4) is None
    found = Observation.parse(NOISE, 4)
    assert found is not None
    needed = "--degradation 'area & noise:25' --large_size 64 --small_size 16 --value_range 0,255"
    assert found.flags(64) == needed


def test_tests_at_the_small_size_see_what_stands_beside_the_moments(
    written: OracleDataFlags,
) -> None:
    sizes = {"large_size": LARGE, "small_size": SMALL}
    flags = MeanModelFlags(network="subpixel", degradation=written.degradation, **sizes)
    view = View.of(flags, written.seed)
    for path, folder in _test_images(written):
        y = torch.from_numpy(read_float_image(str(path)).transpose(2, 0, 1).copy())[None]
        name = str(path.relative_to(Path(written.output_dir) / "images"))
        x = view.pair(y, [name], torch.device("cpu"))[0]
        seen = torch.from_numpy(np.load(folder / "observed.npy").transpose(2, 0, 1).copy())[None]
        assert torch.equal(torch.nn.functional.pixel_shuffle(x[:, 3:], 4), seen[:, 3:])
