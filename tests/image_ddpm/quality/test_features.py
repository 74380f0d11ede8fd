"""Features: areas by their definition, activations of the network in a file, safe loading."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from image_ddpm.quality.features import NETWORKS, area_weights, feature_maker, pixel_features
from image_ddpm.quality.flags import NETWORK_NAMES, TORCHSCRIPT
from models.cnn import SmallCNN
from tests.image_ddpm.quality.sets import pictures
from tests.tiny import save_weights
from utils.process.errors import CheckpointError

CPU = torch.device("cpu")


def test_the_flags_and_the_registry_name_the_same_networks() -> None:
    assert set(NETWORK_NAMES) == {*NETWORKS, TORCHSCRIPT}


def test_pixel_features_are_means_of_blocks() -> None:
    images = pictures(3, shape=(16, 24, 3))
    blocks = images.reshape(3, 8, 2, 8, 3, 3).mean(axis=(2, 4)) / 255
    np.testing.assert_allclose(pixel_features(images), blocks.reshape(3, -1), rtol=1e-6)


@given(height=st.integers(1, 40), width=st.integers(1, 40))
@settings(deadline=None, max_examples=50)
def test_areas_keep_the_mean_of_every_size(height: int, width: int) -> None:
    image = pictures(1, seed=height, shape=(height, width, 3))
    areas = pixel_features(image).reshape(8, 8, 3)
    np.testing.assert_allclose(areas.mean(axis=(0, 1)), image[0].mean(axis=(0, 1)) / 255, rtol=1e-5)
    weights = area_weights(height)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(weights.sum(axis=0), 8 / height, rtol=1e-12)


@pytest.mark.parametrize(("input_dim", "widths"), [(256, (128, 64)), (32, (7,)), (48, (9, 8, 5))])
def test_the_file_tells_the_sizes_and_features_come_before_the_last_layer(
    tmp_path: Path, input_dim: int, widths: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    network = SmallCNN(input_dim, widths, 4).eval()
    path = save_weights(network, tmp_path / "net.pt")
    maker = feature_maker(str(path), "small_cnn", CPU)
    grey = np.repeat(pictures(5, shape=(28, 28, 1)), 3, axis=3)
    features = maker.make(list(grey)).features
    assert features.shape == (5, widths[-1]) and features.dtype == np.float32
    last = network.classifier[-1]
    x = torch.from_numpy(grey[:, None, ..., 0]).float() / 255
    logits = last(torch.from_numpy(features))
    torch.testing.assert_close(logits, network(x))
    assert maker.name.startswith("small_cnn:")


def test_pictures_of_any_size_and_colour_become_grey_28(tmp_path: Path) -> None:
    path = save_weights(SmallCNN(32, (6,)), tmp_path / "net.pt")
    maker = feature_maker(str(path), "small_cnn", CPU)
    mixed = [pictures(1, shape=shape)[0] for shape in ((40, 33, 3), (9, 9, 3))]
    assert maker.make(mixed).features.shape == (2, 6)
    flat = [np.full((size, size, 3), 90, dtype=np.uint8) for size in (28, 56, 11)]
    rows = maker.make(flat).features
    np.testing.assert_allclose(rows, rows[[0, 0, 0]], rtol=1e-5, atol=1e-7)


def test_another_file_has_another_name(tmp_path: Path) -> None:
    names = set()
    for seed in range(2):
        torch.manual_seed(seed)
        path = save_weights(SmallCNN(16, (4,)), tmp_path / f"{seed}.pt")
        names.add(feature_maker(str(path), "small_cnn", CPU).name)
    assert len(names) == 2


def _changed(**changes: Any) -> dict[str, torch.Tensor]:
    state = {**SmallCNN(32, (6, 5)).state_dict(), **changes}
    return {key: value for key, value in state.items() if value is not None}


@pytest.mark.parametrize(
    ("state", "part"),
    [
        (_changed(**{"features.3.weight": None}), "no convolution"),
        (_changed(**{"features.3.weight": torch.zeros(3)}), "no convolution"),
        (_changed(**{"features.3.weight": torch.zeros(0, 6, 5, 5)}), "multiple of 16"),
        (_changed(**{"features.3.weight": torch.zeros(3, 6, 5, 5)}), "shape"),
        (_changed(**{"classifier.2.weight": torch.zeros(5)}), "matrices"),
        (_changed(**{"classifier.2.weight": torch.zeros(5, 9)}), "classifier.2.weight (5, 9)"),
        (_changed(**{"classifier.7.weight": torch.zeros(2, 5)}), "missing"),
        (_changed(**{"extra": torch.zeros(1)}), "unexpected (1): extra"),
        (_changed(**{"features.0.bias": torch.full((6,), math.nan)}), "not finite"),
        # a million inputs and outputs that are not there: nothing of that size may be made
        (
            _changed(
                **{
                    "features.3.weight": torch.zeros(1_000_000, 1, 1, 1),
                    "classifier.0.weight": torch.zeros(1_000_000, 1),
                }
            ),
            "shape",
        ),
        ({"weights": [1, 2]}, "state_dict"),
    ],
)
def test_a_file_of_another_network_is_refused_and_the_flags_named(
    tmp_path: Path, state: Any, part: str
) -> None:
    path = tmp_path / "net.pt"
    torch.save(state, path)
    with pytest.raises(CheckpointError) as caught:
        feature_maker(str(path), "small_cnn", CPU)
    assert f"--features {path}" in str(caught.value) and "small_cnn" in str(caught.value)
    assert part in str(caught.value)


def test_a_file_of_a_wrapped_network_makes_the_same_features(tmp_path: Path) -> None:
    state = SmallCNN(64, (12,), 4).state_dict()
    torch.save(state, tmp_path / "net.pt")
    torch.save({f"module.{name}": value for name, value in state.items()}, tmp_path / "ddp.pt")
    grey = list(np.repeat(pictures(3, shape=(28, 28, 1)), 3, axis=3))
    plain, wrapped = (
        feature_maker(str(tmp_path / name), "small_cnn", CPU).make(grey).features
        for name in ("net.pt", "ddp.pt")
    )
    assert np.array_equal(plain, wrapped)


def test_a_file_that_is_missing_or_damaged_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    for content in (None, b"", b"PK\x03\x04"):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(CheckpointError, match="--features"):
            feature_maker(str(path), "small_cnn", CPU)
