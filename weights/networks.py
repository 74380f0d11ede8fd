"""From what a checkpoint says of its network to the network, of whichever task it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar

from torch import nn

from ddpm.flags import DiffusionFlags
from image_ddpm.classifier import classifier_keywords, create_classifier
from image_ddpm.flags import (
    ClassifierFlags,
    ClassifierImageFlags,
    ImageDiffusionFlags,
    ImageModelFlags,
)
from image_ddpm.networks import create_image_model, model_keywords
from models.cnn import SmallCNN
from noisy_label.flags import NetFlags
from sr_var.flags.nets import BaselineModelFlags
from sr_var.flags.scripts import MeanModelFlags, SRDiffusionModelFlags, VarModelFlags
from sr_var.script_util import (
    create_baseline_model,
    create_mean_model,
    create_sr_model,
    create_var_model,
    denoiser_flags,
)
from utils.files.records import stored_value
from utils.flags.groups import Precision
from utils.loops.networks import load_checked
from utils.process.errors import CheckpointError
from utils.script_util import defaults, flags_of
from weights.source import Log, Source, read_source

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Kind:
    """What a network computes.

    Attributes:
        name: short, for messages and model cards.
        create: makes it, with fresh weights, in fp32.
    """

    name: str
    create: Callable[[Source], nn.Module]


def kind_of(source: Source) -> Kind:
    """The kind of the network of a checkpoint; CheckpointError for a class of no task."""
    kind = _KINDS.get(source.network_class)
    if kind is None:
        raise CheckpointError(
            f"{source.path} is of a {source.network_class[:80]!r}, which no training here makes; "
            f"known are {', '.join(_KINDS)}"
        )
    of_baselines = defaults(BaselineModelFlags).keys() - defaults(MeanModelFlags).keys()
    return BASELINE if kind is MEAN and of_baselines & source.flags.keys() else kind


def restore(source: Source, log: Log) -> nn.Module:
    """The network with its weights, frozen, in fp32 on the CPU.

    Raises:
        CheckpointError: the flags make no network, or not that of the weights.
    """
    kind = kind_of(source)
    try:
        return load_checked(partial(kind.create, source), source.path, Precision.FP32, log)
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"{source.path}: its flags make no network ({error})") from error


def load_network(path: str, log: Log = print) -> nn.Module:
    """The network of a checkpoint, .pt with its manifest or .safetensors, whichever task it is of.

    Frozen, in fp32 on the CPU. Its `forward` says what it takes and returns.

    Raises:
        CheckpointError: as `read_source` and `restore`.
    """
    return restore(read_source(path, log), log)


def stored_flags(source: Source, flags_class: type[T]) -> T:
    """The flags of one dataclass, as the checkpoint has them; those that it lacks keep defaults.

    Raises:
        CheckpointError: for values that no flag could have; names file and flag.
    """
    made, where = source.flags, f"the manifest of {source.path}"
    values = {
        one.name: stored_value(one, made[one.name], where)
        for one in flags_of(flags_class)
        if one.name in made
    }
    return flags_class(**values)


def _of_flags(flags_class: type[Any], create: Callable[..., nn.Module]) -> Any:
    return lambda source: create(**vars(stored_flags(source, flags_class)))


def _sr_denoiser(source: Source) -> nn.Module:
    flags = stored_flags(source, SRDiffusionModelFlags)
    return create_sr_model(**denoiser_flags(flags, stored_flags(source, DiffusionFlags)))


def _image_denoiser(source: Source) -> nn.Module:
    flags = stored_flags(source, ImageModelFlags)
    return create_image_model(**model_keywords(flags, stored_flags(source, ImageDiffusionFlags)))


def _image_classifier(source: Source) -> nn.Module:
    images = vars(stored_flags(source, ClassifierImageFlags))
    return create_classifier(**classifier_keywords(stored_flags(source, ClassifierFlags), images))


def _small_classifier(source: Source) -> nn.Module:
    flags = stored_flags(source, NetFlags)
    # the number of classes is that of the data, no flag
    last = f"classifier.{2 * len(flags.widths)}.bias"
    return SmallCNN(flags.input_dim, flags.widths, len(source.weights().get(last, ())))


MEAN = Kind("mean net", _of_flags(MeanModelFlags, create_mean_model))
VARIANCE = Kind("variance net", _of_flags(VarModelFlags, create_var_model))
BASELINE = Kind("baseline", _of_flags(BaselineModelFlags, create_baseline_model))
SR_DENOISER = Kind("denoiser for super-resolution", _sr_denoiser)
DENOISER = Kind("denoiser of images", _image_denoiser)
CLASSIFIER = Kind("classifier of noisy images", _image_classifier)
SMALL_CLASSIFIER = Kind("classifier of digits", _small_classifier)
_KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "UNetModel": MEAN,
        "SubpixelModel": MEAN,
        "VarianceModel": VARIANCE,
        "SubpixelVarianceModel": VARIANCE,
        "SuperResModel": SR_DENOISER,
        "SubpixelDenoiser": SR_DENOISER,
        "TimeConditionedUNet": DENOISER,
        "EncoderUNet": CLASSIFIER,
        "SmallCNN": SMALL_CLASSIFIER,
    }
)
