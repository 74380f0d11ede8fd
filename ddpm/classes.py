"""The names of a network's classes: kept in its checkpoints, compared wherever labels are made.

Names are listed by label; an empty one is a label that no image of the training had. An empty list:
not known, or no classes. No torch.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from utils.files.identity import shown
from utils.process.errors import CheckpointError, DataError

if TYPE_CHECKING:
    from utils.images.dataset import Entry

CLASSES_KEY = "classes"
_MAX_SHOWN = 5


class OtherClasses(DataError):
    """Images whose labels mean something else to the network."""


def class_names(entries: Sequence[Entry]) -> list[str]:
    """The names of the classes of labelled images, by label."""
    found = {entry.y: entry.group for entry in entries}
    names = [found.get(y, "") for y in range(max(found, default=-1) + 1)]
    return names if any(names) else []


def known_classes(state: Mapping[str, Any], path: str) -> list[str]:
    """The names that a checkpoint keeps.

    Args:
        state: what its manifest has under ``state``.
        path: of the checkpoint, for the message.

    Raises:
        CheckpointError: for anything but words.
    """
    names = state.get(CLASSES_KEY) or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CheckpointError(
            f"{path} keeps {shown(names)} as the names of its classes, expected words; its "
            "manifest is not of this toolkit: move it away to go by labels alone"
        )
    return list(names) if any(names) else []


def trained_labels(names: Sequence[str], num_classes: int) -> list[int]:
    """The labels that the network was trained on: those with a name, or all if none has one."""
    named = [y for y, name in enumerate(names[:num_classes]) if name]
    return named or list(range(num_classes))


def listed_classes(names: Sequence[str]) -> str:
    """The first classes of a network, for a message."""
    found = [f"{y} {shown(name)}" for y, name in enumerate(names) if name]
    return ", ".join(found[:_MAX_SHOWN]) + _more(found)


def differing_classes(here: Sequence[str], there: Sequence[str]) -> str:
    """The first labels that have another name there; empty if none has."""
    pairs = enumerate(itertools.zip_longest(here, there, fillvalue=""))
    found = [f"{y} is {shown(a)} and there {shown(b)}" for y, (a, b) in pairs if a != b]
    return ", ".join(found[:_MAX_SHOWN]) + _more(found)


def _more(found: Sequence[str]) -> str:
    return f", … {len(found)} in all" if len(found) > _MAX_SHOWN else ""


def require_known_labels(entries: Sequence[Entry], known: Sequence[str], path: str) -> None:
    """Refuses images whose class the network knows by another label, or does not know.

    Args:
        entries: labelled images.
        known: the network's names; empty: nothing can be said.
        path: of what gave the labels, for the message.

    Raises:
        OtherClasses: names the class, both labels and the remedy.
    """
    labels = {name: y for y, name in enumerate(known) if name}
    for entry in entries if labels else ():
        y = labels.get(entry.group)
        if y is None:
            raise OtherClasses(
                f"{path} lists {shown(entry.group)}, a class that the network was not trained on; "
                f"list its images under one that it knows: {listed_classes(known)}"
            )
        if y != entry.y:
            raise OtherClasses(
                f"{path} gives {shown(entry.group)} the label {entry.y}, the network was trained "
                f"with {y}; list the classes with the labels of the training"
            )
