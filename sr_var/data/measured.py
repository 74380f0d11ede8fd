"""Measured pairs of a folder: which images have a partner, and how many times smaller it is."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from sr_var.data.kinds import PAIRS_FILE, Side, Sides, may_stand_for
from sr_var.flags.scripts import DataInfoFlags
from utils.files.atomic import JsonObject, write_json_atomic
from utils.flags.groups import ERROR
from utils.images.crops.dataset import look_at
from utils.images.crops.measured import FLAG, factor_of_pair, listed, partners_in, stem
from utils.images.files import BadImageError, resolve_image_path, with_extension
from utils.images.native import StoredKind, stored_kind
from utils.machine.threads import num_cores
from utils.process.errors import DataError
from utils.runs.job import working
from utils.sizes import Size

Log = Callable[[str], None]
_CHUNK = 256


class Pairs(NamedTuple):
    """What a check found: names of true images, what all pairs are, and who was left out."""

    names: list[str]
    sides: Sides
    left_out: list[str]  # why, and who: a line each


def check_pairs(names: Sequence[str], flags: DataInfoFlags, log: Log) -> Pairs:
    """The true images that have a measured partner of the factor that most pairs have.

    Either is of the bit depth that most of its folder have, and of their channels; grey levels and
    RGB may be mixed.

    Files of both folders are opened, measured ones as a whole unless `--check_images False`. What
    is no pair is logged, a line each, and left out where `--on_bad_image skip` says so.

    Raises:
        DataError: something is no pair and is not to be left out; none is left; as `partners_in`.
        StopRequested: if a signal came.
    """
    partners = partners_in(flags.pairs_dir, log)
    both, wrong = _by_name(names, partners, flags)
    factors = _factors(both, partners, flags, wrong)
    factor = Counter(factors.values()).most_common(1)[0][0] if factors else 0
    kept = [name for name in both if factors.get(name) == factor]
    wrong += [
        f"{name} is {factors[name]} times as large as its measured image, others {factor} times"
        for name in factors
        if factors[name] != factor
    ]
    theirs = {name: partners[stem(name)] for name in kept}
    (true, odd), (measured, odd_measured) = (
        _common(_kinds(side, folder), log)
        for side, folder in ((kept, flags.data_dir), (list(theirs.values()), flags.pairs_dir))
    )
    wrong += [f"{with_extension(name)} has {why}" for name, why in odd.items()]
    wrong += [f"{name} in {FLAG} has {why}" for name, why in odd_measured.items()]
    kept = [name for name in kept if name not in odd and theirs[name] not in odd_measured]
    for line in wrong:
        log(f"no pair: {line}")
    if not kept or (wrong and flags.on_bad_image == ERROR):
        raise DataError(
            f"{FLAG} {flags.pairs_dir}: {len(kept)} pairs with --data_dir {flags.data_dir}, and "
            f"{len(wrong)} that are none: {listed(wrong)}; mend them, or leave them out with "
            "--on_bad_image skip"
        )
    log(f"{len(kept)} pairs, true images {factor} times as large along a side; {len(wrong)} none")
    log(f"true images have {true}, measured ones {measured}")
    _say_small_size(flags, factor, log)
    sides = Side.of(true, kept), Side.of(measured, [theirs[name] for name in kept])
    return Pairs(kept, Sides(*sides, factor), wrong)


def _by_name(
    names: Sequence[str], partners: Mapping[str, str], flags: DataInfoFlags
) -> tuple[list[str], list[str]]:
    """The true images of which there is a measured one, and who is alone, a line each."""
    stems = {stem(name): name for name in names}
    if len(stems) < len(names):
        twice = next(name for name in names if stems[stem(name)] != name)
        raise DataError(
            f"--data_dir {flags.data_dir}: {twice} and {stems[stem(twice)]} are of one name, and "
            "which one a measured image belongs to cannot be known; keep one of them"
        )
    wrong = [
        f"{with_extension(name)} has no measured image"
        for name in names
        if stem(name) not in partners
    ]
    wrong += [
        f"{partner} in {FLAG} has no true image"
        for key, partner in sorted(partners.items())
        if key not in stems
    ]
    return [name for key, name in stems.items() if key in partners], wrong


def _kinds(names: Sequence[str], folder: str) -> dict[str, StoredKind]:
    """What each file is, of those that can be read."""

    def look(name: str) -> StoredKind | None:
        with contextlib.suppress(OSError, BadImageError):
            return stored_kind(resolve_image_path(folder, name))
        return None

    with ThreadPoolExecutor(4 * num_cores()) as pool:
        found = zip(names, pool.map(look, names), strict=True)
        return {name: kind for name, kind in found if kind is not None}


def _common(kinds: Mapping[str, StoredKind], log: Log) -> tuple[StoredKind, dict[str, str]]:
    """What most files are, and why others are not read like them, by name."""
    counts = Counter(kinds.values())
    if not counts:
        return StoredKind(0, ""), {}
    common = counts.most_common(1)[0][0]
    odd = {
        name: f"{kind}, others {common}"
        for name, kind in kinds.items()
        if kind.type != common.type or not may_stand_for(kind.num_channels, common.num_channels)
    }
    num_mixed = sum(kind != common for kind in kinds.values()) - len(odd)
    if num_mixed:
        what = "become RGB" if common.num_channels != 1 else "become grey levels"
        log(f"notice: {num_mixed} images have other channels than most ({common}): they {what}")
    return common, odd


def _say_small_size(flags: DataInfoFlags, factor: int, log: Log) -> None:
    large = Size.of(flags.large_size)
    small = Size(large.height // factor, large.width // factor)
    if large.factor_over(small) == factor:
        log(f"crops: --large_size {large} --small_size {small}")
    else:
        log(
            f"notice: --large_size {large} is no multiple of the {factor} of the pairs: the sizes "
            "of a network must be"
        )


def _factors(
    both: Sequence[str], partners: Mapping[str, str], flags: DataInfoFlags, wrong: list[str]
) -> dict[str, int]:
    """The factor of each pair; those that have none, or cannot be read, go to `wrong`."""
    found: dict[str, int] = {}
    with working(len(both), "checking pairs", "pair") as job:
        for start in range(0, len(both), _CHUNK):
            chunk = both[start : start + _CHUNK]
            theirs = [partners[stem(name)] for name in chunk]
            true = look_at(chunk, flags.data_dir, flags)
            measured = look_at(theirs, flags.pairs_dir, flags, is_decoding=flags.check_images)
            for name, partner in zip(chunk, theirs, strict=True):
                if name not in true or partner not in measured:
                    whose = partner if partner not in measured else with_extension(name)
                    wrong.append(f"{whose} cannot be opened")
                    continue
                sizes = true[name].size, measured[partner].size
                factor = factor_of_pair(*sizes)
                if factor is None:
                    (width, height), (own_width, own_height) = sizes
                    wrong.append(
                        f"{with_extension(name)} is {width}×{height}, its measured image "
                        f"{own_width}×{own_height}: no whole factor"
                    )
                else:
                    found[name] = factor
            job.done(len(chunk))
    return found


def write_pairs(pairs: Pairs, names: Sequence[str], flags: DataInfoFlags, log: Log) -> None:
    """Write the record of the pairs that are listed, `pairs.json`, beside the info dicts."""
    path = os.path.join(flags.output_dir, PAIRS_FILE)
    record: JsonObject = {
        "data_dir": flags.data_dir,
        "pairs_dir": flags.pairs_dir,
        "factor": pairs.sides.factor,
        "true": pairs.sides.true.record(),
        "measured": pairs.sides.measured.record(),
        "pairs": len(names),
        "left_out": pairs.left_out,
    }
    write_json_atomic(path, record)
    log(f"wrote {path}: factor {pairs.sides.factor}")
