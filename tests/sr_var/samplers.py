"""Tiny samplers for the tests: a denoiser of 8 channels, 4 steps, three images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from sr_var.data.low_res import ReducedCrops
from sr_var.flags.scripts import SampleFlags
from sr_var.results.moments import SampleMoments, load_moments
from sr_var.sampling import SRSampler
from sr_var.script_util import sr_create_model_and_diffusion
from tests.tiny import CLASSES, DENOISER, LARGE, PROCESS, SMALL, TEST_NAMES, TinyData, shake, tree
from utils.images.listing import Entry

LABELS = {name: y for y, names in CLASSES.values() for name in names}
ENTRIES = [Entry(name, LABELS[name]) for name in TEST_NAMES]
NUM_SAMPLES = 5


def make_sampler(
    data: TinyData,
    output_dir: Path,
    *,
    entries: list[Entry] | None = None,
    model: torch.nn.Module | None = None,
    net: dict[str, Any] | None = None,
    log: Callable[[str], None] = lambda line: None,
    **flags: Any,
) -> SRSampler:
    """A sampler of all three test images, five samples each unless told otherwise."""
    new_model, diffusion = sr_create_model_and_diffusion(**{**DENOISER, **PROCESS, **(net or {})})
    defaults = {"num_samples_per_image": NUM_SAMPLES, "batch_size": 4}
    merged = {**defaults, **flags, "data_dir": str(data.data_dir), "output_dir": str(output_dir)}
    sample, device = SampleFlags(**merged), torch.device("cpu")
    chosen = ENTRIES if entries is None else entries
    return SRSampler(
        model=(model or shake(new_model)).eval().requires_grad_(False),  # type: ignore[arg-type]
        diffusion=diffusion,
        images=ReducedCrops(chosen, sample, (LARGE, SMALL), device),
        sizes=(LARGE, SMALL),
        flags=sample,
        device=device,
        log=log,
    )


def pictures(output_dir: Path, name: str) -> dict[int, NDArray[np.uint8]]:
    """Index → grey levels of all samples of one image."""
    folder = output_dir / name / "high_res_samples"
    files = folder.glob("sample_*.png")
    return {int(file.stem.split("_")[1]): np.asarray(Image.open(file)) for file in files}


def stored(output_dir: Path, name: str) -> SampleMoments | None:
    """The moments file of one image."""
    return load_moments(str(output_dir / name / "moments.npz"))


def content(output_dir: Path) -> dict[str, bytes]:
    """What a user finds: everything but the locks."""
    files = tree(output_dir).items()
    return {path: content for path, content in files if not path.startswith(".claims/")}


def assert_same_pictures(folder: Path, reference: Path) -> None:
    """Both folders hold the same PNG files, byte for byte."""

    def png(content: dict[str, bytes]) -> dict[str, bytes]:
        return {path: data for path, data in content.items() if path.endswith(".png")}

    found, expected = png(content(folder)), png(content(reference))
    assert found.keys() == expected.keys()
    assert [path for path in found if found[path] != expected[path]] == []


def assert_same_moments(one: SampleMoments | None, other: SampleMoments | None) -> None:
    """Equal up to the float32 of the files, 6e-8 relative."""
    assert one is not None and other is not None
    assert one.moments is not None and other.moments is not None
    assert set(one.indices) == set(other.indices)
    for part in ("mean", "variance", "third_central_moment", "fourth_central_moment"):
        a, b = getattr(one.moments, part), getattr(other.moments, part)
        np.testing.assert_allclose(a, b, rtol=2e-7, atol=1e-7 * np.abs(b).max())


class NoBar:
    """A progress bar that shows nothing."""

    def skip(self, count: int) -> None:
        pass


class NoStop:
    """Nobody asks to stop."""

    reason = ""
