"""Features of the noise-aware classifier: the network's own, by the flags that describe it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from image_ddpm.classifier import classifier_keywords, create_classifier
from image_ddpm.flags import ClassifierFlags, ClassifierImageFlags
from image_ddpm.quality.features import feature_maker
from models.config import POOLS
from models.encoder import EncoderUNet
from tests import cpus
from tests.image_ddpm.quality.sets import pictures, write_samples
from tests.image_ddpm.tiny import write_model
from tests.reliability.extent import is_full
from tests.tiny import done, run, save_weights, shake, words
from utils.flags.groups import Precision
from utils.process.errors import EXIT_CHECKPOINT, EXIT_DATA, EXIT_USAGE, CheckpointError

CPU = torch.device("cpu")
IMAGE: dict[str, Any] = {"image_size": 16, "num_classes": 3}
CLASSIFIER: dict[str, Any] = {
    "classifier_width": 8,
    "classifier_depth": 1,
    "classifier_channel_mult": "1,2",
    "classifier_attention_resolutions": "8",
    "classifier_num_head_channels": 8,
}


def _keywords(**changes: Any) -> dict[str, Any]:
    merged = {**IMAGE, **CLASSIFIER, **changes}
    own = {name: merged.pop(name) for name in list(merged) if name.startswith("classifier_")}
    return classifier_keywords(ClassifierFlags(**own), vars(ClassifierImageFlags(**merged)))


def _classifier(**changes: Any) -> EncoderUNet:
    network = create_classifier(**_keywords(**changes))
    shake(network)
    return network.eval()


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("in_channels", [1, 3])
def test_features_are_those_of_the_network_at_timestep_0(
    tmp_path: Path, pool: str, in_channels: int
) -> None:
    changes = {"classifier_pool": pool, "in_channels": in_channels}
    network = _classifier(**changes)
    path = save_weights(network, tmp_path / "net.pt")
    maker = feature_maker(str(path), "encoder_unet", CPU, _keywords(**changes))
    grey = np.repeat(pictures(4, shape=(16, 16, 1)), 3, axis=3)
    images = grey if in_channels == 1 else pictures(4, shape=(16, 16, 3))
    x = torch.from_numpy(images[..., :in_channels]).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        expected = network.features(x, torch.zeros(4, dtype=torch.int64))
        noisy = network.features(x, torch.full((4,), 500))
    torch.testing.assert_close(torch.from_numpy(maker.make(list(images)).features), expected)
    assert not torch.allclose(noisy, expected, atol=1e-4)
    mixed = [pictures(1, shape=shape)[0] for shape in ((40, 33, 3), (9, 9, 3), (16, 16, 3))]
    assert maker.make(mixed).features.shape == (3, expected.shape[1])


def test_another_size_is_resized_as_a_whole(tmp_path: Path) -> None:
    path = save_weights(_classifier(), tmp_path / "net.pt")
    maker = feature_maker(str(path), "encoder_unet", CPU, _keywords())
    flat = [np.full((*side, 3), 90, dtype=np.uint8) for side in ((16, 16), (31, 50), (5, 7))]
    rows = maker.make(flat).features
    np.testing.assert_allclose(rows, rows[[0, 0, 0]], rtol=1e-4, atol=1e-6)


def test_what_no_shape_shows_is_part_of_the_name(tmp_path: Path) -> None:
    """One file, other heads or another size: other features."""
    pool = {"classifier_pool": "adaptive"}
    path = save_weights(_classifier(**pool), tmp_path / "net.pt")
    names, rows = set(), []
    more: dict[str, Any]
    for more in (
        {},
        {"classifier_num_head_channels": 4},
        {"image_size": 32, "classifier_attention_resolutions": "16"},
    ):
        maker = feature_maker(str(path), "encoder_unet", CPU, _keywords(**pool, **more))
        names.add(maker.name)
        rows.append(maker.make(list(pictures(1))).features)
    assert len(names) == 3 and not np.allclose(rows[0], rows[1], atol=1e-6)


@pytest.mark.parametrize("pool", POOLS)
def test_probabilities_are_those_of_the_whole_network(tmp_path: Path, pool: str) -> None:
    network = _classifier(classifier_pool=pool)
    path = save_weights(network, tmp_path / "net.pt")
    maker = feature_maker(str(path), "encoder_unet", CPU, _keywords(classifier_pool=pool))
    found = maker.make(list(pictures(3, shape=(16, 16, 3))))
    images = torch.from_numpy(pictures(3, shape=(16, 16, 3)).transpose(0, 3, 1, 2).copy())
    with torch.inference_mode():
        logits = network(images.float() / 127.5 - 1, torch.zeros(3, dtype=torch.int64))
    expected = torch.softmax(logits, dim=1).numpy()
    assert found.probabilities is not None and expected.std() > 0
    np.testing.assert_allclose(found.probabilities, expected, rtol=1e-4, atol=1e-6)


def test_half_precision_stays_near_the_features_of_full_precision(tmp_path: Path) -> None:
    path = save_weights(_classifier(), tmp_path / "net.pt")
    rows = [
        feature_maker(str(path), "encoder_unet", CPU, _keywords(), precision)
        .make(list(pictures(3)))
        .features
        for precision in (Precision.FP32, Precision.BF16)
    ]
    assert 0 < np.abs(rows[0] - rows[1]).max() < 0.05 * np.abs(rows[0]).max()


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"image_size": 32, "classifier_attention_resolutions": "16"}, "--image_size"),
    ({"in_channels": 1}, "--in_channels"),
    ({"num_classes": 5}, "--num_classes"),
    ({"classifier_width": 16}, "see --classifier_width"),
    ({"classifier_depth": 2}, "--classifier_depth"),
    ({"classifier_attention_resolutions": "16"}, "--classifier_attention_resolutions"),
    ({"classifier_channel_mult": "1,1"}, "--classifier_channel_mult"),
    ({"classifier_use_scale_shift_norm": False}, "--classifier_use_scale_shift_norm True"),
    ({"classifier_resblock_updown": False}, "--classifier_resblock_updown True"),
    *(({"classifier_pool": pool}, "--classifier_pool attention") for pool in POOLS[::2]),
]


@pytest.mark.parametrize(("changes", "flag"), WRONG, ids=lambda value: str(value)[:40])
def test_a_flag_that_does_not_fit_the_file_is_named(
    tmp_path: Path, changes: dict[str, Any], flag: str
) -> None:
    path = save_weights(_classifier(), tmp_path / "net.pt")
    with pytest.raises(CheckpointError) as caught:
        feature_maker(str(path), "encoder_unet", CPU, _keywords(**changes))
    text = str(caught.value)
    assert text.startswith(f"--features {path} ") and "encoder_unet" in text
    assert flag in text.partition("likely cause")[2], text


SHAPES = [(), (3,), (8, 3), (0, 3, 3, 3)]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_tensor_of_any_shape_in_the_file_is_a_refusal(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    """Every tensor in one of the shapes, in all of them where the long forms run."""
    state = _classifier().state_dict()
    for number, (name, tensor) in enumerate(state.items()):
        is_its_turn = is_full() or SHAPES[number % len(SHAPES)] == shape
        if is_its_turn and tensor.shape != shape:
            torch.save({**state, name: torch.zeros(shape)}, tmp_path / "n.pt")
            with pytest.raises(CheckpointError, match="shape"):
                feature_maker(str(tmp_path / "n.pt"), "encoder_unet", CPU, _keywords())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sets, a classifier of ``classifier_train.py``'s network, and a denoiser."""
    root = tmp_path_factory.mktemp("encoder")
    for seed, name in enumerate(("real", "drawn")):
        write_samples(root / f"{name}.npz", pictures(12, seed, (16, 16, 3)))
    save_weights(_classifier(), root / "net.pt")
    write_model(root / "unet.pt")
    return root


def _words(place: Path, log_dir: Path, *groups: dict[str, Any], **changes: Any) -> list[str]:
    sets = {"reference": place / "real.npz", "samples": place / "drawn.npz", "log_dir": log_dir}
    net = {"features": place / "net.pt", "features_network": "encoder_unet"}
    few = {"num_subsets": 3, "num_splits": 2, "batch_size": 5}
    return words(sets, few, net, *groups, **changes)


def test_the_script_compares_by_a_classifier(place: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept.npz"
    flags = _words(place, tmp_path, IMAGE, CLASSIFIER, save_reference_stats=kept)
    done("image_eval", flags)
    found = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert found["dimension"] == 16 and found["frechet"]["distance"] > 0
    assert found["features"].startswith("encoder_unet:")
    assert found["features"].endswith(",image_size=16,classifier_num_head_channels=8")
    again = _words(place, tmp_path / "again", IMAGE, CLASSIFIER, reference=kept)
    done("image_eval", again)
    other = run("image_eval", [*again, "--classifier_num_head_channels", "4"])
    assert other.code == EXIT_DATA and "two kinds" in other.err


def test_a_precision_that_the_device_lacks_is_said(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpus.compute_on(cpus.AVX2, monkeypatch)
    flags = _words(place, tmp_path, IMAGE, CLASSIFIER, classifier_use_fp16=True, dry_run=True)
    outcome = done("image_eval", flags)
    assert "fast fp16" in outcome.out


@pytest.mark.parametrize(
    ("changes", "code", "parts"),
    [
        ({"classifier_width": 16}, EXIT_CHECKPOINT, ["see --classifier_width"]),
        ({"num_classes": 1000}, EXIT_CHECKPOINT, ["3 classes", "1000", "--num_classes"]),
        ({"features": "unet.pt"}, EXIT_CHECKPOINT, ["whole U-Net"]),
        (
            {"features": "none.pt"},
            EXIT_CHECKPOINT,
            ["none.pt", "--features_network encoder_unet"],
        ),
        ({"in_channels": 2}, EXIT_USAGE, ["--in_channels 2"]),
        ({"classifier_num_head_channels": 5}, EXIT_USAGE, ["--classifier_num_head_channels 5"]),
        ({"classifier_channel_mult": "a"}, EXIT_USAGE, ["--classifier_channel_mult 'a'"]),
        ({"classifier_depth": 0}, EXIT_USAGE, ["--classifier_depth 0"]),
        ({"classifier_pool": "max"}, EXIT_USAGE, ["invalid choice"]),
        (
            {"features_network": "small_cnn"},
            EXIT_USAGE,
            ["--classifier_width", "--image_size", "--features_network encoder_unet"],
        ),
    ],
)
def test_wrong_flags_end_with_the_code_of_their_kind(
    place: Path, tmp_path: Path, changes: dict[str, Any], code: int, parts: list[str]
) -> None:
    if "features" in changes:
        changes = {**changes, "features": place / changes["features"]}
    outcome = run("image_eval", _words(place, tmp_path, IMAGE, CLASSIFIER, changes))
    assert outcome.code == code and "Traceback" not in outcome.err, outcome.err
    for part in parts:
        assert part in outcome.err, outcome.err


@pytest.mark.parametrize("name", ["image_size", "num_classes", "classifier_depth"])
def test_a_flag_of_the_classifier_without_a_classifier_is_refused(
    place: Path, tmp_path: Path, name: str
) -> None:
    """Also at its default."""
    value = {**vars(ClassifierFlags()), **vars(ClassifierImageFlags())}[name]
    sets = {"reference": place / "real.npz", "samples": place / "drawn.npz"}
    outcome = run("image_eval", words(sets, {name: value, "log_dir": tmp_path}))
    assert outcome.code == EXIT_USAGE and f"--{name}: read for" in outcome.err
