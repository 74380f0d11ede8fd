"""Which class each image of a folder has, if any, and which images are for testing.

Both are functions of names, folders and the seed; no image is opened.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import numpy as np

from sr_var.flags.scripts import BY_FOLDER, BY_LIST, DataInfoFlags
from utils.files.atomic import read_up_to
from utils.flags.groups import AUTO, FOLDER, NONE
from utils.images.files import DEFAULT_EXTENSION
from utils.images.folder import class_in_name, class_of, other_reading
from utils.process.errors import DataError
from utils.seeds import stable_seed

# the class of images that have none
NO_CLASS = "images"
MAX_LIST_BYTES = 64 << 20
_WORDNET_ID = re.compile(r"n\d{8}")
_NUM_SHOWN = 5


def classes(
    names: Sequence[str], flags: DataInfoFlags, log: Callable[[str], None]
) -> dict[str, str]:
    """Image → class; says what another reading of the names would give.

    With `--label_from auto` a flat folder in which some name shows no class has none at all: every
    image is of the class `NO_CLASS`, which is told.

    Raises:
        DataError: a name shows no class, and classes are asked for or are those of ImageNet.
    """
    source, is_split = flags.label_from, bool(flags.test_folder)
    below = [name.partition("/")[2] or name if is_split else name for name in names]
    if source == AUTO and not any("/" in name for name in below):
        source = _source_of_flat(below, log)
    if source == NONE:
        return dict.fromkeys(names, NO_CLASS)
    found, nameless = {}, []
    for name in names:
        try:
            # one string a class, not one an image
            found[name] = sys.intern(class_of(name, source, has_split_folder=is_split))
        except DataError:
            nameless.append(name)
    if nameless:
        raise DataError(
            f"{len(nameless)} of {len(names)} images show no class ({_first(nameless)}; "
            f"--label_from {source}): give --label_from {NONE} if no image is to have one; else "
            "put them into class folders, or name files class_number.JPEG"
        )
    if flags.label_from == AUTO:
        for line in other_reading(below, list(found.values()), FOLDER):
            log(line)
    return found


def _source_of_flat(names: Sequence[str], log: Callable[[str], None]) -> str:
    """Where the classes of a flat folder are read from: names or nowhere."""
    shown = [class_in_name(name) for name in names]
    nameless = [name for name, one in zip(names, shown, strict=True) if not one]
    if not nameless:
        return AUTO
    if any(map(_WORDNET_ID.fullmatch, shown)):
        raise DataError(
            f"{len(nameless)} of {len(names)} names show no class ({_first(nameless)}), and others "
            "a WordNet id, as ImageNet's; take these images out of --data_dir, or give "
            "--label_from none if no image is to have a class"
        )
    log(
        f"notice: {len(nameless)} of {len(names)} file names show no class, so no image has one "
        "(--label_from none says so without this notice, name and folder ask for classes)"
    )
    return NONE


def split(
    class_by_name: Mapping[str, str], flags: DataInfoFlags, left_out: Collection[str] = ()
) -> tuple[list[str], list[str]]:
    """(training names, test names).

    Test images are, by the flags: those below `test_folder`; those of `test_list`; those whose
    name, or folder, draws a number below `test_share`; else `num_test_per_class` of each class,
    drawn from (seed, class). More images change nothing for those that were there, but in their
    class. Only a `test_share` of 1 leaves nothing to train on. `left_out` are images that a list
    may name though they are not used.

    Raises:
        DataError: nothing would be left to train or to test on; or the list cannot be used.
    """
    names = list(class_by_name)
    if flags.test_folder:
        prefix = flags.test_folder.strip("/") + "/"
        test = {name for name in names if name.startswith(prefix)}
    elif flags.split_by == BY_LIST:
        test = _listed([*names, *left_out], flags).difference(left_out)
    elif flags.test_share > 0:
        test = _share(names, flags)
    else:
        test = _of_each_class(class_by_name, flags)
    train = [name for name in names if name not in test]
    if not test or (not train and flags.test_share < 1):
        raise DataError(
            f"{len(train)} images would be left for training and {len(test)} for testing; see "
            "--num_test_per_class, --test_share, --test_folder and --test_list"
        )
    return train, sorted(test)


def _of_each_class(class_by_name: Mapping[str, str], flags: DataInfoFlags) -> set[str]:
    by_class: dict[str, list[str]] = {}
    for name, key in class_by_name.items():
        by_class.setdefault(key, []).append(name)
    return {
        members[i]
        for key, members in by_class.items()
        for i in np.random.default_rng(stable_seed(flags.seed, key)).permutation(len(members))[
            : flags.num_test_per_class
        ]
    }


def _share(names: Sequence[str], flags: DataInfoFlags) -> set[str]:
    """Those whose unit, file or folder, draws a number below the share; at least one a side."""
    units = {name: _folder(name) if flags.split_by == BY_FOLDER else name for name in names}
    draws = {unit: stable_seed(flags.seed, "test", unit) / 2**63 for unit in units.values()}
    if flags.test_share < 1 and len(draws) < 2:
        what = "folder" if flags.split_by == BY_FOLDER else "image"
        raise DataError(
            f"--data_dir {flags.data_dir}: all {len(names)} images are of one {what}, which cannot "
            f"be on both sides of --split_by {flags.split_by}; give --split_by file, or "
            "--test_share 1 to test on all"
        )
    ordered = sorted(draws, key=lambda unit: (draws[unit], unit))
    num_below = sum(draw < flags.test_share for draw in draws.values())
    if flags.test_share < 1:
        num_below = min(max(num_below, 1), len(ordered) - 1)
    chosen = set(ordered[:num_below])
    return {name for name, unit in units.items() if unit in chosen}


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def _listed(names: Sequence[str], flags: DataInfoFlags) -> set[str]:
    """The images that the lines of `test_list` name; empty lines and those with # say nothing."""
    what = f"--test_list {flags.test_list}"
    try:
        content = read_up_to(flags.test_list, MAX_LIST_BYTES + 1)
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise DataError(
            f"{what} cannot be read ({error.strerror or error}); name a text file with an image of "
            "--data_dir a line"
        ) from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"{what} is no text in UTF-8 (byte {error.start}); give an image a line"
        ) from None
    if len(content) > MAX_LIST_BYTES:
        raise DataError(f"{what} has more than {MAX_LIST_BYTES} bytes; give an image a line")
    lines = [line.strip() for line in text.splitlines()]
    wanted = [line.removeprefix("./") for line in lines if line and not line.startswith("#")]
    known = set(names)
    short = [name if name in known else name.removesuffix(DEFAULT_EXTENSION) for name in wanted]
    unknown = [name for name, one in zip(wanted, short, strict=True) if one not in known]
    if unknown:
        raise DataError(
            f"{what}: {len(unknown)} of {len(wanted)} lines are no image of --data_dir "
            f"{flags.data_dir} ({_first(unknown)}); give names relative to it, as "
            f"{names[0]}"
        )
    return set(short)


def _first(names: Iterable[str]) -> str:
    names = list(names)
    shown = ", ".join(map(repr, names[:_NUM_SHOWN]))
    return shown + (", …" if len(names) > _NUM_SHOWN else "")
