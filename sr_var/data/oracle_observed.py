"""What the oracle's nets see beside the low-res image, and the exact law of Y given it.

Two degradations have one (`oracle.posterior`; docs/theory.md, section 10): `area & noise:S`, the
image with noise of std S grey levels, and `area & mask:P`, the image without a share P of its
pixels. Their images are floats: 8 bits would round and clip what the law is about.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from oracle.law import OracleLaw
from oracle.posterior import PosteriorLaw, given_noisy, given_pixels
from sr_var.degrade.language import AREA, Degradation
from sr_var.degrade.linear import Area
from sr_var.degrade.mask import FileMask, Mask
from sr_var.degrade.noise import Noise
from sr_var.results.folder import save_array
from utils.files.storage import make_folder
from utils.images.files import BadImageError
from utils.images.native import read_native
from utils.images.pixels import image_to_255, to_hwc
from utils.metrics import HALF_RANGE_255
from utils.process.errors import DataError
from utils.seeds import stable_seed
from utils.untrusted.arrays import read_npy

# of the images of such a data set, and of what is seen of a test image
SUFFIX, OBSERVED_FILE = ".npy", "observed.npy"
_NUM_CHANNELS = 3


@dataclass(frozen=True)
class Observation:
    """What is seen beside the low-res image.

    Attributes:
        words: of the degradation.
        factor: of the law.
        degradation: Y to X at the side of Y, (N, 3, H, W) to (N, 6 or 7, H, W).
    """

    words: str
    factor: int
    degradation: Degradation

    @classmethod
    def parse(cls, text: str, factor: int) -> Observation | None:
        """That of `area & noise:S` or `area & mask:P`; None for `area`, the low-res image alone.

        `factor` is that of the law; an `area` without a number has it.

        Raises:
            ValueError: it names no degradation, or one whose exact law is not known.
        """
        shown, *further = (words.strip() for words in text.split("&"))
        named = f"{AREA}:{factor}"
        if shown in (AREA, named) and not further:
            return None
        wrong = ValueError(
            f"--degradation {text!r}: the exact law is known of 'area', 'area & noise:25' and "
            f"'area & mask:0.5', of an area of --large_size / --small_size, {factor}: give one of "
            "these"
        )
        if shown not in (AREA, named) or len(further) != 1:
            raise wrong
        found = Degradation.parse(f"{named}&{further[0]}", 1, _NUM_CHANNELS)
        area, *parts = found.parts
        is_known = len(parts) == 1 and isinstance(parts[0], Noise | Mask) and not found.drawn
        if not is_known or isinstance(parts[0], FileMask) or not isinstance(area, Area):
            raise wrong
        return cls(found.text, factor, found)

    def flags(self, large_size: int) -> str:
        """Those that trainings and tests on such images need."""
        words = self.words.partition("&")[2].strip()
        sizes = f"--large_size {large_size} --small_size {large_size // self.factor}"
        return f"--degradation '{AREA} & {words}' {sizes} --value_range 0,255"

    def see(self, image: Tensor, name: str, seed: int) -> Tensor:
        """X of an image Y (1, 3, H, W) in [-1, 1] in the dtype of Y, by seed and name of a test.

        Tests at `--small_size` see the same, with blocks as channels (`sr_var.degrade.view`).
        """
        return self.degradation.apply(image, [stable_seed(seed, "degradation", name)])

    def seen_in(self, folder: str) -> Tensor | None:
        """X of a test image, (1, 6 or 7, H, W), as `oracle_data.py` left it beside its samples.

        None where the samples are given the low-res image alone.

        Raises:
            DataError: the file is damaged, or of another observation.
        """
        path = os.path.join(folder, OBSERVED_FILE)
        if not os.path.exists(path):
            return None
        remedy = "write the data set again (oracle_data.py)"
        array, channels = read_npy(path, remedy=remedy), _NUM_CHANNELS + self.degradation.num_extra
        if array.ndim != 3 or array.shape[2] != channels or array.dtype.kind != "f":
            raise DataError(
                f"{path} of shape {array.shape} is not what --degradation {self.words} shows; give "
                "the --sample_dir of oracle_data.py with the same --degradation"
            )
        return torch.from_numpy(array.transpose(2, 0, 1).copy())[None]

    def law_given(self, law: OracleLaw, x: Tensor) -> PosteriorLaw:
        """p(Y | X) of the law p(Y | area(Y)) of images, and of their X, in the law's dtype."""
        x = x.to(law.base)
        seen = x[:, _NUM_CHANNELS : 2 * _NUM_CHANNELS]
        part = self.degradation.parts[1]
        if isinstance(part, Mask):
            return given_pixels(law, seen, x[:, 2 * _NUM_CHANNELS :])
        return given_noisy(law, seen, part.level.low / HALF_RANGE_255)


def write_float_image(path: str, image: Tensor) -> Tensor:
    """Write an image (3, H, W) in [-1, 1] as float32 grey levels, neither rounded nor clipped.

    Returns what the file holds, as a training reads it with `--value_range 0,255`.
    """
    make_folder(os.path.dirname(path))
    grey = to_hwc(image_to_255(image)).astype(np.float32)
    save_array(path, grey)
    return torch.from_numpy(grey.transpose(2, 0, 1)) / HALF_RANGE_255 - 1


def read_float_image(path: str) -> npt.NDArray[np.float32]:
    """The grey levels (H, W, 3) of a file of `write_float_image`; raises as `read_native`."""
    pixels = read_native(path).pixels
    if pixels.dtype != np.float32 or pixels.ndim != _NUM_CHANNELS:
        raise BadImageError(f"{path} holds no float32 image; write the data set again")
    return pixels
