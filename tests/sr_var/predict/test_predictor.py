"""`Predictor` on arrays and tensors, what it refuses, and the lazy names of the package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sr_var
from sr_var import Prediction, Predictor, load_mean_net, load_var_net
from sr_var.flags.scripts import VarModelFlags
from sr_var.predict.nets import load_pair
from sr_var.script_util import create_var_model
from sr_var.stored_flags import save_model_args
from tests.sr_var.predict.conftest import Nets
from tests.sr_var.predict.pairs import SUBPIXEL, subpixel_pair, unet_pair
from tests.tiny import ROOT, photo, save_weights
from utils.process.errors import CheckpointError

IMAGE = photo(5, (11, 14))
PREDICTOR = Predictor(subpixel_pair(), tile=6)
FIELDS = ("mean", "std", "lower", "upper")


def test_arrays_of_bytes_give_grey_levels() -> None:
    found = PREDICTOR(IMAGE)
    assert isinstance(found, Prediction)
    x = torch.from_numpy(IMAGE).permute(2, 0, 1)[None].float() / 127.5 - 1
    mean, variance = (part[0].permute(1, 2, 0).numpy() for part in PREDICTOR.pair(x))
    np.testing.assert_allclose(found.mean, (mean + 1) * 127.5, rtol=0, atol=2e-3)
    np.testing.assert_allclose(found.std, np.sqrt(variance) * 127.5, rtol=1e-3)
    np.testing.assert_allclose(found.upper - found.mean, 1.6448536 * found.std, rtol=1e-3)
    assert {getattr(found, name).dtype for name in FIELDS} == {np.dtype(np.float32)}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_give_results_in_their_unit(dtype: Any) -> None:
    found, grey = PREDICTOR((IMAGE / 255).astype(dtype)), PREDICTOR(IMAGE)
    for name in FIELDS:
        near = 0.01 if dtype == np.float16 else 1e-5
        np.testing.assert_allclose(getattr(found, name), getattr(grey, name) / 255, atol=near)


@pytest.mark.parametrize("is_float", [False, True])
def test_tensors_give_tensors(is_float: bool) -> None:
    image = torch.from_numpy(IMAGE).permute(2, 0, 1)
    found = PREDICTOR(image / 255 if is_float else image)
    assert isinstance(found.std, torch.Tensor) and found.std.shape == (3, 44, 56)
    scale = 255 if is_float else 1
    wanted = torch.from_numpy(PREDICTOR(IMAGE).std).permute(2, 0, 1) / scale
    torch.testing.assert_close(found.std, wanted, rtol=1e-3, atol=1e-4)


def test_grey_images_are_shown_to_each_channel() -> None:
    grey = IMAGE[..., 0]
    wanted = PREDICTOR(np.stack([grey] * 3, axis=2)).mean
    for image in (grey, grey[..., None]):
        np.testing.assert_array_equal(PREDICTOR(image).mean, wanted)


def test_tiles_are_the_rows_of_the_whole() -> None:
    whole, rows = PREDICTOR(IMAGE), dict(PREDICTOR.tiles(IMAGE))
    assert list(rows) == [0, 24]
    for name in FIELDS:
        parts = [getattr(part, name) for part in rows.values()]
        np.testing.assert_array_equal(np.concatenate(parts), getattr(whole, name))
    for row, part in PREDICTOR.tiles(torch.from_numpy(IMAGE).permute(2, 0, 1)):
        np.testing.assert_array_equal(part.mean.permute(1, 2, 0), rows[row].mean)


def test_an_image_that_was_given_stays_as_it_is() -> None:
    image = IMAGE / np.float32(255)
    before = image.copy()
    PREDICTOR(image)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize(
    ("image", "part"),
    [
        (np.zeros((4, 4, 4), np.uint8), "(h, w, 3)"),
        (np.zeros((1, 4, 4, 3), np.uint8), "(h, w, 3)"),
        (np.zeros((0, 4, 3), np.uint8), "shape (0, 4, 3)"),
        (torch.zeros(4, 4, 3), "(3, h, w)"),
        (np.zeros((4, 4, 3), np.int64), "int64"),
        (np.full((4, 4, 3), 200.0), "[0, 1]"),
        (np.full((4, 4, 3), np.nan), "nan"),
        (np.full((4, 4, 3), -0.1), "-0.1"),
    ],
)
def test_other_images_are_refused(image: Any, part: str) -> None:
    with pytest.raises(ValueError) as told:
        PREDICTOR(image)
    assert part in str(told.value)


@pytest.mark.parametrize("level", [0, 1, -0.5, float("nan")])
def test_a_level_must_be_a_share(level: float) -> None:
    with pytest.raises(ValueError, match="level"):
        Predictor(PREDICTOR.pair, level=level)


def test_a_variance_below_zero_is_a_std_of_zero() -> None:
    pair = subpixel_pair()
    object.__setattr__(pair.var_net.config, "last_layer_type", "none")
    pair.var_net.out[0].bias.fill_(-100.0)  # type: ignore[index,union-attr]
    found = Predictor(pair)(IMAGE)
    assert (found.std == 0).all() and (found.lower == found.mean).all()


def test_networks_of_checkpoints(subpixel_nets: Nets) -> None:
    mean, var = str(subpixel_nets.mean), str(subpixel_nets.var)
    said: list[str] = []
    predictor = Predictor.from_checkpoints(mean, var, "cpu", level=0.5, tile=4, log=said.append)
    assert predictor.level == 0.5 and predictor.factor == 4 and any("sha256" in s for s in said)
    found = predictor(IMAGE)
    x = torch.from_numpy(IMAGE).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.inference_mode():
        by_hand = load_mean_net(mean, log=said.append)(x, (44, 56))
        variance = load_var_net(var, log=said.append)(x, by_hand)
    np.testing.assert_allclose(
        found.mean, (by_hand[0].permute(1, 2, 0) + 1) * 127.5, rtol=0, atol=2e-3
    )
    np.testing.assert_allclose(
        found.std, variance[0].permute(1, 2, 0).sqrt() * 127.5, rtol=0, atol=2e-2
    )


def test_a_mean_net_is_no_variance_net(subpixel_nets: Nets) -> None:
    with pytest.raises(CheckpointError, match="no variance net"):
        load_var_net(str(subpixel_nets.mean))
    with pytest.raises(CheckpointError, match="no mean net"):
        load_mean_net(str(subpixel_nets.var))


def test_importing_the_package_takes_no_torch() -> None:
    code = "import sys, sr_var; dir(sr_var); assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


def test_every_public_name_is_there() -> None:
    for name in ("Prediction", "Predictor", "load_mean_net", "load_var_net"):
        assert name in dir(sr_var)
        assert getattr(sr_var, name).__name__ == name and name in dir(sr_var)
    with pytest.raises(AttributeError, match="Predictr"):
        _ = sr_var.Predictr


def test_networks_of_two_tasks_are_refused(subpixel_nets: Nets, tmp_path: Path) -> None:
    other = {**SUBPIXEL, "small_size": 16}
    path = save_weights(create_var_model(**other), tmp_path / "var" / "model000001.pt")
    save_model_args(str(tmp_path), VarModelFlags(**other))
    with pytest.raises(CheckpointError, match=r"8 → 32 .* 16 → 32"):
        load_pair(
            str(subpixel_nets.mean), str(path), var_args_path=str(tmp_path / "var_model_args.pkl")
        )


def test_one_pixel_is_an_image() -> None:
    for pair in (subpixel_pair(), unet_pair(channel_mult="1,1,1,2", attention_resolutions="4")):
        assert Predictor(pair)(IMAGE[:1, :1]).mean.shape == (4, 4, 3)
