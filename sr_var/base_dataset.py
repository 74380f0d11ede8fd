"""The images of the data set, as the info dicts list them; `utils.images.dataset` cuts them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ddpm.info_dict import listed_entries
from sr_var.compat import existing_path
from sr_var.flags.scripts import DataFlags, SampleFlags
from utils.flags.groups import ERROR
from utils.images.dataset import Entry, look_at, say_sizes, without_small
from utils.images.files import ImageFacts
from utils.process.errors import DataError


def load_entries(
    data_info_dict_path: str, data_dir: str, flag: str = "--data_info_dict_path"
) -> list[Entry]:
    """All images of an info dict, in the dict's order; `flag` named it.

    Raises:
        DataError: if the dict or the folder is missing, the dict empty, or a name unsafe.
    """
    return listed_entries(existing_path(data_info_dict_path), data_dir, flag)


def load_test_entries(
    data_info_dict_path: str,
    flags: DataFlags | SampleFlags,
    sizes: tuple[int, int],
    log: Callable[[str], None],
    flag: str = "--data_info_dict_path",
) -> list[Entry]:
    """The images to test on or to draw samples for; `--small_images` may leave some out.

    Their headers are read: how large they are, and what becomes of that, is said at the start.
    `sizes` are (large, small) sides; `flag` named the info dict.

    Raises:
        DataError: see `load_entries`; or for images that are low-res already, if all are or
            small ones are an error.
    """
    entries = load_entries(data_info_dict_path, flags.data_dir, flag)
    facts = look_at([entry.name for entry in entries], flags.data_dir, flags)
    if not facts:
        return entries  # whoever reads them tells what is wrong
    say_sizes(facts.values(), sizes[0], len(facts), log)
    _warn_of_low_res(facts, sizes, flags.small_images == ERROR, log)
    left_out = without_small(facts, sizes[0], flags, log)
    return [entry for entry in entries if entry.name not in left_out]


def _warn_of_low_res(
    facts: Mapping[str, ImageFacts],
    sizes: tuple[int, int],
    is_refused: bool,
    log: Callable[[str], None],
) -> None:
    """Name images that are no larger than what is made of them for the networks."""
    large, small = sizes
    low = [name for name, one in facts.items() if one.short_side <= small]
    if not low:
        return
    shown = ", ".join(f"{name} {facts[name].width}×{facts[name].height}" for name in low[:5])
    told = (
        f"{len(low)} of {len(facts)} images are low-res already, at most {small} pixels on their "
        f"short side ({shown}{', …' if len(low) > 5 else ''}): they would be enlarged to {large} "
        "pixels and reduced again, which gives another low-res image than theirs"
    )
    if is_refused or len(low) == len(facts):
        raise DataError(f"{told}; give the high-res images that they come from, or leave them out")
    log(f"warning: {told}")
