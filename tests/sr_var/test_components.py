"""Principal components of blocks: what minimises their losses, and what stands in files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sr_var.components import SRComponentsTrainLoop, blocks_of, components_of
from sr_var.functionals import num_components
from sr_var.predict.nets import load_var_net
from sr_var.script_util import create_var_model
from tests.pipeline import TRAINING, Pipeline
from tests.sr_var.test_mean_utils import Table
from tests.tiny import LARGE, SMALL, TEST_NAMES, done, run, tree, words
from utils.process.errors import EXIT_USAGE, CheckpointError

FACTOR, COUNT = 2, 2
NET: dict[str, Any] = {
    **{"network": "subpixel", "large_size": LARGE, "small_size": SMALL},
    **{"model_channels": 8, "num_res_blocks": 1},
}


def test_blocks_are_made_orthogonal_one_after_the_other() -> None:
    """The columns of Q in blocks = Q R, up to their sign; the maps tell the variances."""
    output = torch.randn(2, 12, 8, 6, generator=torch.Generator().manual_seed(0))
    directions, variances = components_of(output, FACTOR, 3)
    assert directions.shape == (2, 3, 12, 4, 3) and variances.shape == (2, 3, 4, 3)
    gram = torch.einsum("nkdij,nldij->nijkl", directions, directions)
    torch.testing.assert_close(gram, torch.eye(3).expand_as(gram), rtol=0, atol=1e-5)
    blocks = blocks_of(output[:, :9].reshape(2, 3, 3, 8, 6), FACTOR).permute(0, 3, 4, 2, 1)
    columns = torch.linalg.qr(blocks).Q.permute(0, 4, 3, 1, 2)
    cosines = (columns * directions).sum(dim=2).abs()
    torch.testing.assert_close(cosines, torch.ones_like(cosines), rtol=0, atol=1e-4)
    means = output[:, 9:].reshape(2, 3, 4, 2, 3, 2).mean(dim=(3, 5))
    torch.testing.assert_close(variances, 0.1 * means.exp())


def _forever(batch: Tensor, label: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        yield batch, label


class Net(Table):
    """The same output for every low-res image."""

    def forward(self, x: Tensor, mean: Tensor) -> Tensor:
        """Return (N, K·(C + 1), H, W)."""
        return self.value.expand(len(x), *self.value.shape)


class Zero(torch.nn.Module):
    """A mean of 0."""

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Return (N, C, *size)."""
        return x.new_zeros(*x.shape[:2], *size)


def test_minimiser_is_the_leading_eigenvectors_and_eigenvalues() -> None:
    """Of 64 equally likely labels of one input with two blocks, each with its own covariance."""
    generator = torch.Generator().manual_seed(1)
    scales = torch.tensor([0.3, 0.15] + [0.04] * 10)  # of 12 directions
    bases = [torch.linalg.qr(torch.randn(12, 12, generator=generator)).Q for _ in range(2)]
    drawn = torch.randn(64, 2, 12, generator=generator) * scales
    blocks = torch.stack([drawn[:, i] @ bases[i].T for i in range(2)], dim=-1)  # (64, 12, 2)
    label = torch.nn.functional.pixel_shuffle(blocks[:, :, None], FACTOR)  # (64, 3, 2, 4)
    start = 0.1 * torch.randn(4 * COUNT, 2, 4, generator=generator)
    low_res = torch.zeros(64, 3, 1, 2)
    loop = SRComponentsTrainLoop(
        model=Net(start),
        mean_model=Zero(),
        data=_forever(low_res, label),
        batch_size=64,
        lr=0.02,
        lr_anneal_steps=300,
    )
    loop.run_loop()
    directions, variances = components_of(loop.model.value.detach()[None], FACTOR, 3)
    for i in range(2):
        moment = blocks[:, :, i].T @ blocks[:, :, i] / 64
        values, vectors = torch.linalg.eigh(moment)
        for k in range(COUNT):
            found = directions[0, k, :, 0, i]
            assert (found @ vectors[:, -1 - k]).abs() > 0.999
            assert variances[0, k, 0, i].item() == pytest.approx(values[-1 - k].item(), rel=0.01)
    assert loop.judge(low_res, label).keys() == {"loss"}


@pytest.mark.parametrize(("text", "number"), [("", 0), ("block:4", 0), ("pc:1", 1), ("pc:12", 12)])
def test_number_of_components(text: str, number: int) -> None:
    assert num_components(text) == number


@pytest.mark.parametrize("text", ["pc:", "pc:0", "pc:two", "pc:-1"])
def test_what_is_no_number_of_components_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="give a number of components, as pc:2"):
        num_components(text)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"network": "unet"}, "needs --network subpixel"),
        ({"last_layer_type": "softplus"}, "needs --last_layer_type none"),
        ({"functional": "pc:49"}, "a block of 48 values has no more"),
    ],
)
def test_what_has_no_components_is_refused(flags: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match="--functional pc:") as raised:
        create_var_model(**{**NET, "functional": "pc:2", **flags})
    assert words in str(raised.value)


def _train(pipeline: Pipeline, root: Path, **changes: Any) -> list[str]:
    folders = {"log_dir": root / "log", "model_save_dir": root / "net", "functional": "pc:2"}
    data = {**pipeline.data.train_flags, **pipeline.mean_net_flags}
    return words({**NET, **data, **TRAINING, **folders, "max_step": 2}, **changes)


def test_components_from_training_to_files(pipeline: Pipeline, tmp_path: Path) -> None:
    """They stand under names of their own; each block of the second is orthogonal to the first."""
    done("sr_var_train", _train(pipeline, tmp_path))
    done("sr_var_train", _train(pipeline, tmp_path, resume_checkpoint="auto", max_step=3))
    own = {"log_dir": tmp_path / "log", "model_path": tmp_path / "net" / "model000003.pt"}
    flags = words({**pipeline.var_test_flags, **own, "output_dir": tmp_path / "out"})
    done("sr_var_test", flags)
    for name in TEST_NAMES:
        folder = tmp_path / "out" / name
        files = {path.name for path in folder.iterdir()}
        assert files == {"functional_pc_2_3.npy", "functional_pc_2_3.png", "low_res.png"}
        components = np.load(folder / "functional_pc_2_3.npy")
        assert components.shape == (2, LARGE, LARGE, 3) and components.dtype == np.float32
        blocks = components.reshape(2, SMALL, 4, SMALL, 4, 3)
        first, second = blocks
        squares = (blocks**2).sum(axis=(2, 4, 5))
        assert squares.min() > 0
        product = (first * second).sum(axis=(1, 3, 4))
        assert np.abs(product / np.sqrt(squares[0] * squares[1])).max() < 1e-4
    before = tree(tmp_path / "out")
    done("sr_var_test", flags)  # nothing is left to do
    assert tree(tmp_path / "out") == before
    with pytest.raises(CheckpointError, match="--functional pc:2, not those of pixels"):
        load_var_net(str(tmp_path / "net" / "model000003.pt"))


def test_loss_of_variances_is_refused_for_components(pipeline: Pipeline, tmp_path: Path) -> None:
    outcome = run("sr_var_train", _train(pipeline, tmp_path, loss="itakura_saito"))
    assert outcome.code == EXIT_USAGE and "leave --loss out" in outcome.err
