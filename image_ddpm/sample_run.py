"""Puts a sampler of the flags together, and what its samples depend on."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch

from ddpm.process import create_diffusion, sampling_settings, setting_defaults
from image_ddpm.classifier_flags import GuideFlags
from image_ddpm.classifier_utils import load_guide
from image_ddpm.flags import ImageDiffusionFlags, ImageModelFlags, ImageSampleFlags
from image_ddpm.sampling import ImageSampler
from image_ddpm.script_util import create_image_model, model_keywords
from utils.atomic_file import sha256_of
from utils.model_util import load_checked
from utils.settings_file import require_same_settings

SETTINGS_FILE = ".sampling.json"


def load_sampler(
    network: ImageModelFlags,
    process: ImageDiffusionFlags,
    flags: ImageSampleFlags,
    guide: GuideFlags,
    device: torch.device,
    log: Callable[[str], None],
) -> ImageSampler:
    """The sampler with its network and its guide.

    Raises:
        CheckpointError: if a checkpoint is missing, damaged or of another network.
        ValueError: for flags that contradict each other.
    """
    model = load_checked(
        create_image_model, model_keywords(network, process), flags.model_path, log
    )
    sizes = {name: getattr(network, name) for name in ("image_size", "in_channels", "num_classes")}
    return ImageSampler(
        model=model.to(device),
        diffusion=create_diffusion(process),
        network=network,
        flags=flags,
        device=device,
        log=log,
        guide=load_guide(guide, sizes, device, log),
    )


def require_settings(
    network: ImageModelFlags,
    process: ImageDiffusionFlags,
    flags: ImageSampleFlags,
    guide: GuideFlags,
) -> None:
    """Remembers what the samples of the output folder are drawn with, and refuses anything else.

    Raises:
        DataError: names the settings that differ.
    """
    settings = sampling_settings(network, process, flags, flags.seed)
    own: dict[str, Any] = {"labels": flags.labels, "guidance_scale": flags.guidance_scale}
    if guide.classifier_path:
        own |= {**vars(guide), "classifier_path": sha256_of(guide.classifier_path)}
    classes = (type(network), type(process), ImageSampleFlags, GuideFlags)
    require_same_settings(
        os.path.join(flags.output_dir, SETTINGS_FILE),
        {**settings, **own},
        defaults=setting_defaults(*classes),
    )
