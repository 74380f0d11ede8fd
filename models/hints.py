"""Says which flags are wrong where a state_dict does not fit a network; builds none."""

from __future__ import annotations

from collections.abc import Iterator

from models.config import UNetConfig
from models.structure import Shapes, Structure, read_structures

_MOST_CAUSES = 4


def explain_difference(there: Shapes, here: Shapes, config: UNetConfig) -> str:
    """One sentence on what differs, naming the flags; empty if nothing is known to.

    Args:
        there: name → shape, of the file.
        here: the same of the network.
        config: what the network, or the U-Net that a classifier is the half of, was built from.
    """
    own = [one for one in read_structures(here) if _is_of(one, config)]
    files = read_structures(there)
    if not own:
        return ""
    if not files:
        return _sentence(["the file is of another kind of network"])
    kind = _wrong_kind(files[0], own[0])
    if kind:
        return _sentence([kind])
    causes = [_causes(file, own[0], config) for file in files]
    likeliest = [found for found in causes if len(found) == min(map(len, causes))]
    if len(likeliest) == 1:
        return _sentence(likeliest[0])
    common = [cause for cause in likeliest[0] if all(cause in found for found in likeliest)]
    return _sentence(common or [f"the levels are others: see {_depth_flags(config)}"])


def _depth_flags(config: UNetConfig) -> str:
    return f"{config.flag('num_res_blocks')} or {config.flag('channel_mult')}"


def _is_of(structure: Structure, config: UNetConfig) -> bool:
    return structure.num_levels in (0, len(config.widths))


def _causes(file: Structure, network: Structure, config: UNetConfig) -> list[str]:
    size = _image_size(file, config)
    return [
        *_wrong_ends(file, network, config),
        *_wrong_pool(file, network, config),
        *_wrong_image_size(file, size, config),
        *_wrong_classes(file, network),
        *_wrong_depth(file, network, config),
        *_wrong_widths(file, network, config),
        *_wrong_resampling(file, network, config),
        *_wrong_attention(file, size, config),
        *_wrong_norm(file, network, config),
    ]


def _sentence(causes: list[str]) -> str:
    return f"likely cause: {'; '.join(causes[:_MOST_CAUSES])}" if causes else ""


def _wrong_kind(file: Structure, network: Structure) -> str:
    if file.is_whole and not network.is_whole:
        return "the file is of a whole U-Net, the flags describe a classifier"
    if network.is_whole and not file.is_whole:
        return "the file is of a classifier, the flags describe a whole U-Net"
    if file.is_time_conditioned and not network.is_time_conditioned:
        return "the file is of a diffusion model, the flags describe a mean or variance net"
    if network.is_time_conditioned and not file.is_time_conditioned:
        return "the file is of a mean or variance net, the flags describe a diffusion model"
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
    num_images = own_entering // config.in_channels
    learns = _learns_variance(leaving, entering // num_images)
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


def _wrong_pool(file: Structure, network: Structure, config: UNetConfig) -> Iterator[str]:
    if file.pool is not None and file.pool != network.pool:
        yield f"the head of the file is another one: give {config.flag('pool')} {file.pool}"


def _image_size(file: Structure, config: UNetConfig) -> int:
    """The image size of the file, which only a classifier's attention pool tells."""
    if file.num_places is None or not file.num_levels:
        return config.image_size
    dims = len(file.input_shape) - 2
    side = round(file.num_places ** (1 / dims))
    return side << (file.num_levels - 1) if side**dims == file.num_places else config.image_size


def _wrong_image_size(file: Structure, size: int, config: UNetConfig) -> Iterator[str]:
    if size != config.image_size:
        yield (
            f"the file's pool has {file.num_places} places, as for images of {size} pixels, not "
            f"{config.image_size}: see --image_size"
        )


def _wrong_classes(file: Structure, network: Structure) -> Iterator[str]:
    count, own = file.num_classes, network.num_classes
    if count is None or own is None or count == own:
        return
    if not own:
        yield f"the file is class-conditional, of {count} classes: give --class_cond True"
    elif not count:
        yield "the file knows no classes: give --class_cond False"
    else:
        is_near = network.is_whole and abs(count - own) == 1
        also = " (--class_dropout adds one)" if is_near else ""
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
        base = next((m for m in _bases(widths[0], config) if _widths(m, config) == widths), None)
    if base is not None and base != own_base:
        yield (
            f"the base width of the file is {base}, not {own_base}: see "
            f"{config.flag('model_channels')}"
        )
    if widths and widths != _widths(base or own_base, config):
        mults = ",".join(_multiplier(width, base or own_base) for width in widths)
        yield (
            f"the levels of the file are {', '.join(map(str, widths))} channels wide: give "
            f"{config.flag('channel_mult')} {mults} (left out, it follows the image size)"
        )


def _widths(base: int, config: UNetConfig) -> tuple[int, ...]:
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


def _wrong_attention(file: Structure, size: int, config: UNetConfig) -> Iterator[str]:
    factors = {size // side for side in config.attention_resolutions}
    asked = tuple(2**level in factors for level in range(file.num_levels))
    if file.attention == asked:
        return
    sides = ",".join(str(size >> level) for level, is_on in enumerate(file.attention) if is_on)
    yield (
        "attention sits elsewhere: see the image size, or "
        f"{config.flag('attention_resolutions')} (for images of {size} pixels, those "
        f"of the file are {sides or repr('')})"
    )


def _wrong_norm(file: Structure, network: Structure, config: UNetConfig) -> Iterator[str]:
    wanted, own = file.uses_scale_shift_norm, network.uses_scale_shift_norm
    if wanted is not None and own is not None and wanted != own:
        flag = config.flag("use_scale_shift_norm")
        yield f"the embedding is used another way: give {flag} {wanted}"
