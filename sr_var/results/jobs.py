"""What the sampler keeps per image: which samples are missing, and which moments there are.

Drawing them is the business of ``sampling``. Layout: ``<output_dir>/<image name>/`` with
``low_res.png``, ``moments.npz`` and ``high_res_samples/`` (docs/file_formats.md).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO

import torch

from ddpm.flags import DiffusionFlags
from ddpm.process import sampling_settings, setting_defaults
from sr_var.flags.scripts import SampleFlags, SRDiffusionModelFlags
from sr_var.results.moments import MOMENTS_FILE, SampleMoments, load_moments
from utils.files.records import require_same_settings

LOW_RES_FILE, SAMPLES_FOLDER = "low_res.png", "high_res_samples"
SETTINGS_FILE, SECONDS_FILE = ".sampling.json", ".seconds.json"


@dataclass
class ImageJob:
    """One claimed image: what is missing, and what its samples have added up to.

    ``low_res`` is (3, h, h). ``moments`` is None where the folder holds samples of another tool,
    which cannot be counted in float any more.
    """

    name: str
    y: int
    low_res: torch.Tensor
    missing: list[int]
    moments: SampleMoments | None
    lock: IO[str]
    num_wanted: int
    num_open: int = field(init=False)

    def __post_init__(self) -> None:
        self.num_open = len(self.missing)


def require_settings(
    network: SRDiffusionModelFlags, process: DiffusionFlags, flags: SampleFlags
) -> None:
    """Remembers what the samples of the output folder are drawn with, and refuses anything else.

    Raises:
        DataError: names the settings that differ.
    """
    require_same_settings(
        os.path.join(flags.output_dir, SETTINGS_FILE),
        {
            **sampling_settings(network, process, flags, flags.seed),
            "apply_orientation": flags.apply_orientation,
        },
        defaults=setting_defaults(type(network), type(process), SampleFlags),
    )


def sample_path(folder: str, index: int) -> str:
    """``high_res_samples/sample_<i>.png``."""
    return os.path.join(folder, SAMPLES_FOLDER, f"sample_{index}.png")


def missing_indices(folder: str, num_wanted: int, moments: SampleMoments | None) -> list[int]:
    """Samples without a picture, and those that the float moments lack.

    Moments are written before pictures. So a picture that they do not count was drawn by another
    tool, and with such pictures around there are no moments to keep (``moments`` is None).
    """
    counted = range(num_wanted) if moments is None else moments.indices
    known = set(counted)
    return [
        i for i in range(num_wanted) if i not in known or not os.path.exists(sample_path(folder, i))
    ]


def stored_moments(
    folder: str, num_wanted: int, log: Callable[[str], None]
) -> SampleMoments | None:
    """The moments so far (empty for a fresh folder); None where they cannot be kept."""
    stored = load_moments(os.path.join(folder, MOMENTS_FILE))
    if stored is not None:
        return stored
    if any(os.path.exists(sample_path(folder, i)) for i in range(num_wanted)):
        log(
            f"notice: {folder} holds samples without {MOMENTS_FILE}; missing ones are added as "
            "pictures only"
        )
        return None
    return SampleMoments()


def job_batches(jobs: Iterator[ImageJob], batch_size: int) -> Iterator[list[tuple[ImageJob, int]]]:
    """Full batches of (image, index), running on from one image into the next."""
    rows: list[tuple[ImageJob, int]] = []
    for job in jobs:
        for index in job.missing:
            rows.append((job, index))
            if len(rows) == batch_size:
                yield rows
                rows = []
    if rows:
        yield rows
