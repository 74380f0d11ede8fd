"""The noise-aware classifier: pools by their formulas, what logits depend on, casts, errors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.config import POOLS, EncoderConfig
from models.encoder import AttentionPool, EncoderUNet
from models.unet import TimeConditionedUNet
from tests.models.nets import fill, noise, small_config

TIMESTEPS = torch.tensor([3, 500])
X = noise(2, 3, 16, 16)
NUM_CLASSES = 7


def classifier(pool: str, **changes: Any) -> EncoderUNet:
    """Return a small classifier with weights that are not zero."""
    unet = small_config(**changes)
    return fill(EncoderUNet(EncoderConfig(unet=unet, num_classes=NUM_CLASSES, pool=pool)))


def bottleneck(model: EncoderUNet, x: Tensor) -> Tensor:
    """Return what leaves the middle block."""
    outputs: list[Tensor] = []
    hook = model.middle_block.register_forward_hook(lambda *call: outputs.append(call[2]))
    model(x, TIMESTEPS)
    hook.remove()
    return outputs[0]


# -- Pools


def test_embedding_way_down_and_bottleneck_are_those_of_a_unet() -> None:
    config = small_config(use_scale_shift_norm=True, resblock_updown=True)
    unet, model = fill(TimeConditionedUNet(config)), classifier("adaptive", **vars(config))
    shared = {k: v for k, v in model.state_dict().items() if not k.startswith("out.")}
    assert all(torch.equal(unet.state_dict()[name], value) for name, value in shared.items())
    outputs: list[Tensor] = []
    unet.middle_block.register_forward_hook(lambda *call: outputs.append(call[2]))
    unet(X, TIMESTEPS)
    assert torch.equal(bottleneck(model, X), outputs[0])


def test_attention_pool_equals_its_formula() -> None:
    channels, heads, num_places = 12, 3, 6
    pool = fill(AttentionPool(channels, num_places, heads, 5)).double()
    h = noise(2, channels, 2, 3).double()
    tokens = torch.cat([h.flatten(2).mean(2, keepdim=True), h.flatten(2)], dim=2)  # (N, C, L + 1)
    tokens = tokens + pool.positional_embedding
    qkv = torch.einsum("oc,ncl->nol", pool.qkv_proj.weight[:, :, 0], tokens)
    query, key, value = (qkv + pool.qkv_proj.bias[:, None]).split(channels, dim=1)
    expected = torch.zeros(2, channels, dtype=torch.float64)
    for head in range(heads):
        rows = slice(4 * head, 4 * head + 4)
        for n in range(2):
            scores = query[n, rows, 0] @ key[n, rows] / 2.0  # (L + 1,), the root of 4
            weights = scores.exp() / scores.exp().sum()
            expected[n, rows] = value[n, rows] @ weights
    torch.testing.assert_close(pool.pool(h), expected)
    logits = expected @ pool.c_proj.weight[:, :, 0].T + pool.c_proj.bias
    torch.testing.assert_close(pool(h), logits)


def test_the_head_with_attention_sees_the_normalised_bottleneck() -> None:
    model = classifier("attention").double()
    norm, pool = model.out[0], model.out[2]
    assert isinstance(norm, nn.GroupNorm)
    h = F.silu(F.group_norm(bottleneck(model, X.double()), 32, norm.weight, norm.bias))
    torch.testing.assert_close(model(X.double(), TIMESTEPS), pool(h))


def test_adaptive_pool_averages_the_normalised_bottleneck() -> None:
    model = classifier("adaptive").double()
    norm, conv = model.out[0], model.out[3]
    assert isinstance(norm, nn.GroupNorm) and isinstance(conv, nn.Conv2d)
    h = F.silu(F.group_norm(bottleneck(model, X.double()), 32, norm.weight, norm.bias))
    expected = h.mean((2, 3)) @ conv.weight[:, :, 0, 0].T + conv.bias
    torch.testing.assert_close(model(X.double(), TIMESTEPS), expected)


@pytest.mark.parametrize("pool", ["spatial", "spatial_v2"])
def test_spatial_pools_see_the_mean_of_every_block(pool: str) -> None:
    model = classifier(pool).double()
    means: list[Tensor] = []
    for block in (*model.input_blocks, model.middle_block):
        block.register_forward_hook(lambda *call: means.append(call[2].mean((2, 3))))
    logits = model(X.double(), TIMESTEPS)
    features = torch.cat(means, dim=1)
    # 32 + 32 + 32 on the first level (its last block halves), 64 below, 64 in the middle.
    assert features.shape == (2, 32 + 32 + 32 + 64 + 64)
    first, last = model.out[0], model.out[-1]
    assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear)
    hidden = features @ first.weight.T + first.bias
    if pool == "spatial":
        hidden = hidden.clamp(min=0)
    else:
        norm = model.out[1]
        assert isinstance(norm, nn.GroupNorm)
        groups = hidden.reshape(2, 32, 64)
        groups = (groups - groups.mean(2, keepdim=True)) / (
            groups.var(2, keepdim=True, unbiased=False) + norm.eps
        ).sqrt()
        hidden = groups.reshape(2, 2048) * norm.weight + norm.bias
        hidden = hidden * hidden.sigmoid()
    torch.testing.assert_close(logits, hidden @ last.weight.T + last.bias)


@pytest.mark.parametrize(
    ("pool", "last"),
    [("adaptive", "out.3"), ("attention", "out.2.c_proj"), ("spatial", "out.2")]
    + [("spatial_v2", "out.3")],
)
def test_logits_are_affine_in_the_features(pool: str, last: str) -> None:
    model = classifier(pool)
    features = model.features(X, TIMESTEPS)
    assert features.shape == (2, 2048 if pool.startswith("spatial") else 64)
    weight = model.get_parameter(f"{last}.weight").flatten(1)
    expected = features @ weight.T + model.get_parameter(f"{last}.bias")
    torch.testing.assert_close(model(X, TIMESTEPS), expected, atol=1e-5, rtol=1e-5)


def test_a_new_adaptive_classifier_knows_nothing() -> None:
    config = EncoderConfig(unet=small_config(), num_classes=NUM_CLASSES, pool="adaptive")
    assert not EncoderUNet(config)(X, TIMESTEPS).any()


# -- What the logits depend on


@pytest.mark.parametrize("pool", POOLS)
def test_gradients_reach_every_parameter_and_the_image(pool: str) -> None:
    model = classifier(pool)
    x = X.clone().requires_grad_()
    logits = model(x, TIMESTEPS)
    assert logits.shape == (2, NUM_CLASSES)
    F.cross_entropy(logits, torch.tensor([0, 5])).backward()
    assert x.grad is not None and x.grad.flatten(1).any(1).all()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


@pytest.mark.parametrize("pool", POOLS)
def test_logits_depend_on_the_timestep(pool: str) -> None:
    logits = classifier(pool)(X[:1].expand(2, -1, -1, -1), TIMESTEPS)
    assert (logits[0] - logits[1]).abs().max() > 1e-3


@pytest.mark.parametrize("pool", POOLS)
def test_images_of_a_batch_do_not_influence_each_other(pool: str) -> None:
    model = classifier(pool)
    single_process = model(X[1:], TIMESTEPS[1:])
    torch.testing.assert_close(model(X, TIMESTEPS)[1:], single_process, atol=2e-5, rtol=1e-5)


def test_signals_have_places_and_volumes_only_averages() -> None:
    for pool in POOLS:
        assert classifier(pool, dims=1)(noise(2, 3, 16), TIMESTEPS).shape == (2, NUM_CLASSES)
        if pool != "attention":
            volume = noise(2, 3, 5, 16, 16)
            assert classifier(pool, dims=3)(volume, TIMESTEPS).shape == (2, NUM_CLASSES)


# -- Precision


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.01), (torch.bfloat16, 0.06)])
def test_only_convolutions_of_the_torso_are_cast_and_logits_stay_near(
    pool: str, dtype: torch.dtype, tolerance: float
) -> None:
    expected = classifier(pool)(X, TIMESTEPS)
    model = classifier(pool)
    model.convert_torso(dtype)
    for name, parameter in model.named_parameters():
        is_torso = name.startswith(("input_blocks", "middle_block"))
        is_norm = any(part in name for part in ("in_layers.0", "out_layers.0", "norm"))
        is_cast = is_torso and not is_norm and "emb_layers" not in name
        assert parameter.dtype == (dtype if is_cast else torch.float32), name
    logits = model(X, TIMESTEPS)
    assert logits.dtype == torch.float32
    error = (logits - expected).abs().max() / expected.std()
    assert 0 < error < tolerance
    assert model.features(X, TIMESTEPS).dtype == torch.float32


def test_checkpointing_changes_no_gradient() -> None:
    grads = []
    for use_checkpoint in (False, True):
        x = X.clone().requires_grad_()
        logits = classifier("attention", use_checkpoint=use_checkpoint)(x, TIMESTEPS)
        grads.append(torch.autograd.grad(logits.square().sum(), x)[0])
    assert torch.equal(*grads)


# -- Errors


def test_importing_the_config_does_not_import_torch() -> None:
    code = "import sys, models.config; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


@pytest.mark.parametrize(
    ("changes", "unet_changes", "words"),
    [
        ({"num_classes": 0}, {}, ["--num_classes 0", "positive"]),
        ({"pool": "max"}, {}, ["--pool 'max'", "adaptive, attention, spatial, spatial_v2"]),
        ({"pool": "attention"}, {"dims": 3}, ["--pool attention", "--dims 3", "--pool adaptive"]),
        ({}, {"num_classes": 4}, ["--num_classes 4", "None"]),
        ({}, {"out_channels": 6}, ["--out_channels 6", "at 3"]),
        ({}, {"num_heads_upsample": 2}, ["--num_heads_upsample 2", "at -1"]),
        ({}, {"predict_residual": True}, ["--predict_residual True", "at False"]),
        ({}, {"last_layer_type": "exp"}, ["--last_layer_type exp", "at none"]),
    ],
)
def test_a_wrong_field_is_refused_with_its_flag_its_value_and_a_remedy(
    changes: dict[str, Any], unet_changes: dict[str, Any], words: list[str]
) -> None:
    fields: dict[str, Any] = {"unet": small_config(**unet_changes), "num_classes": 4}
    with pytest.raises(ValueError) as error:
        EncoderConfig(**{**fields, **changes})
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("shape", "timesteps", "words"),
    [
        ((2, 3, 8, 8), TIMESTEPS, "--image_size 16"),
        ((2, 3, 16, 15), TIMESTEPS, "divisible by 2"),
        ((2, 4, 16, 16), TIMESTEPS, "3 channels"),
        ((2, 3, 16, 16), TIMESTEPS[:1], "timesteps of shape"),
    ],
)
def test_wrong_inputs_are_refused(shape: tuple[int, ...], timesteps: Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        classifier("attention")(noise(*shape), timesteps)


def test_without_positions_other_sizes_work() -> None:
    assert classifier("adaptive")(noise(2, 3, 8, 22), TIMESTEPS).shape == (2, NUM_CLASSES)
