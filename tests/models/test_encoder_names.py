"""Names of the classifier: those of the published files, and hints about files that do not fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from models.config import POOLS, EncoderConfig
from models.encoder import AttentionPool, EncoderUNet
from models.unet import UNetModel
from tests.models.nets import published_classifier, small_config
from utils.debug_util import count_parameters

# image size: (residual blocks a level, width of each level, factors with attention)
PUBLISHED = {
    64: (4, (128, 256, 384, 512), (2, 4, 8)),
    128: (2, (128, 128, 256, 384, 512), (4, 8, 16)),
    256: (2, (128, 128, 256, 256, 512, 512), (8, 16, 32)),
    512: (2, (64, 128, 128, 256, 256, 512, 512), (16, 32, 64)),
}

BASE = EncoderConfig(unet=small_config(), num_classes=7, pool="attention")


def layer(name: str, *shape: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def residual(name: str, width: int, out_width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from layer(f"{name}.in_layers.0", width)
    yield from layer(f"{name}.in_layers.2", out_width, width, 3, 3)
    yield from layer(f"{name}.emb_layers.1", 2 * out_width, 512)
    yield from layer(f"{name}.out_layers.0", out_width)
    yield from layer(f"{name}.out_layers.3", out_width, out_width, 3, 3)
    if width != out_width:
        yield from layer(f"{name}.skip_connection", out_width, width, 1, 1)


def attending(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from layer(f"{name}.norm", width)
    yield from layer(f"{name}.qkv", 3 * width, width, 1)
    yield from layer(f"{name}.proj_out", width, width, 1)


def published_entries(size: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield names and shapes of a published file, from the description of the network alone."""
    depth, widths, factors = PUBLISHED[size]
    yield from layer("time_embed.0", 512, 128)
    yield from layer("time_embed.2", 512, 512)
    yield from layer("input_blocks.0.0", widths[0], 3, 3, 3)
    block, width = 1, widths[0]
    for level, out_width in enumerate(widths):
        for _ in range(depth):
            yield from residual(f"input_blocks.{block}.0", width, out_width)
            if 2**level in factors:
                yield from attending(f"input_blocks.{block}.1", out_width)
            block, width = block + 1, out_width
        if level < len(widths) - 1:
            yield from residual(f"input_blocks.{block}.0", width, width)
            block += 1
    yield from residual("middle_block.0", 512, 512)
    yield from attending("middle_block.1", 512)
    yield from residual("middle_block.2", 512, 512)
    yield from layer("out.0", 512)
    yield "out.2.positional_embedding", (512, 8 * 8 + 1)
    yield from layer("out.2.qkv_proj", 3 * 512, 512, 1)
    yield from layer("out.2.c_proj", 1000, 512, 1)


@pytest.mark.parametrize("size", list(PUBLISHED))
def test_state_dict_has_the_names_shapes_and_order_of_the_published_classifiers(size: int) -> None:
    with torch.device("meta"):
        model = EncoderUNet(published_classifier(size))
    found = [(name, tuple(value.shape)) for name, value in model.state_dict().items()]
    assert found == list(published_entries(size))
    pool = model.out[2]
    assert isinstance(pool, AttentionPool)
    assert pool.num_heads == 512 // 64


def test_the_classifier_of_256_pixels_has_the_published_number_of_parameters() -> None:
    """Rombach et al. 2022 (arXiv 2112.10752), table 3: 554M for ADM alone, 608M for ADM-G."""
    with torch.device("meta"):
        model = EncoderUNet(published_classifier(256))
    assert count_parameters(model) / 1e6 == pytest.approx(608 - 554, abs=1)


@pytest.mark.parametrize(
    ("pool", "names"),
    [
        ("adaptive", ["out.0", "out.3"]),
        ("spatial", ["out.0", "out.2"]),
        ("spatial_v2", ["out.0", "out.1", "out.3"]),
    ],
)
def test_heads_without_attention_have_their_positions(pool: str, names: list[str]) -> None:
    model = EncoderUNet(dataclasses.replace(BASE, pool=pool))
    found = [name for name in model.state_dict() if name.startswith("out.")]
    assert found == [f"{name}.{kind}" for name in names for kind in ("weight", "bias")]


# -- Files that do not fit


def hint(there: nn.Module, here: Any) -> str:
    shapes = {name: tuple(value.shape) for name, value in there.state_dict().items()}
    found: str = here.explain_mismatch(shapes)
    return found


@pytest.mark.parametrize("here", POOLS)
@pytest.mark.parametrize("there", POOLS)
def test_the_pool_of_a_file_is_recognised(there: str, here: str) -> None:
    words = hint(*(EncoderUNet(dataclasses.replace(BASE, pool=pool)) for pool in (there, here)))
    assert words.endswith(f"give --pool {there}") if there != here else words == ""


@pytest.mark.parametrize("pool", POOLS)
def test_the_number_of_classes_of_a_file_is_recognised(pool: str) -> None:
    there, here = (dataclasses.replace(BASE, pool=pool, num_classes=count) for count in (5, 10))
    assert "5 classes, not 10" in hint(EncoderUNet(there), EncoderUNet(here))


def test_the_image_size_and_the_depth_of_a_file_are_recognised() -> None:
    larger = small_config(image_size=32, attention_resolutions=(32, 16))
    deeper = small_config(num_res_blocks=2)
    for unet, word in ((larger, "--image_size"), (deeper, "--num_res_blocks")):
        there = EncoderUNet(dataclasses.replace(BASE, unet=unet))
        assert word in hint(there, EncoderUNet(BASE))


def test_a_classifier_and_a_whole_unet_are_told_apart() -> None:
    model, unet = EncoderUNet(BASE), UNetModel(small_config())
    assert "whole U-Net" in hint(unet, model)
    assert "a classifier" in hint(model, unet)
