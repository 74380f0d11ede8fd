"""The nets against the numbers of the reference implementations: names, shapes, outputs."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.config import (
    UNetConfig,
    default_diffusion_channel_mult,
    parse_attention_resolutions,
    parse_channel_mult,
)
from models.layers import timestep_embedding
from models.unet import SuperResModel, UNetBase, UNetModel, VarianceModel
from tests.golden_recipe import GOLDENS_DIR, gauss, image
from tests.models.nets import fill
from utils.debug_util import count_parameters

KEY_FILES = sorted(path.stem for path in GOLDENS_DIR.glob("keys_*.json"))
NETS = {"mean": UNetModel, "var": VarianceModel, "sr": SuperResModel}

# Float32 kernels of different CPUs agree to about 4e-6 on outputs of order 1.
TOLERANCE = 5e-5


def read_keys(stem: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((GOLDENS_DIR / f"{stem}.json").read_text())
    return content


def config_of(flags: dict[str, Any], **changes: Any) -> UNetConfig:
    """Translate the flags of a keys file; flags that no network reads are left out."""
    text = flags.get("channel_mult")
    fields = {
        "image_size": flags["large_size"],
        "channel_mult": (
            parse_channel_mult(text)
            if text
            else default_diffusion_channel_mult(flags["large_size"])
        ),
        "model_channels": flags.get("num_channels") or flags["model_channels"],
        "attention_resolutions": parse_attention_resolutions(flags["attention_resolutions"]),
        "num_classes": 1000 if flags.get("class_cond") else None,
        "out_channels": 6 if flags.get("learn_sigma") else 3,
    }
    for name in (
        "num_res_blocks",
        "num_heads",
        "num_head_channels",
        "resblock_updown",
        "use_scale_shift_norm",
        "last_layer_type",
    ):
        if name in flags:
            fields[name] = flags[name]
    return UNetConfig(**{**fields, **changes})


def as_tensor(array: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(np.asarray(array))


@pytest.mark.parametrize("stem", KEY_FILES)
def test_state_dict_has_the_names_shapes_and_order_of_the_reference(stem: str) -> None:
    golden = read_keys(stem)
    net_class = NETS[stem.split("_")[1]]
    with torch.device("meta"):
        model: UNetBase = net_class(config_of(golden["flags"]))
    assert [[k, list(v.shape)] for k, v in model.state_dict().items()] == golden["keys"]
    assert count_parameters(model) == golden["n_params"]


def test_every_kind_of_net_has_a_keys_file() -> None:
    assert {stem.split("_")[1] for stem in KEY_FILES} == set(NETS)


@pytest.mark.parametrize("name", ["mean_small_updown", "mean_small_plain", "mean_small_attn16"])
def test_mean_net_reproduces_the_reference(name: str) -> None:
    expected = np.load(GOLDENS_DIR / "nets_small.npz")[name]
    model = fill(UNetModel(config_of(read_keys(f"keys_{name}")["flags"])))
    with torch.no_grad():
        output = model(as_tensor(image("input:mean:x", (2, 3, 32, 32))))
    np.testing.assert_allclose(output.numpy(), expected, atol=TOLERANCE, rtol=0)


def test_loss_and_gradient_reproduce_the_reference() -> None:
    name = "mean_small_attn16"
    golden = np.load(GOLDENS_DIR / "nets_small.npz")
    model = fill(UNetModel(config_of(read_keys(f"keys_{name}")["flags"])))
    label = as_tensor(image("input:mean:label", (2, 3, 32, 32)))
    loss = (model(as_tensor(image("input:mean:x", (2, 3, 32, 32)))) - label).square().mean()
    loss.backward()
    assert loss.item() == pytest.approx(float(golden[f"{name}.mse"]), abs=TOLERANCE)
    prefix = f"{name}.grad."
    names = [key.removeprefix(prefix) for key in golden.files if key.startswith(prefix)]
    assert names
    for parameter_name in names:
        grad = model.get_parameter(parameter_name).grad
        assert grad is not None
        # The largest entry is 0.02 and the deviation measured 5e-8.
        np.testing.assert_allclose(grad.numpy(), golden[prefix + parameter_name], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("name", "is_updown", "last_layer_type"),
    [("var_small_updown_none", True, "none"), ("var_small_plain_exp", False, "exp")],
)
def test_variance_net_reproduces_the_reference(
    name: str, is_updown: bool, last_layer_type: str
) -> None:
    expected = np.load(GOLDENS_DIR / "nets_small.npz")[name]
    config = config_of(
        read_keys("keys_mean_small_updown")["flags"],
        attention_resolutions=(16,),
        resblock_updown=is_updown,
        last_layer_type=last_layer_type,
    )
    model = fill(VarianceModel(config))
    with torch.no_grad():
        output = model(as_tensor(image("input:var:x", (2, 6, 32, 32))))
    np.testing.assert_allclose(output.numpy(), expected, atol=TOLERANCE, rtol=0)


def test_upsampler_reproduces_the_reference() -> None:
    expected = np.load(GOLDENS_DIR / "nets_sr_small.npz")["t0_999"]
    model = fill(SuperResModel(config_of(read_keys("keys_sr_small")["flags"])))
    with torch.no_grad():
        output = model(
            as_tensor(gauss("input:sr:x", (2, 3, 64, 64))),
            torch.tensor([0, 999]),
            as_tensor(image("input:sr:low_res", (2, 3, 16, 16))),
            torch.tensor([7, 981]),
        )
    np.testing.assert_allclose(output.numpy(), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("dim", [2, 32, 33, 192])
def test_timestep_embedding_reproduces_the_reference(dim: int) -> None:
    expected = np.load(GOLDENS_DIR / "helpers.npz")[f"timestep_embedding.{dim}"]
    embedding = timestep_embedding(torch.tensor([0, 1, 10.5, 250, 999]), dim)
    # Float32 angles up to 999 are exact to 6e-5.
    np.testing.assert_allclose(embedding.numpy(), expected, atol=1e-4, rtol=0)


def test_timestep_embedding_accepts_integers_and_another_period() -> None:
    golden = np.load(GOLDENS_DIR / "helpers.npz")
    integers = timestep_embedding(torch.tensor([0, 1, 10, 250, 999]), 32)
    np.testing.assert_allclose(
        integers.numpy(), golden["timestep_embedding.int.32"], atol=1e-4, rtol=0
    )
    short = timestep_embedding(torch.tensor([0, 1, 10.5, 250, 999]), 16, max_period=100)
    np.testing.assert_allclose(
        short.numpy(), golden["timestep_embedding.16.period100"], atol=1e-4, rtol=0
    )
