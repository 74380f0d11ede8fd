"""Reads what the verification compares and writes what it found; one image at a time, in parallel.

Memory grows neither with the number of samples (``reference``) nor with that of the images: of an
image, figures, a few means and fixed histograms are left.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sr_var.degradation import area_downsample, bilinear_upsample
from sr_var.flags.scripts import VerificationFlags
from sr_var.results.folder import stamp_path, to_grey_bytes
from sr_var.results.inputs import is_known_input
from sr_var.results.jobs import LOW_RES_FILE, SETTINGS_FILE
from sr_var.results.moments import block_means
from sr_var.verify.belonging import has_own_means
from sr_var.verify.calibration import Histograms
from sr_var.verify.figures import Array, Figures, ImageData, image_figures
from sr_var.verify.pooled import image_means, pooled_figures
from sr_var.verify.reference import load_reference, read_picture
from sr_var.verify.truth import load_truth
from utils.files.atomic import write_json_atomic, write_text_atomic
from utils.files.json import read_json
from utils.images.dataset import Entry
from utils.images.files import (
    center_crop_arr,
    open_image,
    read_crop,
    resolve_image_path,
    safe_join,
    write_png,
)
from utils.images.pixels import bytes_to_image, image_to_255, to_hwc
from utils.machine.threads import chosen_threads, ordered_map
from utils.process.errors import DataError
from utils.seeds import stable_seed
from utils.untrusted.arrays import read_npy
from utils.untrusted.pickles import dump_pickle, load_array


@dataclass(frozen=True)
class ImageResult:
    """One image: its figures, what adds up over images, and the arrays for pictures.

    Attributes:
        name: of the image.
        figures: by section.
        data: None where nobody wants the arrays.
        is_float: whether the reference is in float.
        means: over its pixels, see ``pooled``.
        histograms: of both routes; None once they are added up.
        scatter: (2, k): √max(v, 0) and √k₂ of k pixels drawn at random.
    """

    name: str
    figures: dict[str, Figures]
    data: ImageData | None
    is_float: bool
    means: dict[str, float]
    histograms: dict[str, Histograms] | None
    scatter: Array


def require_same_orientation(flags: VerificationFlags) -> None:
    """Refuses results and samples of images that were read another way up than these are.

    Raises:
        DataError: names the record that says so, and the flag.
    """
    folder, steps = flags.sr_model_output_dir, (flags.mean_model_step, flags.var_model_step)
    kinds = zip(("mean", "var", "baseline"), (*steps, steps[0]), strict=True)
    records = [stamp_path(folder, kind, step) for kind, step in kinds]
    for path in (*records, os.path.join(flags.ddpm_sr_output_dir, SETTINGS_FILE)):
        made = _recorded_orientation(path)
        if made not in (None, flags.apply_orientation):
            raise DataError(
                f"{path}: what lies there was made with --apply_orientation {made}, not "
                f"{flags.apply_orientation}; give the same here, or name other folders"
            )


def _recorded_orientation(path: str) -> bool | None:
    """Whether a network's results are of turned images; None of what is no network's record."""
    try:
        record = read_json(path)
    except (OSError, ValueError):  # whether the record is whole does not matter here
        return None
    if not isinstance(record, dict) or not {"models", "model_sha256"} & record.keys():
        return None
    return bool(record.get("apply_orientation"))


def load_image_data(
    entry: Entry, flags: VerificationFlags, *, num_threads: int = 1
) -> tuple[ImageData, bool]:
    """Everything about one image, and whether the reference is in float.

    Args:
        entry: the image.
        flags: where everything is.
        num_threads: samples decoded at a time.

    Raises:
        DataError: names the file that is missing or wrong, and the script that writes it.
    """
    size = flags.large_size
    sample_folder = safe_join(flags.ddpm_sr_output_dir, entry.name)
    small_size = _small_size(sample_folder, size)
    reference = load_reference(
        sample_folder, flags.num_samples, size, small_size, num_threads=num_threads
    )
    net_folder = safe_join(flags.sr_model_output_dir, entry.name)
    mean = _read_mean(net_folder, flags.mean_model_step, size)
    variance_path = os.path.join(net_folder, f"high_res_var_{flags.var_model_step}.pkl")
    _require(variance_path, "sr_var_test.py")
    variance = np.asarray(load_array(variance_path, shape=(size, size, 3)), np.float64)
    high_res, _ = read_crop(  # (H, H, 3) uint8
        resolve_image_path(flags.data_dir, entry.name),
        lambda image: center_crop_arr(image, size),
        apply_orientation=flags.apply_orientation,
    )
    data = ImageData(
        mean=mean,
        variance=variance,
        samples=reference.moments,
        high_res=high_res.astype(np.float64),
        bilinear=_bilinear(high_res, small_size),
        low_res=block_means(high_res.astype(np.float64), small_size),
        half_variances=reference.half_variances,
        block_variance=reference.block_variance,
        truth=load_truth(sample_folder, size),
    )
    folders = sample_folder, net_folder
    _require_same_image(data, flags, folders, has_moments=reference.is_float)
    return data, reference.is_float


def verify_image(
    entry: Entry,
    flags: VerificationFlags,
    *,
    keeps_data: bool,
    num_scatter: int = 0,
    num_threads: int = 1,
) -> ImageResult:
    """Figures of one image; writes the sample mean and variance beside the samples.

    Args:
        entry: the image.
        flags: where everything is.
        keeps_data: whether the result has the arrays for pictures.
        num_scatter: of how many pixels both stds are kept.
        num_threads: samples decoded at a time.
    """
    data, is_float = load_image_data(entry, flags, num_threads=num_threads)
    if not flags.dry_run:
        folder = safe_join(flags.ddpm_sr_output_dir, entry.name)
        rounded = to_grey_bytes(data.samples.mean)
        write_png(os.path.join(folder, "high_res_mean.png"), rounded)
        dump_pickle(data.samples.variance, os.path.join(folder, "high_res_var.pkl"))
    means, histograms = image_means(data)
    figures = image_figures(data)
    for name, value in pooled_figures(means).items():
        section, _, key = name.partition(".")
        figures.setdefault(section, {})[key] = float(value)
    rng = np.random.default_rng(stable_seed(flags.seed, "scatter", entry.name))
    places = rng.integers(0, data.variance.size, num_scatter)
    pairs = [np.maximum(data.variance, 0), data.samples.variance]
    scatter = np.sqrt(np.stack([values.ravel()[places] for values in pairs]))  # (2, num_scatter)
    kept = data if keeps_data else None
    return ImageResult(entry.name, figures, kept, is_float, means, histograms, scatter)


def verify_images(
    entries: Sequence[Entry], flags: VerificationFlags, *, num_kept: int, num_scatter: int = 0
) -> Iterator[ImageResult]:
    """Results in the order of the entries; a few images are worked on at a time.

    Args:
        entries: the images.
        flags: where everything is.
        num_kept: of how many images the arrays are kept for pictures.
        num_scatter: of how many pixels of an image both stds are kept.
    """
    num_threads = chosen_threads(flags.num_threads)

    def verify(place: int) -> ImageResult:
        return verify_image(
            entries[place],
            flags,
            keeps_data=place < num_kept,
            num_scatter=num_scatter,
            # where there are fewer images than threads, the rest decodes
            num_threads=max(1, num_threads // len(entries)),
        )

    return ordered_map(verify, range(len(entries)), num_threads)


def write_results(log_dir: str, summary: Mapping[str, Any], rows: Sequence[ImageResult]) -> None:
    """Writes ``results.json`` (nested by section) and ``results.csv`` (a row an image).

    The columns are what every image has: an exact law, for one, may be there for some only.
    """
    write_json_atomic(os.path.join(log_dir, "results.json"), _finite(summary))
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    common = set.intersection(*({(s, k) for s in r.figures for k in r.figures[s]} for r in rows))
    keys = [(s, k) for s, part in rows[0].figures.items() for k in part if (s, k) in common]
    writer.writerow(["name", *(f"{section}.{key}" for section, key in keys)])
    for row in rows:
        writer.writerow([row.name, *(repr(row.figures[s][k]) for s, k in keys)])
    write_text_atomic(os.path.join(log_dir, "results.csv"), buffer.getvalue())


def _finite(value: Any) -> Any:
    """JSON has no infinity (the PSNR of equal images): it becomes null."""
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _read_mean(folder: str, step: int, size: int) -> Array:
    """The mean net's image: the float array where it is there, else the 8-bit picture."""
    array_path = os.path.join(folder, f"high_res_mean_{step}.npy")
    if not os.path.exists(array_path):
        picture_path = os.path.join(folder, f"high_res_mean_{step}.png")
        _require(picture_path, "sr_mean_test.py")
        return read_picture(picture_path, size).astype(np.float64)
    mean = read_npy(array_path, remedy="run sr_mean_test.py again")
    if mean.shape != (size, size, 3) or mean.dtype.kind != "f":
        raise DataError(
            f"{array_path} has shape {mean.shape}, not that of --large_size {size}; give the size "
            "of the nets' images, or another --sr_model_output_dir"
        )
    if not np.isfinite(mean).all():
        raise DataError(f"{array_path} is not finite everywhere; run sr_mean_test.py again")
    return np.asarray(mean, np.float64)


def _require_same_image(
    data: ImageData, flags: VerificationFlags, folders: tuple[str, str], *, has_moments: bool
) -> None:
    """Refuses results of another image than the real one of their name.

    Of samples and of nets, where a record says that this project made them.

    Args:
        data: of the image.
        flags: where everything is.
        folders: of its samples and of its nets' results.
        has_moments: whether the samples were counted as they were drawn.

    Raises:
        DataError: names the low-res image that is not this image's.
    """
    assert data.low_res is not None
    of_samples, of_nets = (os.path.join(folder, LOW_RES_FILE) for folder in folders)
    is_own = os.path.exists(os.path.join(flags.ddpm_sr_output_dir, SETTINGS_FILE))
    if has_moments and is_own:
        is_known_input(of_samples, data.low_res)
    # the size that it was upsampled from is that of the samples
    if os.path.exists(of_samples) and has_own_means(flags):
        is_known_input(of_nets, data.bilinear)


def _require(path: str, script: str) -> None:
    if not os.path.exists(path):
        folder = os.path.dirname(path)
        there = ", ".join(sorted(os.listdir(folder))) if os.path.isdir(folder) else "no folder"
        raise DataError(f"{path} does not exist ({there}); it is written by {script}")


def _small_size(sample_folder: str, large_size: int) -> int:
    """Side of the conditioning image that the sampler kept; a quarter without it."""
    path = os.path.join(sample_folder, LOW_RES_FILE)
    return open_image(path).size[0] if os.path.exists(path) else large_size // 4


def _bilinear(high_res_uint8: np.ndarray[Any, Any], small_size: int) -> Array:
    image = bytes_to_image(torch.from_numpy(high_res_uint8.transpose(2, 0, 1).copy())[None])
    upsampled = bilinear_upsample(area_downsample(image, small_size), image.shape[-1])
    return to_hwc(image_to_255(upsampled[0])).astype(np.float64)
