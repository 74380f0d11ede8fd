"""Blocks of the U-Net against their formulas."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.blocks import AttentionBlock, BlockSequential, Downsample, ResBlock, Upsample
from tests.models.nets import fill, noise, small_config


def norm_silu(x: Tensor, norm: nn.Module) -> Tensor:
    assert isinstance(norm, nn.GroupNorm)
    return F.silu(F.group_norm(x, norm.num_groups, norm.weight, norm.bias))


@pytest.mark.parametrize("use_scale_shift_norm", [False, True])
def test_embedding_is_added_before_the_norm_or_scales_and_shifts_after_it(
    use_scale_shift_norm: bool,
) -> None:
    config = small_config(use_scale_shift_norm=use_scale_shift_norm)
    block = fill(ResBlock(config, 32, 64, 16))
    x, emb = noise(2, 32, 6, 6), noise(2, 16, seed=1)
    h = block.in_layers[2](norm_silu(x, block.in_layers[0]))
    e = block.emb_layers[1](F.silu(emb))[:, :, None, None]
    norm, conv = block.out_layers[0], block.out_layers[3]
    if use_scale_shift_norm:
        assert e.shape[1] == 128
        h = conv(F.silu(norm(h) * (1 + e[:, :64]) + e[:, 64:]))
    else:
        assert e.shape[1] == 64
        h = conv(norm_silu(h + e, norm))
    torch.testing.assert_close(block(x, emb), block.skip_connection(x) + h, atol=1e-5, rtol=0)


def test_block_without_embedding_has_no_embedding_layers() -> None:
    block = fill(ResBlock(small_config(), 32, 32, None))
    assert not any("emb" in name for name, _ in block.named_parameters())
    x = noise(1, 32, 4, 4)
    h = block.in_layers[2](norm_silu(x, block.in_layers[0]))
    h = block.out_layers[3](norm_silu(h, block.out_layers[0]))
    torch.testing.assert_close(block(x, None), x + h, atol=1e-5, rtol=0)


def test_residual_block_resamples_both_branches_before_the_first_convolution() -> None:
    x = noise(1, 32, 8, 8)
    down = fill(ResBlock(small_config(), 32, 32, None, "down"))
    h = down.in_layers[2](F.avg_pool2d(norm_silu(x, down.in_layers[0]), 2))
    h = down.out_layers[3](norm_silu(h, down.out_layers[0]))
    torch.testing.assert_close(down(x, None), F.avg_pool2d(x, 2) + h, atol=1e-5, rtol=0)
    up = fill(ResBlock(small_config(), 32, 32, None, "up"))
    nearest = norm_silu(x, up.in_layers[0]).repeat_interleave(2, 2).repeat_interleave(2, 3)
    h = up.out_layers[3](norm_silu(up.in_layers[2](nearest), up.out_layers[0]))
    skip = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(up(x, None), skip + h, atol=1e-5, rtol=0)


def test_new_residual_and_attention_blocks_are_the_identity() -> None:
    x = noise(2, 32, 4, 4)
    assert torch.equal(ResBlock(small_config(), 32, 32, None)(x, None), x)
    assert torch.equal(AttentionBlock(small_config(), 32)(x), x)


def test_dropout_acts_in_training_only() -> None:
    block = fill(ResBlock(small_config(dropout=0.5), 32, 32, None))
    x = noise(1, 32, 4, 4)
    assert not torch.equal(block(x, None), block(x, None))
    block.eval()
    assert torch.equal(block(x, None), block(x, None))


@pytest.mark.parametrize("use_new_attention_order", [False, True])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_attention_block_equals_its_formula(
    use_new_attention_order: bool, memory_format: torch.memory_format
) -> None:
    config = small_config(use_new_attention_order=use_new_attention_order)
    block = fill(AttentionBlock(config, 32))
    x = noise(2, 32, 3, 5).to(memory_format=memory_format)
    normed = F.group_norm(x, 32, block.norm.weight, block.norm.bias).flatten(2)
    qkv = block.qkv(normed)  # (N, 3 * C, L)
    if use_new_attention_order:
        heads = qkv.reshape(2, 3, 2, 16, 15).transpose(1, 2)
    else:
        heads = qkv.reshape(2, 2, 3, 16, 15)
    query, key, value = heads.unbind(2)  # each (N, H, D, L)
    weights = torch.softmax(query.transpose(2, 3) @ key / 4.0, dim=-1)  # (N, H, L, L)
    mixed = (value @ weights.transpose(2, 3)).reshape(2, 32, 15)
    expected = x + block.proj_out(mixed).reshape(x.shape)
    torch.testing.assert_close(block(x), expected, atol=1e-5, rtol=0)
    assert block(x).is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_resampling_leaves_the_first_of_three_axes_alone(dims: int) -> None:
    shape = [8] * dims
    half = [8, 4, 4] if dims == 3 else [4] * dims
    twice = [8, 16, 16] if dims == 3 else [16] * dims
    x = noise(1, 4, *shape)
    for use_conv in (False, True):
        assert Downsample(dims, 4, use_conv=use_conv)(x).shape == (1, 4, *half)
        assert Upsample(dims, 4, use_conv=use_conv)(x).shape == (1, 4, *twice)


def test_resampling_without_convolution_averages_and_repeats() -> None:
    x = noise(1, 4, 6, 6)
    down, up = Downsample(2, 4, use_conv=False), Upsample(2, 4, use_conv=False)
    assert not [*down.parameters(), *up.parameters()]
    torch.testing.assert_close(down(up(x)), x)
    torch.testing.assert_close(down(x), x.reshape(1, 4, 3, 2, 3, 2).mean((3, 5)))


def test_resampling_with_convolution_strides_or_follows_the_repetition() -> None:
    x = noise(1, 4, 6, 6)
    down, up = Downsample(2, 4, use_conv=True), Upsample(2, 4, use_conv=True)
    assert [name for name, _ in down.named_parameters()] == ["op.weight", "op.bias"]
    assert [name for name, _ in up.named_parameters()] == ["conv.weight", "conv.bias"]
    conv = down.op
    assert isinstance(conv, nn.Conv2d)
    full = F.conv2d(x, conv.weight, conv.bias, padding=1)
    torch.testing.assert_close(down(x), full[:, :, ::2, ::2], atol=1e-6, rtol=0)
    repeated = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(up(x), up.conv(repeated))


def test_a_sequence_gives_the_embedding_to_residual_blocks_only() -> None:
    res, att = fill(ResBlock(small_config(), 32, 32, 8)), fill(AttentionBlock(small_config(), 32))
    x, emb = noise(1, 32, 4, 4), noise(1, 8, seed=1)
    torch.testing.assert_close(BlockSequential(res, att)(x, emb), att(res(x, emb)))
