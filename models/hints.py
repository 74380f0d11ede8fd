"""Guesses which flag is wrong from how a state_dict differs from a network. Builds no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

# Every U-Net has it, no classifier does.
_FIRST_OUTPUT_BLOCK = "output_blocks.0.0.in_layers.0.weight"
# Which head a name belongs to, those first that no other head has.
_NAMES_OF_POOLS = {
    "out.2.positional_embedding": "attention",
    "out.1.bias": "spatial_v2",
    "out.2.bias": "spatial",
    "out.3.bias": "adaptive",
}

Shapes = Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]


def guess_wrong_flag(missing: Sequence[str], unexpected: Sequence[str], misshaped: Shapes) -> str:
    """One sentence on the likeliest cause, or an empty string.

    Args:
        missing: names that the network has and the file lacks.
        unexpected: names that the file has and the network lacks.
        misshaped: name → (shape in the file, shape in the network).
    """
    misshaped = _of_equal_rank(misshaped)
    kind = _wrong_kind(missing, unexpected, misshaped)
    return _sentence(kind, missing, unexpected, misshaped)


def guess_wrong_encoder_flag(
    missing: Sequence[str], unexpected: Sequence[str], misshaped: Shapes
) -> str:
    """The same for a network that is a classifier; arguments as `guess_wrong_flag`."""
    misshaped = _of_equal_rank(misshaped)
    kind = _wrong_encoder_kind(missing, unexpected, misshaped)
    return _sentence(kind, missing, unexpected, misshaped)


def _of_equal_rank(misshaped: Shapes) -> Shapes:
    """Without tensors that no wrong flag explains, and whose sizes cannot be compared."""
    return {name: pair for name, pair in misshaped.items() if len(pair[0]) == len(pair[1])}


def _sentence(
    kind: str, missing: Sequence[str], unexpected: Sequence[str], misshaped: Shapes
) -> str:
    found = (
        kind
        or _wrong_width(misshaped)
        or _wrong_structure(missing, unexpected)
        or _wrong_norm(misshaped)
    )
    return f"likely cause: {found}" if found else ""


def _wrong_encoder_kind(
    missing: Sequence[str], unexpected: Sequence[str], misshaped: Shapes
) -> str:
    if _FIRST_OUTPUT_BLOCK in unexpected:
        return "the file is of a whole U-Net, the flags describe a classifier"
    there, here = misshaped.get("input_blocks.0.0.weight", ((0, 0), (0, 0)))
    if there[1] != here[1]:
        return f"the file is for images of {there[1]} channels, not {here[1]}: see --in_channels"
    pool = _pool_of_file(missing, unexpected)
    if pool:
        return f"the head of the file is another one: give --pool {pool}"
    there, here = misshaped.get("out.2.positional_embedding", ((0, 0), (0, 0)))
    if there[0] == here[0] and there[1] != here[1]:
        return f"the file's pool has {there[1] - 1} places, not {here[1] - 1}: see --image_size"
    for name in ("out.2.c_proj.bias", "out.3.bias", "out.2.bias"):
        there, here = misshaped.get(name, ((0,), (0,)))
        if there != here:
            return f"the file knows {there[0]} classes, not {here[0]}: see --num_classes"
    return ""


def _pool_of_file(missing: Sequence[str], unexpected: Sequence[str]) -> str:
    """The pool of the file, where it is another than the network's."""
    for name, pool in _NAMES_OF_POOLS.items():
        if name in unexpected:
            return pool
    # Of the others only the adaptive head has nothing where spatial_v2 has its norm.
    return "adaptive" if "out.1.bias" in missing else ""


def _wrong_kind(missing: Sequence[str], unexpected: Sequence[str], misshaped: Shapes) -> str:
    if _FIRST_OUTPUT_BLOCK in missing:
        return "the file is of a classifier, the flags describe a whole U-Net"
    if any(name.startswith("time_embed.") for name in unexpected):
        return "the file is of a diffusion model, the flags describe a mean or variance net"
    if any(name.startswith("time_embed.") for name in missing):
        return "the file is of a mean or variance net, the flags describe a diffusion model"
    if "label_emb.weight" in unexpected:
        return "the file is class-conditional: give --class_cond True"
    if "label_emb.weight" in missing:
        return "the file knows no classes: give --class_cond False"
    there, here = misshaped.get("label_emb.weight", ((0,), (0,)))
    if there[0] != here[0]:
        also = " (--class_dropout adds one)" if abs(there[0] - here[0]) == 1 else ""
        return f"the file knows {there[0]} classes, not {here[0]}: see --num_classes{also}"
    there, here = misshaped.get("input_blocks.0.0.weight", ((0, 0), (0, 0)))
    if there[1] != here[1]:
        return f"the file's net takes {there[1]} channels, not {here[1]} (mean or variance net?)"
    there, here = misshaped.get("out.2.weight", ((1,), (1,)))
    if there[0] == 2 * here[0]:
        return "the file predicts variances too: give --learn_sigma True"
    if here[0] == 2 * there[0]:
        return "the file predicts no variances: give --learn_sigma False"
    return ""


def _wrong_width(misshaped: Shapes) -> str:
    there, here = misshaped.get("input_blocks.0.0.weight", ((0,), (0,)))
    if there[0] != here[0]:
        return (
            f"the first layer of the file has {there[0]} channels, not {here[0]}: see "
            "--model_channels (--num_channels) and --channel_mult"
        )
    return ""


def _wrong_structure(missing: Sequence[str], unexpected: Sequence[str]) -> str:
    if not missing and not unexpected:
        return ""
    plain_there, plain_here = _num_resampling(unexpected), _num_resampling(missing)
    if plain_here and not plain_there:
        return "the file resamples inside residual blocks: give --resblock_updown True"
    if plain_there and not plain_here:
        return "the file resamples outside residual blocks: give --resblock_updown False"
    if _num_res_blocks(missing) != _num_res_blocks(unexpected):
        return "the file has another depth: see --num_res_blocks and --channel_mult"
    attention = [name for name in (*missing, *unexpected) if ".qkv." in name]
    return "attention sits elsewhere: see --attention_resolutions" if attention else ""


def _num_resampling(names: Sequence[str]) -> int:
    return sum(name.endswith((".op.weight", ".conv.weight")) for name in names)


def _num_res_blocks(names: Sequence[str]) -> int:
    return sum(name.endswith(".in_layers.0.weight") for name in names)


def _wrong_norm(misshaped: Shapes) -> str:
    if not misshaped:
        return ""
    # where widths differ, so do those of convolutions
    if all(".emb_layers.1." in name for name in misshaped):
        there, here = next(iter(misshaped.values()))
        if there[1:] == here[1:]:
            wanted = there[0] > here[0]
            return f"the embedding is used another way: give --use_scale_shift_norm {wanted}"
    return "widths differ from some level on: see --channel_mult"
