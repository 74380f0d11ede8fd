"""From flags to the networks of the task; torch is imported when one is made."""

from __future__ import annotations

import argparse
import dataclasses
import functools
from collections.abc import Callable
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ddpm.process import TRAINING_ONLY, denoiser_identity
from ddpm.stored_flags import Start, follow_checkpoint, start_of_file, start_of_run
from image_ddpm.flags import (
    ClassifierFlags,
    ClassifierImageFlags,
    ClassifierProcessFlags,
    ImageDiffusionFlags,
    ImageModelFlags,
    save_dir_of,
)
from models.config import (
    UNetConfig,
    default_diffusion_channel_mult,
    parse_attention_resolutions,
    parse_channel_mult,
)
from utils.files.records import Identity
from utils.script_util import FlagValues, flags_of
from utils.sizes import Size, SizeLike

if TYPE_CHECKING:
    from models.unet import TimeConditionedUNet

# of published models that differ from the upsamplers, or whose sizes those do not have
_CHANNEL_MULT = MappingProxyType(
    {512: (0.5, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0), 32: (1.0, 2.0, 2.0, 2.0)}
)


def channel_mult(
    image_size: SizeLike, text: str, flag: str = "--channel_mult"
) -> tuple[float, ...]:
    """The multipliers of `flag`, or where it is empty those of the size's shorter side.

    ValueError for none.
    """
    if text:
        return parse_channel_mult(text, flag)
    side = Size.of(image_size).short_side
    if side in _CHANNEL_MULT:
        return _CHANNEL_MULT[side]
    return default_diffusion_channel_mult(side, flag)


def model_keywords(flags: ImageModelFlags, process: ImageDiffusionFlags) -> FlagValues:
    """The keywords of `create_image_model`."""
    return {**vars(flags), "learn_sigma": process.learn_sigma}


def image_identity(
    flags: ImageModelFlags, process: ImageDiffusionFlags, *, is_training: bool
) -> Identity:
    """What the checkpoints of a denoiser are; see `denoiser_identity`."""
    return denoiser_identity("TimeConditionedUNet", flags, process, is_training=is_training)


def create_image_model(*, learn_sigma: bool, **flags: Any) -> TimeConditionedUNet:
    """The denoiser of `ImageModelFlags`; twice the channels with `learn_sigma`.

    With `class_dropout` it has one more class, 'none', the last one. ValueError for a value that
    makes no network.
    """
    from models.unet import TimeConditionedUNet

    parsed = ImageModelFlags(**flags)
    own = {field.name for field in dataclasses.fields(UNetConfig)}
    shared = {name: value for name, value in vars(parsed).items() if name in own}
    num_classes = parsed.num_classes + (parsed.null_label is not None)
    shared |= {
        "image_size": Size.of(parsed.image_size).plain,
        "model_channels": parsed.num_channels,
        "out_channels": parsed.in_channels * (2 if learn_sigma else 1),
        "num_classes": num_classes if parsed.class_cond else None,
        "attention_resolutions": parse_attention_resolutions(parsed.attention_resolutions),
        "channel_mult": channel_mult(parsed.image_size, parsed.channel_mult),
    }
    return TimeConditionedUNet(UNetConfig(**shared))


def load_denoiser(
    flags: ImageModelFlags, process: ImageDiffusionFlags, path: str, log: Callable[[str], None]
) -> TimeConditionedUNet:
    """The trained denoiser of `--model_path`; CheckpointError for another network or damage."""
    from utils.loops.networks import load_checked

    create = functools.partial(create_image_model, **model_keywords(flags, process))
    identity = image_identity(flags, process, is_training=False)
    return load_checked(create, path, flags.asked_precision, log, identity)


_DENOISER = (*flags_of(ImageModelFlags), *flags_of(ImageDiffusionFlags))
_IN_USE = tuple(one for one in _DENOISER if one.name not in TRAINING_ONLY)
_CLASSIFIER = flags_of(ClassifierFlags)
_IMAGES = flags_of(ClassifierImageFlags)
(NUM_CLASSES,) = (one for one in _IMAGES if one.name == "num_classes")

# what follows are the arguments of scripts, with the flags of the checkpoint that they start from
# or use; CheckpointError for flags that contradict it


def follow_run(args: argparse.Namespace) -> tuple[argparse.Namespace, Start]:
    """The arguments of a training of a denoiser, and the checkpoint that it starts from."""
    start = start_of_run(args, save_dir_of(args))
    return follow_checkpoint(args, start, _DENOISER), start


def follow_denoiser(args: argparse.Namespace) -> argparse.Namespace:
    """The arguments of a script that uses the denoiser of `--model_path`."""
    return follow_checkpoint(args, start_of_file(args.model_path), _IN_USE)


def follow_classifier_run(args: argparse.Namespace) -> tuple[argparse.Namespace, Start]:
    """As `follow_run`, of a classifier; ValueError to draw timesteps where there is only one."""
    start = start_of_run(args, save_dir_of(args))
    flags = (*_CLASSIFIER, *_IMAGES, *flags_of(ClassifierProcessFlags))
    args = follow_checkpoint(args, start, flags)
    if args.schedule_sampler != "uniform" and not args.noised:
        raise ValueError(
            f"--schedule_sampler {args.schedule_sampler} draws timesteps, and with --noised False "
            "there is only t = 0; leave out one of them"
        )
    return args, start


def follow_guide(args: argparse.Namespace) -> argparse.Namespace:
    """The arguments of a script whose denoiser the classifier of `--classifier_path` may guide.

    The classes are the denoiser's, where it has some.
    """
    flags = _CLASSIFIER if args.class_cond else (*_CLASSIFIER, NUM_CLASSES)
    return follow_checkpoint(args, start_of_file(args.classifier_path), flags)


def follow_features(args: argparse.Namespace) -> argparse.Namespace:
    """The arguments of a script that takes the features of the classifier of `--features`."""
    return follow_checkpoint(args, start_of_file(args.features), (*_CLASSIFIER, *_IMAGES))
