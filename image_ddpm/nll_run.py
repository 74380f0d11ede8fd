"""Puts the measurement of a likelihood together, and what its results depend on."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence

import torch

from ddpm.process import create_diffusion, model_settings, setting_defaults
from ddpm.stored_flags import start_of_file
from image_ddpm.data import load_entries
from image_ddpm.flags import ImageDiffusionFlags, ImageModelFlags, LabelFlags, NLLFlags
from image_ddpm.networks import create_image_model, image_identity, model_keywords
from image_ddpm.nll import SETTINGS_FILE, LikelihoodMeasure, write_results
from image_ddpm.parts import PartStore
from utils.debug_util import report_cost
from utils.files.records import require_same_settings
from utils.flags.groups import ENLARGE, ERROR, SKIP
from utils.images.dataset import Entry, TestCrops
from utils.images.decode import BadImageError, ImageFacts
from utils.images.files import read_image, resolve_image_path
from utils.images.notes import look_at, say_sizes, without_small
from utils.loops.networks import load_checked
from utils.process.errors import DataError

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
    listed = load_entries(data, num_classes, log, known)
    side, channels = network.image_size, network.in_channels
    num_wanted = len(listed) if nll.num_samples == -1 else nll.num_samples
    entries, is_turned = first_usable(listed, num_wanted, side, data, log), data.apply_orientation
    return LikelihoodMeasure(
        model=model.to(device),
        diffusion=create_diffusion(process),
        listed=listed,
        entries=entries,
        crops=TestCrops(entries, side, data.data_dir, ERROR, channels, apply_orientation=is_turned),
        network=network,
        flags=nll,
        device=device,
    )


def first_usable(
    listed: Sequence[Entry], num_wanted: int, size: int, flags: LabelFlags, log: Log
) -> list[Entry]:
    """The first images that the flags do not leave out; says how large they are.

    Which is the i-th depends on no number, so that later runs may measure more.

    Raises:
        DataError: for small images that are to be an error, or if none is left.
    """
    facts: dict[str, ImageFacts] = {}
    kept: list[Entry] = []
    position, is_skipping = 0, flags.on_bad_image == SKIP
    while len(kept) < num_wanted and position < len(listed):
        chunk = listed[position : position + num_wanted - len(kept)]
        position += len(chunk)
        names = [entry.name for entry in chunk]
        found = look_at(names, flags.data_dir, flags, is_decoding=is_skipping)
        facts |= found
        for entry in chunk:
            one = found.get(entry.name)
            if one is None and is_skipping:
                log(f"warning: skipped {_problem(entry.name, flags.data_dir)}")
            elif one is None or one.short_side >= size or flags.small_images != SKIP:
                kept.append(entry)
    if facts:
        say_sizes(facts.values(), size, len(facts), log)
        without_small(facts, size, flags, log)
    if not kept:
        raise DataError(f"--data_dir {flags.data_dir}: all {len(listed)} images are left out")
    return kept


def _problem(name: str, data_dir: str) -> str:
    try:
        read_image(resolve_image_path(data_dir, name))
    except BadImageError as error:
        return str(error)
    return name  # it was mended meanwhile


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
        "on_bad_image": data.on_bad_image,
        "small_images": SKIP if data.small_images == SKIP else ENLARGE,
        "apply_orientation": data.apply_orientation,
        "images": hashlib.sha256(names.encode()).hexdigest(),
    }
    found = setting_defaults(type(network), type(process), LabelFlags, NLLFlags)
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
