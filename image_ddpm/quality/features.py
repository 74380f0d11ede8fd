"""Features of images: pixels, or what a network of this project has before its last layer.

Knows no distance and no file of features. To add a network: one entry in ``NETWORKS``, its name in
``eval_flags.NETWORK_NAMES``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from image_ddpm.quality.eval_flags import PIXELS
from image_ddpm.quality.image_sets import Picture
from models.cnn import SmallCNN
from utils.atomic_file import sha256_of
from utils.errors import CheckpointError
from utils.state_dict_io import check_state_dict, read_state_dict

Features = NDArray[np.float32]

PIXEL_SIDE = 8
_CNN_SIDE = 28
_CNN_CONVOLUTION = "features.3.weight"
_CNN_LINEAR = re.compile(r"classifier\.(\d{1,4})\.weight")
_CNN_PLACES = 16


@dataclass(frozen=True)
class FeatureNetwork:
    """How one kind of network makes features.

    Attributes:
        build: an untrained network of the sizes that a state_dict's shapes show; need not allocate
            (it is called on the device ``meta``). Raises ValueError if they show none.
        prepare: pictures (H, W, 3) of any sizes → the network's input (N, …).
        activations: network, input → (N, D).
    """

    build: Callable[[Mapping[str, Tensor]], nn.Module]
    prepare: Callable[[Sequence[Picture]], Tensor]
    activations: Callable[[nn.Module, Tensor], Tensor]


@dataclass(frozen=True)
class FeatureMaker:
    """Turns pictures into features; ``name`` says which, so that none are mixed up."""

    name: str
    make: Callable[[Sequence[Picture]], Features]


def feature_maker(features: str, network_name: str, device: torch.device) -> FeatureMaker:
    """What ``--features`` and ``--features_network`` ask for.

    Raises:
        CheckpointError: if the file is missing, damaged, or not of this network; names the flag.
    """
    if features == PIXELS:
        return FeatureMaker(PIXELS, pixel_features)
    kind = NETWORKS[network_name]
    try:
        network = _load(kind, features).to(device).eval()
    except ValueError as error:  # a CheckpointError, or sizes that the network refuses
        raise CheckpointError(
            f"--features {features} as --features_network {network_name}: {error}"
        ) from None

    def make(pictures: Sequence[Picture]) -> Features:
        with torch.inference_mode():
            found = kind.activations(network, kind.prepare(pictures).to(device))
            return found.float().cpu().numpy()

    return FeatureMaker(f"{network_name}:{sha256_of(features)[:16]}", make)


def _load(kind: FeatureNetwork, path: str) -> nn.Module:
    state = read_state_dict(path)
    # without values: shapes that do not belong together may ask for more memory than there is
    with torch.device("meta"):
        network = kind.build(state)
    network.load_state_dict(check_state_dict(network, state, path), assign=True)
    return network


def pixel_features(pictures: Sequence[Picture]) -> Features:
    """Means over 8×8 equal areas, (N, 192) in [0, 1]; no network, any size of picture.

    A pixel on a border counts for each side by its share.
    """
    rows = []
    for picture in pictures:
        height, width = picture.shape[:2]
        values = picture.astype(np.float64) / 255.0
        # (8, H) @ (H, W·3) → (8, W, 3) → (8, 8, 3)
        lines = area_weights(height) @ values.reshape(height, -1)
        areas = np.einsum("jw,iwc->ijc", area_weights(width), lines.reshape(PIXEL_SIDE, width, 3))
        rows.append(areas.ravel().astype(np.float32))
    return np.stack(rows)


def area_weights(num_pixels: int) -> NDArray[np.float64]:
    """(8, num_pixels): the share of each pixel in each of 8 equal parts; rows sum to 1."""
    edges = np.linspace(0.0, num_pixels, PIXEL_SIDE + 1)
    pixels = np.arange(num_pixels)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights: NDArray[np.float64] = np.maximum(overlap, 0.0) * (PIXEL_SIDE / num_pixels)
    return weights


def _build_small_cnn(state: Mapping[str, Tensor]) -> SmallCNN:
    convolution = state.get(_CNN_CONVOLUTION)
    found = [(int(match[1]), key) for key in state if (match := _CNN_LINEAR.fullmatch(key))]
    linear = [state[key] for _, key in sorted(found)]
    if convolution is None or convolution.ndim != 4 or len(linear) < 2:
        raise ValueError(f"it has no convolution {_CNN_CONVOLUTION} or no classifier.N.weight")
    if any(weight.ndim != 2 for weight in linear):
        raise ValueError("classifier.N.weight must be matrices")
    widths = [int(weight.shape[0]) for weight in linear]
    return SmallCNN(_CNN_PLACES * int(convolution.shape[0]), widths[:-1], widths[-1])


def _grey_28(pictures: Sequence[Picture]) -> Tensor:
    """(N, 1, 28, 28) in [0, 1]; pictures of another size are resized (bicubic, antialiased)."""
    size = (_CNN_SIDE, _CNN_SIDE)
    grey = (Image.fromarray(np.ascontiguousarray(picture)).convert("L") for picture in pictures)
    resized = [np.asarray(image.resize(size, Image.Resampling.BICUBIC)) for image in grey]
    return torch.from_numpy(np.stack(resized)[:, None]).float() / 255.0


def _before_last_linear(network: nn.Module, x: Tensor) -> Tensor:
    assert isinstance(network, SmallCNN)
    hidden: Tensor = network.classifier[:-1](network.features(x))
    return hidden


NETWORKS: Mapping[str, FeatureNetwork] = MappingProxyType(
    {"small_cnn": FeatureNetwork(_build_small_cnn, _grey_28, _before_last_linear)}
)
