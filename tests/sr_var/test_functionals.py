"""Linear functionals: what the flag means, what a variance net of one learns, what it leaves."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sr_var.functionals import PIXELS, Functional, settle_functional
from sr_var.predict.nets import load_var_net
from sr_var.script_util import create_var_model
from sr_var.stored_flags import load_args
from sr_var.var_utils import SRVarTrainLoop
from tests.pipeline import TRAINING, Pipeline
from tests.sr_var.test_mean_utils import Table
from tests.tiny import LARGE, REGRESSION_NET, SMALL, TEST_NAMES, done, run, tree, words
from utils.process.errors import EXIT_CHECKPOINT, EXIT_DATA, EXIT_USAGE, CheckpointError, DataError
from utils.untrusted.pickles import load_array

FORMS = {
    "block:4": ((4, 4), 4, (0, 0)),
    "block:4+2,1": ((4, 4), 4, (2, 1)),
    "block:4@2": ((4, 4), 2, (0, 0)),
    "filter:-1,1": ((1, 2), 1, (0, 0)),
    "filter:0.5,-1/2,1e-3/1,1@3+1,2": ((3, 2), 3, (1, 2)),
}


@pytest.mark.parametrize("text", FORMS)
def test_values_are_sums_of_pixels_times_the_kernel(text: str) -> None:
    """Pixel by pixel in plain Python; at its places a map has what is in the kernels' middle."""
    shape, stride, start = FORMS[text]
    functional = Functional.parse(text)
    assert (tuple(functional.kernel.shape), functional.stride, functional.start) == FORMS[text]
    image = torch.randn(2, 3, 13, 10, generator=torch.Generator().manual_seed(0)).double()
    found, places = functional(image), functional.at_places(image)
    assert found.shape == places.shape
    rows = range(start[0], 13 - shape[0] + 1, stride)
    columns = range(start[1], 10 - shape[1] + 1, stride)
    assert found.shape[2:] == (len(rows), len(columns))
    for i, top in enumerate(rows):
        for j, left in enumerate(columns):
            window = image[..., top : top + shape[0], left : left + shape[1]]
            expected = (window * functional.kernel.double()).sum(dim=(-2, -1))
            torch.testing.assert_close(found[..., i, j], expected)
            middle = top + (shape[0] - 1) // 2, left + (shape[1] - 1) // 2
            assert torch.equal(places[..., i, j], image[..., middle[0], middle[1]])


def test_power_is_of_the_kernel() -> None:
    ones = torch.ones(1, 1, 4, 4)
    assert Functional.parse("filter:-3,1")(ones, 2).unique().tolist() == [10]


def test_without_the_flag_nothing_is_touched() -> None:
    image = torch.rand(1, 3, 4, 4)
    assert Functional.parse("") is PIXELS
    assert PIXELS(image) is image and PIXELS.at_places(image) is image


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("blocks:4", "is none; give block:4"),
        ("block:0", "side of a block"),
        ("block:2.5", "side of a block"),
        ("block:4+4,0", "the start 4,0 less than it"),
        ("block:4@0", "the stride 0 must be"),
        ("filter:1,2/3", "as many finite numbers"),
        ("filter:1,x", "as many finite numbers"),
        ("filter:1,inf", "as many finite numbers"),
        ("filter:0,0", "a kernel of zeros"),
    ],
)
def test_what_names_no_functional_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match="--functional") as raised:
        Functional.parse(text)
    assert words in str(raised.value)


def test_names_of_files_tell_functionals_apart() -> None:
    slugs = {Functional.parse(text).slug for text in (*FORMS, "filter:1,-1")}
    assert len(slugs) == len(FORMS) + 1
    assert all(slug.replace("_", "").isalnum() for slug in slugs)


def test_kernel_of_a_file_becomes_numbers(tmp_path: Path) -> None:
    path = tmp_path / "k+1,1@2.npy"
    np.save(path, np.array([[0.1, -2], [3, 1e20]]))
    settled = settle_functional(argparse.Namespace(functional=f"filter:{path}@2+0,1")).functional
    assert settled == "filter:0.1,-2.0/3.0,1e20@2+0,1"
    assert settle_functional(argparse.Namespace(functional=settled)).functional == settled
    np.save(path, np.zeros(3))
    with pytest.raises(DataError, match=r"shape \(3,\).*an array \(h, w\)"):
        settle_functional(argparse.Namespace(functional=f"filter:{path}"))


def _forever(batch: Tensor, label: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        yield batch, label


@pytest.mark.parametrize("loss", ["squared_error", "itakura_saito"])
def test_minimiser_is_the_variance_of_the_functional_and_its_squared_bias(loss: str) -> None:
    """For 16 equally likely labels of one input: the gradient is 0 there, and not at the pixels'.

    In float64 but for the loss's own float32, hence 1e-6 of a gradient that is of the order of 1.
    """
    functional = Functional.parse("block:4+2,2")
    generator = torch.Generator().manual_seed(1)
    label = torch.randn(16, 3, 16, 16, generator=generator).double()
    batch, offset = torch.zeros(16, 3, 16, 16).double(), 0.3
    value = label.var(dim=0, correction=0).clone()
    exact = functional(label - label.mean(dim=0)).square().mean(dim=0) + offset**2
    value[:, 3:15:4, 3:15:4] = exact  # the middle of each block, rounded down
    gradients = []
    for start in (value, label.var(dim=0, correction=0)):
        loop = SRVarTrainLoop(
            model=Table(start),
            mean_model=Table(label.mean(dim=0) + offset),
            data=_forever(batch, label),
            loss=loss,
            functional=functional,
        )
        loss_value, output = loop.compute_loss(batch, label)
        assert output.shape == (16, 3, 3, 3)
        loss_value.backward()
        gradients.append(float(loop.model.value.grad.abs().max() * output[0].numel()))
    assert gradients[0] < 1e-5 < 1e-1 < gradients[1]


@pytest.mark.parametrize("network", ["unet", "subpixel"])
def test_kernel_that_fits_nowhere_is_refused(network: str) -> None:
    net = REGRESSION_NET if network == "unet" else {"large_size": LARGE, "small_size": SMALL}
    with pytest.raises(ValueError, match=r"33×33 pixels.*do not fit into an image of 32×32"):
        create_var_model(**net, network=network, functional="block:33")


def _flags(pipeline: Pipeline, root: Path, **changes: Any) -> list[str]:
    flags = {
        **pipeline.data.train_flags,
        **pipeline.mean_net_flags,
        **TRAINING,
        **{"network": "subpixel", "large_size": LARGE, "small_size": SMALL},
        **{"model_channels": 8, "num_res_blocks": 1, "last_layer_type": "softplus"},
        **{"log_dir": root / "log", "model_save_dir": root / "net", "max_step": 2},
    }
    return words(flags, **changes)


def _test_flags(pipeline: Pipeline, root: Path) -> list[str]:
    own = {"log_dir": root / "log", "model_path": root / "net" / "model000002.pt"}
    return words({**pipeline.var_test_flags, **own, "output_dir": root / "out"})


def test_variance_of_a_kernel_from_training_to_refusals(pipeline: Pipeline, tmp_path: Path) -> None:
    """Its results have names of their own, and no script takes them for variances of pixels."""
    np.save(tmp_path / "kernel.npy", np.array([[-1.0, 1.0]]))
    functional = f"filter:{tmp_path}/kernel.npy@2"
    done("sr_var_train", _flags(pipeline, tmp_path, functional=functional))
    assert load_args(tmp_path / "log" / "var_model_args.pkl")["functional"] == "filter:-1.0,1.0@2"
    (tmp_path / "kernel.npy").unlink()
    done("sr_var_test", _test_flags(pipeline, tmp_path))
    slug = Functional.parse("filter:-1.0,1.0@2").slug
    for name in TEST_NAMES:
        folder = tmp_path / "out" / name
        of = f"functional_{slug}"
        assert {path.name for path in folder.iterdir()} == {
            *(f"{of}_std_2.npy", f"{of}_std_2.png", f"{of}_var_2.pkl", "low_res.png")
        }
        variance = load_array(folder / f"{of}_var_2.pkl")
        assert variance.shape == (LARGE // 2, LARGE // 2, 3) and variance.min() > 0
        # the same low-res image as beside the variances of pixels
        theirs = (pipeline.nets_dir / name / "low_res.png").read_bytes()
        assert (folder / "low_res.png").read_bytes() == theirs
    before = tree(tmp_path / "out")
    done("sr_var_test", _test_flags(pipeline, tmp_path))  # nothing is left to do
    assert tree(tmp_path / "out") == before
    steps = {"mean_model_step": 4, "var_model_step": 2, "sr_model_output_dir": tmp_path / "out"}
    flags = {**pipeline.verification_flags, **steps, "log_dir": tmp_path / "compare"}
    assert run("sr_var_verification", words(flags)).code == EXIT_DATA
    with pytest.raises(
        CheckpointError, match=r"--functional filter:-1\.0,1\.0@2, not those of pixels"
    ):
        load_var_net(str(tmp_path / "net" / "model000002.pt"))


def test_run_goes_on_with_its_own_functional(pipeline: Pipeline, tmp_path: Path) -> None:
    done("sr_var_train", _flags(pipeline, tmp_path, functional="block:2", loss="itakura_saito"))
    again = {"resume_checkpoint": "auto", "max_step": 3, "loss": "itakura_saito"}
    done("sr_var_train", _flags(pipeline, tmp_path, **again))
    assert load_args(tmp_path / "log" / "var_model_args.pkl")["functional"] == "block:2"
    other = {**again, "functional": "block:4", "strict_flags": True}
    outcome = run("sr_var_train", _flags(pipeline, tmp_path, **other))
    assert outcome.code == EXIT_CHECKPOINT and "functional" in outcome.err


def test_flag_that_names_no_functional_ends_the_script(pipeline: Pipeline, tmp_path: Path) -> None:
    outcome = run("sr_var_train", _flags(pipeline, tmp_path, functional="block:99"))
    assert outcome.code == EXIT_USAGE and "--functional 'block:99'" in outcome.err
