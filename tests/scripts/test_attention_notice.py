"""Sides of attention that no level has: one line that names them, and never a refusal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from image_ddpm.classifier import create_classifier
from image_ddpm.networks import create_image_model
from sr_var.script_util import (
    create_baseline_model,
    create_mean_model,
    create_sr_model,
    create_var_model,
)
from tests.image_ddpm.tiny import PROCESS, TRAINING, named_images
from tests.tiny import DENOISER, REGRESSION_NET, done, words

SIDE = 24  # levels of 24 and 12
SR = {"large_size": SIDE, "small_size": 6}
IMAGE: dict[str, Any] = {
    "image_size": SIDE,
    "num_channels": 8,
    "num_res_blocks": 1,
    "channel_mult": "1,2",
}
CLASSIFIER = {
    "image_size": SIDE,
    "in_channels": 3,
    "num_classes": 2,
    "classifier_width": 8,
    "classifier_depth": 1,
    "classifier_num_head_channels": 8,
    "classifier_channel_mult": "1,2",
}


def _of_classifier(*, attention_resolutions: str, **flags: Any) -> Any:
    return create_classifier(classifier_attention_resolutions=attention_resolutions, **flags)


NETWORKS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "mean": (create_mean_model, REGRESSION_NET | SR),
    "variance": (create_var_model, REGRESSION_NET | SR),
    "baseline": (create_baseline_model, REGRESSION_NET | SR),
    "upsampler": (create_sr_model, DENOISER | SR),
    "denoiser": (create_image_model, IMAGE | {"learn_sigma": False}),
    "classifier": (_of_classifier, CLASSIFIER),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    ("given", "unreached"),
    [("12", ""), ("", ""), ("24,12", ""), ("8", "8"), ("12,8", "8"), ("32,12,8", "32,8")],
)
def test_sides_at_no_level_are_named(name: str, given: str, unreached: str) -> None:
    create, flags = NETWORKS[name]
    notices = create(**{**flags, "attention_resolutions": given}).notices()
    assert len(notices) == bool(unreached)
    prefix = "--classifier_" if name == "classifier" else "--"
    for line in notices:
        assert f"{prefix}attention_resolutions {unreached}" in line and "24, 12" in line


def test_a_training_with_the_default_says_it_once(tmp_path: Path) -> None:
    """The default is 16,8; the image has 8 pixels a side."""
    flags = {"data_dir": named_images(tmp_path / "images"), "log_dir": tmp_path / "log"}
    more = {**flags, "max_step": 1, "image_size": 8, "channel_mult": "1"}
    out = done("image_train", words(IMAGE, PROCESS, TRAINING, more, num_heads=1)).out
    assert out.count("--attention_resolutions 16 adds no attention") == 1
