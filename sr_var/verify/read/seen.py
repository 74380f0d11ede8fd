"""What the networks saw of an image, by the records beside their results."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ddpm.sampling import SETTINGS_FILE
from sr_var.data.oracle_observed import OBSERVED_FILE, Observation
from sr_var.degradation import area_downsample, bilinear_upsample
from sr_var.degrade.language import Degradation
from sr_var.degrade.mask import FileMask
from sr_var.degrade.part import Part
from sr_var.degrade.view import View
from sr_var.flags.degradation import AREA
from sr_var.flags.verify import NetResultFlags, VerificationFlags
from sr_var.results.folder import (
    LOW_RES_FILE,
    SEEN_KEYS,
    SHIFT_KEY,
    TRAINED_KEY,
    read_stamp,
    stamp_path,
)
from sr_var.results.moments import TRUTH_FILE, Array, block_means
from sr_var.values import Units
from sr_var.verify.read.records import has_own_means
from utils.files.records import find_record
from utils.images.pixels import bytes_to_image, image_to_255, to_hwc
from utils.metrics import HALF_RANGE_255
from utils.process.errors import DataError
from utils.sizes import Size

_SAME_DEGRADATION = "give the --sample_dir of oracle_data.py with the --degradation of the nets"
# X in [-1, 1] is computed again from an image in float32
_SAME_X = 1e-4


class Seen(NamedTuple):
    """X of one image, HWC float64 grey levels.

    Attributes:
        low_res: the image that X begins with, (h, w, C).
        upsampled: the same at the size of Y, bilinear: what a mean net must beat.
        is_like_y: whether it is of the channels and of the range of values of Y.
        degraded: from an image like Y to images like X, without masks; None: block means.
        hidden: which pixels X does not show as they are, (H, W); None: it shows none so, or no
            pixel is hidden.
    """

    low_res: Array
    upsampled: Array
    degraded: Callable[[Array], Array] | None = None
    hidden: npt.NDArray[np.bool_] | None = None
    is_like_y: bool = True


def view_of(flags: NetResultFlags, units: Units) -> View | None:
    """What the nets saw; None for block means, or results of another tool.

    Raises:
        DataError: mean and variance are of nets that see two things, or of other sizes than the
            flags say.
    """
    kinds = (("mean", flags.mean_model_step), ("var", flags.var_model_step))
    paths = [stamp_path(flags.nets_dir, kind, step) for kind, step in kinds]
    paths += [stamp_path(flags.nets_dir, "baseline", step) for _, step in kinds]
    stamps = {path: read_stamp(path, "run the test that wrote it again") for path in paths}
    known = {path: stamp.seen for path, stamp in stamps.items() if stamp.models}
    different = [path for path, seen in known.items() if seen != next(iter(known.values()))]
    if different:
        raise DataError(
            f"{next(iter(known))} and {different[0]} are of nets that see other degradations, or "
            "whose noise was drawn with another --seed; give the --mean_model_step and "
            "--var_model_step of results that belong together"
        )
    text, factor, seed = (next(iter(known.values()), {}).get(key) for key in SEEN_KEYS)
    if not isinstance(text, str) or not isinstance(factor, int):
        return None
    large = flags.size
    small = Size(large.height // factor, large.width // factor)
    if flags.small_size and flags.low_res_size != small:
        raise DataError(
            f"{next(iter(known))} is of --degradation {text}, which makes {small} pixels of "
            f"{large}: leave --small_size {flags.small_size} out"
        )
    made = Degradation.parse(text, factor, units.num_channels)
    view = View.seeing((large, small), made, seed if isinstance(seed, int) else 0)
    trained = next(iter(known.values())).get(TRAINED_KEY)
    return replace(view, trained=trained) if isinstance(trained, str) else view


def require_samples_of(view: View | None, flags: VerificationFlags, units: Units) -> str:
    """Refuse samples that were drawn of another degradation than the nets saw, by their record.

    Returns:
        What their network was trained on, where that is another one; else "".

    Raises:
        DataError: names the folder and both degradations.
    """

    def drawn_of(record: dict[str, Any]) -> tuple[Degradation, str]:
        trained, shift = str(record[SEEN_KEYS[0]]), record.get(SHIFT_KEY, "")
        large, small = (Size.of(record[name]) for name in ("large_size", "small_size"))
        factor = large.factor_over(small) or 1
        made = Degradation.parse(shift or trained, factor, units.num_channels)
        return made, trained if shift else ""

    if not flags.num_samples or not has_own_means(flags):
        return ""
    found = find_record(os.path.join(flags.ddpm_sr_output_dir, SETTINGS_FILE), drawn_of)
    if found is None:  # of an earlier version, or another tool
        return ""
    made, trained = found
    own = view.degradation if view is not None else None
    own = own or Degradation.parse(AREA, made.factor, made.num_channels)
    if _by_content(made) != _by_content(own):
        raise DataError(
            f"{flags.ddpm_sr_output_dir}: its samples were drawn of --degradation {made.text}, "
            f"the nets saw {own.text}: draw with --test_degradation {own.text}, or name results "
            "and samples that belong together"
        )
    return trained


def _by_content(made: Degradation) -> list[list[Part]]:
    """The parts; masks by what they hold, wherever they lie."""

    def placeless(part: Part) -> Part:
        return replace(part, path="") if isinstance(part, FileMask) and part.digest else part

    return [[placeless(part) for part in branch] for branch in made.branches]


def seen_of(
    picture: npt.NDArray[Any], name: str, small_size: Size, view: View | None = None
) -> Seen:
    """X of an image (H, W, C), uint8 or 255ths, of that name.

    `small_size` is of block means. Of a measured pair the picture is its crop, (H, W, C + C').

    Raises:
        DataError: it does not divide the image.
    """
    image = bytes_to_image(torch.from_numpy(_chw(picture))[None])
    if view is None:
        _require_factor(Size(*picture.shape[:2]), small_size)
        upsampled = bilinear_upsample(area_downsample(image, small_size), image.shape[2:])
        means = block_means(picture.astype(np.float64), small_size)
        return Seen(means, _in_255(upsampled))

    def degraded(one: Array) -> Array:
        y = torch.from_numpy(_in_unit(one).transpose(2, 0, 1).copy())[None]
        return _in_255(view.images_of(view.x_of(y, [name])))

    if view.is_measured:
        low_res, image = view.pair(torch.from_numpy(_chw(picture))[None], [name], image.device)
    else:
        low_res = view.image_of(view.x_of(image, [name]))
    upsampled = bilinear_upsample(low_res, image.shape[2:])
    hidden = view.hidden([name])
    is_any = hidden is not None and bool(hidden.any())
    mask = hidden[0, 0].numpy() if hidden is not None and is_any else None
    return Seen(_in_255(low_res), _in_255(upsampled), degraded, mask, not view.has_own_kind)


def require_same_observation(
    sample_folder: str, picture: npt.NDArray[Any], name: str, view: View | None
) -> None:
    """Refuse exact samples and moments of the oracle that are given something else than the nets.

    Args:
        sample_folder: of the image, with `observed.npy` where more than the low-res image is seen.
        picture: the image (H, W, C), uint8 or 255ths.
        name: of the image.
        view: what the nets saw; None: block means.

    Raises:
        DataError: names the folder, and what it and the nets are given.
    """
    path, made = os.path.join(sample_folder, OBSERVED_FILE), view and view.degradation
    if not os.path.exists(path):
        if made and os.path.exists(os.path.join(sample_folder, TRUTH_FILE)):
            raise DataError(
                f"{sample_folder} has the law given the low-res image alone, the nets see "
                f"--degradation {made.text}; {_SAME_DEGRADATION}"
            )
        return
    seen = observation_of(view)
    if view is None or seen is None:
        raise DataError(
            f"{path}: samples and moments beside it are given what it holds, the nets see the "
            f"low-res image alone; {_SAME_DEGRADATION}"
        )
    image = bytes_to_image(torch.from_numpy(_chw(picture))[None])
    there, here = seen.seen_in(sample_folder), seen.see(image, name, view.seed)
    assert there is not None
    if not torch.allclose(there, here.to(there), rtol=0, atol=_SAME_X):
        raise DataError(
            f"{path} is not what the nets saw of {name}: noise and masks are a function of --seed, "
            f"and theirs was {view.seed}; test the nets with the --seed of oracle_data.py"
        )


def observation_of(view: View | None) -> Observation | None:
    """What nets on the oracle saw beside the low-res image; None: nothing.

    Raises:
        DataError: they saw something that the exact law of Y given it is not known of.
    """
    if view is None or view.degradation is None:
        return None
    try:
        return Observation.parse(view.degradation.text, view.degradation.factor)
    except ValueError as error:
        raise DataError(f"results of nets that see {error}") from None


def _chw(picture: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.ascontiguousarray(picture.transpose(2, 0, 1))


def _in_unit(image_255: Array) -> Array:
    """255ths to [-1, 1] in float64."""
    return np.asarray(image_255, np.float64) / HALF_RANGE_255 - 1


def _in_255(image: torch.Tensor) -> Array:
    return to_hwc(image_to_255(image[0])).astype(np.float64)


def _require_factor(large: Size, small_size: Size) -> None:
    if large.factor_over(small_size) is None:
        raise DataError(
            f"a low-res side of {small_size} pixels (that of the samples' {LOW_RES_FILE}, else a "
            f"quarter of --large_size) does not divide --large_size {large}; give the --small_size "
            "that the networks were made for"
        )
