"""Tiny samplers for the tests: a denoiser of 8 channels, 4 steps, three images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from sr_var.base_dataset import Entry
from sr_var.flags import SampleFlags
from sr_var.moments import SampleMoments, load_moments
from sr_var.sampling import SRSampler
from sr_var.script_util import sr_create_model_and_diffusion
from tests.tiny import CLASSES, DENOISER, LARGE, PROCESS, SMALL, TEST_NAMES, TinyData, shake

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
    return SRSampler(
        model=(model or shake(new_model)).eval().requires_grad_(False),  # type: ignore[arg-type]
        diffusion=diffusion,
        entries=ENTRIES if entries is None else entries,
        sizes=(LARGE, SMALL),
        flags=SampleFlags(**merged),
        device=torch.device("cpu"),
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
