"""Puts a sampler of the flags together, and what its samples depend on."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch

from ddpm.process import create_diffusion, sampling_settings, setting_defaults
from ddpm.stored_flags import start_of_file
from image_ddpm.classifier import Denoiser, load_guide
from image_ddpm.classifier_flags import GuideFlags
from image_ddpm.flags import ImageDiffusionFlags, ImageModelFlags, ImageSampleFlags
from image_ddpm.labels import ALL_LABELS, random_labels
from image_ddpm.networks import create_image_model, image_identity, model_keywords
from image_ddpm.sampling import ImageSampler
from utils.files.atomic import sha256_of
from utils.files.records import require_same_settings
from utils.loops.networks import load_checked

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
    keywords = model_keywords(network, process)
    identity = image_identity(network, process, is_training=False)
    model = load_checked(create_image_model, keywords, flags.model_path, log, identity)
    denoiser = Denoiser(network, process, start_of_file(flags.model_path))
    names = denoiser.class_names or start_of_file(guide.classifier_path).class_names
    return ImageSampler(
        model=model.to(device),
        diffusion=create_diffusion(process),
        network=network,
        flags=flags,
        device=device,
        log=log,
        guide=load_guide(guide, denoiser, device, log),
        class_names=names,
    )


def require_settings(
    network: ImageModelFlags,
    process: ImageDiffusionFlags,
    sampler: ImageSampler,
    guide: GuideFlags,
) -> None:
    """Remembers what the samples of the output folder are drawn with, and refuses anything else.

    Raises:
        DataError: names the settings that differ.
    """
    flags = sampler.flags
    settings = sampling_settings(network, process, flags, flags.seed)
    own: dict[str, Any] = {"labels": flags.labels, "guidance_scale": flags.guidance_scale}
    own["random_labels"] = random_labels(sampler.class_names, network.num_classes)
    if flags.chosen_labels or not (network.class_cond or guide.classifier_path):
        own["random_labels"] = ALL_LABELS  # none is drawn
    if guide.classifier_path:
        own |= {**vars(guide), "classifier_path": sha256_of(guide.classifier_path)}
    classes = (type(network), type(process), ImageSampleFlags, GuideFlags)
    require_same_settings(
        os.path.join(flags.output_dir, SETTINGS_FILE),
        {**settings, **own},
        defaults={**setting_defaults(*classes), "random_labels": ALL_LABELS},
    )
