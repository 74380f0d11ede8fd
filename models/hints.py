"""Says which flags are wrong where a state_dict does not fit a network; builds none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from models.config import CONV3X3, POINTWISE, UNetConfig

Shapes = Mapping[str, tuple[int, ...]]
# residual blocks per level, number of levels, and what resamples between them
Depth = tuple[int, int, str | None]

_MOST_DIGITS = 6
# the embedding of labels, of every kind of network
_LABELS = "label_emb.weight"
# what only the head of a pool, or of one further down, has; the pool; its last layer
_HEADS = (
    ("out.2.positional_embedding", "attention", "out.2.c_proj.weight"),
    ("out.1.weight", "spatial_v2", "out.3.weight"),
    ("out.3.weight", "adaptive", "out.3.weight"),
    ("out.2.weight", "spatial", "out.2.weight"),
)


@dataclass(frozen=True)
class Structure:
    """What the shapes tell; None, or 0 levels, where they leave it open."""

    is_whole: bool  # there is a way up, which classifiers lack
    is_time_conditioned: bool
    input_shape: tuple[int, ...]  # of the weights of the first convolution
    num_input_blocks: int  # on the way down, the first convolution among them
    num_res_blocks: int | None = None  # per level
    widths: tuple[int, ...] = ()  # channels of each level, finest first
    attention: tuple[bool, ...] = ()  # per level, whether it follows the residual blocks
    # `updown` inside residual blocks, `conv`, or `pool` without parameters
    resampling: str | None = None
    model_channels: int | None = None  # base width, from the embedding of the timestep
    uses_scale_shift_norm: bool | None = None
    num_classes: int | None = None  # labels that are embedded, 0 without; a classifier's logits
    out_channels: int | None = None  # of a whole U-Net
    pool: str | None = None  # of a classifier
    num_places: int | None = None  # that its attention pool knows

    @property
    def num_levels(self) -> int:
        """Resolutions; 0 where they are not known."""
        return len(self.widths)


def shapes_of(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a state_dict by name."""
    return {name: tuple(value.shape) for name, value in state.items()}


def read_structures(shapes: Shapes) -> list[Structure]:
    """Return every structure that these shapes, by name, may be of; none of another kind.

    There are several only of classifiers that resample inside residual blocks: nothing tells those
    from the others.
    """
    first = shapes.get("input_blocks.0.0.weight", ())
    inputs, outputs = (_indices(shapes, part) for part in ("input_blocks", "output_blocks"))
    # between two blocks with parameters lies at most one without
    if len(first) < 3 or max(inputs) > 2 * len(inputs):
        return []
    depth = _depth_of_unet(shapes, inputs, outputs)
    depths = [depth] if depth or outputs else _depths_of_classifier(shapes, max(inputs) + 1)
    num_labels = _size(shapes, _LABELS, 0) or 0
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
    widths = [width for i in starts if (width := _widths(shapes, i)[1]) is not None]
    if len(widths) < num_levels:
        return plain
    return replace(
        plain,
        num_res_blocks=num_res_blocks,
        widths=tuple(widths),
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
    # where the last layer of a block on the way up is a residual one, it resamples
    ups = [
        i
        for i in outputs
        if any(f"output_blocks.{i}.{j}.in_layers.0.weight" in shapes for j in (1, 2))
    ]
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
    for name, pool, last in _HEADS:
        if name in shapes:
            places = _size(shapes, name, 1) if pool == "attention" else None
            return {
                "pool": pool,
                "num_classes": _size(shapes, last, 0),
                "num_places": None if places is None else places - 1,
            }
    return {"num_classes": None}


def _size(shapes: Shapes, name: str, axis: int) -> int | None:
    """One side of a tensor; None if it is not there."""
    shape = shapes.get(name, ())
    return shape[axis] if axis < len(shape) else None


_MOST_CAUSES = 4
# what a structure may be, and is otherwise
_KINDS = (
    ("is_whole", "a whole U-Net", "a classifier"),
    ("is_time_conditioned", "a diffusion model", "a mean or variance net"),
)


def explain_difference(there: Shapes, here: Shapes, config: UNetConfig) -> str:
    """One sentence on what differs, naming the flags; empty if nothing is known to.

    The shapes by name are `there` of the file and `here` of the network, whose U-Net, or that it is
    the half of, was built from `config`.
    """
    own = [one for one in read_structures(here) if one.num_levels in (0, len(config.widths))]
    if not own:
        return ""
    found = [_causes(file, own[0], config) for file in read_structures(there)]
    found = found or [[_other_kind(there)]]
    likeliest = [causes for causes in found if len(causes) == min(map(len, found))]
    causes = [cause for cause in likeliest[0] if all(cause in other for other in likeliest)]
    if len(likeliest) > 1 and not causes:
        causes = [f"the levels are others: see {_depth_flags(config)}"]
    return _sentence(causes)


def _sentence(causes: list[str]) -> str:
    return f"likely cause: {'; '.join(causes[:_MOST_CAUSES])}" if causes else ""


def _other_kind(shapes: Shapes) -> str:
    if is_subpixel(shapes):
        return "the file is of a sub-pixel network: give --network subpixel"
    if read_structures(shapes):
        return "the file is of a U-Net: leave --network out"
    return "the file is of another kind of network"


def is_subpixel(shapes: Shapes) -> bool:
    """Whether a state_dict is of `models.subpixel`, by its names."""
    return {"head.weight", "body_end.weight", "out.0.weight"} <= shapes.keys()


def explain_subpixel(there: Shapes, here: Shapes, factor: int) -> str:
    """As `explain_difference`, for a sub-pixel network (`here`) of the factor."""
    if not is_subpixel(there):
        return _sentence([_other_kind(there)])
    causes = []
    (width, inputs), (own_width, own_inputs) = (one["head.weight"][:2] for one in (there, here))
    if width != own_width:
        causes.append(f"--model_channels (--num_channels) {width}, here {own_width}")
    if inputs != own_inputs:
        causes.append(
            f"{inputs} input channels, here {own_inputs}: mean net, variance net or denoiser, "
            "sizes or --in_channels differ"
        )
    blocks = [
        sum(name.startswith("body.") and name.endswith("conv1.weight") for name in one)
        for one in (there, here)
    ]
    if blocks[0] != blocks[1]:
        causes.append(f"--num_res_blocks {blocks[0]}, here {blocks[1]}")
    kinds = [_res_block(one) for one in (there, here)]
    if kinds[0] != kinds[1]:
        causes.append(f"--res_block {kinds[0]}, here {kinds[1]}")
    causes += _wrong_classes(*(_size(one, _LABELS, 0) or 0 for one in (there, here)))
    outputs = [one["out.0.weight"][0] for one in (there, here)]
    if outputs[0] != outputs[1]:
        causes.append(
            f"{outputs[0]} output channels, here {outputs[1]}: a factor of {factor} between "
            "high-res and low-res side, or the number of outputs, is not the file's"
        )
    return _sentence(causes)


def _res_block(shapes: Shapes) -> str:
    """Of a sub-pixel network: the kind of its residual blocks, by the size of their kernels."""
    return POINTWISE if shapes.get("body.0.conv1.weight", ())[2:] == (1, 1) else CONV3X3


def _depth_flags(config: UNetConfig) -> str:
    return f"{config.flag('num_res_blocks')} or {config.flag('channel_mult')}"


def _causes(file: Structure, network: Structure, config: UNetConfig) -> list[str]:
    kind = _wrong_kind(file, network)
    if kind:
        return [kind]
    size = _short_side(file, network, config)
    return [
        *_wrong_ends(file, network, config),
        *_wrong_head(file, network, size, config),
        *_wrong_depth(file, network, config),
        *_wrong_widths(file, network, config),
        *_wrong_resampling(file, network, config),
        *_wrong_layers(file, network, size, config),
    ]


def _wrong_kind(file: Structure, network: Structure) -> str:
    for name, one, other in _KINDS:
        is_one = getattr(file, name)
        if is_one != getattr(network, name):
            found, asked = (one, other) if is_one else (other, one)
            return f"the file is of {found}, the flags describe {asked}"
    return ""


def _wrong_ends(file: Structure, network: Structure, config: UNetConfig) -> Iterator[str]:
    """Of the first and the last convolution."""
    dims, own_dims = (len(one.input_shape) - 2 for one in (file, network))
    if dims != own_dims:
        yield f"the file is for {dims} spatial axes, not {own_dims}: give --dims {dims}"
    entering, own_entering = (one.input_shape[1] for one in (file, network))
    if entering != own_entering:
        yield _wrong_input(entering, own_entering, network)
    leaving, own_leaving = file.out_channels, network.out_channels
    if leaving is None or own_leaving is None or leaving == own_leaving:
        return
    extra = config.x_channels - config.in_channels
    num_images = (own_entering - extra) // config.in_channels
    learns = _learns_variance(leaving, (entering - extra) // num_images)
    own_learns = _learns_variance(own_leaving, config.in_channels)
    if not network.is_time_conditioned:
        yield (
            f"the file's net returns {leaving} channels, not {own_leaving}: see --out_channels "
            "(of a baseline, its objective and quantiles)"
        )
    elif learns is not None and own_learns is not None and learns != own_learns:
        what = "variances, too" if learns else "no variances"
        yield f"the file predicts {what}: give --learn_sigma {learns}"


def _wrong_input(entering: int, own_entering: int, network: Structure) -> str:
    if not network.is_whole:
        return (
            f"the file is for images of {entering} channels, not {own_entering}: see --in_channels"
        )
    what = f"the file's net takes {entering} channels, not {own_entering}: see --in_channels"
    if max(entering, own_entering) != 2 * min(entering, own_entering):
        return what
    kinds = "an upsampler or not" if network.is_time_conditioned else "mean or variance net"
    return f"{what} ({kinds}?)"


def _learns_variance(leaving: int, in_channels: int) -> bool | None:
    """Whether a denoiser returns a variance beside the image; None if neither fits."""
    if leaving not in (in_channels, 2 * in_channels):
        return None
    return leaving == 2 * in_channels


def _short_side(file: Structure, network: Structure, config: UNetConfig) -> int:
    """The shorter side of the file's images, which only a classifier's attention pool tells.

    Where it is not as that of a network for images of two sides, they are taken for squares.
    """
    if file.num_places is None or not file.num_levels:
        return config.short_side
    is_alike = (file.num_places, file.num_levels) == (network.num_places, network.num_levels)
    if is_alike and not config.is_square:
        return config.short_side
    dims = len(file.input_shape) - 2
    side = round(file.num_places ** (1 / dims))
    return side << (file.num_levels - 1) if side**dims == file.num_places else config.short_side


def _wrong_head(
    file: Structure, network: Structure, size: int, config: UNetConfig
) -> Iterator[str]:
    if file.pool is not None and file.pool != network.pool:
        yield f"the head of the file is another one: give {config.flag('pool')} {file.pool}"
    places, own_places = file.num_places, network.num_places
    if size != config.short_side or (not config.is_square and places not in (None, own_places)):
        yield (
            f"the file's pool has {places} places, as for images of {size} pixels, not "
            f"{config.size_text}: see --image_size"
        )
    count, own = file.num_classes, network.num_classes
    if count is not None and own is not None:
        may_add_one = network.is_whole and network.is_time_conditioned
        yield from _wrong_classes(count, own, may_add_one=may_add_one)


def _wrong_classes(count: int, own: int, *, may_add_one: bool = False) -> Iterator[str]:
    """Of the labels that are embedded, 0 without; an image model may add one of its own."""
    if count == own:
        return
    if not own:
        yield f"the file is class-conditional, of {count} classes: give --class_cond True"
    elif not count:
        yield "the file knows no classes: give --class_cond False"
    else:
        also = " (--class_dropout adds one)" if may_add_one and abs(count - own) == 1 else ""
        yield f"the file knows {count} classes, not {own}: see --num_classes{also}"


def _wrong_depth(file: Structure, network: Structure, config: UNetConfig) -> Iterator[str]:
    if file.num_levels and file.num_res_blocks != network.num_res_blocks:
        yield (
            f"residual blocks per level: {file.num_res_blocks} in the file, "
            f"{network.num_res_blocks} here: give {config.flag('num_res_blocks')} "
            f"{file.num_res_blocks}"
        )
    elif not file.num_levels and file.num_input_blocks != network.num_input_blocks:
        yield (
            f"the file has {file.num_input_blocks} blocks on the way down, not "
            f"{network.num_input_blocks}: see {_depth_flags(config)}"
        )


def _wrong_widths(file: Structure, network: Structure, config: UNetConfig) -> Iterator[str]:
    widths = file.widths
    base, own_base = file.model_channels, config.model_channels
    if base is None and widths and widths != network.widths:
        # without an embedding the base width shows in the product alone
        base = next(
            (m for m in _bases(widths[0], config) if _expected_widths(m, config) == widths), None
        )
    if base is not None and base != own_base:
        yield (
            f"the base width of the file is {base}, not {own_base}: see "
            f"{config.flag('model_channels')}"
        )
    if widths and widths != _expected_widths(base or own_base, config):
        mults = ",".join(_multiplier(width, base or own_base) for width in widths)
        yield (
            f"the levels of the file are {', '.join(map(str, widths))} channels wide: give "
            f"{config.flag('channel_mult')} {mults} (left out, it follows the image size)"
        )


def _expected_widths(base: int, config: UNetConfig) -> tuple[int, ...]:
    return tuple(int(mult * base) for mult in config.channel_mult)


def _bases(width: int, config: UNetConfig) -> range:
    """Base widths that could make the first level this wide."""
    smallest = int(width / config.channel_mult[0])
    return range(max(smallest, 1), smallest + 2 + int(1 / config.channel_mult[0]))


def _multiplier(width: int, base: int) -> str:
    """The shortest text that makes the width, which is the truncated product."""
    exact = f"{width / base:g}"
    return exact if int(float(exact) * base) == width else f"{(width + 0.5) / base:g}"


def _wrong_resampling(file: Structure, network: Structure, config: UNetConfig) -> Iterator[str]:
    kind, own = file.resampling, network.resampling
    if kind is None or own is None or kind == own:
        return
    flag = config.flag("resblock_updown")
    if kind == "updown":
        yield f"the file resamples inside residual blocks: give {flag} True"
        return
    if own == "updown":
        yield f"the file resamples outside residual blocks: give {flag} False"
    if (kind == "conv") != config.conv_resample:
        what = "by convolutions" if kind == "conv" else "without them"
        yield f"the file resamples {what}: give --conv_resample {kind == 'conv'}"


def _wrong_layers(
    file: Structure, network: Structure, size: int, config: UNetConfig
) -> Iterator[str]:
    """Of attention and norms."""
    factors = {size // side for side in config.attention_resolutions}
    if file.attention != tuple(2**level in factors for level in range(file.num_levels)):
        sides = ",".join(str(size >> level) for level, is_on in enumerate(file.attention) if is_on)
        yield (
            "attention sits elsewhere: see the image size, or "
            f"{config.flag('attention_resolutions')} (for images of {size} pixels, those "
            f"of the file are {sides or repr('')})"
        )
    wanted, own = file.uses_scale_shift_norm, network.uses_scale_shift_norm
    if wanted is not None and own is not None and wanted != own:
        flag = config.flag("use_scale_shift_norm")
        yield f"the embedding is used another way: give {flag} {wanted}"
