"""Recomputation and number formats: what may change the outputs, and by how much."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import models.blocks
from models.blocks import AttentionBlock
from models.layers import attention
from models.unet import SuperResModel, TimeConditionedUNet, UNetModel
from tests.models.nets import fill, noise, small_config

TIMESTEPS = torch.tensor([3, 500])


def gradients(model: UNetModel, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    model.zero_grad()
    output = model(x)
    torch.autograd.backward(output.square().mean())
    grads = [parameter.grad for parameter in model.parameters()]
    return output.detach(), [grad.clone() for grad in grads if grad is not None]


def test_checkpointing_changes_neither_output_nor_gradient() -> None:
    x = noise(2, 3, 16, 16)
    plain = fill(UNetModel(small_config()))
    saving = fill(UNetModel(small_config(use_checkpoint=True)))
    output, grads = gradients(plain, x)
    output_saving, grads_saving = gradients(saving, x)
    assert torch.equal(output, output_saving)
    assert len(grads) == len(grads_saving) == len(list(plain.parameters()))
    assert all(torch.equal(*pair) for pair in zip(grads, grads_saving, strict=True))


def test_checkpointing_repeats_the_dropout_of_the_forward_pass() -> None:
    x = noise(2, 3, 16, 16)
    results = []
    for use_checkpoint in (False, True):
        model = fill(UNetModel(small_config(dropout=0.3, use_checkpoint=use_checkpoint)))
        torch.manual_seed(0)
        results.append(gradients(model, x)[1])
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))


@pytest.mark.parametrize(("use_checkpoint", "runs_per_block"), [(False, 1), (True, 2)])
def test_attention_is_recomputed_only_with_use_checkpoint(
    use_checkpoint: bool, runs_per_block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def counting(qkv: Tensor, num_heads: int, *, use_new_order: bool) -> Tensor:
        calls.append(num_heads)
        return attention(qkv, num_heads, use_new_order=use_new_order)

    monkeypatch.setattr(models.blocks, "attention", counting)
    model = fill(UNetModel(small_config(use_checkpoint=use_checkpoint)))
    gradients(model, noise(1, 3, 16, 16))
    num_blocks = sum(isinstance(module, AttentionBlock) for module in model.modules())
    assert len(calls) == runs_per_block * num_blocks > 0


@pytest.mark.parametrize("use_checkpoint", [False, True])
def test_training_under_bf16_autocast_runs_and_is_near_float32(use_checkpoint: bool) -> None:
    x = noise(2, 3, 16, 16)
    model = fill(UNetModel(small_config(use_checkpoint=use_checkpoint)))
    expected, _ = gradients(model, x)
    model.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(x)
        loss = output.square().mean()
    loss.backward()
    assert output.dtype == torch.float32
    assert (output - expected).abs().mean() < 0.03 * expected.std()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_bf16_torso_runs_forward_and_backward_near_float32() -> None:
    x = noise(2, 3, 16, 16)
    expected, grads = gradients(fill(UNetModel(small_config())), x)
    model = fill(UNetModel(small_config()))
    model.convert_torso(torch.bfloat16)
    output, grads_bf16 = gradients(model, x)
    assert output.dtype == torch.float32
    error = (output - expected).abs().mean() / expected.std()
    # Eight significant bits through 20 layers; measured 0.008.
    assert 1e-4 < error < 0.03
    cosine = F.cosine_similarity(
        torch.cat([grad.flatten() for grad in grads]),
        torch.cat([grad.float().flatten() for grad in grads_bf16]),
        dim=0,
    )
    assert cosine > 0.999


@pytest.mark.parametrize(
    ("flag", "dtype"), [("use_fp16", torch.float16), ("use_bf16", torch.bfloat16)]
)
def test_only_convolutions_of_the_torso_are_cast_and_only_when_asked(
    flag: str, dtype: torch.dtype
) -> None:
    model = TimeConditionedUNet(small_config(num_classes=4, **{flag: True}))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    model.convert_torso(dtype)
    for name, parameter in model.named_parameters():
        is_torso = name.startswith(("input_blocks", "middle_block", "output_blocks"))
        is_norm = parameter.ndim == 1 and any(
            part in name for part in ("in_layers.0", "out_layers.0", "norm")
        )
        is_conv = is_torso and not is_norm and "emb_layers" not in name
        assert parameter.dtype == (dtype if is_conv else torch.float32), name
    model.convert_torso(torch.float32)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_nets_run_in_double_precision() -> None:
    config = small_config(num_classes=4, use_scale_shift_norm=True)
    args = (noise(2, 3, 16, 16), TIMESTEPS, noise(2, 3, 4, 4), torch.tensor([0, 3]))
    single = fill(SuperResModel(config))
    expected = single(*args)
    double = single.double()(args[0].double(), args[1], args[2].double(), args[3])
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), expected, atol=5e-5, rtol=0)
