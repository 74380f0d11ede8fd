"""The mean net's task: its pair, its minimiser, and what its test writes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from sr_var.data.pairs import rank_batches, regression_pair
from sr_var.flags.scripts import TestDataFlags
from sr_var.mean_utils import (
    SRMeanTestLoop,
    SRMeanTrainLoop,
    mean_result_folder,
    regression_test_data,
)
from sr_var.script_util import create_mean_model
from tests.tiny import LARGE, REGRESSION_NET, SMALL, TEST_NAMES, TinyData, shake
from utils.images.listing import Entry
from utils.process.errors import CheckpointError

CPU = torch.device("cpu")
ENTRIES = [Entry(name, 0) for name in TEST_NAMES]


class Table(nn.Module):
    """Ignores its input: every output pixel is a parameter, so minimisers are closed forms."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = nn.Parameter(value.clone())

    def forward(self, x: Tensor, *_: object) -> Tensor:
        return self.value.expand(len(x), *self.value.shape)


def _forever(batch: Tensor, label: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        yield batch, label


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_loss_is_the_squared_error_whose_minimiser_is_the_conditional_mean() -> None:
    """Of 9 equally likely high-res images of one low-res image: the gradient is 0 at their mean."""
    label = _random(9, 3, 4, 4)
    batch = torch.zeros(9, 3, 4, 4, dtype=torch.float64)
    mean = label.mean(dim=0)
    for shift in (0.0, 0.1):
        loop = SRMeanTrainLoop(model=Table(mean + shift), data=_forever(batch, label))
        loss, _ = loop.compute_loss(batch, label)
        variance = label.var(dim=0, correction=0).mean()
        torch.testing.assert_close(loss.double(), variance + shift**2, rtol=1e-6, atol=0)
        loss.backward()
        gradient = loop.model.value.grad
        torch.testing.assert_close(
            gradient, torch.full_like(gradient, 2 * shift / gradient.numel()), rtol=1e-5, atol=1e-7
        )


def test_pair_is_the_low_res_image_and_the_high_res_image() -> None:
    crops = torch.randint(0, 256, (2, 3, LARGE, LARGE), dtype=torch.uint8)
    low_res, high_res = regression_pair(crops, SMALL, CPU)
    factor = LARGE // SMALL
    blocks = crops.double().unfold(2, factor, factor).unfold(3, factor, factor).mean(dim=(4, 5))
    torch.testing.assert_close(low_res.double(), blocks / 127.5 - 1, rtol=0, atol=1e-6)
    assert torch.equal(high_res, crops.float() / 127.5 - 1)


def test_strip_of_pictures_changes_no_weight(tmp_path: Path) -> None:
    class Silent(SRMeanTrainLoop):
        def _post_process(self, *args: Any) -> None:
            pass

    crops = torch.randint(0, 256, (4, 3, LARGE, LARGE), dtype=torch.uint8)
    pair = regression_pair(crops, SMALL, CPU)
    weights = []
    for loop_class in (SRMeanTrainLoop, Silent):
        model = create_mean_model(**REGRESSION_NET)
        shake(model, seed=1)
        loop = loop_class(model=model, data=_forever(*pair), batch_size=4, microbatch=2, max_step=3)
        loop.run_loop()
        weights.append(list(model.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


def _test_loop(
    data: TinyData, model: nn.Module, output_dir: Path, batch_size: int
) -> SRMeanTestLoop:
    output_dir.parent.mkdir(exist_ok=True, parents=True)
    weights = output_dir.parent / "model000042.pt"
    weights.touch()
    flags = TestDataFlags(data_dir=str(data.data_dir))
    return SRMeanTestLoop(
        model=model,
        data=regression_test_data(rank_batches(ENTRIES, batch_size), flags, (LARGE, SMALL)),
        results=mean_result_folder(str(output_dir), 42, str(weights)),
    )


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_results_are_float_grey_levels_and_a_rounded_picture(
    tmp_path: Path, tiny_data: TinyData, batch_size: int
) -> None:
    value = 1.3 * torch.linspace(-1, 1, 3 * LARGE * LARGE).reshape(3, LARGE, LARGE)
    loop = _test_loop(tiny_data, Table(value), tmp_path / "out", batch_size)
    assert loop.run_loop()
    expected = ((value.double() + 1) * 127.5).permute(1, 2, 0).numpy()
    for name in TEST_NAMES:
        folder = tmp_path / "out" / name
        assert sorted(path.name for path in folder.iterdir()) == [
            "high_res_mean_42.npy",
            "high_res_mean_42.png",
            "low_res.png",
        ]
        mean = np.load(folder / "high_res_mean_42.npy")
        assert mean.dtype == np.float32 and mean.shape == (LARGE, LARGE, 3)
        np.testing.assert_allclose(mean, expected, atol=1e-4)  # neither rounded nor clipped
        picture = np.asarray(Image.open(folder / "high_res_mean_42.png"))
        np.testing.assert_array_equal(picture, np.clip(np.rint(mean), 0, 255).astype(np.uint8))
        low_res = np.asarray(Image.open(folder / "low_res.png"))
        assert low_res.shape == (LARGE, LARGE, 3) and low_res.dtype == np.uint8


def test_residual_net_at_its_start_is_the_bilinear_image(
    tmp_path: Path, tiny_data: TinyData
) -> None:
    model = create_mean_model(**REGRESSION_NET, predict_residual=True)
    _test_loop(tiny_data, model, tmp_path / "out", 3).run_loop()
    for name in TEST_NAMES:
        mean = np.load(tmp_path / "out" / name / "high_res_mean_42.npy")
        low_res = np.asarray(Image.open(tmp_path / "out" / name / "low_res.png"))
        assert np.abs(mean - low_res).max() <= 0.5 + 1e-3


def test_output_that_is_not_finite_leaves_no_result(tmp_path: Path, tiny_data: TinyData) -> None:
    value = torch.zeros(3, LARGE, LARGE)
    value[0, 3, 3] = float("nan")
    with pytest.raises(CheckpointError, match="not finite"):
        _test_loop(tiny_data, Table(value), tmp_path / "out", 3).run_loop()
    names = {path.name for path in (tmp_path / "out").rglob("*.*") if path.is_file()}
    assert names <= {"low_res.png"}
