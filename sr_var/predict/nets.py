"""The two networks from their checkpoints, as one thing that turns low-res images into moments."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm.stored_flags import differing_classes, listed_classes, start_of_file, trained_labels
from models.subpixel import SubpixelBase
from sr_var.degradation import mean_of, variance_of, with_labels
from sr_var.degrade.language import Degradation
from sr_var.degrade.view import degradation_of, require_same_view
from sr_var.flags.nets import FOLD_FIELD
from sr_var.flags.scripts import MeanModelFlags, VarModelFlags
from sr_var.mean_module import MeanModule
from sr_var.predict.images import LowRes
from sr_var.script_util import create_mean_model, create_var_model
from sr_var.stored_flags import flags_of_checkpoint, identity_of, require_same_classes
from sr_var.values import Units, require_same_values
from sr_var.var_utils import require_same_mean
from utils import dist_util
from utils.files.records import made_with
from utils.flags.groups import Compute, Precision
from utils.loops.checkpoint import CheckpointStore
from utils.loops.networks import load_checked, ready_for
from utils.loops.portable import weights_digest
from utils.process.errors import CheckpointError
from utils.sizes import Size

Log = Callable[[str], None]
_MEAN_ARGS_FLAG, _VAR_ARGS_FLAG = "--mean_model_args_path", "--var_model_args_path"
FlagsT = TypeVar("FlagsT", bound=MeanModelFlags)


def load_mean_net(
    path: str,
    *,
    args_path: str = "",
    device: str | torch.device | None = None,
    log: Log = print,
) -> nn.Module:
    """The frozen mean net of a checkpoint, in evaluation mode, with fp32 weights.

    `net(x, (H, W))` is the mean, (N, C, H, W), for the low-res images x, (N, C, h, w) in [-1, 1].

    Args:
        path: `modelNNNNNN.pt` of sr_mean_train.py.
        args_path: file of its model flags, for a checkpoint without a manifest beside it.
        device: where to; None: the GPU if there is one, else the CPU.
        log: receives the sha256 of the file, and notices.

    Raises:
        CheckpointError: the file is missing, damaged, or of another network.
    """
    flags = _mean_flags(path, args_path, log)
    return _loaded(flags, path, Precision.FP32, log).to(_device(device))


def load_var_net(
    path: str,
    *,
    args_path: str = "",
    device: str | torch.device | None = None,
    log: Log = print,
) -> nn.Module:
    """The frozen variance net of a checkpoint; arguments and errors as `load_mean_net`.

    `net(x, mean)` is the variance, (N, C, H, W), in squares of the unit of images in [-1, 1].
    """
    flags = _var_flags(path, args_path, log)
    return _loaded(flags, path, Precision.FP32, log).to(_device(device))


@dataclass(frozen=True, eq=False)
class NetPair:
    """A mean net and the variance net that was trained on it, on one device.

    Attributes:
        factor: pixels of the result along the side of a low-res one.
        units: of the true images of the training.
        train_size: of the low-res images of the training.
        reach: low-res pixels in each direction that a pixel of the result depends on; None where
            it is the whole image, as with a U-Net's norms and attention.
        multiple: low-res sides are padded (by replication) to a multiple of it, for the levels of
            U-Nets, whose deepest one has two pixels or more.
        digests: sha256 of both files.
        num_labels: classes that the networks know; None for networks without classes.
        class_names: their names by label; empty where the checkpoints keep none.
        label: of all images, for networks that know classes (`given`).
        degradation: what the networks see of an image; None: its block means.
    """

    mean_net: nn.Module
    var_net: nn.Module
    device: torch.device
    factor: int
    units: Units
    train_size: Size
    reach: int | None
    multiple: int
    digests: tuple[str, str]
    precision: Precision
    num_labels: int | None = None
    class_names: tuple[str, ...] = ()
    label: int | None = None
    degradation: Degradation | None = None

    @property
    def sees_block_means(self) -> bool:
        """Whether an image that is given is the block means of the true one."""
        return self.degradation is None or self.degradation.shows_block_means

    @property
    def num_channels(self) -> int:
        """Of a result."""
        return self.units.num_channels

    @property
    def sees_own_kind(self) -> bool:
        """Whether X was measured in other channels, or another range of values, than Y."""
        return self.degradation is not None and self.degradation.measured is not None

    @property
    def seen_units(self) -> Units:
        """The unit of the images of X: that of Y, unless X was measured in its own."""
        kind = None if self.degradation is None else self.degradation.measured
        return self.units if kind is None else Units.of_measured(kind)

    def result_units(self, image: LowRes) -> Units:
        """The unit of an image's result: its own or, where X is of another kind, that of Y."""
        if self.sees_own_kind:
            return self.units
        return replace(self.units, low=image.low, high=image.high)

    def given(self, label: int | str | None) -> NetPair:
        """The networks for images of one class, by its label or its name; None or "": of none.

        Raises:
            ValueError: networks with classes need a label, those without take none; or the networks
                were not trained on such a class.
        """
        text, count = "" if label is None else str(label), self.num_labels
        if count is None:
            if text:
                raise ValueError(f"--label {text}: the networks know no classes; leave it out")
            return self
        known = f"0 to {count - 1}"
        if any(self.class_names):
            known = f"a label or a name: {listed_classes(self.class_names)}"
        if not text:
            raise ValueError(f"the networks know the class of an image: give its --label, {known}")
        found = self.class_names.index(text) if text in self.class_names else -1
        if found < 0 and text.isdecimal():
            found = int(text)
        if found not in trained_labels(self.class_names, count):
            raise ValueError(f"--label {text}: the networks were not trained on it; give {known}")
        return replace(self, label=found)

    def __call__(self, low_res: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance, each (N, C, f·h, f·w) in fp32, of X (N, C + extra, h, w)."""
        height, width = low_res.shape[2:]
        x = low_res.to(self.device)
        # a group norm of single pixels would have nothing to compare
        least = 1 if self.reach is not None else 2 * self.multiple
        right, below = (max(-side % self.multiple, least - side) for side in (width, height))
        if right or below:
            x = F.pad(x, (0, right, 0, below), mode="replicate")
        size = [self.factor * side for side in x.shape[2:]]
        y = None if self.label is None else torch.full((len(x),), self.label, device=x.device)
        with torch.inference_mode():
            mean = mean_of(self.mean_net, with_labels(x, y), size).to(x.dtype)
            variance = variance_of(self.var_net, with_labels(x, y), mean)
        end = (..., slice(self.factor * height), slice(self.factor * width))
        return mean[end].float(), variance[end].float()


def load_pair(
    mean: str | MeanModule,
    var_path: str,
    *,
    mean_args_path: str = "",
    var_args_path: str = "",
    device: str | torch.device | None = None,
    precision: Precision | None = None,
    compute: Compute = Compute(compile="off"),  # noqa: B008 - frozen
    log: Log = print,
) -> NetPair:
    """Both networks, built from what their checkpoints say of themselves.

    Args:
        mean: checkpoint of the mean net, or the function in its place.
        precision: of the convolutions; None: as each was trained, where the device is fast in it.
        compute: as `--compile` and `--kernels`.

    Raises:
        CheckpointError: a file is missing, damaged or of another kind of network; the two are for
            other sizes; or the variance net was trained on another mean net.
        ValueError, DataError: as `MeanModule.network`.
    """
    mean_path = mean.source if isinstance(mean, MeanModule) else mean
    _require_paths(mean_path, var_path)
    known = None if isinstance(mean, MeanModule) else _mean_flags(mean, mean_args_path, log)
    var_flags = _var_flags(var_path, var_args_path, log)
    flags = known or var_flags
    _require_fit(flags, mean_path, var_flags, var_path)
    digests = weights_digest(mean_path), weights_digest(var_path)
    _require_own_mean(mean, digests[0], var_path)
    place = _device(device)
    load = partial(_frozen, precision=precision, place=place, compute=compute, log=log)
    (mean_net, plain_mean), (var_net, plain_var) = load(mean, flags), load(var_path, var_flags)
    nets = [plain_mean, plain_var]
    factor = flags.sizes[0].height // flags.sizes[1].height
    return NetPair(
        *(mean_net, var_net),
        device=place,
        factor=factor,
        units=Units.of(flags),
        train_size=flags.sizes[1],
        reach=_reach(nets),
        multiple=_multiple(nets, factor),
        digests=digests,
        precision=precision or flags.asked_precision,
        num_labels=flags.num_labels,
        class_names=_class_names(mean_path, var_path),
        degradation=degradation_of(flags),
    )


def _frozen(
    net: str | MeanModule,
    flags: MeanModelFlags,
    *,
    precision: Precision | None,
    place: torch.device,
    compute: Compute,
    log: Log,
) -> tuple[nn.Module, nn.Module]:
    """A network on its device, compiled and as it is; a function is as it is."""
    if isinstance(net, MeanModule):
        made = net.network(flags, log).to(place)
        return made, made
    loaded = _loaded(flags, net, precision or flags.asked_precision, log).to(place)
    return ready_for(loaded, compute, place, log), loaded


def _require_own_mean(mean: str | MeanModule, digest: str, var_path: str) -> None:
    """Refuse (CheckpointError) another mean, or function, than the variance net stands on."""
    state = start_of_file(var_path).manifest.get("state", {})
    module = mean.name if isinstance(mean, MeanModule) else ""
    require_same_mean(state, [digest], var_path, module)


def _require_paths(mean_path: str, var_path: str) -> None:
    for path, flag in ((mean_path, "--mean_model_path"), (var_path, "--var_model_path")):
        if not path:
            raise CheckpointError(f"{flag} is empty; give the checkpoint of its training")
    if FOLD_FIELD in mean_path:
        raise CheckpointError(
            f"--mean_model_path {mean_path}: nets of folds are for training a variance net; give "
            "the mean net of all images, which stands in for them (docs/theory.md, section 4)"
        )


def _loaded(flags: MeanModelFlags, path: str, precision: Precision, log: Log) -> nn.Module:
    """The frozen network of a checkpoint, made with the flags.

    Raises:
        CheckpointError: they make no network, or not that of the checkpoint; says whose flags they
            are, since who predicts gives none of them.
    """
    create: Callable[..., nn.Module] = create_mean_model
    if isinstance(flags, VarModelFlags):
        create = create_var_model
    build = partial(create, **vars(flags))
    try:
        return load_checked(build, path, precision, log, identity_of(flags))
    except ValueError as error:
        args_flag = _VAR_ARGS_FLAG if isinstance(flags, VarModelFlags) else _MEAN_ARGS_FLAG
        raise CheckpointError(
            f"{error}\n  Flags of a network are those of the training of {path}: what its manifest "
            f"says of it or, without one, the {args_flag}; give that of this training"
        ) from error


def _mean_flags(path: str, args_path: str, log: Log) -> MeanModelFlags:
    return _stored(path, args_path, MeanModelFlags, _MEAN_ARGS_FLAG, log)


def _var_flags(path: str, args_path: str, log: Log) -> VarModelFlags:
    flags = _stored(path, args_path, VarModelFlags, _VAR_ARGS_FLAG, log)
    if flags.functional:
        raise CheckpointError(
            f"{path} knows the variances of --functional {flags.functional}, not those of pixels; "
            "name a variance net that was trained without it"
        )
    return flags


def _stored(
    path: str, args_path: str, flags_class: type[FlagsT], args_flag: str, log: Log
) -> FlagsT:
    """What the network of a checkpoint was made with."""
    start = start_of_file(path)
    made = start.manifest.get("network")
    kind = str(made.get("class", "")) if isinstance(made, dict) else ""
    is_var = issubclass(flags_class, VarModelFlags)
    if kind and is_var != ("Variance" in kind):
        asked = "variance" if is_var else "mean"
        raise CheckpointError(
            f"{path} is of a {kind}, no {asked} net; were --mean_model_path and --var_model_path "
            "exchanged?"
        )
    if not args_path and not made_with(start.manifest):
        CheckpointStore("").resolve(path)  # a missing or damaged file is another matter
        raise CheckpointError(
            f"{path} has no manifest beside it, which says what the network is; give the "
            f"{args_flag} of its training"
        )
    flags = flags_of_checkpoint(
        start, args_path, flags_class, log, path_flag=args_flag, must_exist=bool(args_path)
    )
    return flags_class(**flags)


def _require_fit(mean: MeanModelFlags, mean_path: str, var: VarModelFlags, var_path: str) -> None:
    require_same_values(var_path, var, mean)
    require_same_classes(mean_path, mean, var)
    require_same_view(mean_path, mean, var)
    if mean.sizes != var.sizes:
        raise CheckpointError(
            f"{mean_path} is for {mean.small_size} → {mean.large_size} pixels, {var_path} for "
            f"{var.small_size} → {var.large_size}; name two networks of one task"
        )


def _class_names(mean_path: str, var_path: str) -> tuple[str, ...]:
    mean, var = (start_of_file(path).class_names for path in (mean_path, var_path))
    differing = differing_classes(mean, var) if mean and var else ""
    if differing:
        raise CheckpointError(
            f"{mean_path} and {var_path} know other classes (label {differing}); name two networks "
            "of one task"
        )
    return tuple(var or mean)


def _reach(nets: list[nn.Module]) -> int | None:
    """How far a result depends on its input: through the variance net, and its mean's own."""
    if not all(isinstance(net, SubpixelBase) for net in nets):
        return None
    return sum(net.reach for net in nets if isinstance(net, SubpixelBase))


def _multiple(nets: list[nn.Module], factor: int) -> int:
    """Low-res sides must be multiples of it, so that every level halves the result's sides."""
    deepest = 1
    for net in nets:
        config = getattr(net, "config", None)
        deepest = max(deepest, int(getattr(config, "downsample_factor", 1)))
    return deepest // math.gcd(deepest, factor)


def _device(device: str | torch.device | None) -> torch.device:
    return dist_util.current_device() if device is None else torch.device(device)
