"""Tiny sets of images on disk; no assertions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pictures = NDArray[np.uint8]


def pictures(num_images: int, seed: int = 0, shape: tuple[int, ...] = (16, 20, 3)) -> Pictures:
    """(N, H, W, C) with slopes that differ and some grain."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(-1, 1, shape[1])[None, None, :, None]
    slope = rng.uniform(-60, 60, (num_images, 1, 1, shape[2]))
    grain = rng.normal(0, 25, (num_images, *shape))
    return np.clip(128 + slope * ramp + grain, 0, 255).astype(np.uint8)


def write_folder(folder: Path, images: Pictures, extension: str = ".png") -> Path:
    """One file an image, some in a folder below."""
    for k, image in enumerate(images):
        path = folder / ("more" if k % 3 == 0 else "") / f"image_{k:03d}{extension}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


def write_samples(path: Path, images: Pictures) -> Path:
    """An ``.npz`` as samplers write it."""
    np.savez(path, images)
    return path
