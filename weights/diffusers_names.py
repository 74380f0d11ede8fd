"""The U-Nets of denoisers as diffusers' `UNet2DModel` has them: its flags, and the same weights.

Both are the U-Net of Ho et al. 2020 (arXiv 2006.11239) with the options of Dhariwal & Nichol 2021
(arXiv 2105.05233), and differ in names, in how queries, keys and values lie, and in what must be
equal at all levels there and need not be here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from models.blocks import AttentionBlock, Downsample, ResBlock, Torso
from models.config import UNetConfig
from models.layers import GroupNorm32
from models.unet import SuperResModel, TimeConditionedUNet

Names = Iterator[tuple[str, str]]  # ours and theirs, without what follows the last dot

_RES_BLOCK = (
    ("in_layers.0", "norm1"),
    ("in_layers.2", "conv1"),
    ("emb_layers.1", "time_emb_proj"),
    ("out_layers.0", "norm2"),
    ("out_layers.3", "conv2"),
    ("skip_connection", "conv_shortcut"),
)
_ENDS = (
    ("time_embed.0", "time_embedding.linear_1"),
    ("time_embed.2", "time_embedding.linear_2"),
    ("label_emb", "class_embedding"),
    ("input_blocks.0.0", "conv_in"),
    ("out.0", "conv_norm_out"),
    ("out.2", "conv_out"),
)


def unet2d_config(network: TimeConditionedUNet | SuperResModel) -> dict[str, Any]:
    """The flags of a `UNet2DModel` that computes the same as the network.

    Raises:
        ValueError: there is none; names the flag that is in the way.
    """
    config = network.config
    _refuse_other_layers(config)
    levels = len(config.widths)
    attends = [2**level in config.attention_factors for level in range(levels)]
    resampling = "resnet" if config.resblock_updown else "conv"
    plain = ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D")
    down, up = plain if config.resblock_updown else ("DownBlock2D", "UpBlock2D")
    num_groups = _num_groups(network)
    return {
        "_class_name": "UNet2DModel",
        "sample_size": config.short_side if config.is_square else list(config.image_sides),
        "in_channels": (network.num_input_images - 1) * config.in_channels + config.x_channels,
        "out_channels": config.out_channels,
        "center_input_sample": False,
        "time_embedding_type": "positional",
        "time_embedding_dim": config.time_embed_dim,
        "freq_shift": 0,
        "flip_sin_to_cos": True,
        "down_block_types": ["AttnDownBlock2D" if is_on else down for is_on in attends],
        "mid_block_type": "UNetMidBlock2D",
        "up_block_types": ["AttnUpBlock2D" if is_on else up for is_on in reversed(attends)],
        "block_out_channels": list(config.widths),
        "layers_per_block": config.num_res_blocks,
        "mid_block_scale_factor": 1,
        "downsample_padding": 1,
        "downsample_type": resampling,
        "upsample_type": resampling,
        "dropout": config.dropout,
        "act_fn": "silu",
        "attention_head_dim": _head_dim(network),
        "norm_num_groups": num_groups,
        # without it, the bottleneck's attention has no norm where the embedding scales and shifts
        "attn_norm_num_groups": num_groups,
        "norm_eps": 1e-5,
        "resnet_time_scale_shift": "scale_shift" if config.use_scale_shift_norm else "default",
        "add_attention": True,
        "class_embed_type": None,
        "num_class_embeds": config.num_classes,
        "num_train_timesteps": None,
    }


def unet2d_weights(network: TimeConditionedUNet | SuperResModel) -> dict[str, Tensor]:
    """Name → tensor of the `UNet2DModel` of `unet2d_config`, in the network's precision."""
    state = network.state_dict()
    weights: dict[str, Tensor] = {}
    for ours, theirs in _all_names(network):
        module = network.get_submodule(ours)
        if isinstance(module, AttentionBlock):
            weights.update(_attention(module, theirs))
            continue
        for end in ("weight", "bias"):
            if f"{ours}.{end}" in state:
                weights[f"{theirs}.{end}"] = state[f"{ours}.{end}"]
    return weights


def _refuse_other_layers(config: UNetConfig) -> None:
    """Refuse what `UNet2DModel` has no flag for."""
    remedy = "give --format onnx or torch_export, or train without it"
    if config.dims != 2:
        raise ValueError(f"--dims {config.dims}: diffusers' UNet2DModel has 2 axes; {remedy}")
    if config.act != "silu":
        raise ValueError(
            f"--act {config.act}: the time embedding and the last layer of diffusers' UNet2DModel "
            f"have silu alone; {remedy}"
        )
    if config.predict_residual:
        raise ValueError(
            f"--predict_residual True: diffusers' UNet2DModel adds no image to its output; {remedy}"
        )
    if not config.conv_resample and not config.resblock_updown:
        raise ValueError(
            "--conv_resample False: diffusers' UNet2DModel resamples by convolutions or inside "
            f"residual blocks; {remedy}"
        )
    if config.widths[0] != config.model_channels:
        name, mult = config.flag("channel_mult"), config.channel_mult[0]
        raise ValueError(
            f"{name} {mult:g},…: diffusers' UNet2DModel has a time embedding as wide as its first "
            f"level, so the first multiplier must be 1; {remedy}"
        )


def _num_groups(network: Torso) -> int:
    """The number of groups of every norm.

    Raises:
        ValueError: they differ.
    """
    norms = {one.num_groups for one in network.modules() if isinstance(one, GroupNorm32)}
    if len(norms) > 1:
        config = network.config
        raise ValueError(
            f"{config.flag('model_channels')} {config.model_channels} with "
            f"{config.flag('channel_mult')} {','.join(f'{one:g}' for one in config.channel_mult)}: "
            f"the norms have {' and '.join(map(str, sorted(norms)))} groups, and diffusers' "
            "UNet2DModel has one number for all; give --format onnx or torch_export, or train with "
            "widths that are multiples of 32"
        )
    return norms.pop()


def _head_dim(network: Torso) -> int | None:
    """Channels of every attention head; None: one head everywhere.

    Raises:
        ValueError: they differ.
    """
    blocks = [one for one in network.modules() if isinstance(one, AttentionBlock)]
    dims = {one.proj_out.out_channels // one.num_heads for one in blocks}
    if len(dims) == 1:
        return dims.pop()
    if all(one.num_heads == 1 for one in blocks):
        return None
    config = network.config
    name = "num_heads" if config.num_heads_upsample == -1 else "num_heads_upsample"
    raise ValueError(
        f"{config.flag(name)} {getattr(config, name)}: the heads have "
        f"{' and '.join(map(str, sorted(dims)))} channels, and diffusers' UNet2DModel has one "
        f"number for all; give --format onnx or torch_export, or train with "
        f"{config.flag('num_head_channels')} {math.gcd(*dims)}"
    )


def _all_names(network: TimeConditionedUNet | SuperResModel) -> Names:
    """Every module with weights; attention blocks as a whole."""
    own = dict(network.named_modules())
    yield from ((ours, theirs) for ours, theirs in _ENDS if ours in own)
    per_level = network.config.num_res_blocks + 1  # with the layer that changes the resolution
    for index, block in enumerate(network.input_blocks[1:]):
        level, place = divmod(index, per_level)
        stage = "downsamplers.0" if place == per_level - 1 else f"resnets.{place}"
        yield from _block(block, f"input_blocks.{index + 1}", f"down_blocks.{level}", stage)
    yield from _layer(network.middle_block[0], "middle_block.0", "mid_block.resnets.0")
    yield from _layer(network.middle_block[1], "middle_block.1", "mid_block.attentions.0")
    yield from _layer(network.middle_block[2], "middle_block.2", "mid_block.resnets.1")
    for index, block in enumerate(network.output_blocks):
        level, place = divmod(index, per_level)
        yield from _block(block, f"output_blocks.{index}", f"up_blocks.{level}", f"resnets.{place}")


def _block(block: nn.Module, ours: str, theirs: str, stage: str) -> Names:
    """The layers of a block: `stage`, attention beside it, and what doubles the resolution."""
    for name, layer in block.named_children():
        if isinstance(layer, AttentionBlock):
            stage = stage.replace("resnets", "attentions")
        elif name != "0":
            stage = "upsamplers.0"
        yield from _layer(layer, f"{ours}.{name}", f"{theirs}.{stage}")


def _layer(layer: nn.Module, ours: str, theirs: str) -> Names:
    own = dict(layer.named_modules())
    if isinstance(layer, ResBlock):
        for inner, outer in _RES_BLOCK:
            if inner in own:
                yield f"{ours}.{inner}", f"{theirs}.{outer}"
    elif isinstance(layer, AttentionBlock):
        yield ours, theirs
    else:  # a convolution before or after which the resolution changes
        yield f"{ours}.{'op' if isinstance(layer, Downsample) else 'conv'}", f"{theirs}.conv"


def _attention(block: AttentionBlock, name: str) -> dict[str, Tensor]:
    """Their weights of an attention block: queries, keys and values apart, the heads in order."""
    weight, bias = block.qkv.weight.squeeze(-1), block.qkv.bias
    assert bias is not None and block.proj_out.bias is not None
    channels = weight.shape[1]
    head_dim = channels // block.num_heads
    axis = 0 if block.use_new_order else 1
    order = [block.num_heads, head_dim]
    order.insert(axis, 3)
    found = {
        f"{name}.group_norm.weight": block.norm.weight,
        f"{name}.group_norm.bias": block.norm.bias,
        f"{name}.to_out.0.weight": block.proj_out.weight.squeeze(-1),
        f"{name}.to_out.0.bias": block.proj_out.bias,
    }
    weights = weight.reshape(*order, channels).unbind(axis)  # each (H, D, C)
    biases = bias.reshape(order).unbind(axis)
    for part, rows, offsets in zip(("to_q", "to_k", "to_v"), weights, biases, strict=True):
        found[f"{name}.{part}.weight"] = rows.reshape(channels, channels)
        found[f"{name}.{part}.bias"] = offsets.reshape(channels)
    return found
