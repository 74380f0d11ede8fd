"""Images that are not square, by the scripts: trained, sampled, measured, classified, imported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from image_ddpm.classifier import create_classifier
from image_ddpm.networks import channel_mult, create_image_model
from image_ddpm.quality.features import feature_maker
from models.blocks import AttentionBlock
from tests.image_ddpm.tiny import (
    CLASSES,
    NET,
    PROCESS,
    TRAINING,
    named_images,
    read_samples,
    write_model,
)
from tests.tiny import done, photo, run, save_weights, shake, words
from utils.loops.checkpoint import manifest_beside

SHAPE = {"image_size": "24x16"}
FEW = {"timestep_respacing": "3"}
CLASSIFIER = {
    "classifier_width": 16,
    "classifier_depth": 1,
    "classifier_attention_resolutions": "8",
    "classifier_channel_mult": "1,2",
    "classifier_num_head_channels": 8,
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images of three classes; read only."""
    return named_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def trained(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log folder of a training of two steps, with a grid of samples; read only."""
    folder = tmp_path_factory.mktemp("trained")
    own = {"data_dir": images, "log_dir": folder, "max_step": 2, "sample_interval": 1}
    more = {"num_grid_samples": 2, "random_flip": True, "random_turn": True}
    done("image_train", words(NET, CLASSES, PROCESS, TRAINING, SHAPE, own, more))
    return folder


def test_training_keeps_the_size_as_a_text(trained: Path) -> None:
    manifest = manifest_beside(str(trained / "model000002.pt"))
    assert manifest["network"]["flags"]["image_size"] == "24x16"
    record = json.loads((trained / "args.json").read_text())
    assert record["flags"]["image_size"] == "24x16"


def test_samples_and_pictures_have_the_shape(trained: Path, tmp_path: Path) -> None:
    """The size is the checkpoint's: no flag says it again."""
    flags = {"model_path": trained / "model000002.pt", "log_dir": tmp_path, "num_samples": 3}
    done("image_sample", words(flags, FEW, {"png": True, "batch_size": 2}))
    assert (tmp_path / "samples_3x24x16x3.npz").exists()
    found = read_samples(tmp_path)["arr_0"]
    assert found.shape == (3, 24, 16, 3) and found.dtype == np.uint8
    pictures = sorted((tmp_path / "png").glob("*.png"))
    assert len(pictures) == 3
    for i, path in enumerate(sorted(pictures, key=lambda path: path.stem[-6:])):
        with Image.open(path, formats=("PNG",)) as picture:
            assert picture.size == (16, 24)
            assert np.array_equal(np.asarray(picture), found[i])


def test_another_size_than_the_checkpoint_s_is_refused(trained: Path, tmp_path: Path) -> None:
    flags = {"model_path": trained / "model000002.pt", "log_dir": tmp_path, "num_samples": 1}
    for size in ("16x24", 24):
        outcome = run("image_sample", words(flags, FEW, {"image_size": size}))
        assert outcome.code == 4
        assert "--image_size" in outcome.err and "24x16" in outcome.err


def test_likelihood_of_images_of_the_shape(trained: Path, images: Path, tmp_path: Path) -> None:
    flags = {"model_path": trained / "model000002.pt", "data_dir": images, "log_dir": tmp_path}
    done("image_nll", words(flags, FEW, {"num_samples": 2, "batch_size": 2}))
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["num_images"] == 2 and np.isfinite(found["total_bpd"]["mean"])


def test_classifier_guides_samples_of_the_shape(
    trained: Path, images: Path, tmp_path: Path
) -> None:
    own = {"data_dir": images, "log_dir": tmp_path / "c", "max_step": 1, "num_classes": 3}
    process = {name: PROCESS[name] for name in ("diffusion_steps", "noise_schedule")}
    done("classifier_train", words(CLASSIFIER, process, TRAINING, SHAPE, own))
    (guide,) = (tmp_path / "c").glob("model*1.pt")
    flags = {"model_path": trained / "model000002.pt", "log_dir": tmp_path / "s"}
    more = {"classifier_path": guide, "num_samples": 2, "batch_size": 2}
    done("image_sample", words(flags, FEW, more))
    assert read_samples(tmp_path / "s")["arr_0"].shape == (2, 24, 16, 3)


def test_imported_images_are_of_the_shape(tmp_path: Path, images: Path) -> None:
    archive = tmp_path / "archive"
    folder = archive / "cat"
    folder.mkdir(parents=True)
    (folder / "n.png").write_bytes((images / "cat_1.png").read_bytes())
    out = tmp_path / "out"
    flags = {"source": "imagenet", "archive": archive, "output_dir": out, "image_size": "12x6"}
    done("image_data", words(flags, {"log_dir": tmp_path / "log"}))
    (path,) = out.rglob("*.png")
    with Image.open(path, formats=("PNG",)) as picture:
        assert picture.size == (6, 12)
    refused = {"source": "digits", "image_size": "12x6", "output_dir": tmp_path / "d"}
    outcome = run("image_data", words(refused, {"log_dir": tmp_path / "log"}))
    assert outcome.code == 2 and "--image_size 12x6" in outcome.err


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"image_size": "24x"}, ("--image_size", "'24x'", "96x64")),
        ({"image_size": "0x16"}, ("--image_size", "'0x16'", "at least 1 pixel")),
        ({"image_size": "24x16x3"}, ("--image_size", "'24x16x3'", "96x64")),
        ({"image_size": "25x16"}, ("25x16 is not divisible by 2", "--channel_mult", "fewer")),
        ({"image_size": "24x15"}, ("24x15 is not divisible by 2",)),
        ({"attention_resolutions": "12"}, ("--attention_resolutions 12", "image size 16")),
        ({"image_size": "96x40", "channel_mult": ""}, ("size 40", "pass --channel_mult")),
    ],
)
def test_what_makes_no_network_is_a_usage_error(
    images: Path, tmp_path: Path, changes: dict[str, Any], parts: tuple[str, ...]
) -> None:
    own = {"data_dir": images, "log_dir": tmp_path}
    outcome = run("image_train", words(NET, PROCESS, TRAINING, SHAPE, own, changes))
    assert outcome.code == 2 and all(part in outcome.err for part in parts), outcome.err


def test_weights_are_those_of_the_square_of_the_shorter_side() -> None:
    """Names and shapes do not depend on the longer side: attention goes by the shorter one."""
    flags: dict[str, Any] = {**NET, "learn_sigma": True}
    square, shape = (create_image_model(**{**flags, "image_size": size}) for size in (16, "24x16"))
    assert {k: v.shape for k, v in square.state_dict().items()} == {
        k: v.shape for k, v in shape.state_dict().items()
    }
    attends = [any(isinstance(m, AttentionBlock) for m in b) for b in shape.input_blocks]
    assert attends == [False, False, False, True]  # 24x16 has none, 12x8 has
    assert channel_mult("96x64", "") == channel_mult(64, "") == channel_mult("64x96", "")


def test_network_s_output_turns_with_transposed_weights() -> None:
    """Of x (24, 16) and of its transpose, by the transposed kernels, one is the other's."""
    network = shake(create_image_model(**{**NET, **SHAPE, "learn_sigma": False})).eval()
    x, t = torch.randn(2, 3, 24, 16, generator=torch.Generator().manual_seed(0)), torch.ones(2)
    with torch.no_grad():
        expected = network(x, t)
        for weight in network.parameters():
            if weight.ndim == 4:
                weight.copy_(weight.transpose(2, 3).clone())
        found = network(x.transpose(2, 3), t).transpose(2, 3)
    assert expected.shape == x.shape
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_attention_pool_has_a_place_for_each_pixel_of_the_bottleneck() -> None:
    flags: dict[str, Any] = {**CLASSIFIER, "in_channels": 3, "num_classes": 3}
    network = shake(create_classifier(image_size="24x16", **flags)).eval()
    t = torch.zeros(1)
    assert network(torch.zeros(1, 3, 24, 16), t).shape == (1, 3)
    for wrong in ((16, 24), (16, 16), (24, 24)):
        with pytest.raises(ValueError, match="--image_size 24x16 only"):
            network(torch.zeros(1, 3, *wrong), t)


def test_features_of_pictures_of_the_shape_are_the_network_s(tmp_path: Path) -> None:
    """The pictures are not turned on their way, nor resized."""
    keywords = {**CLASSIFIER, **SHAPE, "in_channels": 3, "num_classes": 3}
    network = shake(create_classifier(**keywords)).eval()
    path = save_weights(network, tmp_path / "net.pt")
    maker = feature_maker(str(path), "encoder_unet", torch.device("cpu"), keywords)
    images = [photo(seed, (24, 16)) for seed in range(2)]
    x = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        expected = network.features(x, torch.zeros(2, dtype=torch.int64))
    torch.testing.assert_close(torch.from_numpy(maker.make(images).features), expected)
    assert maker.make([photo(0, (40, 40))]).features.shape == (1, expected.shape[1])
    assert ",image_size=24x16," in maker.name


def test_checkpoint_of_a_square_tells_what_differs(tmp_path: Path) -> None:
    """A denoiser's weights fit; a foreign file of a classifier says how many places it has."""
    path = write_model(tmp_path / "m.pt", image_size=16)
    flags = {"model_path": path, "log_dir": tmp_path / "log", "num_samples": 1}
    done("image_sample", words(NET, PROCESS, SHAPE, flags, FEW))
    pools = [
        create_classifier(image_size=size, in_channels=3, num_classes=3, **CLASSIFIER)
        for size in (16, "24x16")
    ]
    shapes = {name: tuple(value.shape) for name, value in pools[0].state_dict().items()}
    told = pools[1].explain_mismatch(shapes)
    assert "64 places" in told and "images of 16 pixels, not 24x16: see --image_size" in told
