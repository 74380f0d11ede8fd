"""Which classes a sampler draws, given as labels or by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import replace

from ddpm.stored_flags import listed_classes, trained_labels
from image_ddpm.flags import ImageSampleFlags

# what a record of settings says where a random label may be any of the network's
ALL_LABELS = "all"


def with_label_numbers(
    flags: ImageSampleFlags, names: Sequence[str], log: Callable[[str], None]
) -> ImageSampleFlags:
    """The flags with the labels of the classes that ``--labels`` names.

    A whole number is a label, whatever the classes are called.

    Args:
        flags: of the sampler.
        names: of the network's classes by label; empty: not known.
        log: told of a number that is also the name of another class.

    Raises:
        ValueError: for a name that no class has; suggests the nearest.
    """
    chosen = flags.chosen_labels
    numbers = [_number(part, names) for part in chosen]
    for part, number in zip(chosen, numbers, strict=True):
        if part in names and names.index(part) != number:
            log(
                f"notice: --labels {part} is label {part}; the class of that name has label "
                f"{names.index(part)}"
            )
    if all(map(_is_number, chosen)):
        return flags
    return replace(flags, labels=",".join(map(str, numbers)))


def _is_number(part: str) -> bool:
    try:
        int(part)
    except ValueError:
        return False
    return True


def _number(part: str, names: Sequence[str]) -> int:
    return int(part) if _is_number(part) else _label_of(part, names)


def _label_of(name: str, names: Sequence[str]) -> int:
    if name in names:
        return names.index(name)
    if not any(names):
        raise ValueError(
            f"--labels {name}: the checkpoint does not keep the names of its classes; give whole "
            "numbers, as in 0,7"
        )
    near = difflib.get_close_matches(name, [other for other in names if other], n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"it has {listed_classes(names)}"
    raise ValueError(f"--labels {name}: the network has no such class ({hint})")


def random_labels(names: Sequence[str], num_classes: int) -> str:
    """Which labels are drawn at random, as a record of settings keeps it."""
    labels = trained_labels(names, num_classes)
    return ALL_LABELS if len(labels) == num_classes else ",".join(map(str, labels))
