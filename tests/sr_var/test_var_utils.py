"""The variance net's task: its target, its frozen mean net, and what its test writes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sr_var.data.pairs import Photographs
from sr_var.degradation import bilinear_upsample, variance_of
from sr_var.script_util import create_mean_model, create_var_model
from sr_var.var_utils import SRVarTestLoop, SRVarTrainLoop, var_result_folder, with_mean
from tests.sr_var.test_mean_utils import Table
from tests.tiny import LARGE, REGRESSION_NET, SMALL, shake
from utils.process.errors import CheckpointError
from utils.untrusted.pickles import load_array

SHAPE = (3, LARGE, LARGE)


def _forever(batch: Tensor, label: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        yield batch, label


def _images(num: int, seed: int) -> Tensor:
    return torch.randn(num, *SHAPE, generator=torch.Generator().manual_seed(seed)).clamp(-1, 1)


class Affine(nn.Module):
    """v = a + b · (first channel of its input): least squares by the normal equations."""

    def __init__(self, a: float, b: float) -> None:
        super().__init__()
        self.a, self.b = (nn.Parameter(torch.tensor(value)) for value in (a, b))

    def forward(self, x: Tensor) -> Tensor:
        return (self.a + self.b * x[:, :1]).expand(-1, 3, -1, -1)


def test_target_is_the_squared_residual_whose_mean_is_variance_plus_squared_bias() -> None:
    """For 8 equally likely labels of one input, the gradient is 0 at var + bias² and nowhere else.

    The mean net is off by 0.3; the variance alone is not the minimiser.
    """
    label, batch = _images(8, seed=1).double(), torch.zeros(8, *SHAPE, dtype=torch.float64)
    mean, variance = label.mean(dim=0), label.var(dim=0, correction=0)
    bias = 0.3
    for value, is_minimiser in ((variance + bias**2, True), (variance, False)):
        loop = SRVarTrainLoop(
            model=Table(value), mean_model=Table(mean + bias), data=_forever(batch, label)
        )
        loss, _ = loop.compute_loss(batch, label)
        loss.backward()
        gradient = loop.model.value.grad * value.numel()
        expected = torch.zeros_like(value) if is_minimiser else torch.full_like(value, -2 * bias**2)
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-5)


def test_linear_variance_model_converges_to_least_squares_on_squared_residuals() -> None:
    batch, label = _images(6, seed=2), _images(6, seed=3)
    mean_model = Table(_images(1, seed=4)[0] / 4)
    residual_sq = (label - mean_model.value.detach()).square().double()
    x = batch[:, :1].expand_as(label).double()
    design = torch.stack([torch.ones_like(x), x], dim=-1).reshape(-1, 2)
    a, b = torch.linalg.lstsq(design, residual_sq.reshape(-1, 1)).solution[:, 0].tolist()
    loop = SRVarTrainLoop(
        model=Affine(0.0, 0.0),
        mean_model=mean_model,
        data=_forever(batch, label),
        batch_size=6,
        microbatch=4,  # an uneven last slice
        lr=0.02,
        lr_anneal_steps=400,
        max_step=400,
        log_interval=1000,
    )
    loop.run_loop()
    assert loop.model.a.item() == pytest.approx(a, abs=2e-3)
    assert loop.model.b.item() == pytest.approx(b, abs=2e-3)


def test_variance_net_sees_the_low_res_image_and_the_mean() -> None:
    batch, size = torch.rand(2, 3, SMALL, SMALL), (LARGE, LARGE)
    mean_model, var_model = create_mean_model(**REGRESSION_NET), create_var_model(**REGRESSION_NET)
    shake(mean_model.eval())
    shake(var_model.eval())
    low_res, mean = with_mean(mean_model, batch, size)
    upsampled = bilinear_upsample(batch, size)
    assert torch.equal(low_res, batch) and not mean.requires_grad
    assert torch.equal(mean, mean_model(upsampled))
    # the same net of both images at one size, side by side
    of_both = var_model(torch.cat([upsampled, mean], dim=1))
    assert torch.equal(variance_of(var_model, low_res, mean), of_both)
    assert torch.equal(variance_of(var_model, upsampled, mean), of_both)


def test_mean_net_stays_frozen_while_the_variance_net_learns() -> None:
    """No gradient, bit-equal weights, and evaluation mode: its dropout would blur the target."""
    mean_model = create_mean_model(**{**REGRESSION_NET, "dropout": 0.5})
    var_model = create_var_model(**REGRESSION_NET)
    shake(mean_model)
    shake(var_model)
    before = {name: value.clone() for name, value in mean_model.state_dict().items()}
    first = [parameter.detach().clone() for parameter in var_model.parameters()]
    mean_model.train()
    data = _forever(_images(2, seed=6), _images(2, seed=7))
    loop = SRVarTrainLoop(
        model=var_model, mean_model=mean_model, data=data, batch_size=2, microbatch=1, max_step=3
    )
    loop.run_loop()
    assert not mean_model.training
    assert all(not p.requires_grad and p.grad is None for p in mean_model.parameters())
    assert all(torch.equal(before[name], v) for name, v in mean_model.state_dict().items())
    pairs = list(zip(first, var_model.parameters(), strict=True))
    assert sum(not torch.equal(a, b) for a, b in pairs) > len(pairs) / 2
    assert {id(p) for p in loop.mp_trainer.masters} == {id(p) for p in var_model.parameters()}
    one, two = (loop.compute_loss(*next(data))[0] for _ in range(2))
    assert torch.equal(one, two)


def test_strip_of_pictures_changes_no_weight() -> None:
    class Silent(SRVarTrainLoop):
        def _post_process(self, *args: Any) -> None:
            pass

    weights = []
    for loop_class in (SRVarTrainLoop, Silent):
        model, mean_model = create_var_model(**REGRESSION_NET), Table(_images(1, seed=4)[0])
        shake(model)
        data = _forever(_images(2, seed=6), _images(2, seed=7))
        loop_class(
            model=model, mean_model=mean_model, data=data, batch_size=2, max_step=2
        ).run_loop()
        weights.append(list(model.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


class _Pictures:
    """A logger that keeps what it is shown."""

    log_dir = None

    def __init__(self) -> None:
        self.images: list[np.ndarray[Any, Any]] = []

    def image(self, tag: str, image_uint8: np.ndarray[Any, Any], step: int) -> None:
        self.images.append(image_uint8)

    def __getattr__(self, name: str) -> Any:
        return lambda *args: None


@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_std_picture_leaves_its_arguments_alone_and_flat_maps_without_nan(spread: float) -> None:
    """The documents' picture of the std was written into the variance, and flat maps gave nan."""
    output = torch.zeros(2, *SHAPE) if spread == 0 else spread * _images(2, seed=8)
    batch, label = torch.zeros(2, *SHAPE), torch.zeros(2, *SHAPE)
    logger = _Pictures()
    loop = SRVarTrainLoop(
        model=Affine(0.0, 0.0),
        mean_model=Table(torch.zeros(SHAPE)),
        data=_forever(batch, label),
        logger=logger,
    )
    before = [tensor.clone() for tensor in (batch, label, output)]
    with torch.no_grad():
        loop._post_process(batch, label, output, 0)
    assert all(torch.equal(a, b) for a, b in zip(before, (batch, label, output), strict=True))
    (picture,) = logger.images
    assert picture.shape == (2 * LARGE, 3 * LARGE, 3) and picture.dtype == np.uint8
    std_part = picture[:, LARGE : 2 * LARGE]
    assert std_part.max() == (0 if spread == 0 else 255)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_result_is_squared_grey_levels_and_not_clipped(tmp_path: Path, sign: float) -> None:
    value = sign * torch.linspace(0, 2, 3 * LARGE * LARGE).reshape(SHAPE)
    loop = _loop(tmp_path, value)
    loop.run_loop()
    path = tmp_path / "out" / "a" / "high_res_var_9.pkl"
    names = sorted(entry.name for entry in path.parent.iterdir())
    std_names = ["high_res_std_9.npy", "high_res_std_9.png"]
    assert names == [*std_names, "high_res_var_9.pkl", "low_res.png"]
    assert path.read_bytes()[:2] == b"\x80\x04"  # protocol 4
    variance = load_array(path)
    assert variance.dtype == np.float32 and variance.shape == (LARGE, LARGE, 3)
    expected = value.double().permute(1, 2, 0).numpy() * 127.5**2
    np.testing.assert_allclose(variance, expected, rtol=1e-6)
    std = np.load(path.parent / "high_res_std_9.npy")
    assert std.dtype == np.float32
    np.testing.assert_allclose(std, np.sqrt(expected.clip(0)), rtol=1e-6)


def test_variance_that_is_not_finite_is_never_written(tmp_path: Path) -> None:
    loop = _loop(tmp_path, torch.full(SHAPE, float("inf")))
    with pytest.raises(CheckpointError, match=r"high_res_var_9\.pkl.*not finite"):
        loop.run_loop()
    assert not [*tmp_path.rglob("*.pkl"), *tmp_path.rglob("high_res_std*")]


def _loop(root: Path, value: Tensor) -> SRVarTestLoop:
    paths = [root / "model000009.pt", root / "mean.pt"]
    for path in paths:
        path.touch()
    return SRVarTestLoop(
        model=Table(value),
        mean_model=Table(torch.zeros(SHAPE)),
        data=[(torch.zeros(1, *SHAPE), Photographs(["a"], torch.zeros(1, *SHAPE)))],
        results=var_result_folder(str(root / "out"), 9, *map(str, paths)),
    )


@pytest.mark.parametrize("loss", ["squared_error", "itakura_saito"])
def test_softplus_variance_net_learns_with_either_loss_and_stays_positive(loss: str) -> None:
    """It has the parameters of the net without a last layer, and starts at log 2."""
    model = create_var_model(**REGRESSION_NET, last_layer_type="softplus")
    assert model.state_dict().keys() == create_var_model(**REGRESSION_NET).state_dict().keys()
    batch, label = _images(2, seed=8), 0.2 * _images(2, seed=9)
    loop = SRVarTrainLoop(
        model=model,
        mean_model=Table(torch.zeros(SHAPE)),
        data=_forever(batch, label),
        loss=loss,
        batch_size=2,
        lr=0.01,
        max_step=15,
    )
    first, output = loop.compute_loss(batch, label)
    torch.testing.assert_close(output, torch.full_like(output, 2.0).log())
    loop.run_loop()
    last, output = loop.compute_loss(batch, label)
    assert last < first and output.min() > 0
    assert output.mean() < 0.5 * torch.tensor(2.0).log()  # towards residuals of about 0.02
