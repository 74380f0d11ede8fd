"""Reads from the names and shapes of a state_dict which U-Net or classifier it is of.

Builds no network. The names are anybody's: what does not follow the format of `models.torso` and
`models.unet` is left open. Not for saying which flag is wrong (`models.hints`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

Shapes = Mapping[str, tuple[int, ...]]
# residual blocks per level, number of levels, and what resamples between them
Depth = tuple[int, int, str | None]

_MOST_DIGITS = 6


@dataclass(frozen=True)
class Structure:
    """What the shapes tell; None, or 0 levels, where they leave it open.

    Attributes:
        is_whole: whether there is a way up, which classifiers lack.
        is_time_conditioned: whether the timestep is embedded.
        input_shape: of the weights of the first convolution.
        num_input_blocks: on the way down, the first convolution among them.
        num_res_blocks: per level.
        widths: channels of each level, finest first.
        attention: per level, whether attention follows its residual blocks.
        resampling: `updown` inside residual blocks, `conv`, or `pool` without parameters.
        model_channels: base width, from the embedding of the timestep.
        uses_scale_shift_norm: whether the embedding scales and shifts.
        num_classes: labels that are embedded, 0 without; of a classifier, its logits.
        out_channels: of a whole U-Net.
        pool: of a classifier.
        num_places: that the attention pool of a classifier knows.
    """

    is_whole: bool
    is_time_conditioned: bool
    input_shape: tuple[int, ...]
    num_input_blocks: int
    num_res_blocks: int | None = None
    widths: tuple[int, ...] = ()
    attention: tuple[bool, ...] = ()
    resampling: str | None = None
    model_channels: int | None = None
    uses_scale_shift_norm: bool | None = None
    num_classes: int | None = None
    out_channels: int | None = None
    pool: str | None = None
    num_places: int | None = None

    @property
    def num_levels(self) -> int:
        """Resolutions; 0 where they are not known."""
        return len(self.widths)


def read_structures(shapes: Shapes) -> list[Structure]:
    """Return every structure that a network of these shapes may have; none if it is another kind.

    There are several only of classifiers that resample inside residual blocks: nothing tells those
    from the others.

    Args:
        shapes: name → shape.
    """
    first = shapes.get("input_blocks.0.0.weight", ())
    inputs, outputs = (_indices(shapes, part) for part in ("input_blocks", "output_blocks"))
    # between two blocks with parameters lies at most one without
    if len(first) < 3 or max(inputs) > 2 * len(inputs):
        return []
    depth = _depth_of_unet(shapes, inputs, outputs)
    depths = [depth] if depth or outputs else _depths_of_classifier(shapes, max(inputs) + 1)
    num_labels = _size(shapes, "label_emb.weight", 0) or 0
    head = {"out_channels": _size(shapes, "out.2.weight", 0)} if outputs else _read_head(shapes)
    plain = Structure(
        is_whole=bool(outputs),
        is_time_conditioned=any(name.startswith("time_embed.") for name in shapes),
        input_shape=first,
        num_input_blocks=max(inputs) + 1,
        model_channels=_size(shapes, "time_embed.0.weight", 1),
        uses_scale_shift_norm=_uses_scale_shift_norm(shapes),
        **{"num_classes": num_labels, **head},  # type: ignore[arg-type]
    )
    return [_with_levels(plain, shapes, depth) for depth in depths or [None]]


def _with_levels(plain: Structure, shapes: Shapes, depth: Depth | None) -> Structure:
    """The structure with its levels, unless they are irregular."""
    if depth is None:
        return plain
    num_res_blocks, num_levels, resampling = depth
    starts = [1 + level * (num_res_blocks + 1) for level in range(num_levels)]
    widths = [_widths(shapes, i)[1] for i in starts]
    if None in widths:
        return plain
    return replace(
        plain,
        num_res_blocks=num_res_blocks,
        widths=tuple(width for width in widths if width is not None),
        attention=tuple(_attends(shapes, i) for i in starts),
        resampling=resampling,
    )


def _indices(shapes: Shapes, part: str) -> set[int]:
    """The numbers of the blocks of a part of the network that have parameters."""
    found = {-1}
    for name in shapes:
        pieces = name.split(".", 2)
        if pieces[0] == part and len(pieces) == 3 and pieces[1].isdecimal():
            found.add(int(pieces[1][:_MOST_DIGITS]))
    return found - {-1} if len(found) > 1 else set()


def _depth_of_unet(shapes: Shapes, inputs: set[int], outputs: set[int]) -> Depth | None:
    """What the places of the layers that resample tell; of a classifier, those with parameters."""
    total = max(inputs) + 1
    convolutions = [i for i in inputs if f"input_blocks.{i}.0.op.weight" in shapes]
    empty = [i for i in range(total) if i not in inputs]
    ups = [i for i in outputs if _is_up(shapes, i)]
    if convolutions:
        period, resampling = min(convolutions), "conv"
    elif empty:
        period, resampling = min(empty), "pool"
    elif ups:
        period, resampling = min(ups) + 1, "updown"
    elif outputs:
        return (total - 1, 1, None) if total > 1 else None
    else:
        return None
    is_regular = period > 1 and total % period == 0
    return (period - 1, total // period, resampling) if is_regular else None


def _is_up(shapes: Shapes, index: int) -> bool:
    """Whether the last layer of a block on the way up is a residual one that resamples."""
    return any(f"output_blocks.{index}.{j}.in_layers.0.weight" in shapes for j in (1, 2))


def _depths_of_classifier(shapes: Shapes, total: int) -> list[Depth | None]:
    """What may be where all blocks are residual ones in a row, some of which resample."""
    return [
        (period - 1, total // period, "updown" if period < total else None)
        for period in range(2, total + 1)
        if total % period == 0 and _are_levels(shapes, total, period)
    ]


def _are_levels(shapes: Shapes, total: int, period: int) -> bool:
    """Whether blocks change width and attention only where a level of this many begins."""
    for start in range(0, total, period):
        blocks = range(start + 1, start + period)
        kinds = {(_widths(shapes, i)[1], _attends(shapes, i)) for i in blocks}
        if len(kinds) > 1 or any(
            _widths(shapes, i)[0] != _widths(shapes, i)[1] for i in blocks[1:]
        ):
            return False
        if start and (_attends(shapes, start) or len(set(_widths(shapes, start))) > 1):
            return False
    return True


def _widths(shapes: Shapes, index: int) -> tuple[int | None, int | None]:
    """Channels that enter and leave a residual block on the way down."""
    name = f"input_blocks.{index}.0.in_layers.2.weight"
    return _size(shapes, name, 1), _size(shapes, name, 0)


def _attends(shapes: Shapes, index: int) -> bool:
    return f"input_blocks.{index}.1.qkv.weight" in shapes


def _uses_scale_shift_norm(shapes: Shapes) -> bool | None:
    embedded = _size(shapes, "input_blocks.1.0.emb_layers.1.weight", 0)
    width = _size(shapes, "input_blocks.1.0.in_layers.2.weight", 0)
    if embedded is None or not width or embedded not in (width, 2 * width):
        return None
    return embedded == 2 * width


def _read_head(shapes: Shapes) -> dict[str, int | str | None]:
    """Pool, classes and places of a classifier."""
    if "out.2.positional_embedding" in shapes:
        places = _size(shapes, "out.2.positional_embedding", 1)
        return {
            "pool": "attention",
            "num_classes": _size(shapes, "out.2.c_proj.weight", 0),
            "num_places": None if places is None else places - 1,
        }
    if "out.1.weight" in shapes:
        return {"pool": "spatial_v2", "num_classes": _size(shapes, "out.3.weight", 0)}
    if "out.3.weight" in shapes:
        return {"pool": "adaptive", "num_classes": _size(shapes, "out.3.weight", 0)}
    if "out.2.weight" in shapes:
        return {"pool": "spatial", "num_classes": _size(shapes, "out.2.weight", 0)}
    return {"num_classes": None}


def _size(shapes: Shapes, name: str, axis: int) -> int | None:
    """One side of a tensor; None if it is not there."""
    shape = shapes.get(name, ())
    return shape[axis] if axis < len(shape) else None
