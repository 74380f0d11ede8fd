"""An upload becomes arrays in a folder of its own; what is looked up in them, and taken home.

Knows nothing of HTTP but the status of a refusal. One computation runs at a time: `Turns`.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from sr_var.calibrate.record import interval_half_width
from sr_var.degrade.mask import FileMask
from sr_var.predict.conditions import Beside, stored_mask
from sr_var.predict.images import Bools, is_bright, is_grey
from sr_var.predict.partners import decode_mask
from sr_var.predict.predictor import Predictor
from sr_var.results.folder import to_grey_bytes
from sr_var.results.maps import Picture, coloured, top_of_scale
from utils.files.atomic import JsonObject, read_up_to
from utils.images.files import (
    FORMATS,
    BadImageError,
    decode_facts,
    decode_image,
)
from utils.images.native import decode_native
from utils.images.pictures import write_picture
from utils.metrics import WHITE
from utils.sizes import Size

Floats = npt.NDArray[np.float32]
# results that are kept: who comes back later than that many others computes again
KEPT = 16
_TOO_LARGE, _OTHER_TYPE, _UNFIT, _BUSY = 413, 415, 422, 503
_NAME, _REMEDY = "the upload", "Send the image again, saved anew as PNG or JPEG"
NEEDS_MASK = (
    "the networks fill in hidden pixels: send a mask, too (bright: seen, dark: hidden), or an "
    "image that is transparent where it is hidden"
)
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"BM")


class Refused(ValueError):
    """A request that is not served: one line, and its HTTP status."""

    def __init__(self, status: int, line: str) -> None:
        super().__init__(line)
        self.status = status


class Turns:
    """One computation at a time; so many may wait (HTTP 503 for others)."""

    def __init__(self, max_waiting: int) -> None:
        self._max_waiting, self._num, self._busy = max_waiting, 0, threading.Lock()
        self._counting = threading.Lock()

    @contextlib.contextmanager
    def take(self) -> Iterator[None]:
        """Wait for a turn, which ends with the block."""
        with self._counting:
            if self._num > self._max_waiting:
                raise Refused(
                    _BUSY, f"{self._max_waiting} requests wait already; try again in a minute"
                )
            self._num += 1
        try:
            with self._busy:
                yield
        finally:
            with self._counting:
                self._num -= 1


def read_upload(data: bytes, max_bytes: int, max_pixels: int) -> Picture:
    """The RGB pixels (h, w, 3) of an image that somebody sent, turned as its EXIF tag says.

    Raises:
        Refused: 413 too many bytes or pixels, told before a pixel is decoded; 415 another format;
            422 damaged.
    """
    with _checked(data, max_bytes, max_pixels):
        return np.asarray(decode_image(data, _NAME, _REMEDY, apply_orientation=True).image)


def read_mask(data: bytes, max_bytes: int, max_pixels: int) -> Bools:
    """The mask (h, w) that somebody sent, True where it is bright; raises as `read_upload`."""
    with _checked(data, max_bytes, max_pixels):
        return decode_mask(data, "the mask")


def read_opaque(data: bytes, max_bytes: int, max_pixels: int) -> Bools | None:
    """Where an image that somebody sent is not transparent, (h, w); None: it has no alpha."""
    with _checked(data, max_bytes, max_pixels):
        alpha = decode_native(data, _NAME, _REMEDY, apply_orientation=True).alpha
        return None if alpha is None else is_bright(alpha)


@contextlib.contextmanager
def _checked(data: bytes, max_bytes: int, max_pixels: int) -> Iterator[None]:
    """Refuse an upload before and while it is decoded."""
    if len(data) > max_bytes:
        raise Refused(
            _TOO_LARGE,
            f"{_NAME} has {len(data)} bytes, at most {max_bytes} are taken (--max_upload)",
        )
    if not data.startswith(_MAGIC):
        raise Refused(
            _OTHER_TYPE, f"{_NAME} is none of {', '.join(FORMATS)}; convert the image to PNG"
        )
    try:
        facts = decode_facts(data, _NAME, _REMEDY, apply_orientation=True)
        if facts.width * facts.height > max_pixels:
            raise Refused(
                _TOO_LARGE,
                f"{_NAME} has {facts.width}×{facts.height} pixels, at most {max_pixels} are "
                "taken (--max_pixels); send a part of it",
            )
        yield
    except BadImageError as error:
        is_large = " pixels" in str(error)  # as Pillow and the toolkit say of bombs
        raise Refused(_TOO_LARGE if is_large else _UNFIT, str(error)) from None


def as_picture(image: Floats) -> Picture:
    """Grey levels (H, W, C) of one channel or three as RGB, rounded and clipped."""
    return np.broadcast_to(to_grey_bytes(image), (*image.shape[:2], 3))


def checked_level(level: Any) -> float:
    """A level of intervals; Refused (422) if it is none."""
    with contextlib.suppress(TypeError, ValueError):
        if 0 < float(level) < 1:
            return float(level)
    raise Refused(_UNFIT, f"level {level!r} must lie between 0 and 1, as 0.9")


@dataclass(frozen=True)
class Result:
    """What the networks said of one image; arrays lie in the folder and are read when asked for.

    Attributes:
        folder: of this result alone.
        image: the upload, (h, w, 3).
        mean, std: (f·h, f·w, C), grey levels.
        half: half of the calibrated interval, likewise; None: intervals of a normal law.
        factor: f.
        intervals: what is known of the intervals (`Predictor.intervals`).
        beside: what was given beside the image, for networks that see more.
    """

    folder: str
    image: Picture
    mean: Floats
    std: Floats
    half: Floats | None
    factor: int
    intervals: JsonObject
    beside: Beside = field(default_factory=Beside)

    def ends(self, level: float) -> tuple[Floats, Floats]:
        """Both ends of the interval of a level; of a calibration, that is its own."""
        half = self.half
        if half is None:
            half = np.float32(interval_half_width(level)) * self.std
        return self.mean - half, self.mean + half

    def at(self, x: int, y: int, level: float) -> dict[str, list[float]]:
        """Mean, std, lower and upper of each channel, of the pixel in column x and row y.

        Raises:
            Refused: 422, there is no such pixel.
        """
        height, width, _ = self.mean.shape
        if not (0 <= x < width and 0 <= y < height):
            raise Refused(_UNFIT, f"pixel ({x}, {y}) is outside of {width}×{height}")
        mean, std = self.mean[y, x].astype(float), self.std[y, x].astype(float)
        half = interval_half_width(level) * std if self.half is None else self.half[y, x]
        found = {"mean": mean, "std": std, "lower": mean - half, "upper": mean + half}
        return {name: values.tolist() for name, values in found.items()}

    def std_picture(self) -> tuple[Picture, float]:
        """The std, averaged over the channels, in colours, and where their scale ends."""
        std = self.std.mean(axis=2)
        top = top_of_scale(std)
        return coloured(std, top), top

    def write_npz(self, level: float) -> str:
        """`result.npz` in the folder: mean, std, lower, upper and the level; its path."""
        path = os.path.join(self.folder, "result.npz")
        lower, upper = self.ends(level)
        np.savez(
            path,
            mean=self.mean,
            std=self.std,
            lower=lower,
            upper=upper,
            level=np.float64(level),
        )
        return path

    def write_zip(self, level: float) -> str:
        """`result.zip` in the folder, with the npz, pictures and a record; its path."""
        path, (std, top) = os.path.join(self.folder, "result.zip"), self.std_picture()
        record = {
            "intervals": {**self.intervals, "level": level},
            "unit": "grey levels",
            "factor": self.factor,
            "width": self.mean.shape[1],
            "height": self.mean.shape[0],
            "mean_std": float(self.std.mean()),
            "std_png_scale": [0, top],
        }
        if self.beside.levels:
            record["degradation_level"] = list(self.beside.levels)
        pictures = {"input": self.image, "mean": as_picture(self.mean), "std": std}
        for mask in self.beside.masks:
            pictures["mask"] = as_picture(mask[..., None] * np.float32(WHITE))
        pictures |= zip(("lower", "upper"), map(as_picture, self.ends(level)), strict=True)
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(self.write_npz(level), "result.npz")
            archive.writestr("result.json", json.dumps(record, indent=1) + "\n")
            for name, pixels in pictures.items():
                picture = os.path.join(self.folder, f"{name}.png")
                write_picture(picture, pixels)
                archive.write(picture, f"{name}.png")
        return path


class Results:
    """The results of a server, each in a folder below its own.

    Args:
        predictor: the networks.
        folder: below it everything is written.
        max_bytes, max_pixels: of an upload.
        turns: shared with whatever else computes.
    """

    def __init__(
        self, predictor: Predictor, folder: str, *, max_bytes: int, max_pixels: int, turns: Turns
    ) -> None:
        self.predictor, self.folder, self.turns = predictor, folder, turns
        self.max_bytes, self.max_pixels = max_bytes, max_pixels
        self._kept: OrderedDict[str, Result] = OrderedDict()
        self._guard = threading.Lock()

    def predict(self, data: bytes, mask: bytes | None = None, levels: Sequence[float] = ()) -> str:
        """Compute an upload, when its turn comes; the name of its result, which nobody can guess.

        Args:
            data: the image.
            mask: of networks that see one; None: transparent pixels are hidden.
            levels: of networks that are told them (`conditions.asked_levels`).

        Raises:
            Refused: see `read_upload`; 422, what is beside the image does not fit; or 503, too many
                wait.
        """
        limits = self.max_bytes, self.max_pixels
        image, seen = read_upload(data, *limits), self._seen(data, mask)
        beside = Beside(masks=() if seen is None else (seen,), levels=tuple(levels))
        name = secrets.token_hex(16)
        folder = os.path.join(self.folder, name)
        with self.turns.take():
            os.mkdir(folder)
            try:
                mean, std, half = self._compute(image, beside, folder)
            except ValueError as error:  # of other channels than the networks', or another mask
                shutil.rmtree(folder)
                raise Refused(_UNFIT, str(error)) from error
        with self._guard:
            self._kept[name] = Result(
                *(folder, image, mean, std, half),
                *(self.predictor.factor, self.predictor.intervals(), beside),
            )
            old = list(self._kept)[:-KEPT]
        for one in old:
            self.forget(one)
        return name

    def read_own(self, path: str) -> bytes:
        """The first bytes of a file that the page has put below the folder.

        Raises:
            Refused: 403, another file.
        """
        inner, outer = os.path.realpath(path), os.path.realpath(self.folder)
        if os.path.commonpath([inner, outer]) != outer:
            raise Refused(403, "this file was not sent to this page")
        return read_up_to(inner, self.max_bytes + 1)

    @property
    def sees_mask(self) -> bool:
        """Whether the networks see a mask."""
        degradation = self.predictor.pair.degradation
        return degradation is not None and bool(degradation.masks)

    def needs_mask(self, data: bytes) -> bool:
        """Whether nothing but a mask can say which pixels of an upload are hidden."""
        degradation = self.predictor.pair.degradation
        if degradation is None or not degradation.masks:
            return False
        place, limits = degradation.masks[0], (self.max_bytes, self.max_pixels)
        if isinstance(place.part, FileMask):
            sides = read_upload(data, *limits).shape[:2]
            size = Size(*(side * degradation.factor // place.factor for side in sides))
            if stored_mask(place.part, size, is_needed=False) is not None:
                return False
        return not place.is_last or read_opaque(data, *limits) is None

    def _seen(self, data: bytes, mask: bytes | None) -> Bools | None:
        """Where an upload is seen: by its mask and by its own alpha; None: nothing says it."""
        limits = self.max_bytes, self.max_pixels
        if not self.sees_mask:
            if mask is not None:
                raise Refused(_UNFIT, "the networks see no mask: send the image alone")
            return None
        if mask is None and self.needs_mask(data):
            raise Refused(_UNFIT, NEEDS_MASK)
        opaque = read_opaque(data, *limits)
        if mask is None:
            return opaque
        given = read_mask(mask, *limits)
        is_one = opaque is not None and opaque.shape == given.shape
        return given & opaque if opaque is not None and is_one else given

    def _compute(
        self, image: Picture, beside: Beside, folder: str
    ) -> tuple[Floats, Floats, Floats | None]:
        """Mean, std and half of a calibrated interval, in files that are read where looked at."""
        factor, channels = self.predictor.factor, self.predictor.pair.num_channels
        is_one = self.predictor.pair.seen_units.num_channels == 1 and is_grey(image)
        pixels = image[..., 0] if is_one else image
        shape = (factor * image.shape[0], factor * image.shape[1], channels)
        is_calibrated = self.predictor.calibration is not None
        mean, std, *half = (
            np.lib.format.open_memmap(os.path.join(folder, f"{kind}.npy"), "w+", np.float32, shape)
            for kind in ("mean", "std", "half")[: 2 + is_calibrated]
        )
        extras = {"mask": list(beside.masks), "degradation_level": list(beside.levels)}
        for row, part in self.predictor.tiles(pixels, **extras):
            rows = slice(row, row + len(part.mean))
            mean[rows], std[rows] = part.mean, part.std
            for file in half:
                file[rows] = part.upper - part.mean
        return mean, std, half[0] if half else None

    def level(self, text: Any) -> float:
        """A level that somebody asks for; Refused (422) if there are no intervals of it."""
        level, own = checked_level(text), self.predictor.level
        if self.predictor.calibration is not None and level != own:
            raise Refused(
                _UNFIT, f"level {level:g}: the intervals are calibrated for {own:g} alone"
            )
        return level

    def get(self, name: str) -> Result:
        """A result by its name; Refused (404) for one that is not kept."""
        with self._guard:
            if name not in self._kept:
                raise Refused(404, "this result is not kept any more; send the image again")
            self._kept.move_to_end(name)
            return self._kept[name]

    def forget(self, name: str) -> None:
        """Remove a result and its folder, if it is there."""
        with self._guard:
            result = self._kept.pop(name, None)
        if result is not None:
            shutil.rmtree(result.folder, ignore_errors=True)
