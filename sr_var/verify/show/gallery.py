"""The page's gallery: each image in a compact form, made as it streams by.

Of an image stay a few hundred kB: three pictures in colour as WebP; and per colour channel two
lossless pictures whose "colours" are maps (real value, mean of the nets, mean of the samples; std
of the nets, std of the samples, coded by `std_codes`) and one that holds the histograms. Without
samples the maps of theirs are 0.
Large images keep the maps of the green channel only, and histograms at a stride.
"""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

import numpy as np
import numpy.typing as npt
from PIL import Image

from sr_var.results.folder import sample_path, to_grey_bytes
from sr_var.results.maps import colours, top_of_scale
from sr_var.results.moments import Array
from sr_var.values import as_rgb
from sr_var.verify.numbers.floors import std_of_samples
from sr_var.verify.read.images import ImageData
from sr_var.verify.show.pictures import PICTURES, titles_of
from utils.images.files import open_image, safe_join
from utils.process.errors import DataError
from utils.sizes import Size, SizeLike

Bytes = npt.NDArray[np.uint8]

NUM_BINS = 15
# of a page: 20 MB less the page itself
MAX_BYTES = 19_000_000
# maps keep at most this many pixels a side
MAX_MAP_SIDE = 256
# up to this side every pixel has its histogram, and every channel its maps
SMALL_SIDE = 96
_CHANNELS = ("red", "green", "blue")


class Layout(TypedDict):
    """What is common to the images of a page; docs/file_formats.md lists the keys."""

    height: int
    width: int
    stride: int
    map_height: int
    map_width: int
    histogram_stride: int
    channels: list[str]


class EncodedChannel(TypedDict):
    """One colour channel of an image; pictures are base64."""

    values: str
    stds: str
    largest_std: float
    top: float
    histograms: str | None


class _ToSortBy(TypedDict, total=False):
    metrics: list[float | None]


class EncodedImage(_ToSortBy):
    """One image as the page's script reads it; the page adds the metrics, to sort by."""

    name: str
    pictures: list[str]
    channels: list[EncodedChannel]


class GalleryContent(Layout):
    """What the element `gallery-data` holds, but for the labels of the metrics."""

    num_samples: int
    num_bins: int
    top: float
    colours: str
    pictures: list[str]
    images: list[EncodedImage]


@dataclass
class Gallery:
    """What the page shows of each image; `add` one after the other until the page is full.

    The histograms are those of the pictures in `samples_dir`, `num_samples` an image; `log` is told
    of those that cannot be read.
    """

    samples_dir: str
    num_samples: int
    log: Callable[[str], None]
    images: list[EncodedImage] = field(default_factory=list)
    num_left_out: int = 0
    _num_bytes: int = 0
    _shape: Layout | None = None
    _titles: Sequence[str] = PICTURES

    def add(self, name: str, data: ImageData) -> None:
        """Encode one image, unless there is no room left."""
        if self._shape is None:
            self._titles = titles_of(data)
            self._shape = layout(Size(*data.mean.shape[:2]), data.mean.shape[2])
        if not self.num_left_out:
            image = encode_image(name, data, self._samples(name, self._shape), self._shape)
            self._num_bytes += _size(image)
            if self._num_bytes <= MAX_BYTES:
                self.images.append(image)
                return
        self.num_left_out += 1

    def content(self) -> GalleryContent:
        """The page's data: the images, of which there are some, and what is common to them."""
        assert self._shape is not None
        tops = [channel["top"] for image in self.images for channel in image["channels"]]
        return {
            **self._shape,
            "num_samples": self.num_samples,
            "num_bins": NUM_BINS,
            "top": max(tops, default=1.0),
            "colours": colour_map(),
            "pictures": list(self._titles),
            "images": self.images,
        }

    def _samples(self, name: str, shape: Layout) -> Bytes | None:
        """(n, rows, columns, channels) of the kept pixels; None without them."""
        if not self.num_samples:
            return None
        folder, kept = safe_join(self.samples_dir, name), []
        size, stride = (shape["height"], shape["width"]), shape["histogram_stride"]
        for index in range(self.num_samples):
            path = sample_path(folder, index)
            if not os.path.exists(path):
                return None
            try:
                picture = np.asarray(open_image(path))
            except DataError as error:
                self.log(f"notice: no histograms of {name!r} in the report: {error}")
                return None
            if picture.shape != (*size, 3):
                return None
            kept.append(picture[::stride, ::stride].copy())
        return np.stack(kept)


def channel_names(num_channels: int) -> tuple[str, ...]:
    """What the channels of an image are called on the page."""
    if num_channels == 3:
        return _CHANNELS
    if num_channels == 1:
        return ("grey",)
    return tuple(f"channel {k}" for k in range(num_channels))


def layout(size: SizeLike, num_channels: int = 3) -> Layout:
    """Size, strides and channels of all images of a page, by the budget of a large one.

    The longer side decides.
    """
    height, width = Size.of(size)
    side, names = max(height, width), channel_names(num_channels)
    is_small = side <= SMALL_SIDE
    middle = num_channels // 2
    stride = math.ceil(side / MAX_MAP_SIDE)
    # a map's pixel always belongs to a block of whole map pixels
    per_block = 1 if is_small else math.ceil(side / stride / 64)
    return {
        "height": height,
        "width": width,
        "stride": stride,
        "map_height": math.ceil(height / stride),
        "map_width": math.ceil(width / stride),
        "histogram_stride": stride * per_block,
        "channels": list(names if is_small else names[middle : middle + 1]),
    }


def encode_image(name: str, data: ImageData, samples: Bytes | None, shape: Layout) -> EncodedImage:
    """One image as the page's script reads it; `samples` are those of the kept pixels."""
    is_lossless = max(shape["height"], shape["width"]) <= SMALL_SIDE
    pictures = (data.high_res, data.shown, data.mean)
    channels = map(channel_names(data.mean.shape[2]).index, shape["channels"])
    return {
        "name": name,
        "pictures": [_webp(to_grey_bytes(as_rgb(picture)), is_lossless) for picture in pictures],
        "channels": [_encode_channel(data, samples, shape, channel) for channel in channels],
    }


def _encode_channel(
    data: ImageData, samples: Bytes | None, shape: Layout, channel: int
) -> EncodedChannel:
    stride = shape["stride"]
    nothing = np.zeros_like(data.mean)
    of_samples = data.samples
    sample_mean, sample_std = (
        (nothing, nothing) if of_samples is None else (of_samples.mean, std_of_samples(of_samples))
    )
    means = [
        to_grey_bytes(image[::stride, ::stride, channel])
        for image in (data.high_res, data.mean, sample_mean)
    ]
    of_both = (np.sqrt(np.maximum(data.variance, 0)), sample_std)
    stds = [std[::stride, ::stride, channel] for std in of_both]
    largest = float(np.max(stds))
    codes = [std_codes(std, largest) for std in stds]
    histograms = None
    if samples is not None and channel < samples.shape[-1]:
        step = shape["histogram_stride"] // stride
        centre, spread = means[2][::step, ::step], codes[1][::step, ::step]
        found = histogram_counts(samples[..., channel], centre, spread, largest)
        # a bin's map beside the next, which packs well
        histograms = _webp(np.concatenate(np.moveaxis(found, -1, 0), axis=1), True)
    return {
        "values": _webp(np.stack(means, axis=-1), True),
        "stds": _webp(np.stack([*codes, np.zeros_like(codes[0])], axis=-1), True),
        "largest_std": largest,
        "top": top_of_scale(np.asarray(stds[: 2 if of_samples else 1])),
        "histograms": histograms,
    }


def std_codes(std: Array, largest: float) -> Bytes:
    """Stds as bytes, finer where they are small: std = largest (code / 255)²."""
    if largest <= 0:
        return np.zeros(std.shape, np.uint8)
    return np.asarray(np.rint(255 * np.sqrt(std / largest)), np.uint8)


def histogram_counts(samples: Bytes, centre: Bytes, codes: Bytes, largest: float) -> Bytes:
    """Counts of the samples of each pixel in `NUM_BINS` bins around their mean.

    Bins are `width` = max(1, ⌈0.4 std⌉) grey levels wide, so that whole levels fall into them and
    the outermost begin 2.6 stds or more from the mean; these also hold everything beyond. The first
    begins at mean − 7 width − ⌊width/2⌋. A script that knows the coded mean and std finds the same.
    `samples` are (n, H, W) grey levels, `centre` (H, W) their rounded mean, `codes` those of their
    std (`std_codes`). The counts, (H, W, NUM_BINS), are shares of the fullest bin's 255 if there
    are more than 255 samples.
    """
    share = codes.astype(np.float64) / 255
    width = np.maximum(1, np.ceil(0.4 * largest * share * share)).astype(np.int64)
    first = centre.astype(np.int64) - NUM_BINS // 2 * width - width // 2
    bins = np.clip((samples.astype(np.int64) - first) // width, 0, NUM_BINS - 1)
    counts = np.stack([(bins == k).sum(axis=0) for k in range(NUM_BINS)], axis=-1)
    if len(samples) > 255:
        counts = np.rint(counts * 255 / np.maximum(counts.max(axis=-1, keepdims=True), 1))
    return counts.astype(np.uint8)


def _webp(pixels: Bytes, is_lossless: bool) -> str:
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=-1)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(
        buffer, format="WEBP", lossless=is_lossless, quality=60 if is_lossless else 84, method=3
    )
    return base64.b64encode(buffer.getvalue()).decode()


def _size(image: EncodedImage) -> int:
    strings = [*image["pictures"], *(v for part in image["channels"] for v in part.values())]
    return sum(len(text) for text in strings if isinstance(text, str)) + 2000


def colour_map() -> str:
    """The 256 colours of the error and std maps, six hexadecimal digits each."""
    return colours().tobytes().hex()
