"""An image in tiles: which parts the networks see, and how their results become one image.

Two ways, by the networks. Sub-pixel networks depend on a window of the input, so tiles lie side by
side, each is computed with as much around it as it depends on, and the result is that of the whole
image. A U-Net's norms and attention see all that it is given. So it is given squares of the size
that it was trained on; neighbours overlap, and one fades into the other by a linear ramp.

The ramp has one weight for all pixels of a low-res pixel's block, so that results whose block means
are the low-res image (`--consistent True`) stay so.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from sr_var.predict.images import LowRes
from sr_var.predict.nets import NetPair
from utils.images.pixels import require_finite
from utils.script_util import AUTO

Floats = npt.NDArray[np.float32]
# low-res pixels; a window with 70 around it takes some 20 MB for each 32 channels of a network
AUTO_TILE = 256
# -1 of --overlap
AUTO_OVERLAP = -1
_SHARED_PART = 4  # a quarter of a U-Net's tile


@dataclass(frozen=True)
class Span:
    """A tile along one axis, in low-res pixels.

    Attributes:
        start, stop: what the networks see.
        first, last: what of their result counts.
        weight: of each low-res pixel from `first` to `last`; the weights of all tiles add up to 1.
    """

    start: int
    stop: int
    first: int
    last: int
    weight: Floats

    @property
    def kept(self) -> slice:
        """What counts, within what is seen."""
        return slice(self.first - self.start, self.last - self.start)


@dataclass(frozen=True)
class Plan:
    """The tiles of an image: every row with every column.

    Attributes:
        tile: side, low-res pixels.
        overlap: low-res pixels, as `--overlap`.
        is_exact: whether the result is that of the whole image.
    """

    rows: tuple[Span, ...]
    columns: tuple[Span, ...]
    tile: int
    overlap: int
    is_exact: bool

    @property
    def seen(self) -> tuple[int, int]:
        """(height, width) of the largest window that the networks see, low-res pixels."""
        height, width = (
            max(s.stop - s.start for s in spans) for spans in (self.rows, self.columns)
        )
        return height, width


def tile_sizes(pair: NetPair, tile: int = AUTO, overlap: int = AUTO_OVERLAP) -> tuple[int, int]:
    """Tile and overlap, low-res pixels, in the place of `AUTO` and -1.

    Raises:
        ValueError: a U-Net's tiles would overlap by more than half.
    """
    if pair.reach is not None:
        tile = AUTO_TILE if tile == AUTO else tile
        return tile, pair.reach if overlap == AUTO_OVERLAP else overlap
    tile = max(pair.train_size) if tile == AUTO else tile
    if overlap == AUTO_OVERLAP:
        return tile, tile // _SHARED_PART
    if 2 * overlap > tile:
        raise ValueError(
            f"--overlap {overlap} is more than half of --tile {tile}; give at most {tile // 2}"
        )
    return tile, overlap


def make_plan(pair: NetPair, height: int, width: int, tile: int, overlap: int) -> Plan:
    """The tiles of an image of height × width low-res pixels; sizes as of `tile_sizes`."""
    spans = side_by_side if pair.reach is not None else fading
    rows, columns = (tuple(spans(size, tile, overlap)) for size in (height, width))
    is_whole = len(rows) == len(columns) == 1
    is_exact = is_whole or (pair.reach is not None and overlap >= pair.reach)
    return Plan(rows, columns, tile, overlap, is_exact)


def side_by_side(size: int, tile: int, around: int) -> Iterator[Span]:
    """Tiles that lie side by side, each seen with some pixels around it."""
    for first in range(0, size, tile):
        last = min(first + tile, size)
        start, stop = max(0, first - around), min(size, last + around)
        yield Span(start, stop, first, last, np.ones(last - first, np.float32))


def fading(size: int, tile: int, shared: int) -> Iterator[Span]:
    """Tiles of one size, spread evenly, that share `shared` pixels or more with the next one."""
    if size <= tile:
        yield Span(0, size, 0, size, np.ones(size, np.float32))
        return
    count = 1 + math.ceil((size - tile) / max(tile - shared, 1))
    starts = np.linspace(0, size - tile, count).round().astype(int).tolist()
    ramps = np.zeros((count, size))
    for i, start in enumerate(starts):
        ramp = np.ones(tile)
        if i > 0 and (num := starts[i - 1] + tile - start) > 0:
            ramp[:num] = np.arange(1, num + 1) / (num + 1)
        if i + 1 < count and (num := start + tile - starts[i + 1]) > 0:
            ramp[-num:] *= np.arange(num, 0, -1) / (num + 1)
        ramps[i, start : start + tile] = ramp
    ramps /= ramps.sum(axis=0)
    for start, ramp in zip(starts, ramps, strict=True):
        stop = start + tile
        yield Span(start, stop, start, stop, ramp[start:stop].astype(np.float32))


def finished_rows(
    pair: NetPair, image: LowRes, plan: Plan, batch_size: int = 1
) -> Iterator[tuple[Floats, Floats]]:
    """Mean and variance of an image from its top to its bottom, some rows at a time.

    Each is (rows, f·w, C), neither clipped nor rounded, in `NetPair.result_units` or their squares.
    In memory are a row of tiles and the networks' activations of `batch_size` of them.

    Raises:
        CheckpointError: the networks' output is not finite.
    """
    factor, units = pair.factor, pair.result_units(image)
    width, channels = image.size.width, units.num_channels
    carried: Floats | None = None
    for i, row in enumerate(plan.rows):
        rows = np.zeros((2, (row.last - row.first) * factor, width * factor, channels), np.float32)
        if carried is not None:
            rows[:, : carried.shape[1]] = carried
        for columns in _batches(plan.columns, batch_size):
            windows = [_to_net(image, row, column) for column in columns]
            results = pair(torch.cat(windows))
            for column, *moments in zip(columns, *results, strict=True):
                _add(rows, row, column, moments, factor)
        next_first = plan.rows[i + 1].first if i + 1 < len(plan.rows) else row.last
        num_done = (next_first - row.first) * factor
        carried = rows[:, num_done:]
        mean, variance = rows[:, :num_done]
        mean += 1
        mean *= units.half
        mean += units.low
        variance *= units.half**2
        yield mean, variance


def _batches(columns: Sequence[Span], size: int) -> Iterator[Sequence[Span]]:
    """Columns of one width after the other, at most `size` at a time."""
    for _, group in itertools.groupby(columns, key=lambda one: one.stop - one.start):
        while batch := list(itertools.islice(group, size)):
            yield batch


def _to_net(image: LowRes, row: Span, column: Span) -> Tensor:
    """A window as the networks see it, (1, C + extra, h, w); of images in [-1, 1].

    Blocks of pixels of a larger layer become channels, as `Degradation.apply` says.
    """
    windows = []
    for layer in (image, *image.layers):
        factor = layer.size.height // image.size.height
        part = [slice(factor * span.start, factor * span.stop) for span in (row, column)]
        windows.append(F.pixel_unshuffle(_scaled(layer, part[0], part[1]), factor))
    return torch.cat(windows, dim=1) if image.layers else windows[0]


def _scaled(image: LowRes, rows: slice, columns: slice) -> Tensor:
    """A window (1, C, h, w) in [-1, 1]; hidden pixels are 0."""
    window: npt.NDArray[Any] = image.pixels[rows, columns]
    scaled = (window.astype(np.float32) - np.float32(image.low)) / np.float32(image.half) - 1
    if image.seen is not None:
        scaled[~image.seen[rows, columns]] = 0
    return torch.from_numpy(np.ascontiguousarray(scaled.transpose(2, 0, 1)))[None]


def _add(rows: Floats, row: Span, column: Span, moments: Sequence[Tensor], factor: int) -> None:
    """Add what counts of a tile's mean and variance, (C, f·h, f·w) each, to the rows."""
    weight = np.outer(row.weight, column.weight).repeat(factor, 0).repeat(factor, 1)[..., None]
    own = slice(column.first * factor, column.last * factor)
    kept = [slice(part.kept.start * factor, part.kept.stop * factor) for part in (row, column)]
    for target, moment in zip(rows, moments, strict=True):
        part = moment[:, kept[0], kept[1]]
        require_finite(part, "the result")
        target[:, own] += weight * part.permute(1, 2, 0).cpu().numpy()
