"""Fresh draws of the oracle's law in memory, test images of it, and how far nets are from it.

Networks see the low-res image, and what a degradation shows beside it (`Observation`).
Not for networks: those are made and trained in `benchmarks.truth_routes`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from oracle.law import PHOTO_SCALE, OracleLaw, oracle_law
from sr_var.data.oracle_observed import Observation
from sr_var.degrade.language import Degradation
from sr_var.results.moments import Truth
from sr_var.verify.numbers.floors import truth_means, truth_metrics
from utils.images.files import open_image, resolve_image_path
from utils.images.folder import scan
from utils.images.pixels import bytes_to_image
from utils.metrics import HALF_RANGE_255
from utils.process.errors import DataError

FACTOR = 4


class FreshDraws:
    """Endless batches (x, y): pieces of photographs, and one draw of the law for each.

    Every iteration starts the same sequence anew.

    Args:
        photos: (3, H, W) in [-1, 1], no side below `size`.
        size: side of the low-res images, pixels.
        batch_size: pieces of a batch.
        base: of the law.
        seed: of places, mirrors and draws.
        label_noise: std of normal noise that is added to y, grey levels.
        degradation: what x is, of the factor 4; block means without.
    """

    def __init__(
        self,
        photos: Sequence[Tensor],
        size: int,
        batch_size: int,
        base: str,
        seed: int,
        *,
        label_noise: float = 0.0,
        degradation: Degradation | None = None,
    ) -> None:
        self._photos, self._size, self._batch_size = photos, size, batch_size
        self._base, self._seed = base, seed
        self._noise_std, self._degradation = label_noise / HALF_RANGE_255, degradation

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield x (N, 3 + what else is seen, h, w) and y (N, 3, f·h, f·w)."""
        generator = torch.Generator().manual_seed(self._seed)
        while True:
            x = cut(self._photos, self._batch_size, self._size, generator)
            label = oracle_law(x, FACTOR, base=self._base).sample(generator)
            if self._degradation is not None:
                seeds = torch.randint(2**62, (self._batch_size,), generator=generator)
                x = self._degradation.apply(label, seeds.tolist())
            if self._noise_std:
                label += self._noise_std * torch.randn(label.shape, generator=generator)
            yield x, label


def load_photos(folder: str, size: int, flag: str) -> list[Tensor]:
    """All photographs below a folder that `flag` names, (3, H, W) in [-1, 1] each.

    Raises:
        DataError: if there is none, or one is smaller than `size`.
    """
    photos = []
    for name in scan(folder, print, flag):
        pixels = torch.from_numpy(np.array(open_image(resolve_image_path(folder, name))))
        if min(pixels.shape[:2]) < size:  # (H, W, 3)
            raise DataError(f"{name} of {flag} {folder} has a side below --small_size {size}")
        photos.append(bytes_to_image(pixels).permute(2, 0, 1).contiguous())
    return photos


def cut(photos: Sequence[Tensor], num: int, size: int, generator: torch.Generator) -> Tensor:
    """Low-res images (num, 3, size, size) at `PHOTO_SCALE`: random pieces, half of them mirrored.

    Every place of every photograph is as likely as any other.
    """
    places = torch.tensor([(p.shape[1] - size + 1) * (p.shape[2] - size + 1) for p in photos])
    chosen = torch.multinomial(places.double(), num, replacement=True, generator=generator)
    draws = torch.rand(num, 3, generator=generator)
    pieces = []
    for index, (down, across, side) in zip(chosen.tolist(), draws.tolist(), strict=True):
        photo = photos[index]
        top, left = (
            int(share * (length - size + 1))
            for share, length in zip((down, across), photo.shape[1:], strict=True)
        )
        piece = photo[:, top : top + size, left : left + size]
        pieces.append(piece.flip(-1) if side < 0.5 else piece)
    return PHOTO_SCALE * torch.stack(pieces)


def judged_images(photos: Sequence[Tensor], num: int, size: int) -> Tensor:
    """The low-res images that all nets are judged on, (num, 3, size, size); always the same."""
    return cut(photos, num, size, torch.Generator().manual_seed(0))


def observation_of(degradation: str) -> tuple[Observation, Degradation] | None:
    """What is seen beside the low-res image, at the side of Y and at that of X; None for `area`.

    Raises:
        ValueError: the exact law of Y given it is not known.
    """
    seen = Observation.parse(degradation, FACTOR)
    return None if seen is None else (seen, Degradation.parse(seen.words, FACTOR))


def judged_law(low_res: Tensor, base: str, degradation: str) -> tuple[Tensor, OracleLaw]:
    """What networks see of the images that they are judged on, and the exact law given that.

    Args:
        low_res: of `judged_images`, (N, 3, h, w).
        base: of the law.
        degradation: `area`, or one that `observation_of` knows; what it shows is of one draw of Y
            for each image, always the same.

    Returns:
        X (N, 3 + what else is seen, h, w) in the dtype of `low_res`, and p(Y | X) in float64.
    """
    law, seen = oracle_law(low_res.double(), FACTOR, base=base), observation_of(degradation)
    if seen is None:
        return low_res, law
    y, seeds = law.sample(torch.Generator().manual_seed(1)), range(len(low_res))
    whole, folded = (degrade.apply(y, seeds) for degrade in (seen[0].degradation, seen[1]))
    return folded.to(low_res), seen[0].law_given(law, whole)


def errors_of(
    law: OracleLaw, mean: Tensor, variance: Tensor, added: float = 0.0
) -> dict[str, float]:
    """`relative_mse`, `relative_var_error`, `relative_rms_error` and `var_bias` of two nets.

    As section `truth` of a verification has them (`floors.truth_metrics`); images in [-1, 1],
    variances in that unit squared, (N, C, H, W). The exact variance is the law's plus `added`.
    """
    return _truth(law, 2, mean, variance, added)["nets"]


def errors_of_samples(law: OracleLaw, num_samples: int) -> dict[str, float]:
    """The same, as expected of n ≥ 2 exact samples: 1/n, and what the law's moments say."""
    return _truth(law, num_samples, law.mean, law.variance)["expected"]


def _truth(
    law: OracleLaw, num_samples: int, mean: Tensor, variance: Tensor, added: float = 0.0
) -> dict[str, dict[str, float]]:
    def array(values: Tensor, power: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        return np.asarray((values.double() * HALF_RANGE_255**power).cpu().numpy())

    spread = law.variance + added
    moments = law.mean, spread, law.third_central_moment, law.fourth_central_moment
    truth = Truth(*(array(values, power + 1) for power, values in enumerate(moments)))
    nets = (array(mean, 1), array(variance, 2))
    means = truth_means(truth, nets, (truth.mean, truth.variance), num_samples)
    metrics = truth_metrics({name: np.float64(value) for name, value in means.items()})
    found: dict[str, dict[str, float]] = {"nets": {}, "expected": {}}
    for name in ("relative_mse", "relative_var_error", "relative_rms_error", "var_bias"):
        for of, values in found.items():
            values[name] = float(metrics[f"truth.{of}.{name}"])
    return found
