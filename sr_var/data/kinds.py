"""What the files of true and of measured images are, and what flags of a training follow from it.

A network of measured pairs sees X in the channels and the range of values of Y where both folders
hold files of one kind. Where they do not, it sees X in its own, which stand in the words of its
`--degradation` (`sr_var.degrade.measured`), so that whoever uses the network knows them.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from sr_var.base_dataset import existing_path, load_entries
from sr_var.degrade.measured import kind_of, words_of
from sr_var.flags.degradation import is_measured
from sr_var.flags.scripts import ValueFlags
from utils.files.records import find_record
from utils.images.crops.measured import FLAG, Kind, partners_in, stem
from utils.images.crops.native_crops import is_native_only
from utils.images.files import resolve_image_path
from utils.images.native import StoredKind, stored_kind
from utils.process.errors import CheckpointError, DataError
from utils.script_util import from_args, with_values
from utils.sizes import Size

PAIRS_FILE = "pairs.json"
_NUM_LOOKED_AT = 17
_RANGES = {"uint8": "0,255", "uint16": "0,65535"}
_PICTURES = (1, 3)


class Side(NamedTuple):
    """One folder of pairs: how many channels its files have, and in which range of values.

    `value_range` is "" of 8-bit pictures and None of floats, whose range no file tells.
    """

    num_channels: int
    value_range: str | None

    @classmethod
    def of(cls, kind: StoredKind, names: Iterable[str]) -> Side:
        """That of files of one kind, of these names."""
        values = _RANGES.get(kind.type)
        is_picture = kind.type == "uint8" and kind.num_channels in _PICTURES
        if is_picture and not any(map(is_native_only, names)):
            values = ""
        return cls(kind.num_channels, values)

    @classmethod
    def parse(cls, record: Mapping[str, Any]) -> Side:
        """What `record` gave; a ValueError for anything else."""
        side = cls(record["channels"], record["value_range"])
        if type(side.num_channels) is not int or not isinstance(side.value_range, str | None):
            raise ValueError("no kind of images")
        return side

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {"channels": self.num_channels, "value_range": self.value_range}


class Sides(NamedTuple):
    """Of true and measured images, and how many times smaller these are; 0: not known."""

    true: Side
    measured: Side
    factor: int = 0


def may_stand_for(one: int, other: int) -> bool:
    """Whether images of so many channels are read as such of others: grey levels and RGB are."""
    return one == other or {one, other} <= set(_PICTURES)


def _known(args: argparse.Namespace) -> Sides | None:
    """What pairs.json beside the list says of these pairs, else some of their files.

    None where they cannot be read: whoever reads them tells what is wrong.
    """
    list_path = existing_path(args.data_info_dict_path)
    path = os.path.join(os.path.dirname(list_path), PAIRS_FILE)
    found = find_record(path, lambda record: _of_record(record, args.pairs_dir))
    if found is not None:
        return found
    try:
        partners = partners_in(args.pairs_dir)
        names = [one.name for one in load_entries(list_path, args.data_dir)]
        step = max(1, len(names) // _NUM_LOOKED_AT)
        chosen = [name for name in names[::step] if stem(name) in partners][:_NUM_LOOKED_AT]
        measured = [partners[stem(name)] for name in chosen]
        return Sides(_side(args.data_dir, chosen), _side(args.pairs_dir, measured))
    except (DataError, OSError):
        return None


def _of_record(record: Mapping[str, Any], pairs_dir: str) -> Sides:
    if os.path.realpath(record["pairs_dir"]) != os.path.realpath(pairs_dir):
        raise ValueError("of another folder")
    return Sides(Side.parse(record["true"]), Side.parse(record["measured"]), int(record["factor"]))


def _side(folder: str, names: Sequence[str]) -> Side:
    if not names:
        raise DataError(f"{folder}: no pairs")
    return Side.of(stored_kind(resolve_image_path(folder, names[0])), names)


def settle_sides(args: argparse.Namespace) -> argparse.Namespace:
    """The arguments of a new training with the channels of true images and the side of measured
    ones, where they were left out.

    Raises:
        ValueError: sizes that are not those of the pairs, where pairs.json tells their factor.
    """
    known = _known(args) if args.pairs_dir else None
    if known is None:
        return args
    given, made = args.given_flags, dict[str, Any]()
    if "in_channels" not in given:
        made["in_channels"] = known.true.num_channels
        if hasattr(args, "out_channels") and "out_channels" not in given:
            made["out_channels"] = known.true.num_channels
    large = Size.of(args.large_size)
    small = Size(*(side // known.factor for side in large)) if known.factor else large
    fits = known.factor and large.factor_over(small) == known.factor
    if fits and "small_size" not in given:
        made["small_size"] = small.stored
    elif known.factor and (not fits or Size.of(args.small_size) != small):
        raise ValueError(
            f"--large_size {large} --small_size {args.small_size}: the pairs of {FLAG} "
            f"{args.pairs_dir} are {known.factor} times apart ({PAIRS_FILE}): make them fit"
        )
    told = ", ".join(
        f"--{name} {value}" for name, value in made.items() if _is_new(args, name, value)
    )
    notices = [f"notice: as the pairs are: {told}"] if told else []
    return with_values(args, **made, notices=(*getattr(args, "notices", ()), *notices))


def _is_new(args: argparse.Namespace, name: str, value: object) -> bool:
    return bool(getattr(args, name) != value)


def settle_kind(args: argparse.Namespace) -> argparse.Namespace:
    """The arguments with the kind of measured images in the words of `--degradation`.

    The channels and the range of the true ones have been settled.

    Raises:
        ValueError: floats, and no `--pairs_value_range`; or flags that contradict the files.
    """
    if not args.pairs_dir:
        return args
    own = ValueFlags(args.in_channels, args.value_range)
    like = Side(args.in_channels, args.value_range)
    known = _known(args) or Sides(like, like)
    channels, values = args.pairs_in_channels, args.pairs_value_range
    if channels and not may_stand_for(channels, known.measured.num_channels):
        raise ValueError(
            f"--pairs_in_channels {channels}: the images of {FLAG} {args.pairs_dir} have "
            f"{known.measured.num_channels}: leave it out"
        )
    if not channels:
        is_same = known.true.num_channels == known.measured.num_channels
        channels = args.in_channels if is_same else known.measured.num_channels
    if not values:
        is_same = known.true.value_range == known.measured.value_range
        values = args.value_range if is_same else known.measured.value_range
    if values is None:
        raise ValueError(
            f"--pairs_value_range is needed: {FLAG} {args.pairs_dir} holds floats, whose range no "
            "file tells; give the lowest and the highest value, as in --pairs_value_range 0,1"
        )
    if not values and channels not in _PICTURES:
        values = _RANGES["uint8"]
    seen = ValueFlags(channels, values)
    is_like = (channels, seen.values_range) == (own.in_channels, own.values_range)
    kind = None if is_like else Kind(channels, seen.values_range)
    return with_values(args, degradation=words_of(kind))


def _values(made: Mapping[str, Any]) -> dict[str, Any]:
    return {name: made[name] for name in ("in_channels", "value_range") if name in made}


def follow_kind(args: argparse.Namespace, made: Mapping[str, Any], path: str) -> argparse.Namespace:
    """The arguments of a script that uses a network of pairs; `made` are the flags of its file.

    Raises:
        CheckpointError: flags ask for measured images of another kind.
    """
    stored = made.get("degradation")
    if not getattr(args, "pairs_dir", "") or not isinstance(stored, str) or not is_measured(stored):
        return args
    trained = replace(from_args(ValueFlags, args), **_values(made))
    kind = kind_of(stored) or Kind(trained.in_channels, trained.values_range)
    channels = getattr(args, "pairs_in_channels", 0)
    values = getattr(args, "pairs_value_range", "")
    asked = Kind(
        channels or kind.num_channels,
        ValueFlags(3, values).values_range if values else kind.values_range,
    )
    if asked != kind:
        raise CheckpointError(
            f"{path} sees measured images of {kind.num_channels} channels in the range "
            f"{kind.values_range or _RANGES['uint8']}: leave --pairs_in_channels and "
            "--pairs_value_range out, the checkpoint has them"
        )
    return with_values(args, degradation=stored)
