"""What checkpoints of the super-resolving networks are, and which flags follow them.

To be called once presets have been settled, before the flags are read. Flags that contradict a
checkpoint are a CheckpointError (`ddpm.stored_flags.follow_checkpoint`).
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ddpm.flags import ClassFlags, DiffusionFlags
from ddpm.process import TRAINING_ONLY
from ddpm.stored_flags import (
    Start,
    follow_checkpoint,
    require_known_labels,
    start_of_file,
    start_of_run,
)
from sr_var.base_dataset import existing_path
from sr_var.data.kinds import follow_kind, settle_kind, settle_sides
from sr_var.degrade.view import settle_degradation
from sr_var.flags.degradation import DegradationFlags
from sr_var.flags.nets import BaselineModelFlags
from sr_var.flags.network import SUBPIXEL, UNET
from sr_var.flags.scripts import (
    DataFlags,
    MeanModelFlags,
    SRDiffusionModelFlags,
    ValueFlags,
    VarModelFlags,
)
from sr_var.values import require_same_values, settle_values
from utils.files.atomic import JsonObject, StrPath, write_text_atomic
from utils.files.records import Identity, differences, made_with, stored_value
from utils.files.storage import is_file
from utils.process.errors import CheckpointError, DataError
from utils.script_util import FlagValues, defaults, flags_of, free_flags, with_values
from utils.untrusted.pickle_machine import short_repr
from utils.untrusted.pickles import dump_pickle, load_pickle

if TYPE_CHECKING:
    from utils.images.listing import Entry

Log = Callable[[str], None]
_VALUES = frozenset(defaults(ValueFlags))
_OTHER_VALUES = "leave --in_channels and --value_range out, the checkpoint has them"
_FILE_NAMES = {
    MeanModelFlags: "mean_model_args.pkl",
    VarModelFlags: "var_model_args.pkl",
    BaselineModelFlags: "baseline_model_args.pkl",
}
# the original toolkit, which makes networks of these files too, refuses flags that it does not know
_ADDED = frozenset(
    {"use_bf16", "predict_residual", "network", "consistent", "value_range", "functional"}
    | {"act", "res_block"}
    | defaults(ClassFlags).keys()
    | defaults(DegradationFlags).keys()
)
_FLAGS = (*flags_of(SRDiffusionModelFlags), *flags_of(DiffusionFlags))
_IN_USE = tuple(one for one in _FLAGS if one.name not in TRAINING_ONLY)


def identity_of(flags: MeanModelFlags) -> Identity:
    """What the checkpoints of a network are: its class and flags."""
    name = _class_of(type(flags), flags.network)
    return Identity(name, _own_flags(flags), free=free_flags(type(flags)))


def _own_flags(flags: MeanModelFlags) -> FlagValues:
    """All flags but those that mean nothing to the network."""
    unused = set() if flags.class_cond else {"num_classes"}
    return {name: value for name, value in vars(flags).items() if name not in unused}


def _class_of(flags_class: type[MeanModelFlags], network: str) -> str:
    is_variance = issubclass(flags_class, VarModelFlags)
    if network == SUBPIXEL:
        return "SubpixelVarianceModel" if is_variance else "SubpixelModel"
    return "VarianceModel" if is_variance else "UNetModel"


def args_path(log_dir: str, flags_class: type[MeanModelFlags]) -> str:
    """Where a run keeps its model flags."""
    return os.path.join(log_dir, _FILE_NAMES[flags_class])


def save_model_args(log_dir: str, flags: MeanModelFlags) -> None:
    """Write the flags of a run as a pickle (`args_path`) and, beside it, as JSON to read.

    Those that the original toolkit lacks are left out where they have their defaults. Flags of
    another model that are there already get a new name, so that its run can be rescued.
    """
    path, known = args_path(log_dir, type(flags)), defaults(type(flags))
    own = _own_flags(flags)
    if os.path.exists(path) and {**known, **load_args(path)} != {**known, **own}:
        os.replace(path, f"{os.path.splitext(path)[0]}_until_{time.strftime('%Y%m%d_%H%M%S')}.pkl")
    stored = {
        name: value for name, value in own.items() if name not in _ADDED or value != known[name]
    }
    dump_pickle(stored, path)
    write_text_atomic(os.path.splitext(path)[0] + ".json", json.dumps(stored, indent=1))


def load_model_args(path: str, flags_class: type[MeanModelFlags], log: Log = print) -> FlagValues:
    """The stored flags; a flag that the file lacks keeps its default.

    Raises:
        CheckpointError: if the file is missing, or holds what cannot be model flags.
    """
    path = existing_path(path, log)
    if not os.path.exists(path):
        raise CheckpointError(
            f"{path} does not exist; it is written by the training into its --log_dir"
        )
    try:
        stored = load_args(path)
    except IsADirectoryError:
        raise CheckpointError(
            f"{path} is a folder; name the file of model flags, as "
            f"{os.path.join(path, _FILE_NAMES[flags_class])}"
        ) from None
    except ValueError as error:
        raise CheckpointError(str(error)) from None
    # the original toolkit stores None where nothing was said
    stored = {name: "" if value is None else value for name, value in stored.items()}
    return _checked(stored, flags_class, path, log)


def _checked(
    stored: FlagValues, flags_class: type[MeanModelFlags], source: str, log: Log
) -> FlagValues:
    known = {one.name: one for one in flags_of(flags_class)}
    unknown = sorted(stored.keys() - known.keys())
    if unknown:
        log(f"notice: {source} holds flags of no use here: {', '.join(unknown)}")
    flags = {
        name: stored_value(one, stored.get(name, one.default), source)
        for name, one in known.items()
    }
    problem = problem_with_images(flags)
    if problem:
        raise CheckpointError(f"{source}: {problem}, and train such a network")
    return flags


def problem_with_images(flags: Mapping[str, object]) -> str:
    """What a network of the flags could not do with images; empty if nothing."""
    channels, least = flags["in_channels"], 1
    if not isinstance(channels, int) or channels < least:
        return f"in_channels {channels} is no number of channels: use {least} or more"
    for name, needed in (("out_channels", channels), ("dims", 2)):
        if flags[name] != needed:
            return (
                f"{name} {flags[name]} does not fit the images, of {channels} channels in two "
                f"dimensions: use {needed}"
            )
    return ""


def flags_of_checkpoint(
    start: Start,
    path: str,
    flags_class: type[MeanModelFlags],
    log: Log,
    *,
    path_flag: str = "",
    must_exist: bool = False,
) -> FlagValues:
    """The flags that the network of a checkpoint was made with.

    Those in the manifest; of an earlier version's or another tool's checkpoint those in the file
    of model flags at `path`. `path_flag` named that file or its folder; where it is empty, nobody
    did, and the file may be that of another run. With `must_exist` a missing file is an error also
    where the manifest has the flags; with an empty `path` they are those of the manifest alone.

    Raises:
        CheckpointError: as `load_model_args`, or if manifest and file tell of two networks.
    """
    made = made_with(start.manifest)
    if not made:
        return load_model_args(path, flags_class, log)
    flags = _checked(made, flags_class, f"the manifest of {start.path}", log)
    if not path:
        return flags
    try:
        stored = load_model_args(path, flags_class, log)
    except CheckpointError:
        if must_exist or os.path.exists(path):
            raise
        log(f"notice: {path} does not exist; the manifest of {start.path} has the flags")
        return flags
    free = free_flags(flags_class)
    differing = [one for one in differences(flags, stored, {}) if one.name not in free]
    if not differing:
        return stored
    listed = ", ".join(map(str, differing))
    if path_flag:
        raise CheckpointError(
            f"{start.path} is not of the network that {path} tells of: {listed}; give the "
            f"{path_flag} of its own training, or leave it out"
        )
    log(f"notice: {path} is of another network: {listed}; the manifest of the checkpoint counts")
    return flags


def refuse_other_setting(
    state: JsonObject, name: str, value: object, before: object = None
) -> None:
    """Refuse to resume a run with a setting that it was not begun with.

    `state` is stored with the checkpoint, empty for a fresh start or a file of another tool; a
    checkpoint that lacks the key has the value `before`. Values are of JSON types.
    """
    if state and state.get(name, before) != value:
        raise CheckpointError(
            f"the run to resume has {name} {state.get(name, before)!r}, the flags say {value!r}; "
            "give the same flags, or another --model_save_dir to start afresh"
        )


def require_same_classes(path: str, mean: ClassFlags, variance: ClassFlags) -> None:
    """Refuse the mean net of `path` beside a variance net that is told other classes.

    The residuals of a mean that does not know the class contain the gap between the classes'
    means, and those of one that does lack it: such a pair has neither Var[Y|X] nor Var[Y|X, class]
    (docs/theory.md, eq. 69).

    Raises:
        CheckpointError: says which flag to change.
    """
    if mean.num_labels == variance.num_labels:
        return
    told = "no class" if mean.num_labels is None else f"one of {mean.num_classes} classes"
    here = "none" if variance.num_labels is None else f"one of {variance.num_classes}"
    raise CheckpointError(
        f"the mean net {path} is told {told}, the variance net {here}: together they would have "
        f"the variance of neither; give --class_cond {mean.class_cond} (and --num_classes) as for "
        "the mean net, or name another mean net"
    )


def require_known_classes(paths: Sequence[str], entries: Sequence[Entry], flags: DataFlags) -> None:
    """Refuse images of classes that the networks of these checkpoints know otherwise, or not.

    Nothing is refused for a network without classes.

    Raises:
        OtherClasses: names the class.
    """
    for path in paths:
        known = start_of_file(path).class_names
        require_known_labels(entries, known, flags.data_info_dict_path)


def load_args(path: StrPath) -> dict[str, bool | int | float | str | None]:
    """Read a pickled dict of model flags; numpy scalars become Python numbers.

    Anything but names with bool, int, float, str or None is a DataError.
    """
    content = load_pickle(path)
    if not isinstance(content, dict):
        raise DataError(f"{os.fspath(path)}: holds {short_repr(content)}, expected a dict of flags")
    flags: dict[str, bool | int | float | str | None] = {}
    for name, stored in content.items():
        value = stored.item() if isinstance(stored, np.generic) else stored
        if not isinstance(name, str) or not isinstance(value, (bool, int, float, str, type(None))):
            raise DataError(
                f"{os.fspath(path)}: flag {short_repr(name)} has the value {short_repr(value)}; a "
                "flag is a name with a boolean, a number, a string or None"
            )
        flags[name] = value
    return flags


def follow_run(args: argparse.Namespace) -> argparse.Namespace:
    """The arguments of a training of the denoiser, which follow the checkpoint it starts from."""
    args = settle_degradation(args)
    start = start_of_run(args, args.model_save_dir)
    args = follow_kind(args, made_with(start.manifest), start.path) if start.is_resumed else args
    args = follow_checkpoint(args, start, _FLAGS)
    return args if start.is_resumed else _settled(args, start)


def _settled(args: argparse.Namespace, start: Start) -> argparse.Namespace:
    """The arguments of a new training with what follows from the images."""
    args = args if made_with(start.manifest) else settle_sides(args)
    return settle_kind(settle_values(args))


def follow_denoiser(args: argparse.Namespace) -> argparse.Namespace:
    """The arguments of a script that uses the denoiser of `--model_path`."""
    args, start = settle_degradation(args), start_of_file(args.model_path)
    args = follow_kind(args, made_with(start.manifest), start.path)
    return follow_checkpoint(args, start, _IN_USE)


def follow_net_run(
    args: argparse.Namespace, flags_class: type[MeanModelFlags]
) -> argparse.Namespace:
    """The arguments of a training of a mean, variance or baseline net.

    The model flags are those of the run that it goes on with, whatever the command line says.

    Raises:
        CheckpointError: if that run has no stored flags, or others with `--strict_flags True`.
        ValueError: if the command line asks for a network of other data than images.
    """
    args = settle_degradation(args)
    start = start_of_run(args, args.model_save_dir)
    if start.is_resumed:
        return _follow_net(args, start, flags_class)
    network = start.manifest.get("network")
    made = network.get("class") if isinstance(network, dict) else None
    if made is None or made in [
        _class_of(flags_class, kind) for kind in (UNET, SUBPIXEL)
    ]:  # else who loads it says that it does not fit
        args = follow_checkpoint(args, start, flags_of(flags_class))
    args = _settled(args, start)
    problem = problem_with_images(vars(args))
    if problem:
        raise ValueError(f"--{problem}")
    return args


def follow_net(args: argparse.Namespace, flags_class: type[MeanModelFlags]) -> argparse.Namespace:
    """The arguments of a script that tests the net of `--model_path`, whose model flags count."""
    args = settle_degradation(args)
    return _follow_net(args, start_of_file(args.model_path), flags_class)


def _follow_net(
    args: argparse.Namespace, start: Start, flags_class: type[MeanModelFlags]
) -> argparse.Namespace:
    if not start.manifest and not is_file(start.path):
        return settle_kind(args)  # of a function; else who loads it says what is there
    notices, path = list(getattr(args, "notices", ())), args_path(args.log_dir, flags_class)
    flags = flags_of_checkpoint(
        start,
        path,
        flags_class,
        notices.append,
        path_flag="--log_dir" if "log_dir" in args.given_flags else "",
    )
    asked = {name: getattr(args, name) for name in _VALUES & args.given_flags}
    own = {name: flags[name] for name in defaults(ValueFlags)}
    require_same_values(start.path, ValueFlags(**own), ValueFlags(**own | asked), _OTHER_VALUES)
    made = made_with(start.manifest)
    is_of_manifest = made and made.items() <= flags.items()  # else a free flag is the file's
    source = f"the manifest of {start.path}" if is_of_manifest else path
    start = replace(start, manifest={"network": {"flags": flags}}, in_charge=source)
    args = follow_kind(with_values(args, notices=notices), flags, start.path)
    return follow_checkpoint(args, start, flags_of(flags_class))
