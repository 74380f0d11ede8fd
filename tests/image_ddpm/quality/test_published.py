"""Features of other tools, published statistics, and networks that are programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.linalg import sqrtm
from torch import Tensor, nn

from image_ddpm.quality.coverage import inception_score, precision_and_recall
from tests.image_ddpm.quality.sets import pictures, write_samples
from tests.tiny import Outcome, done, run, words
from utils.process.errors import EXIT_CHECKPOINT, EXIT_DATA, EXIT_USAGE

Array = NDArray[Any]
REAL, DRAWN = pictures(40, seed=1), pictures(30, seed=2)


class _Program(nn.Module):
    """Means of colours, a coarse picture, and a softmax of the means."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        grey = x.float() / 255.0
        pooled = grey.mean(dim=[2, 3])
        coarse = nn.functional.adaptive_avg_pool2d(grey, [2, 2]).flatten(1)
        return pooled, coarse, torch.softmax(40.0 * pooled, dim=1)


class _AsPublished(nn.Module):
    """As Inception networks are published: probabilities, or features if asked for."""

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor:
        pooled = x.float().mean(dim=[2, 3]) / 255.0
        if return_features:
            return pooled
        return torch.softmax(40.0 * pooled, dim=1)


@pytest.fixture
def program(tmp_path: Path) -> dict[str, Any]:
    """The flags of a TorchScript file of somebody who is trusted."""
    path = tmp_path / "program.pt"
    torch.jit.script(_Program()).save(str(path))
    return {"features": path, "features_network": "torchscript", "trust_features": True}


def _made(images: Array) -> tuple[Array, Array, Array]:
    tensor = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    pooled, coarse, probabilities = (part.numpy() for part in _Program()(tensor))
    return pooled, coarse, probabilities


def _distance(x: Array, y: Array) -> float:
    """Heusel et al. 2017, eq. 6, with scipy's matrix root, as most evaluators compute it."""
    a, b = (np.cov(z, rowvar=False) for z in (x, y))
    delta = x.mean(axis=0, dtype=np.float64) - y.mean(axis=0, dtype=np.float64)
    return float(delta @ delta + np.trace(a + b - 2 * sqrtm(a @ b).real))


def _results(root: Path, **flags: Any) -> tuple[dict[str, Any], Outcome]:
    merged = {"num_subsets": 3, "num_splits": 2, "batch_size": 8, "log_dir": root / "log", **flags}
    outcome = done("image_eval", words(merged))
    return json.loads((root / "log" / "results.json").read_text(encoding="utf-8")), outcome


def test_a_program_gives_all_figures_and_they_are_those_of_the_direct_formulas(
    tmp_path: Path, program: dict[str, Any]
) -> None:
    sets = [write_samples(tmp_path / f"{k}.npz", x) for k, x in enumerate((REAL, DRAWN))]
    results, outcome = _results(tmp_path, batch=f"{sets[0]},{sets[1]}", **program)
    (real, coarse, _), (drawn, drawn_coarse, probabilities) = _made(REAL), _made(DRAWN)
    assert results["frechet"]["distance"] == pytest.approx(_distance(real, drawn), rel=1e-5)
    spatial = results["spatial_frechet"]
    assert spatial["distance"] == pytest.approx(_distance(coarse, drawn_coarse), rel=1e-4)
    assert spatial["floor"] > 0 and spatial["gaussian_floor"] > 0
    shares, direct = results["precision_recall"], precision_and_recall(real, drawn)
    assert (shares["precision"], shares["recall"]) == pytest.approx(direct)
    assert 0 < shares["precision_of_halves"] <= 1 and shares["count_of_half"] == 20
    score = inception_score(probabilities)
    found = results["inception_score"]
    assert found["samples"] == pytest.approx(score.score, rel=1e-6)
    assert found["samples_standard_error"] == pytest.approx(score.standard_error, rel=1e-5)
    assert found["reference"] > 1
    for part in ("sFID", "precision", "recall", "inception score"):
        assert part in outcome.out


def test_two_words_are_reference_and_samples(tmp_path: Path) -> None:
    sets = [write_samples(tmp_path / f"{k}.npz", x) for k, x in enumerate((REAL, DRAWN))]
    first, _ = _results(tmp_path, reference=sets[0], samples=sets[1])
    more = words({"num_subsets": 3, "num_splits": 2, "batch_size": 8, "log_dir": tmp_path / "log"})
    for given in ([*map(str, sets)], ["--batch", *map(str, sets)]):
        done("image_eval", [*given, *more])
        again = json.loads((tmp_path / "log" / "results.json").read_text(encoding="utf-8"))
        assert again == first


def test_a_network_as_published_is_asked_for_features_and_for_probabilities(
    tmp_path: Path, program: dict[str, Any]
) -> None:
    torch.jit.script(_AsPublished()).save(str(program["features"]))
    sets = [write_samples(tmp_path / f"{k}.npz", x) for k, x in enumerate((REAL, DRAWN))]
    results, _ = _results(tmp_path, reference=sets[0], samples=sets[1], **program)
    expected = _distance(_made(REAL)[0], _made(DRAWN)[0])
    assert results["frechet"]["distance"] == pytest.approx(expected, rel=1e-5)
    assert results["spatial_frechet"] is None
    score = inception_score(_made(DRAWN)[2]).score
    assert results["inception_score"]["samples"] == pytest.approx(score, rel=1e-6)


def _reference_file(path: Path, law: Array, images: Array | None) -> Path:
    pooled, coarse, _ = _made(law)
    arrays = {"mu": pooled.mean(axis=0), "sigma": np.cov(pooled, rowvar=False)}
    arrays |= {"mu_s": coarse.mean(axis=0), "sigma_s": np.cov(coarse, rowvar=False)}
    np.savez(path, **arrays, **({} if images is None else {"arr_0": images}))
    return path


def test_published_statistics_count_and_their_images_serve_for_all_else(
    tmp_path: Path, program: dict[str, Any]
) -> None:
    law = pictures(300, seed=5)
    published = _reference_file(tmp_path / "published.npz", law, REAL)
    samples = write_samples(tmp_path / "drawn.npz", DRAWN)
    results, outcome = _results(tmp_path, reference=published, samples=samples, **program)
    (pooled, coarse, _), (drawn, drawn_coarse, _) = _made(law), _made(DRAWN)
    assert results["frechet"]["distance"] == pytest.approx(_distance(pooled, drawn), rel=1e-4)
    expected = _distance(coarse, drawn_coarse)
    assert results["spatial_frechet"]["distance"] == pytest.approx(expected, rel=1e-4)
    shares = precision_and_recall(_made(REAL)[0], drawn)
    assert results["precision_recall"]["precision"] == pytest.approx(shares.precision)
    assert results["reference"]["count"] is None and results["frechet"]["floor"] is None
    assert results["frechet"]["floor_of_halves"] > 0
    assert "mu and sigma" in outcome.out and "an unknown number" in outcome.out


@pytest.mark.parametrize("has_images", [True, False])
def test_ready_features_are_held_against_published_statistics(
    tmp_path: Path, has_images: bool
) -> None:
    law = pictures(300, seed=5)
    reference = _reference_file(tmp_path / "published.npz", law, REAL if has_images else None)
    pooled, coarse, probabilities = _made(DRAWN)
    ready = tmp_path / "ready.npz"
    np.savez(ready, pooled, spatial=coarse, probabilities=probabilities)
    results, _ = _results(tmp_path, reference=reference, samples=ready)
    assert results["frechet"]["distance"] == pytest.approx(_distance(_made(law)[0], pooled), 1e-4)
    assert results["spatial_frechet"]["distance"] > 0
    assert results["precision_recall"] is None and results["kernel"] is None
    assert results["inception_score"]["reference"] is None
    assert results["inception_score"]["samples"] > 1


def test_published_statistics_of_another_network_are_not_looked_at(tmp_path: Path) -> None:
    published = _reference_file(tmp_path / "published.npz", pictures(300, seed=5), REAL)
    samples = write_samples(tmp_path / "drawn.npz", DRAWN)
    plain = write_samples(tmp_path / "real.npz", REAL)
    results, outcome = _results(tmp_path, reference=published, samples=samples)
    expected, _ = _results(tmp_path, reference=plain, samples=samples)
    assert results["frechet"] == expected["frechet"]
    assert "not looked at" in outcome.out


@pytest.mark.parametrize(
    ("changes", "code", "part"),
    [
        ({"trust_features": False}, EXIT_USAGE, "--trust_features"),
        ({"features_network": "small_cnn"}, EXIT_USAGE, "--trust_features"),
        ({"batch": "a.npz"}, EXIT_USAGE, "--batch"),
    ],
)
def test_programs_run_only_where_they_are_trusted(
    tmp_path: Path, program: dict[str, Any], changes: dict[str, Any], code: int, part: str
) -> None:
    sets = [write_samples(tmp_path / f"{k}.npz", x) for k, x in enumerate((REAL, DRAWN))]
    flags = {"reference": sets[0], "samples": sets[1], "log_dir": tmp_path / "log", **program}
    outcome = run("image_eval", words({**flags, **changes}))
    assert outcome.code == code and part in outcome.err


class _Wrong(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.float().mean()


def test_programs_that_are_none_or_give_other_shapes_are_refused(
    tmp_path: Path, program: dict[str, Any]
) -> None:
    sets = [write_samples(tmp_path / f"{k}.npz", x) for k, x in enumerate((REAL, DRAWN))]
    flags = {"reference": sets[0], "samples": sets[1], "log_dir": tmp_path / "log", **program}
    torch.jit.script(_Wrong()).save(str(program["features"]))
    outcome = run("image_eval", words(flags))
    assert outcome.code == EXIT_CHECKPOINT and "must return features" in outcome.err
    Path(program["features"]).write_bytes(b"nothing")
    outcome = run("image_eval", words(flags))
    assert outcome.code == EXIT_CHECKPOINT and "no TorchScript file" in outcome.err


@pytest.mark.parametrize(
    ("arrays", "part"),
    [
        ({"arr_0": np.ones((9, 3)), "spatial": np.ones((8, 2))}, "spatial is of 8"),
        ({"arr_0": np.ones((9, 3)), "spatial": np.full((9, 2), np.nan)}, "not finite"),
        ({"arr_0": np.eye(9), "probabilities": np.ones((9, 2))}, "sum to 1"),
        ({"mu": np.ones(3)}, "mu alone"),
        ({"mu_s": np.ones(3), "sigma_s": np.eye(3)}, "no mu and sigma"),
        ({"mu": np.ones(3), "sigma": -np.eye(3)}, "negative eigenvalue"),
        ({"mu": np.ones(3), "sigma": np.eye(2)}, "shape"),
    ],
)
def test_a_file_that_says_too_little_or_nonsense_is_named(
    tmp_path: Path, arrays: dict[str, Array], part: str
) -> None:
    paths = [tmp_path / "good.npz", tmp_path / "bad.npz"]
    good = np.random.default_rng(0).standard_normal((9, arrays.get("arr_0", np.ones(3)).shape[-1]))
    np.savez(paths[0], good)
    np.savez(paths[1], **arrays)
    flags = {"reference": paths[0], "samples": paths[1], "log_dir": tmp_path / "log"}
    outcome = run("image_eval", words({**flags, "num_subsets": 2}))
    assert outcome.code == EXIT_DATA and part in outcome.err and "bad.npz" in outcome.err
