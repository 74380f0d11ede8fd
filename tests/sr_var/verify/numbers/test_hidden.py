"""Where X shows some pixels as they are, mean and variance are judged by the hidden ones alone."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sr_var.results.moments import Truth
from sr_var.verify.numbers.metrics import image_means, image_metrics, image_result
from sr_var.verify.read.images import ImageData
from utils.metrics import Moments

SHAPE = (16, 16, 3)
# of its left half, in whole squares of those that noise floors are pooled over
HIDDEN = np.arange(16) < 8
# of whole images: PSNR against the real image, edges, what X is made of
WHOLE = ("high_res.", "edges.", "consistency.", "nets.area", "samples.area", "block_")


def _data() -> ImageData:
    """A law that the nets nearly know where it is hidden; where it is seen they know nothing."""
    rng = np.random.default_rng(0)
    v = np.where(HIDDEN[None, :, None], rng.uniform(20, 200, SHAPE), 0.0)
    mean = rng.uniform(80, 160, SHAPE)
    samples = mean + np.sqrt(v) * rng.standard_normal((20, *SHAPE))
    truth = Truth(mean, v, np.zeros(SHAPE), 3 * v**2)
    wrong = ~HIDDEN[None, :, None] * rng.uniform(30, 60, SHAPE)
    y = mean + np.sqrt(v) * rng.standard_normal(SHAPE)
    nets = mean + rng.normal(0, 2, SHAPE) + wrong, v * rng.uniform(0.8, 1.2, SHAPE) + wrong
    hidden = np.broadcast_to(HIDDEN, SHAPE[:2])
    of_law = {"truth": truth, "epistemic": 4 + wrong, "num_nets": 3, "hidden": hidden}
    return ImageData(*nets, Moments.from_samples(samples), y, np.zeros(SHAPE), **of_law)


def _part(values: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(values[:, HIDDEN])


def _alone(data: ImageData) -> ImageData:
    """The hidden half of the image, and no other."""
    assert data.samples is not None and data.truth is not None and data.epistemic is not None
    moments = (data.samples.mean, data.samples.m2, data.samples.m3, data.samples.m4)
    return dataclasses.replace(
        data,
        **{name: _part(getattr(data, name)) for name in ("mean", "variance", "high_res")},
        bilinear=_part(data.bilinear),
        epistemic=_part(data.epistemic),
        samples=Moments(data.samples.count, *map(_part, moments)),
        truth=Truth(*map(_part, vars(data.truth).values())),
        hidden=None,
    )


def test_all_that_is_said_of_mean_and_variance_is_of_hidden_pixels() -> None:
    data = _data()
    found, wanted = image_means(data)[0], image_means(_alone(data))[0]
    metrics, alone = image_metrics(data), image_metrics(_alone(data))
    assert {"truth.nets.std_error", "epistemic.z2", "v_k2"} <= found.keys()
    for one, other in ((found, wanted), (metrics, alone)):
        assert one.keys() == other.keys()
        for name in one:
            if not name.startswith(WHOLE):
                assert one[name] == pytest.approx(other[name], rel=1e-9, nan_ok=True), name
    everywhere = image_means(dataclasses.replace(data, hidden=None))[0]
    assert found["truth.nets.std_error"] < everywhere["truth.nets.std_error"] / 2
    result = image_result("a", data, num_scatter=50, seed=0)
    assert result.scatter.shape == (2, 50) and result.scatter.min() > 0
