"""The images of the data set, as the info dicts list them; `utils.images.crops.dataset` cuts them.

Also the paths that the documented commands misspell.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable

from ddpm.entries import FolderLabels
from ddpm.entries import load_entries as entries_of_folder
from ddpm.info_dict import listed_entries
from ddpm.stored_flags import check_labels
from sr_var.flags.scripts import DataFlags, SampleFlags
from utils.flags.groups import ERROR
from utils.images.crops.dataset import look_at, say_sizes, without_small
from utils.images.listing import ImageList
from utils.process.errors import DataError
from utils.script_util import with_values
from utils.sizes import Size, SizeLike

# what the documented commands misspell: the folder of the info dicts, a slash behind --log_dir
_SLIPS = (
    (r"data/imagenet/", "data/sr_imagenet/"),
    (r"(?<!/)((?:mean|var)_model_args\.pkl)$", r"/\1"),
)


def existing_path(path: str, log: Callable[[str], None] = print) -> str:
    """Return the path, or what is meant where only that exists; `log` receives a notice then."""
    if os.path.exists(path):
        return path
    for slip, correction in _SLIPS:
        meant = re.sub(slip, correction, path)
        if meant != path and os.path.exists(meant):
            log(f"notice: {path} does not exist; using {meant}")
            return meant
    return path


def load_entries(
    data_info_dict_path: str, data_dir: str, flag: str = "--data_info_dict_path"
) -> ImageList:
    """All images of an info dict, in the dict's order; `flag` named it.

    Raises:
        DataError: if the dict or the folder is missing, the dict empty, or a name unsafe.
    """
    return listed_entries(existing_path(data_info_dict_path), data_dir, flag)


def without_info_dict(args: argparse.Namespace) -> argparse.Namespace:
    """The arguments of a training on a whole folder, where no list of its images is named.

    That is with a `--data_dir`, without `--data_info_dict_path` and without the file that this
    stands for. A notice says so.
    """
    path, given = args.data_info_dict_path, args.given_flags
    if "data_info_dict_path" in given or "data_dir" not in given or os.path.exists(path):
        return args
    print(
        f"notice: no --data_info_dict_path, and no {path}: all images below --data_dir "
        f"{args.data_dir} are for training"
    )
    return with_values(args, data_info_dict_path="")


def load_training_entries(
    flags: DataFlags, num_classes: int | None, log: Callable[[str], None]
) -> ImageList:
    """The images of the info dict, or without one all of the folder; labels are checked.

    `num_classes` is that of a network with classes. Raises DataError: see `load_entries` and
    `ddpm.entries.load_entries`.
    """
    if not flags.data_info_dict_path:
        folder = FolderLabels(flags.data_dir, flags.on_bad_image)
        return entries_of_folder(folder, num_classes, log)
    entries = load_entries(flags.data_info_dict_path, flags.data_dir)
    check_labels(entries, num_classes)
    log(f"{len(entries)} training images from {flags.data_info_dict_path}")
    return entries


def load_test_entries(
    flags: DataFlags | SampleFlags, sizes: tuple[SizeLike, SizeLike], log: Callable[[str], None]
) -> ImageList:
    """The images to test on or to draw samples for; `--small_images` may leave some out.

    Their headers are read: how large they are, and what becomes of that, is said at the start.
    `sizes` are (large, small).

    Raises:
        DataError: see `load_entries`; or for images that are low-res already, if all are or
            small ones are an error.
    """
    is_for_samples = isinstance(flags, SampleFlags)
    name = "to_sample_images_dict_path" if is_for_samples else "data_info_dict_path"
    entries = load_entries(getattr(flags, name), flags.data_dir, f"--{name}")
    facts = look_at(entries.names, flags.data_dir, flags)
    if not facts:
        return entries  # whoever reads them tells what is wrong
    large, small = map(Size.of, sizes)
    say_sizes(facts.values(), large, len(facts), log, flags.crop)
    low = [
        name
        for name, one in facts.items()
        if one.height <= small.height or one.width <= small.width
    ]
    if low and not getattr(flags, "pairs_dir", ""):  # X is measured, and as small as it is
        shown = ", ".join(f"{name} {facts[name].width}×{facts[name].height}" for name in low[:5])
        which = "their short side" if small.is_square else "a side"
        told = (
            f"{len(low)} of {len(facts)} images are low-res already, at most {small} pixels on "
            f"{which} ({shown}{', …' if len(low) > 5 else ''}): they would be enlarged to "
            f"{large} pixels and reduced again, which gives another low-res image than theirs"
        )
        if flags.small_images == ERROR or len(low) == len(facts):
            raise DataError(
                f"{told}; give the high-res images that they come from, or leave them out"
            )
        log(f"warning: {told}")
    left_out = without_small(facts, large, flags, log)
    return entries.keep(lambda name: name not in left_out)
