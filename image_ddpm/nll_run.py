"""Puts the measurement of a likelihood together, and what its results depend on."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence

import torch

from ddpm.process import create_diffusion, model_settings, setting_defaults
from ddpm.stored import start_of_file
from image_ddpm.flags import ImageDiffusionFlags, ImageModelFlags, LabelFlags, NLLFlags
from image_ddpm.nll import SETTINGS_FILE, LikelihoodMeasure, write_results
from image_ddpm.parts import PartStore
from image_ddpm.script_util import create_image_model, image_identity, model_keywords
from image_ddpm.train_data import load_entries
from utils.crop_data import Entry, TestCrops
from utils.debug_util import report_cost
from utils.model_util import load_checked
from utils.settings_file import require_same_settings

Log = Callable[[str], None]
Flags = tuple[ImageModelFlags, ImageDiffusionFlags, LabelFlags, NLLFlags]


def load_measure(flags: Flags, device: torch.device, log: Log) -> LikelihoodMeasure:
    """The network, the process and the images of the flags.

    Raises:
        CheckpointError, DataError: for what is missing, damaged or does not fit.
    """
    network, process, data, nll = flags
    keywords = model_keywords(network, process)
    identity = image_identity(network, process, is_training=False)
    model = load_checked(create_image_model, keywords, nll.model_path, log, identity)
    known = start_of_file(nll.model_path).class_names
    num_classes = network.num_classes if network.class_cond else None
    entries = load_entries(data, num_classes, log, known)
    num_images = len(entries) if nll.num_samples == -1 else min(nll.num_samples, len(entries))
    side, channels = network.image_size, network.in_channels
    return LikelihoodMeasure(
        model=model.to(device),
        diffusion=create_diffusion(process),
        entries=entries,
        num_images=num_images,
        crops=TestCrops(entries, side, data.data_dir, "error", channels),
        network=network,
        flags=nll,
        device=device,
    )


def require_settings(flags: Flags, entries: Sequence[Entry]) -> None:
    """Remembers what the results of the output folder depend on, and refuses anything else.

    Raises:
        DataError: names the settings that differ.
    """
    network, process, data, nll = flags
    names = "\n".join(f"{entry.name} {entry.y}" for entry in entries)
    settings = {
        **model_settings(nll.model_path, network, process),
        "clip_denoised": nll.clip_denoised,
        "seed": nll.seed,
        "data_dir": data.data_dir,
        "images": hashlib.sha256(names.encode()).hexdigest(),
    }
    found = setting_defaults(type(network), type(process), NLLFlags)
    require_same_settings(os.path.join(nll.output_dir, SETTINGS_FILE), settings, defaults=found)


def dry_run(measure: LikelihoodMeasure, log: Log) -> None:
    """The first term of a batch and what the whole run would take."""
    started = time.monotonic()
    size = measure.measure_first_term()
    seconds = (time.monotonic() - started) / size
    report_cost(measure.model, measure.device, log)
    hours = seconds * measure.num_images * measure.num_terms / 3600
    log(f"one network evaluation, with warm-up: {seconds:.3f} s an image")
    log(
        f"{measure.num_images} images of {measure.num_terms} terms on one device: about "
        f"{hours:.2f} h"
    )
    log("dry run: nothing was written")


def finish_measure(store: PartStore, output_dir: str, num_images: int, log: Log) -> None:
    """Writes the results if all parts are there; the parts stay, so that more images may join.

    Raises:
        DataError: for a part that cannot be read, or images without a finite bound.
    """
    with store.finishing() as is_ours:
        if not is_ours:
            log("this process is done; the last one of the others writes the results")
            return
        found = write_results(store, output_dir, num_images)
    total, error = found["total_bpd"]["mean"], found["total_bpd"]["standard_error"]
    spread = "" if error is None else f" ± {error:.4f}"
    log(
        f"{num_images} images: {total:.4f}{spread} bits per dimension (prior "
        f"{found['prior_bpd']['mean']:.4f}, vb {found['vb_bpd']['mean']:.4f}); mse of the noise "
        f"{found['mse']:.4f}, of x_0 {found['xstart_mse']:.4f}; {output_dir}"
    )
