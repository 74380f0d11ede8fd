"""Everything about one image: the real picture, what the nets say, what samples say if any do.

What the samples say is read from `moments.npz` or from the pictures. Memory does not grow with
their number: each picture is decoded, added to exact sums of powers and forgotten.
"""

from __future__ import annotations

import functools
import math
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from ddpm.sampling import SETTINGS_FILE
from sr_var.flags.verify import NetResultFlags, VerificationFlags
from sr_var.results.folder import LOW_RES_FILE, epistemic_files, is_known_input, sample_path
from sr_var.results.moments import (
    MOMENTS_FILE,
    Array,
    Truth,
    block_sums,
    load_moments,
    load_truth,
)
from sr_var.values import GREY_LEVELS, Units, as_rgb
from sr_var.verify.read.records import has_own_means, num_mean_nets
from sr_var.verify.read.seen import require_same_observation, seen_of, view_of
from utils.flags.groups import Reading
from utils.images.crops.patches import recipe_for
from utils.images.files import (
    BadImageError,
    open_image,
    safe_join,
)
from utils.images.listing import Entry
from utils.images.pixels import PICTURES_AT_A_TIME, PowerSums
from utils.machine.threads import even_groups, ordered_map
from utils.metrics import WHITE, Moments
from utils.process.errors import DataError
from utils.sizes import Size, SizeLike
from utils.untrusted.arrays import read_npy
from utils.untrusted.pickles import load_array

# samples that are kept as pictures, for ranks among them: 20 ranks, and no more memory for more
NUM_MEMBERS = 19
# of a picture, and of moments in float32
_ROUNDING_255 = 0.51
Hidden: TypeAlias = npt.NDArray[np.bool_]
Value = TypeVar("Value", bound=np.generic)


@dataclass(frozen=True)
class ImageData:
    """Everything about one image, HWC float64 grey levels, or 255ths of its range of values.

    `mean` and `variance` are the nets', `samples` the reference, None where the nets are judged
    without one; `bilinear` is the low-res image upsampled, the baseline that a mean net must beat.
    What need not be known is None: X (the block means of `high_res`, (h, w, 3), or the image that
    another degradation begins with); what makes X of an image (`Seen.degraded`; None: block means);
    the samples' unbiased variance of their block means, (h, w, 3); the exact law.
    `is_like_input`: whether that is an image like `high_res`, in its channels and unit;
    `has_consistency`: whether X is made of an exact mean, too; `is_float`: whether the samples'
    moments are in float, not those of 8-bit pictures; `num_stored`: how many samples a moments file
    counts that could not be used, since it counts others than were asked for, else 0; `members`:
    the first samples as pictures, (k, H, W, C); `hidden`: as `Seen.hidden`.
    """

    mean: Array
    variance: Array
    samples: Moments | None
    high_res: Array
    bilinear: Array
    low_res: Array | None = None
    block_variance: Array | None = None
    truth: Truth | None = None
    epistemic: Array | None = None
    num_nets: int = 0
    is_float: bool = False
    num_stored: int = 0
    members: npt.NDArray[np.uint8] | None = None
    degraded: Callable[[Array], Array] | None = None
    has_consistency: bool = True
    hidden: Hidden | None = None
    is_like_input: bool = True

    @property
    def shown(self) -> Array:
        """The low-res image upsampled in as many channels as the others: its own, or their mean."""
        channels = self.high_res.shape[2]
        if self.bilinear.shape[2] == channels:
            return self.bilinear
        return np.repeat(self.bilinear.mean(axis=2, keepdims=True), channels, axis=2)

    def judged(self, *arrays: Array) -> tuple[Array, ...]:
        """Of arrays (H, W, C) the values that laws are held against, (k,) each (`judged`)."""
        return tuple(judged(values, self.hidden) for values in arrays)

    @property
    def judged_truth(self) -> Truth | None:
        """The exact law at these values."""
        return None if self.truth is None else Truth(*self.judged(*vars(self.truth).values()))


def judged(values: npt.NDArray[Value], hidden: Hidden | None) -> npt.NDArray[Value]:
    """The values that a law is held against, of (…, H, W, C), as (…, k): those of hidden pixels.

    All where none is hidden (`Seen.hidden`): of a pixel that X shows there is nothing to predict,
    and how near a net comes to it says nothing of the others.
    """
    if hidden is None:
        return values.reshape(*values.shape[:-3], -1)
    return values[..., hidden, :].reshape(*values.shape[:-3], -1)


def load_image_data(
    entry: Entry,
    flags: VerificationFlags,
    *,
    num_threads: int = 1,
    units: Units = GREY_LEVELS,
) -> ImageData:
    """Read everything about one image; `num_threads` samples are decoded at a time.

    `units` are those of the files (`records.units_of`).

    With `--num_samples 0` the folder of the samples is not looked at.
    """
    size = flags.size
    sample_folder = safe_join(flags.ddpm_sr_output_dir, entry.name)
    reference: Reference | None = None
    view = view_of(flags, units)
    small_size = flags.low_res_size if view is None else view.sizes[1]
    if flags.num_samples and not flags.small_size and view is None:
        small_size = _small_size(sample_folder) or small_size
    if flags.num_samples:
        of = sample_folder, flags.num_samples, size, small_size
        reference = load_reference(*of, num_threads=num_threads, units=units)
    mean, variance, picture = _read_nets(entry, flags, units)
    seen = seen_of(picture, entry.name, small_size, view)
    if flags.num_samples and has_own_means(flags):
        require_same_observation(sample_folder, picture, entry.name, view)
    data = ImageData(
        mean=mean,
        variance=variance,
        samples=None if reference is None else reference.moments,
        high_res=_true(picture, units),
        bilinear=seen.upsampled,
        is_like_input=seen.is_like_y,
        low_res=seen.low_res,
        degraded=seen.degraded,
        has_consistency=view is None or view.has_consistency,
        hidden=seen.hidden,
        block_variance=reference.block_variance if reference and view is None else None,
        truth=load_truth(sample_folder, size) if reference else None,
        epistemic=_read_between(entry, flags, units),
        num_nets=num_mean_nets(flags),
        is_float=reference is not None and reference.is_float,
        members=_members(sample_folder, flags, num_threads, units) if reference else None,
        num_stored=0 if reference is None else reference.num_stored,
    )
    _require_same_image(data, flags, sample_folder, safe_join(flags.nets_dir, entry.name))
    return data


@dataclass(frozen=True)
class NetResult:
    """What the nets say of an image, and the image: HWC float64, 255ths of its range of values.

    `hidden` as `Seen.hidden`.
    """

    mean: Array
    variance: Array
    high_res: Array
    hidden: Hidden | None = None


def load_net_result(entry: Entry, flags: NetResultFlags, units: Units = GREY_LEVELS) -> NetResult:
    """Read the nets' results of one image, and the image.

    Raises:
        DataError: something is missing, damaged, or of another image.
    """
    mean, variance, picture = _read_nets(entry, flags, units)
    hidden = None
    if has_own_means(flags):
        of_nets = os.path.join(safe_join(flags.nets_dir, entry.name), LOW_RES_FILE)
        seen = seen_of(picture, entry.name, flags.low_res_size, view_of(flags, units))
        is_known_input(of_nets, seen.upsampled)
        hidden = seen.hidden
    return NetResult(mean, variance, _true(picture, units), hidden)


def _true(picture: npt.NDArray[Any], units: Units) -> Array:
    """The image itself, of what may be the crop of a measured pair."""
    return picture[..., : units.num_channels].astype(np.float64)


def _read_nets(
    entry: Entry, flags: NetResultFlags, units: Units
) -> tuple[Array, Array, npt.NDArray[Any]]:
    """Mean, variance, and the image as it is read: uint8 grey levels, or 255ths of its range.

    Where the nets saw measured pairs, both images of it (`utils.images.crops.measured`).
    """
    size, folder = flags.size, safe_join(flags.nets_dir, entry.name)
    mean = _read_mean(folder, flags.mean_model_step, size, units)
    variance_path = os.path.join(folder, f"high_res_var_{flags.var_model_step}.pkl")
    _require(variance_path, "sr_var_test.py")
    shape = (*size, units.num_channels)
    variance = np.asarray(load_array(variance_path, shape=shape), np.float64) / units.scale**2
    true, view = units.recipe(flags.data_dir, size, Reading.of(flags)), view_of(flags, units)
    recipe = recipe_for(flags, size if view is None else view.large, true)
    return mean, variance, recipe.cut(entry.name).pixels


def _read_between(entry: Entry, flags: NetResultFlags, units: Units) -> Array | None:
    """The variance between the mean nets, where several were tested as one."""
    *_, file = epistemic_files(flags.mean_model_step)
    path = os.path.join(safe_join(flags.nets_dir, entry.name), file)
    if not os.path.exists(path):
        return None
    shape = (*flags.size, units.num_channels)
    variance = np.asarray(load_array(path, shape=shape), np.float64)
    if (variance < 0).any():
        raise DataError(f"{path} holds what is no variance; run sr_mean_test.py again")
    return variance / units.scale**2


def _read_mean(folder: str, step: int, size: SizeLike, units: Units = GREY_LEVELS) -> Array:
    """The mean net's image: the float array where it is there, else the 8-bit picture."""
    array_path = os.path.join(folder, f"high_res_mean_{step}.npy")
    if not os.path.exists(array_path):
        picture_path = os.path.join(folder, f"high_res_mean_{step}.png")
        _require(picture_path, "sr_mean_test.py")
        return of_picture(read_picture(picture_path, size), units).astype(np.float64)
    mean = read_npy(array_path, remedy="run sr_mean_test.py again")
    if mean.shape != (*Size.of(size), units.num_channels) or mean.dtype.kind != "f":
        raise DataError(
            f"{array_path} has shape {mean.shape}, not that of --large_size {Size.of(size)}; give "
            "the size of the nets' images, or another --sr_model_output_dir"
        )
    if not np.isfinite(mean).all():
        raise DataError(f"{array_path} is not finite everywhere; run sr_mean_test.py again")
    return units.to_255(np.asarray(mean, np.float64))


def of_picture(picture: npt.NDArray[Any], units: Units) -> npt.NDArray[Any]:
    """The channels of an image off its picture (…, 3), which shows no other than one or three."""
    if units.num_channels == 3:
        return picture
    if units.num_channels != 1:
        raise DataError(
            f"a picture does not tell {units.num_channels} channels: give a folder with the arrays "
            "that sr_mean_test.py and ddpm_sr_sample.py write"
        )
    return picture[..., :1]


def _require_same_image(
    data: ImageData, flags: VerificationFlags, sample_folder: str, net_folder: str
) -> None:
    """Refuse results of another image than the real one of their name.

    Where a record says that this project made them; samples if they were counted when drawn.
    """
    assert data.low_res is not None
    of_samples, of_nets = (os.path.join(f, LOW_RES_FILE) for f in (sample_folder, net_folder))
    is_own = os.path.exists(os.path.join(flags.ddpm_sr_output_dir, SETTINGS_FILE))
    if data.is_float and is_own:
        is_known_input(of_samples, data.low_res)
    # the size that it was upsampled from is that of the samples, or --small_size
    if os.path.exists(of_samples) and has_own_means(flags):
        is_known_input(of_nets, data.bilinear)


def _require(path: str, script: str) -> None:
    if not os.path.exists(path):
        folder = os.path.dirname(path)
        there = ", ".join(sorted(os.listdir(folder))) if os.path.isdir(folder) else "no folder"
        raise DataError(f"{path} does not exist ({there}); it is written by {script}")


def _small_size(sample_folder: str) -> Size | None:
    """That of the conditioning image that the sampler kept; None without it."""
    path = os.path.join(sample_folder, LOW_RES_FILE)
    return Size(*open_image(path).size[::-1]) if os.path.exists(path) else None


@dataclass(frozen=True)
class Reference:
    """What the samples of one image say, grey levels, as in `ImageData`.

    `is_float`: whether the moments come from `moments.npz` rather than from 8-bit pictures;
    `num_stored` as in `ImageData`.
    """

    moments: Moments
    block_variance: Array | None
    is_float: bool
    num_stored: int = 0


def load_reference(
    folder: str,
    num_samples: int,
    size: SizeLike,
    small_size: SizeLike,
    *,
    num_threads: int = 1,
    units: Units = GREY_LEVELS,
) -> Reference:
    """The first `num_samples` samples of one image; float moments are preferred to pictures.

    A moments file without block means is completed from the pictures where all of them are there.
    `num_threads` pictures are decoded at a time.

    Raises:
        DataError: if samples are missing or of another size, or the moments those of others.
    """
    path = os.path.join(folder, MOMENTS_FILE)
    of = folder, num_samples, size, small_size, num_threads, units
    pictures = functools.partial(_from_pictures, *of)
    stored = load_moments(path)
    wanted = set(range(num_samples))
    if stored is None or stored.moments is None:
        return pictures()
    if set(stored.indices) != wanted:
        return replace(pictures(), num_stored=len(stored.indices))
    if stored.moments.mean.shape != (*Size.of(size), units.num_channels):
        raise _other_size(path, stored.moments.mean.shape, size)
    for index in (0, num_samples - 1):
        _require_counted(folder, index, stored.moments)
    block = stored.blocks
    is_fit = block and block.count > 1 and block.mean.shape[:2] == Size.of(small_size)
    blocks = block.variance if block and is_fit else None
    has_pictures = all(os.path.exists(sample_path(folder, i)) for i in range(num_samples))
    has_pictures &= units.num_channels in (1, 3)
    if blocks is None and num_samples >= 4 and has_pictures:
        blocks = pictures().block_variance
    return Reference(stored.moments, blocks, True)


def _members(
    folder: str, flags: VerificationFlags, num_threads: int, units: Units
) -> npt.NDArray[np.uint8] | None:
    """The first samples of an image, (k, H, W, C); None where their pictures do not tell them."""
    paths = [sample_path(folder, i) for i in range(min(flags.num_samples, NUM_MEMBERS))]
    if units.num_channels not in (1, 3) or not all(map(os.path.exists, paths)):
        return None

    def read(path: str) -> npt.NDArray[np.uint8]:
        return np.asarray(of_picture(read_picture(path, flags.size), units))

    return np.stack(list(ordered_map(read, paths, num_threads)))


def read_picture(path: str, size: SizeLike) -> npt.NDArray[np.uint8]:
    """One 8-bit picture, (H, W, 3); a DataError if it is damaged or of another size."""
    picture = np.asarray(open_image(path))
    if picture.shape != (*Size.of(size), 3):
        raise _other_size(path, picture.shape, size)
    return picture


def _require_counted(folder: str, index: int, moments: Moments) -> None:
    """Refuse moments that cannot count the picture of a sample, if there is one.

    Each of n values lies within s (n − 1)/√n of their mean, s² their unbiased variance (Samuelson,
    "How deviant can you be?", 1968). Clipped pictures are held against the clipped mean.
    """
    path = sample_path(folder, index)
    try:
        picture = read_picture(path, Size(*moments.mean.shape[:2]))
    except (FileNotFoundError, NotADirectoryError, BadImageError):
        return
    if moments.mean.shape[2] not in (1, 3):
        return  # the mean of channels, of whose spread the moments say nothing
    deviation = np.abs(picture - np.clip(as_rgb(moments.mean), 0, WHITE))
    spread = as_rgb(np.sqrt(moments.variance))
    largest = spread * (moments.count - 1) / math.sqrt(moments.count)
    if (deviation > largest + _ROUNDING_255).any():
        raise DataError(
            f"{os.path.join(folder, MOMENTS_FILE)} is of other samples than the pictures beside "
            f"it: it cannot count {path}; delete it to have the pictures taken instead, or give "
            "the folder of one sampler's results"
        )


def _other_size(path: str, shape: tuple[int, ...], size: SizeLike) -> DataError:
    return DataError(
        f"{path} is {shape[1]}×{shape[0]}, not --large_size {Size.of(size)}; give --large_size "
        f"{Size(*shape[:2])}, or the folder of results of that size"
    )


def _from_pictures(
    folder: str,
    num_samples: int,
    size: SizeLike,
    small_size: SizeLike,
    num_threads: int,
    units: Units,
) -> Reference:
    def read(path: str) -> npt.NDArray[np.uint8]:
        picture: npt.NDArray[np.uint8] = of_picture(read_picture(path, size), units)
        return picture

    paths = [sample_path(folder, i) for i in range(num_samples)]
    missing = [path for path in paths if not os.path.exists(path)]
    if missing:
        raise DataError(
            f"{len(missing)} of {num_samples} samples are missing, the first is {missing[0]}; run "
            "ddpm_sr_sample.py again, or lower --num_samples (0: judge the nets without samples)"
        )
    first = read(paths[0])
    sums, blocks = PowerSums(first), _BlockSums(first, Size.of(small_size))
    counting = threading.Lock()
    groups = even_groups(paths[1:], PICTURES_AT_A_TIME, num_threads)

    def count(group: Sequence[str]) -> None:
        pictures = [read(path) for path in group]
        # one thread at a time: these calls are many and short, and threads that make them wait for
        # the interpreter more than they do
        with counting:
            sums.add(pictures)
            blocks.add(pictures)

    sums.add([first])
    for _ in ordered_map(count, groups, num_threads):
        pass
    return Reference(sums.moments(), blocks.variance(num_samples), False)


class _BlockSums:
    """Sums of blocks of pictures, as whole numbers."""

    def __init__(self, first: npt.NDArray[np.uint8], small_size: Size) -> None:
        self._factor = first.shape[1] // small_size.width
        self._first = self._sums(first)
        self._total, self._squares = np.zeros_like(self._first), np.zeros_like(self._first)

    def _sums(self, picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        return block_sums(picture, self._factor).astype(np.int64)

    def add(self, pictures: Sequence[npt.NDArray[np.uint8]]) -> None:
        """Count more pictures than the first, which counts as it is."""
        for picture in pictures:
            deviation = self._sums(picture) - self._first
            self._total += deviation
            self._squares += deviation * deviation

    def variance(self, count: int) -> Array:
        """The unbiased variance of the blocks' means; `count` pictures, the first among them."""
        total, squares = (
            x / self._factor ** (2 * k) for k, x in ((1, self._total), (2, self._squares))
        )
        variance: Array = np.maximum(squares - total**2 / count, 0) / (count - 1)
        return variance
