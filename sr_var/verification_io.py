"""Reads what the verification compares and writes what it found; one image at a time, in parallel.

Memory does not grow with the number of samples: pictures are decoded in small groups and merged
into moments, or the moments that the sampler kept in float are read instead.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sr_var.base_dataset import Entry
from sr_var.degradation import area_downsample, bilinear_upsample, bytes_to_image, image_to_255
from sr_var.flags import VerificationFlags
from sr_var.moments import MOMENTS_FILE, load_moments
from sr_var.results import to_grey_bytes, to_hwc
from sr_var.sample_jobs import LOW_RES_FILE, sample_path
from sr_var.verification import Array, Figures, ImageData, image_figures
from utils.atomic_file import write_json_atomic, write_text_atomic
from utils.data_util import num_cores
from utils.errors import DataError
from utils.image_util import (
    center_crop_arr,
    open_image,
    resolve_image_path,
    safe_join,
    write_png,
)
from utils.metric_util import Moments
from utils.safe_pickle import dump_pickle, load_array

_PICTURES_AT_A_TIME = 8


@dataclass(frozen=True)
class ImageResult:
    """One image: its figures, and the arrays for pictures (None where nobody wants them)."""

    name: str
    figures: dict[str, Figures]
    data: ImageData | None
    is_float: bool


def reference_moments(folder: str, num_samples: int, size: int) -> tuple[Moments, bool]:
    """Moments of the first ``num_samples`` samples of one image, grey levels.

    Returns:
        the moments, and whether they come from ``moments.npz`` rather than from 8-bit pictures.

    Raises:
        DataError: if samples are missing or of another size.
    """
    stored = load_moments(os.path.join(folder, MOMENTS_FILE))
    wanted = set(range(num_samples))
    if stored is not None and stored.moments is not None and set(stored.indices) == wanted:
        if stored.moments.mean.shape[:2] != (size, size):
            raise DataError(f"{folder}/{MOMENTS_FILE} is not of images of --large_size {size}")
        return stored.moments, True
    paths = [sample_path(folder, i) for i in range(num_samples)]
    missing = [path for path in paths if not os.path.exists(path)]
    if missing:
        raise DataError(
            f"{len(missing)} of {num_samples} samples are missing, the first is {missing[0]}; run "
            "ddpm_sr_sample.py again, or lower --num_samples"
        )
    moments: Moments | None = None
    for start in range(0, num_samples, _PICTURES_AT_A_TIME):
        group = [_read_picture(path, size) for path in paths[start : start + _PICTURES_AT_A_TIME]]
        part = Moments.from_samples(np.stack(group))
        moments = part if moments is None else Moments.merge(moments, part)
    assert moments is not None
    return moments, False


def load_image_data(entry: Entry, flags: VerificationFlags) -> tuple[ImageData, bool]:
    """Everything about one image, and whether the reference is in float.

    Raises:
        DataError: names the file that is missing or wrong, and the script that writes it.
    """
    size = flags.large_size
    sample_folder = safe_join(flags.ddpm_sr_output_dir, entry.name)
    moments, is_float = reference_moments(sample_folder, flags.num_samples, size)
    net_folder = safe_join(flags.sr_model_output_dir, entry.name)
    mean = _read_mean(net_folder, flags.mean_model_step, size)
    variance_path = os.path.join(net_folder, f"high_res_var_{flags.var_model_step}.pkl")
    _require(variance_path, "sr_var_test.py")
    variance = np.asarray(load_array(variance_path, shape=(size, size, 3)), np.float64)
    image = open_image(resolve_image_path(flags.data_dir, entry.name))
    high_res = center_crop_arr(image, size)  # (H, H, 3) uint8
    bilinear = _bilinear(high_res, _small_size(sample_folder, size))
    return ImageData(mean, variance, moments, high_res.astype(np.float64), bilinear), is_float


def verify_image(entry: Entry, flags: VerificationFlags, *, keeps_data: bool) -> ImageResult:
    """Figures of one image; writes the sample mean and variance beside the samples."""
    data, is_float = load_image_data(entry, flags)
    if not flags.dry_run:
        folder = safe_join(flags.ddpm_sr_output_dir, entry.name)
        rounded = to_grey_bytes(data.samples.mean)
        write_png(os.path.join(folder, "high_res_mean.png"), rounded)
        dump_pickle(data.samples.variance, os.path.join(folder, "high_res_var.pkl"))
    return ImageResult(entry.name, image_figures(data), data if keeps_data else None, is_float)


def verify_images(
    entries: Sequence[Entry], flags: VerificationFlags, *, num_kept: int
) -> Iterator[ImageResult]:
    """Results in the order of the entries; a few images are worked on at a time.

    Args:
        entries: the images.
        flags: where everything is.
        num_kept: of how many images the arrays are kept for pictures.
    """
    num_threads = flags.num_threads if flags.num_threads > 0 else num_cores()
    with ThreadPoolExecutor(num_threads) as pool:
        # a window of futures, so that finished arrays do not pile up behind a slow image
        for start in range(0, len(entries), 2 * num_threads):
            window = list(enumerate(entries))[start : start + 2 * num_threads]
            futures = [
                pool.submit(verify_image, entry, flags, keeps_data=i < num_kept)
                for i, entry in window
            ]
            try:
                for future in futures:
                    yield future.result()
            finally:
                for future in futures:
                    future.cancel()


def write_results(log_dir: str, summary: Mapping[str, Any], rows: Sequence[ImageResult]) -> None:
    """Writes ``results.json`` (nested by section) and ``results.csv`` (a row an image)."""
    write_json_atomic(os.path.join(log_dir, "results.json"), _finite(summary))
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    keys = [(section, key) for section, part in rows[0].figures.items() for key in part]
    writer.writerow(["name", *(f"{section}.{key}" for section, key in keys)])
    for row in rows:
        writer.writerow([row.name, *(repr(row.figures[s][k]) for s, k in keys)])
    write_text_atomic(os.path.join(log_dir, "results.csv"), buffer.getvalue())


def _finite(value: Any) -> Any:
    """JSON has no infinity (the PSNR of equal images): it becomes null."""
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _read_picture(path: str, size: int) -> np.ndarray[Any, Any]:
    picture = np.asarray(open_image(path))
    if picture.shape != (size, size, 3):
        raise DataError(f"{path} is {picture.shape[1]}×{picture.shape[0]}, not --large_size {size}")
    return picture


def _read_mean(folder: str, step: int, size: int) -> Array:
    """The mean net's image: the float array where it is there, else the 8-bit picture."""
    array_path = os.path.join(folder, f"high_res_mean_{step}.npy")
    if not os.path.exists(array_path):
        picture_path = os.path.join(folder, f"high_res_mean_{step}.png")
        _require(picture_path, "sr_mean_test.py")
        return _read_picture(picture_path, size).astype(np.float64)
    try:
        mean = np.load(array_path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{array_path} is damaged ({error}); run sr_mean_test.py again") from None
    if mean.shape != (size, size, 3) or mean.dtype.kind != "f":
        raise DataError(f"{array_path} has shape {mean.shape}, not that of --large_size {size}")
    if not np.isfinite(mean).all():
        raise DataError(f"{array_path} is not finite everywhere; run sr_mean_test.py again")
    return np.asarray(mean, np.float64)


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
