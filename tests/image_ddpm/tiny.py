"""Tiny labelled images and flags of the smallest network, for the image diffusion tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from image_ddpm.networks import create_image_model
from tests.tiny import photo, save_weights, shake
from utils.loops import checkpoint

SIDE = 16
NET: dict[str, Any] = {
    "image_size": SIDE,
    "num_channels": 8,
    "num_res_blocks": 1,
    "channel_mult": "1,2",
    "attention_resolutions": "8",
    "num_heads": 2,
}
CLASSES = {"class_cond": True, "num_classes": 3}
PROCESS: dict[str, Any] = {"diffusion_steps": 20, "noise_schedule": "cosine", "learn_sigma": True}
TRAINING: dict[str, Any] = {"batch_size": 2, "log_interval": 1, "lr": 1e-3, "ema_rate": "0.9"}


def write_images(folder: Path, names: list[str]) -> Path:
    """One photo per name, in a fresh folder."""
    for seed, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(seed, (18, 20))).save(path)
    return folder


def named_images(folder: Path) -> Path:
    """Six images of three classes, the label in the name."""
    names = ["cat_1.png", "cat_2.png", "dog_1.png", "dog_2.png", "eel_1.png", "eel_2.png"]
    return write_images(folder, names)


def write_model(path: Path, **flags: Any) -> Path:
    """A network of random weights."""
    return save_weights(shake(create_image_model(**{"learn_sigma": True, **NET, **flags})), path)


def read_samples(folder: Path) -> dict[str, Any]:
    """The arrays of the one samples file in a folder."""
    (path,) = folder.glob("samples_*.npz")
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def rewrite_manifest(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes a manifest as another writer would have written it: its digest fits again."""
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["sha256"]
    change(content)
    content["sha256"] = checkpoint._digest(content)
    path.write_text(json.dumps(content), encoding="utf-8")
