"""Everything about one image: the real picture, what the nets say, what the samples say.

The samples are read by `reference`; their memory does not grow with their number.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ddpm.sampling import SETTINGS_FILE
from sr_var.degradation import area_downsample, bilinear_upsample
from sr_var.flags.scripts import VerificationFlags
from sr_var.results.folder import LOW_RES_FILE, is_known_input
from sr_var.results.moments import Truth, block_means, load_truth
from sr_var.verify.read.records import has_own_means
from sr_var.verify.read.reference import load_reference, read_picture
from utils.images.dataset import Entry
from utils.images.files import (
    center_crop_arr,
    open_image,
    read_crop,
    resolve_image_path,
    safe_join,
)
from utils.images.pixels import bytes_to_image, image_to_255, to_hwc
from utils.metrics import Moments
from utils.process.errors import DataError
from utils.untrusted.arrays import read_npy
from utils.untrusted.pickles import load_array

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ImageData:
    """Everything about one image, HWC float64 grey levels.

    ``mean`` and ``variance`` are the nets', ``samples`` the reference; ``bilinear`` is the low-res
    image upsampled, the baseline that a mean net must beat. What need not be known is None: X (the
    block means of ``high_res``, (h, w, 3)); the variances of the samples of even and of odd index;
    the samples' variance of their block means, (h, w, 3); the exact law.
    """

    mean: Array
    variance: Array
    samples: Moments
    high_res: Array
    bilinear: Array
    low_res: Array | None = None
    half_variances: tuple[Array, Array] | None = None
    block_variance: Array | None = None
    truth: Truth | None = None


def load_image_data(
    entry: Entry, flags: VerificationFlags, *, num_threads: int = 1
) -> tuple[ImageData, bool]:
    """Read everything about one image; also say whether the reference is in float.

    `num_threads` samples are decoded at a time.
    """
    size = flags.large_size
    sample_folder = safe_join(flags.ddpm_sr_output_dir, entry.name)
    small_size = _small_size(sample_folder, size)
    reference = load_reference(
        sample_folder, flags.num_samples, size, small_size, num_threads=num_threads
    )
    net_folder = safe_join(flags.nets_dir, entry.name)
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

    Of samples and of nets, whose `folders` these are, where a record says that this project made
    them; of samples if they were counted as they were drawn (`has_moments`).
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


def _bilinear(high_res_uint8: npt.NDArray[np.uint8], small_size: int) -> Array:
    image = bytes_to_image(torch.from_numpy(high_res_uint8.transpose(2, 0, 1).copy())[None])
    upsampled = bilinear_upsample(area_downsample(image, small_size), image.shape[-1])
    return to_hwc(image_to_255(upsampled[0])).astype(np.float64)
