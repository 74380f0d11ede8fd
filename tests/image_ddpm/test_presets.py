"""Presets of published models: what they build, and who wins against them."""

from __future__ import annotations

import importlib

import pytest
import torch

from image_ddpm.classifier import create_classifier
from image_ddpm.flags import (
    PRESETS,
    ClassifierFlags,
    ImageDiffusionFlags,
    ImageModelFlags,
    apply_presets,
)
from image_ddpm.networks import create_image_model, model_keywords
from models.encoder import EncoderUNet
from tests.models.nets import published_classifier
from utils.script_util import from_args


def _model(name: str) -> torch.nn.Module:
    args = importlib.import_module("image_sample").create_parser().parse_args(["--preset", name])
    args = apply_presets(args)
    flags, process = from_args(ImageModelFlags, args), from_args(ImageDiffusionFlags, args)
    with torch.device("meta"):
        return create_image_model(**model_keywords(flags, process))


@pytest.mark.parametrize(
    ("name", "millions", "tolerance"),
    [
        # arXiv 2105.05233 gives whole millions
        ("64x64_diffusion", 296, 0.5),
        ("128x128_diffusion", 422, 0.5),
        ("256x256_diffusion", 554, 0.5),
        ("512x512_diffusion", 559, 0.5),
        # improved-diffusion's names round to tens and hundreds
        ("cifar10_uncond_50M", 50, 5),
        ("imagenet64_cond_270M", 270, 5),
        ("imagenet64_uncond_100M", 100, 50),
        ("lsun_uncond_100M_bs128", 100, 50),
    ],
)
def test_network_of_a_preset_is_as_large_as_published(
    name: str, millions: float, tolerance: float
) -> None:
    count = sum(parameter.numel() for parameter in _model(name).parameters()) / 1e6
    assert count == pytest.approx(millions, abs=tolerance)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_made_of_flags_of_the_scripts(name: str) -> None:
    for script in ("image_train", "image_sample", "image_nll"):
        args = importlib.import_module(script).create_parser().parse_args(["--preset", name])
        settled = vars(apply_presets(args))
        known = set(vars(args))
        if script == "image_train":
            assert set(PRESETS[name].flags) <= known
            assert all(settled[key] == value for key, value in PRESETS[name].flags.items())
        else:
            assert settled["model_path"].endswith(PRESETS[name].file)
            assert settled["batch_size"] == vars(args)["batch_size"]


def test_flag_on_the_command_line_goes_before_the_preset() -> None:
    words = ["--preset", "cifar10_uncond_50M", "--dropout", "0.1", "--model_path", "mine.pt"]
    args = apply_presets(importlib.import_module("image_sample").create_parser().parse_args(words))
    assert (args.dropout, args.model_path, args.num_res_blocks) == (0.1, "mine.pt", 3)


def test_classifier_preset_is_the_published_classifier() -> None:
    words = ["--preset", "64x64_diffusion", "--classifier_preset", "64x64_classifier"]
    args = apply_presets(importlib.import_module("image_sample").create_parser().parse_args(words))
    assert args.classifier_path == "checkpoints/image_ddpm/64x64_classifier.pt"
    flags = {name: getattr(args, name) for name in vars(ClassifierFlags())}
    with torch.device("meta"):
        model = create_classifier(image_size=64, in_channels=3, num_classes=1000, **flags)
        published = EncoderUNet(published_classifier(64))
    shapes = [
        {key: value.shape for key, value in net.state_dict().items()} for net in (model, published)
    ]
    assert shapes[0] == shapes[1]


def test_help_lists_the_presets(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        importlib.import_module("image_sample").create_parser().parse_args(["--help"])
    shown = "".join(capsys.readouterr().out.split())
    assert all(name in shown for name in PRESETS)
