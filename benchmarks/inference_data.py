"""Images of the oracle's law, their samples, and nets whose errors are known: a population.

Low-res images are pieces of the photographs of a folder, so that what differs from image to image
differs as in photographs. The nets err where nets do: the mean as the law on another base, the
variance as that of a blurred image. `benchmarks.inference` draws images from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.truth_data import FACTOR, cut, load_photos
from oracle.law import BICUBIC, OracleLaw, oracle_law
from sr_var.results.moments import Array, block_means
from sr_var.verify.numbers.calibration import Histograms
from sr_var.verify.numbers.metrics import ImageResult, image_result
from sr_var.verify.numbers.summary import arrays_of
from sr_var.verify.read.images import ImageData
from utils.images.pixels import image_to_255, to_hwc
from utils.metrics import HALF_RANGE_255, Moments

NUM_SAMPLES, SMALL_SIZE = 20, 8


@dataclass(frozen=True)
class Net:
    """Errors of a net over all images: rms of the mean over the std, of the variance over it.

    `bias`: the variance is multiplied with 1 + bias besides.
    """

    name: str
    mean_error: float = 0.0
    variance_error: float = 0.0
    bias: float = 0.0


@dataclass(frozen=True)
class Population:
    """Rows of all images under one net.

    Attributes:
        own: metrics of each image that are averaged as they are, (num_images,).
        means: what `pooled_metrics` takes, (num_images,).
        photo: number of the photograph of each image, (num_images,).
        histograms: of the nets' law, of the first images of each photograph.
    """

    own: Mapping[str, Array]
    means: Mapping[str, Array]
    photo: Array
    histograms: Sequence[Histograms]


@dataclass(frozen=True)
class _Piece:
    """An image's law, and what nets may take for its mean and variance; HWC grey levels."""

    law: OracleLaw
    mean: Array
    variance: Array
    other_mean: Array
    other_variance: Array

    @classmethod
    def of(cls, low_res: Tensor) -> _Piece:
        """Of (3, h, w) in [-1, 1]."""
        image = low_res.double()[None]
        law, other = oracle_law(image, FACTOR), oracle_law(image, FACTOR, base=BICUBIC)
        blurred = F.avg_pool2d(F.pad(image, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        variances = law.variance, oracle_law(blurred, FACTOR).variance
        exact, wrong = (to_hwc(v[0]) * HALF_RANGE_255**2 for v in variances)
        return cls(law, _levels(law.mean), exact, _levels(other.mean), wrong)


def populations(
    folder: str, nets: Sequence[Net], num_pieces: int, num_histograms: int
) -> dict[str, Population]:
    """The same images under each net, by its name: `num_pieces` of every photograph.

    `num_histograms` of these keep their histograms.

    Raises:
        DataError: there are no photographs in the folder, or one is too small.
    """
    generator = torch.Generator().manual_seed(0)
    photos = load_photos(folder, SMALL_SIZE, "--data_dir")
    low_res = [piece for one in photos for piece in cut([one], num_pieces, SMALL_SIZE, generator)]
    scales = _scales(low_res)
    rows: dict[str, list[ImageResult]] = {net.name: [] for net in nets}
    for number, image in enumerate(low_res):
        has_histograms = number % num_pieces < num_histograms
        for name, data in _images(_Piece.of(image), nets, scales, generator):
            found = image_result(name, data, num_scatter=0, seed=0)
            kept = found.histograms if has_histograms else None
            rows[name].append(replace(found, data=None, histograms=kept))
    photo = np.arange(len(photos)).repeat(num_pieces)
    return {name: _population(found, photo) for name, found in rows.items()}


def _scales(low_res: Sequence[Tensor]) -> tuple[float, float]:
    """Factors that make the errors of mean and variance 1 over all images."""
    sums = np.zeros(4)
    for piece in map(_Piece.of, low_res):
        mean_error, error = piece.other_mean - piece.mean, piece.other_variance - piece.variance
        parts = (piece.variance, mean_error**2, piece.variance**2, error**2)
        sums += [part.mean() for part in parts]
    return float(np.sqrt(sums[0] / sums[1])), float(np.sqrt(sums[2] / sums[3]))


def _images(
    piece: _Piece, nets: Sequence[Net], scales: tuple[float, float], generator: torch.Generator
) -> Iterator[tuple[str, ImageData]]:
    """One image under each net, with the same samples and the same real image."""
    draw = partial(piece.law.sample, generator)
    samples = np.stack([_levels(draw()) for _ in range(NUM_SAMPLES)])
    blocks = block_means(samples, SMALL_SIZE)
    data = ImageData(
        mean=piece.mean,
        variance=piece.variance,
        samples=Moments.from_samples(samples),
        high_res=_levels(draw()),
        bilinear=_levels(piece.law.base),
        low_res=block_means(piece.mean, SMALL_SIZE),
        block_variance=blocks.var(axis=0, ddof=1),
    )
    for net in nets:
        off = piece.other_variance - piece.variance
        variance = piece.variance + net.variance_error * scales[1] * off
        yield (
            net.name,
            replace(
                data,
                mean=piece.mean + net.mean_error * scales[0] * (piece.other_mean - piece.mean),
                variance=(1 + net.bias) * variance,
            ),
        )


def _population(rows: Sequence[ImageResult], photo: Array) -> Population:
    own, means = arrays_of(rows)
    kept = [row.histograms["nets"] for row in rows if row.histograms is not None]
    return Population(own, means, photo, kept)


def _levels(image: Tensor) -> Array:
    return np.asarray(to_hwc(image_to_255(image[0])), np.float64)
