"""``image_eval.py`` on tiny data: its figures, its refusals, its stop."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import image_ddpm.quality.evaluation
from image_ddpm.quality.distances import feature_statistics, frechet_distance
from image_ddpm.quality.features import pixel_features
from image_ddpm.quality.inputs import ImageSet
from models.cnn import SmallCNN
from tests.image_ddpm.quality.sets import Pictures, pictures, write_folder, write_samples
from tests.tiny import Outcome, done, run, save_weights, tree, words
from utils.metrics import psnr, ssim
from utils.process.errors import EXIT_CHECKPOINT, EXIT_DATA, EXIT_STOPPED, EXIT_USAGE

REAL, DRAWN = pictures(30, seed=1), pictures(24, seed=2)


@pytest.fixture
def flags(tmp_path: Path) -> dict[str, Any]:
    """A folder against an ``.npz``, few subsets."""
    return {
        "reference": write_folder(tmp_path / "real", REAL),
        "samples": write_samples(tmp_path / "drawn.npz", DRAWN),
        "num_subsets": 4,
        "num_splits": 3,
        "batch_size": 7,
        "log_dir": tmp_path / "log",
    }


def _results(flags: dict[str, Any], **changes: Any) -> tuple[dict[str, Any], Outcome]:
    merged = {**flags, **changes}
    outcome = done("image_eval", words(merged))
    text = (Path(merged["log_dir"]) / "results.json").read_text(encoding="utf-8")
    assert "NaN" not in text and "Infinity" not in text
    return json.loads(text), outcome


def _direct(real: Pictures, drawn: Pictures) -> float:
    a, b = (feature_statistics(pixel_features(images)) for images in (real, drawn))
    return frechet_distance(a.mean, a.covariance, b.mean, b.covariance)


def test_figures_equal_direct_ones_and_are_printed(flags: dict[str, Any]) -> None:
    results, outcome = _results(flags)
    frechet, kernel = results["frechet"], results["kernel"]
    assert frechet["distance"] == pytest.approx(_direct(REAL, DRAWN), rel=1e-9)
    assert (results["reference"]["count"], results["samples"]["count"]) == (30, 24)
    assert (results["features"], results["dimension"]) == ("pixels", 192)
    assert frechet["count_of_half"] == 15 and frechet["floor_of_halves_std"] > 0
    scale = (1 / 30 + 1 / 24) / (2 / 15)
    assert frechet["floor"] == pytest.approx(frechet["floor_of_halves"] * scale, rel=1e-12)
    assert (kernel["num_subsets"], kernel["subset_size"]) == (4, 12)
    assert kernel["standard_error"] > 0 and results["paired"] is None
    for value in (frechet["distance"], frechet["floor"], kernel["distance"]):
        assert f"{value:.4g}" in outcome.out
    assert "192 dimensions" in outcome.out


def test_run_again_gives_the_same_whatever_the_batch(flags: dict[str, Any]) -> None:
    first, _ = _results(flags)
    assert _results(flags, batch_size=30)[0] == first
    assert _results(flags, seed=1)[0]["kernel"] != first["kernel"]


def test_a_set_has_no_distance_to_itself_and_its_halves_have(flags: dict[str, Any]) -> None:
    results, _ = _results(flags, samples=flags["reference"])
    assert results["frechet"]["distance"] < 1e-6 < results["frechet"]["floor"]


def test_stored_statistics_give_the_same_figures(flags: dict[str, Any], tmp_path: Path) -> None:
    stored = tmp_path / "kept" / "real.npz"
    direct, outcome = _results(flags, save_reference_stats=stored)
    assert str(stored) in outcome.out
    again, _ = _results(flags, reference=stored)
    assert again.pop("reference") == {"path": str(stored), "count": 30}
    direct.pop("reference")
    assert again == direct


def test_statistics_alone_leave_out_what_needs_features(
    flags: dict[str, Any], tmp_path: Path
) -> None:
    found = feature_statistics(pixel_features(REAL))
    path = tmp_path / "stats.npz"
    np.savez(path, mean=found.mean, covariance=found.covariance, count=found.count)
    results, outcome = _results(flags, reference=path, num_images=20)
    assert results["kernel"] is None and results["frechet"]["floor"] is None
    assert results["frechet"]["gaussian_floor"] > 0 and results["samples"]["count"] == 20
    for part in ("no floor", "no kernel distance", "not cut", "kind"):
        assert part in outcome.out


def test_ready_features_need_no_images(flags: dict[str, Any], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{name}.npz" for name in "ab"]
    for path in paths:
        np.savez(path, rng.standard_normal((40, 3)))
    results, _ = _results(flags, reference=paths[0], samples=paths[1], num_images=32)
    assert results["dimension"] == 3 and results["features"] is None
    assert results["reference"]["count"] == results["samples"]["count"] == 32
    assert results["frechet"]["distance"] < 1


def test_features_of_a_network(flags: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = save_weights(SmallCNN(32, (9, 4)), tmp_path / "net.pt")
    results, _ = _results(flags, features=path, features_network="small_cnn")
    assert results["dimension"] == 4 and results["features"].startswith("small_cnn:")
    assert results["frechet"]["distance"] > 0


@pytest.mark.parametrize("form", ["folders", "arrays"])
@pytest.mark.parametrize("num_images", [0, 9])
def test_pairs_have_mean_psnr_and_ssim(
    flags: dict[str, Any], tmp_path: Path, form: str, num_images: int
) -> None:
    real = REAL[:24].copy()
    real[3] = DRAWN[3]
    write: Callable[[Path, Pictures], Path]
    write = (
        write_folder if form == "folders" else lambda path, x: write_samples(Path(f"{path}.npz"), x)
    )
    pair = {
        "reference": write(tmp_path / "r", real),
        "samples": write(tmp_path / "s", DRAWN),
        "num_images": num_images,
    }
    paired = _results(flags, **pair, paired=True)[0]["paired"]
    decibels = [psnr(a, b) for a, b in zip(real, DRAWN, strict=True)]
    finite = np.array(decibels)[np.isfinite(decibels)]
    if num_images:
        assert paired["count"] == 9
        assert finite.min() <= paired["psnr"] <= finite.max()
        return
    similar = [ssim(a, b) for a, b in zip(real, DRAWN, strict=True)]
    assert (paired["count"], paired["num_identical"]) == (24, 1)
    assert paired["psnr"] == pytest.approx(finite.mean(), rel=1e-12)
    assert paired["psnr_standard_error"] == pytest.approx(finite.std(ddof=1) / 23**0.5, rel=1e-12)
    assert paired["ssim"] == pytest.approx(np.mean(similar), rel=1e-12)
    assert paired["ssim_standard_error"] == pytest.approx(
        np.std(similar, ddof=1) / 24**0.5, rel=1e-12
    )


def test_a_dry_run_writes_nothing_and_says_what_it_will_cost(
    flags: dict[str, Any], tmp_path: Path
) -> None:
    before = tree(tmp_path)
    extra = {"dry_run": True, "save_reference_stats": tmp_path / "new.npz", "debug_mode": "yes"}
    outcome = done("image_eval", words(flags, **extra))
    assert tree(tmp_path) == before
    for part in ("30 images", "24 images", "s an image", "dry run", "memory"):
        assert part in outcome.out


@pytest.mark.parametrize("place", ["picture", "halves_distance", "kernel_distance", "ssim"])
def test_a_signal_ends_it_with_75_and_no_results(
    flags: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    owner: Any = ImageSet if place == "picture" else image_ddpm.quality.evaluation
    real = getattr(owner, place)

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        # the first picture is looked at before the work begins, to learn its features' dimension
        if place != "picture" or args[1] > 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, place, interrupted)
    write_folder(tmp_path / "pairs", REAL)
    outcome = run("image_eval", words(flags, samples=tmp_path / "pairs", paired=True))
    assert outcome.code == EXIT_STOPPED, outcome.err
    assert "run again" in outcome.out
    assert not (tmp_path / "log" / "results.json").exists()


def _refused(flags: dict[str, Any], code: int, *parts: str, **changes: Any) -> None:
    outcome = run("image_eval", words({**flags, **changes}))
    assert outcome.code == code, f"{outcome.code}: {outcome.err}"
    assert "Traceback" not in outcome.err
    for part in parts:
        assert part in outcome.err, f"{part!r} is not in: {outcome.err}"
    assert not (Path(flags["log_dir"]) / "results.json").exists()


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"reference": ""}, "--reference is missing"),
        ({"samples": ""}, "--samples is missing"),
        ({"batch_size": 0}, "--batch_size 0"),
        ({"num_splits": 0}, "--num_splits 0"),
        ({"num_subsets": 1}, "--num_subsets 1"),
        ({"num_images": 1}, "--num_images 1"),
        ({"num_images": -2}, "--num_images -2"),
        ({"subset_size": 1}, "--subset_size 1"),
        ({"subset_size": 24}, "--subset_size 24"),
        ({"seed": -1}, "--seed -1"),
        ({"features": ""}, "--features is empty"),
        ({"features": "net.pt"}, "--features net.pt"),
        ({"features_network": "small_cnn"}, "--features PATH"),
        ({"features_network": "large_cnn"}, "'large_cnn'"),
        ({"save_reference_stats": "stats"}, "end in .npz"),
        ({"paird": True}, "--paired?"),
    ],
)
def test_bad_flags_are_usage_errors(
    flags: dict[str, Any], changes: dict[str, Any], part: str
) -> None:
    _refused(flags, EXIT_USAGE, part, **changes)


def test_flags_without_effect_are_usage_errors(flags: dict[str, Any], tmp_path: Path) -> None:
    features: NDArray[np.float64] = np.random.default_rng(0).standard_normal((9, 3))
    found = feature_statistics(features)
    ready, stats = tmp_path / "f.npz", tmp_path / "s.npz"
    np.savez(ready, features)
    np.savez(stats, mean=found.mean, covariance=found.covariance, count=found.count)
    net = {"features": "net.pt", "features_network": "small_cnn"}
    both = {"reference": ready, "samples": ready}
    _refused(flags, EXIT_USAGE, "--features net.pt", "--reference", "--samples", **both, **net)
    _refused(flags, EXIT_USAGE, "--paired True", **both, paired=True)
    only = {"reference": stats, "samples": ready}
    kept = tmp_path / "new.npz"
    _refused(flags, EXIT_USAGE, "nothing but statistics", **only, save_reference_stats=kept)
    _refused(flags, EXIT_USAGE, "--subset_size 3: statistics", **only, subset_size=3)


def test_bad_data_ends_with_its_code_and_names_flag_and_file(
    flags: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "bad.npz"
    np.savez(path, np.array([{"a": 1}], dtype=object))
    _refused(flags, EXIT_DATA, f"--samples {path}", "pickled objects", samples=path)
    np.savez(path, DRAWN.astype(np.float32))
    _refused(flags, EXIT_DATA, f"--samples {path}", "float32", samples=path)
    path.write_bytes(flags["samples"].read_bytes()[:-200])
    _refused(flags, EXIT_DATA, f"--samples {path}", "make it again", samples=path)
    _refused(flags, EXIT_DATA, "--reference nowhere", reference="nowhere")
    np.savez(path, DRAWN[:1])
    _refused(flags, EXIT_DATA, f"--samples {path} holds one image", samples=path)


def test_features_of_two_kinds_are_refused(flags: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "f.npz"
    np.savez(path, np.random.default_rng(0).standard_normal((9, 3)))
    _refused(flags, EXIT_DATA, "of two kinds", "3 dimensions", "pixels, 192", reference=path)
    np.savez(path, np.zeros((9, 192)), features_name=np.array("small_cnn:00"))
    _refused(flags, EXIT_DATA, "of two kinds", "small_cnn:00, 192", reference=path)


def test_sets_that_are_no_pairs_are_refused(flags: dict[str, Any], tmp_path: Path) -> None:
    paired = {"paired": True}
    _refused(flags, EXIT_DATA, "--paired True", "a folder", "an array", **paired)
    fewer = write_folder(tmp_path / "fewer", REAL[:28])
    _refused(flags, EXIT_DATA, "2 names", "image_028", samples=fewer, **paired)
    twice = write_folder(tmp_path / "twice", REAL)
    write_folder(twice, REAL[:2], ".bmp")
    _refused(flags, EXIT_DATA, "2 names", samples=twice, **paired)
    array = {"reference": write_samples(tmp_path / "r.npz", REAL), **paired}
    _refused(flags, EXIT_DATA, "--reference", "30 images", "--samples 24", num_images=9, **array)


def test_sizes_of_pairs_are_compared_before_the_network_is_read(
    flags: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageSet, "picture", lambda self, k: pytest.fail("a picture is decoded"))
    early = {"paired": True, "features": "none.pt", "features_network": "small_cnn"}
    array = {"reference": write_samples(tmp_path / "r.npz", REAL), **early}
    for shape in ((16, 21, 3), (10, 20, 3)):
        other = write_samples(tmp_path / "s.npz", pictures(30, shape=shape))
        _refused(flags, EXIT_DATA, "image 0 ", "20x16", samples=other, **array)
    folder = write_folder(tmp_path / "s", REAL[:29])
    write_folder(folder, pictures(30, shape=(17, 20, 3))[:1])
    real = write_folder(tmp_path / "r", REAL[:29])
    early |= {"reference": real, "samples": folder, "dry_run": True}
    _refused(flags, EXIT_DATA, "image_000.png", "20x16", "20x17", **early)


def test_a_bad_network_ends_with_the_checkpoints_code(
    flags: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "net.pt"
    net = {"features": path, "features_network": "small_cnn"}
    _refused(flags, EXIT_CHECKPOINT, f"--features {path}", "cannot read", **net)
    save_weights(torch.nn.Linear(3, 3), path)
    _refused(flags, EXIT_CHECKPOINT, f"--features {path} as --features_network small_cnn", **net)


def test_photographs_are_turned_on_request_and_what_is_dropped_is_counted(
    flags: dict[str, Any],
) -> None:
    tag = Image.Exif()
    tag[0x0112] = 6
    for seed, picture in enumerate(pictures(6, seed=3)):
        path = Path(flags["reference"]) / f"turned_{seed}.png"
        Image.fromarray(picture).save(path, exif=tag)
    plain, outcome = _results(flags)
    assert any("6 of 36 images" in line and "EXIF" in line for line in outcome.out.splitlines())
    turned, outcome = _results(flags, apply_orientation=True)
    assert "EXIF" not in outcome.out
    assert plain["frechet"]["distance"] != turned["frechet"]["distance"]


def test_name_that_cannot_be_written_down_is_refused(flags: dict[str, Any]) -> None:
    (Path(flags["reference"]) / "a\n.png").touch()
    outcome = run("image_eval", words(flags))
    assert outcome.code == EXIT_DATA and "--reference" in outcome.err
    assert "'a\\n.png'" in outcome.err and "--on_bad_image" not in outcome.err
