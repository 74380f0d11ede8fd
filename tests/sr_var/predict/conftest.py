"""Checkpoints of both kinds of networks, trained for a few steps, and images to predict."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.pipeline import TRAINING, Pipeline
from tests.sr_var.predict.pairs import FACTOR, SUBPIXEL
from tests.tiny import TinyData, done, photo, words

STEPS = 2


@dataclass(frozen=True)
class Nets:
    """Paths of a mean net and the variance net that was trained on it."""

    mean: Path
    var: Path

    @property
    def flags(self) -> dict[str, Any]:
        """Those of sr_predict.py."""
        return {"mean_model_path": self.mean, "var_model_path": self.var}


@pytest.fixture(scope="session")
def subpixel_nets(tmp_path_factory: pytest.TempPathFactory, tiny_data: TinyData) -> Nets:
    """Sub-pixel networks of factor 4; read only."""
    root = tmp_path_factory.mktemp("nets")
    mean = root / "sr_mean" / f"model{STEPS:06d}.pt"
    shared = words(tiny_data.train_flags, TRAINING, SUBPIXEL, max_step=STEPS, lr=0.01)
    for task, more in (
        ("sr_mean", {"consistent": True}),
        ("sr_var", {"last_layer_type": "softplus", "mean_model_path": mean}),
    ):
        folders = {"log_dir": root / f"log_{task}", "model_save_dir": root / task}
        done(f"{task}_train", shared + words(more, folders))
    return Nets(mean, root / "sr_var" / mean.name)


@pytest.fixture(scope="session")
def unet_nets(pipeline: Pipeline) -> Nets:
    """U-Nets of 8 → 32 pixels; read only."""
    return Nets(pipeline.mean_model, pipeline.var_model)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three images of odd sides, one of them in a folder below, and their truths beside it."""
    for seed, (name, (h, w)) in enumerate(
        {"a": (13, 9), "b": (8, 8), "below/c": (11, 20)}.items(), 1
    ):
        high = photo(seed, (FACTOR * h, FACTOR * w))
        low = high.reshape(h, FACTOR, w, FACTOR, 3).mean(axis=(1, 3))
        for folder, pixels in (("low", np.rint(low).astype(np.uint8)), ("high", high)):
            path = tmp_path / folder / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return tmp_path / "low"
