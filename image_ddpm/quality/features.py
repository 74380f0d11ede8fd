"""Features of images: pixels, or what a network of this project has before its last layer.

To add a network: one entry in `NETWORKS`, its name in `image_ddpm.quality.flags.NETWORK_NAMES`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from image_ddpm.classifier import create_classifier
from image_ddpm.quality.flags import ENCODER, PIXELS, TORCHSCRIPT
from image_ddpm.quality.inputs import Picture
from models.cnn import SmallCNN
from models.encoder import EncoderUNet
from utils.flags.groups import Precision
from utils.images.pixels import bytes_to_image
from utils.loops.networks import cast_to
from utils.loops.portable import weights_digest
from utils.metrics import WHITE
from utils.process.errors import CheckpointError, DataError
from utils.untrusted.state_dict import check_state_dict, read_state_dict, without_prefix

Features = NDArray[np.float32]

PIXEL_SIDE = 8
_CNN_SIDE = 28
_CNN_CONVOLUTION = "features.3.weight"
_CNN_LINEAR = re.compile(r"classifier\.(\d{1,4})\.weight")
_CNN_PLACES = 16
_BICUBIC = Image.Resampling.BICUBIC
_NO_KEYWORDS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class FeatureNetwork:
    """How one kind of network makes features.

    `build` makes an untrained network of a state_dict and keywords, on the device `meta`: of the
    sizes that the shapes show, or of those that the keywords say. It raises CheckpointError if the
    shapes, ValueError if the keywords make none. `prepare` turns pictures (H, W, 3) of any sizes
    into its input (N, …), `activations` that into features (N, D) and logits (N, K). `unseen`
    keywords change the features of one file, whatever its shapes: they belong to the name of the
    features.
    """

    build: Callable[[Mapping[str, Tensor], Mapping[str, Any]], nn.Module]
    prepare: Callable[[nn.Module, Sequence[Picture]], Tensor]
    activations: Callable[[nn.Module, Tensor], tuple[Tensor, Tensor]]
    unseen: Sequence[str] = ()


class Activations(NamedTuple):
    """What is known of N pictures: features (N, D) and, if a network has them, two things more.

    `spatial` (N, S) are features that keep the place in the picture, for the sFID;
    `probabilities` (N, K) are of the classes, for the inception score.
    """

    features: Features
    spatial: Features | None = None
    probabilities: Features | None = None


@dataclass(frozen=True)
class FeatureMaker:
    """Turns pictures into features; `name` says which, so that none are mixed up."""

    name: str
    make: Callable[[Sequence[Picture]], Activations]


def feature_maker(
    features: str,
    network_name: str,
    device: torch.device,
    keywords: Mapping[str, Any] = _NO_KEYWORDS,
    precision: Precision = Precision.FP32,
) -> FeatureMaker:
    """What `--features` (`pixels`, or a file) and `--features_network` ask for.

    `keywords` of `create_classifier` are what the file of a network does not tell; `precision` is
    that of what the network computes in 16 bits, where it has such.

    Raises:
        CheckpointError: if the file is missing, damaged, or not of this network; names the flag.
        ValueError: keywords that make no network; names the flag.
    """
    if features == PIXELS:
        return FeatureMaker(PIXELS, lambda pictures: Activations(pixel_features(pictures)))
    if network_name == TORCHSCRIPT:
        return FeatureMaker(_name(network_name, features), program(features, device))
    kind = NETWORKS[network_name]
    try:
        network = cast_to(_load(kind, features, keywords), precision).to(device).eval()
    except CheckpointError as error:
        raise CheckpointError(
            f"--features {features} as --features_network {network_name}: {error}"
        ) from None

    def make(pictures: Sequence[Picture]) -> Activations:
        with torch.inference_mode():
            found, logits = kind.activations(network, kind.prepare(network, pictures).to(device))
            probabilities = torch.softmax(logits.float(), dim=1)
            return Activations(_array(found), probabilities=_array(probabilities))

    unseen = "".join(f",{name}={keywords[name]}" for name in kind.unseen)
    return FeatureMaker(_name(network_name, features) + unseen, make)


def program(path: str, device: torch.device) -> Callable[[Sequence[Picture]], Activations]:
    """What a TorchScript file makes of pictures of one size; loading it runs what is in it.

    It is called with uint8 (N, 3, H, W) and returns features (N, D), or a tuple of these, spatial
    features (N, S) and class probabilities (N, K), the last one or two left out or None. One whose
    `forward` takes `return_features` is called with it for features, and without for probabilities,
    as Inception networks are published.

    Raises:
        CheckpointError: it is no TorchScript file; in use: it returns something else.
        DataError: in use: pictures of several sizes.
    """
    try:
        # only with --trust_features True
        network = torch.jit.load(path, map_location=device).eval()  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, OSError) as error:
        raise CheckpointError(
            f"--features {path} is no TorchScript file: {str(error).splitlines()[0]}"
        ) from None
    takes = {argument.name for argument in network.forward.schema.arguments}

    def make(pictures: Sequence[Picture]) -> Activations:
        sizes = {picture.shape[:2] for picture in pictures}
        if len(sizes) > 1:
            raise DataError(
                f"--features {path} takes pictures of one size, these are of {len(sizes)} sizes; "
                "resize them, or give --batch_size 1"
            )
        stacked = np.stack(pictures).transpose(0, 3, 1, 2)
        images = torch.from_numpy(np.ascontiguousarray(stacked)).to(device)
        try:
            with torch.inference_mode():
                if "return_features" in takes:
                    found = network(images, return_features=True), None, network(images)
                else:
                    found = network(images)
        except RuntimeError as error:
            raise CheckpointError(
                f"--features {path} fails on uint8 {tuple(images.shape)}: "
                f"{str(error).strip().splitlines()[-1]}"
            ) from None
        return _checked(path, found, len(images))

    return make


def _checked(path: str, found: object, count: int) -> Activations:
    parts = [*found] if isinstance(found, (tuple, list)) else [found]
    arrays = [
        _array(part) if isinstance(part, Tensor) and part.shape[:-1] == (count,) else None
        for part in parts
    ]
    is_lacking = any(
        array is None and part is not None for array, part in zip(arrays, parts, strict=True)
    )
    if not 1 <= len(parts) <= 3 or arrays[0] is None or is_lacking:
        shapes = [getattr(part, "shape", type(part).__name__) for part in parts]
        raise CheckpointError(
            f"--features {path} must return features (N, D), or a tuple of features, spatial "
            f"features (N, S) and probabilities (N, K); of {count} images it returns {shapes}"
        )
    return Activations(arrays[0], *arrays[1:])


def _name(network_name: str, path: str) -> str:
    return f"{network_name}:{weights_digest(path)[:16]}"


def _array(values: Tensor) -> Features:
    found: Features = values.float().cpu().numpy()
    return found


def _load(kind: FeatureNetwork, path: str, keywords: Mapping[str, Any]) -> nn.Module:
    state = read_state_dict(path)
    # without values: shapes that do not belong together may ask for more memory than there is
    with torch.device("meta"):
        network = kind.build(state, keywords)
    network.load_state_dict(check_state_dict(network, state, path), assign=True)
    return network


def pixel_features(pictures: Sequence[Picture]) -> Features:
    """Means over 8×8 equal areas, (N, 192) in [0, 1]; no network, any size of picture.

    A pixel on a border counts for each side by its share.
    """
    rows = []
    for picture in pictures:
        height, width = picture.shape[:2]
        values = picture.astype(np.float64) / WHITE
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


def _build_small_cnn(state: Mapping[str, Tensor], _: Mapping[str, Any]) -> SmallCNN:
    state = without_prefix(state, {_CNN_CONVOLUTION})
    convolution = state.get(_CNN_CONVOLUTION)
    found = [(int(match[1]), key) for key in state if (match := _CNN_LINEAR.fullmatch(key))]
    linear = [state[key] for _, key in sorted(found)]
    if convolution is None or convolution.ndim != 4 or len(linear) < 2:
        raise CheckpointError(f"it has no convolution {_CNN_CONVOLUTION} or no classifier.N.weight")
    if any(weight.ndim != 2 for weight in linear):
        raise CheckpointError("classifier.N.weight must be matrices")
    widths = [int(weight.shape[0]) for weight in linear]
    try:
        return SmallCNN(_CNN_PLACES * int(convolution.shape[0]), widths[:-1], widths[-1])
    except ValueError as error:  # sizes that the network refuses
        raise CheckpointError(str(error)) from None


def _grey_28(_: nn.Module, pictures: Sequence[Picture]) -> Tensor:
    """(N, 1, 28, 28) in [0, 1]."""
    return _resized(pictures, (_CNN_SIDE, _CNN_SIDE), "L").float() / WHITE


def _resized(pictures: Sequence[Picture], size: tuple[int, int], mode: str) -> Tensor:
    """(N, C, *size) grey levels of pictures (H, W, 3); resized bicubically, antialiased."""
    images = (Image.fromarray(np.ascontiguousarray(picture)).convert(mode) for picture in pictures)
    arrays = [np.asarray(image.resize(size[::-1], _BICUBIC)) for image in images]
    stacked = np.stack(arrays).reshape(len(arrays), *size, -1)
    return torch.from_numpy(np.ascontiguousarray(stacked.transpose(0, 3, 1, 2)))


def _before_last_linear(network: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    assert isinstance(network, SmallCNN)
    hidden: Tensor = network.classifier[:-1](network.features(x))
    return hidden, network.classifier[-1](hidden)


def _as_trained(network: nn.Module, pictures: Sequence[Picture]) -> Tensor:
    """(N, C, H, W) in [-1, 1], C, H and W those of the network."""
    assert isinstance(network, EncoderUNet)
    mode = "L" if network.config.in_channels == 1 else "RGB"
    return bytes_to_image(_resized(pictures, network.config.image_sides, mode))


def _clean_features(network: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Of images without noise: timestep 0."""
    assert isinstance(network, EncoderUNet)
    found = network.features(x, torch.zeros(len(x), dtype=torch.int64, device=x.device))
    return found, network.logits_of(found)


NETWORKS: Mapping[str, FeatureNetwork] = MappingProxyType(
    {
        "small_cnn": FeatureNetwork(_build_small_cnn, _grey_28, _before_last_linear),
        ENCODER: FeatureNetwork(
            lambda _, keywords: create_classifier(**keywords),
            _as_trained,
            _clean_features,
            ("image_size", "classifier_num_head_channels"),
        ),
    }
)
