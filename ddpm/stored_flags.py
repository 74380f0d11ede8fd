"""What a checkpoint was made with: it decides for the flags that a command line leaves out.

Flags that were given are compared with it instead. Its manifest is read before a network is built
and so not verified; whoever loads the weights does that. torch is imported where there is one.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import Field, dataclass, field
from typing import Any

from utils.files.atomic import JsonObject
from utils.files.records import Identity, made_with, shown, stored_value
from utils.flags.groups import PrecisionFlags
from utils.images.listing import Entry, ImageList
from utils.process.errors import CheckpointError, DataError
from utils.script_util import FlagValues, defaults, with_values

CLASSES_KEY = "classes"
_MAX_SHOWN = 5


class OtherClasses(DataError):
    """Images whose labels mean something else to the network."""


def class_names(entries: Sequence[Entry]) -> list[str]:
    """The names of the classes of labelled images, by label."""
    found = {entry.y: entry.group for entry in ImageList.of(entries).last_of_classes()}
    names = [found.get(y, "") for y in range(max(found, default=-1) + 1)]
    return names if any(names) else []


def known_classes(state: JsonObject, path: str) -> list[str]:
    """The names of classes that a checkpoint keeps in the `state` of its manifest.

    Raises:
        CheckpointError: for anything but words; names `path`.
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
    """Refuse (OtherClasses) images of classes that the network knows by another label or not.

    Nothing is `known` of a network without names; `path` is of what gave the labels.
    """
    labels = {name: y for y, name in enumerate(known) if name}
    for entry in ImageList.of(entries).first_of_classes() if labels else ():
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


def check_labels(entries: Sequence[Entry], num_classes: int | None) -> None:
    """Refuse (DataError) labels that a model of so many classes (None: of none) does not know."""
    if num_classes is None:
        return
    for entry in ImageList.of(entries).first_of_classes():
        if not 0 <= entry.y < num_classes:
            raise DataError(
                f"{entry.name} has label {entry.y}, the model knows 0 to {num_classes - 1}; see "
                "--num_classes, or use --class_cond False"
            )


# a property of a run, not of a network: of both flags together, followed by a resumed run alone
_PRECISION = frozenset(defaults(PrecisionFlags))


@dataclass(frozen=True)
class Start:
    """The checkpoint that a script starts from."""

    path: str = ""  # of its model; empty if there is none
    manifest: JsonObject = field(default_factory=dict)  # of its set; empty if it has none
    is_resumed: bool = False  # a training goes on from it
    is_new_run: bool = False  # a training takes its weights alone: then nothing must agree
    # what its flags were read from, if they count even where a command line gives others
    in_charge: str = ""

    @property
    def class_names(self) -> list[str]:
        """The names of its classes by label; empty without any; errors as `known_classes`."""
        return known_classes(self.manifest.get("state", {}), self.path)

    @property
    def remedy(self) -> str:
        """What helps where flags contradict the checkpoint."""
        if self.is_resumed:
            return (
                f"leave these flags out, or start a new run with --init_from {self.path} and "
                "another --model_save_dir"
            )
        return "leave these flags out, or name the checkpoint that was made with them"


def start_of_file(path: str) -> Start:
    """The checkpoint of a script that uses a trained network; an empty path is none."""
    if not path:
        return Start()
    from utils.loops.checkpoint import manifest_beside

    return Start(path, manifest_beside(path))


def start_of_run(args: argparse.Namespace, folder: str) -> Start:
    """The checkpoint that a training goes on from in `folder`, or whose weights it takes."""
    name = args.resume_checkpoint
    if not (name or args.init_from):
        return Start()
    from utils.loops.checkpoint import CheckpointStore

    store = CheckpointStore(folder)
    if name and (name != "auto" or (folder and store.steps())):
        manifest = store.peek(name)
        step = str(manifest["step"] if manifest else store.steps()[0]) if name == "auto" else name
        return Start(store.path_of(step), manifest, is_resumed=True)
    if args.init_from:
        manifest = CheckpointStore("").peek(args.init_from)
        return Start(args.init_from, manifest, is_new_run=True)
    return Start()


def follow_checkpoint(
    args: argparse.Namespace, start: Start, flags: Iterable[Field[Any]]
) -> argparse.Namespace:
    """The arguments with the checkpoint's values for the flags that were not given.

    What was followed is said once the script has started (`utils.runs.start.started`). Presets must
    have been settled; `flags` are those that describe the checkpoint's network and process.

    Raises:
        CheckpointError: for flags that were given and differ, or values that no flag could have.
    """
    args, chosen = _apart_from_precision(args)
    made = made_with(start.manifest)
    known = {one.name: one for one in flags if one.name in made}
    given = known.keys() & args.given_flags
    same = {name for name in given if _is_same_words(made[name], getattr(args, name))}
    free = frozenset(name for name, one in known.items() if one.metadata["is_free"])
    is_strict = getattr(args, "strict_flags", False)
    if not start.is_new_run and (is_strict or not start.in_charge):
        asked = {name: getattr(args, name) for name in given - same}
        identity = Identity(network=asked, free=frozenset() if is_strict else free)
        remedy = f"{start.remedy} (--strict_flags True)" if is_strict else start.remedy
        identity.refuse_other_flags(start.path, start.manifest, remedy)
    left = known.keys() - (same if start.in_charge else given)
    if not start.in_charge and (_PRECISION & given or not start.is_resumed):
        left -= _PRECISION
    values = {
        name: stored_value(
            known[name], made[name], start.in_charge or f"the manifest of {start.path}"
        )
        for name in left | same
    }
    changed = {name for name in left if values[name] != getattr(args, name)}
    notices = [*getattr(args, "notices", ()), *_what_changed(args, values, changed, free, start)]
    return with_values(args, **{**values, **chosen}, notices=tuple(notices))


def _apart_from_precision(args: argparse.Namespace) -> tuple[argparse.Namespace, FlagValues]:
    """What `--precision` says, as values of the flags that a training has, and the notice of it."""
    choice, notices = getattr(args, "precision", ""), list(getattr(args, "notices", ()))
    if not choice:
        return args, {}
    from utils.loops.networks import chosen_precision

    asked = {name: getattr(args, name) for name in _PRECISION & args.given_flags}
    found = chosen_precision(choice, asked, notices.append)
    chosen: FlagValues = {name: name == f"use_{found}" for name in _PRECISION}
    return with_values(args, notices=tuple(notices)), chosen


def _what_changed(
    args: argparse.Namespace,
    values: Mapping[str, object],
    changed: Set[str],
    free: Set[str],
    start: Start,
) -> Iterator[str]:
    """Say which flags are those of the checkpoint: a warning where others were given.

    Where stored flags are always in charge, as those of the nets are, only what they overrule.
    """
    overruled = [name for name in sorted(changed) if name in args.given_flags]
    left_out = [name for name in sorted(changed) if name not in args.given_flags]
    if left_out and not start.in_charge:
        listed = ", ".join(f"--{name} {shown(values[name])}" for name in left_out)
        yield f"notice: flags that were left out are those of {start.path}: {listed}"
    if overruled:
        kind = "notice" if free >= set(overruled) else "warning"
        listed = ", ".join(
            f"{name} {values[name]!r} (command line {getattr(args, name)!r})" for name in overruled
        )
        yield f"{kind}: model flags come from {start.in_charge}, which differs: {listed}"


def _is_same_words(made: Any, asked: Any) -> bool:
    """Whether two lists differ in blanks alone, as `16, 8` and `16,8`."""
    are_words = isinstance(made, str) and isinstance(asked, str)
    return are_words and "".join(made.split()) == "".join(asked.split())
