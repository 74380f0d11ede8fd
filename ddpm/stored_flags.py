"""What a checkpoint was made with: it decides for the flags that a command line leaves out.

Flags that were given are compared with it instead. Its manifest is read before a network is built
and so not verified; whoever loads the weights does that. torch is imported where there is one.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterable, Mapping
from dataclasses import Field, dataclass, field
from typing import Any

from ddpm.classes import known_classes
from utils.files.identity import Identity, made_with, shown
from utils.flags.stored import stored_value
from utils.script_util import with_values

# a property of a run, not of a network: of both flags together, followed by a resumed run alone
_PRECISION = frozenset({"use_fp16", "use_bf16"})


@dataclass(frozen=True)
class Start:
    """The checkpoint that a script starts from.

    Attributes:
        path: of its model; empty if there is none.
        manifest: of its set; empty if it has none.
        is_resumed: whether a training goes on from it.
        is_new_run: whether a training takes its weights alone: then nothing must agree.
    """

    path: str = ""
    manifest: Mapping[str, Any] = field(default_factory=dict)
    is_resumed: bool = False
    is_new_run: bool = False

    @property
    def class_names(self) -> list[str]:
        """The names of its classes by label; empty if it keeps none.

        Raises:
            CheckpointError: if it keeps anything but words.
        """
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
    """The checkpoint that a training goes on from, or whose weights it takes.

    Args:
        args: of a training (``utils.flags.training``).
        folder: of its checkpoints.
    """
    name = args.resume_checkpoint
    if not (name or args.init_from):
        return Start()
    from utils.loops.checkpoint import CheckpointStore

    store = CheckpointStore(folder)
    if name and (name != "auto" or (folder and store.steps())):
        manifest = store.peek(name)
        step = str(manifest["step"]) if name == "auto" and manifest else name
        path = name if step == "auto" else store.path_of(step)
        return Start(path, manifest, is_resumed=True)
    if args.init_from:
        manifest = CheckpointStore("").peek(args.init_from)
        return Start(args.init_from, manifest, is_new_run=True)
    return Start()


def follow_checkpoint(
    args: argparse.Namespace,
    start: Start,
    flags: Iterable[Field[Any]],
    free: Collection[str] = frozenset(),
) -> argparse.Namespace:
    """The arguments with the checkpoint's values for the flags that were not given.

    What was followed is said once the script has started (``utils.runs.start.started``).

    Args:
        args: settled by presets.
        start: the checkpoint.
        flags: which of the flags describe its network and process.
        free: names of those that may be given otherwise.

    Raises:
        CheckpointError: for flags that were given and differ, or values that no flag could have.
    """
    made = made_with(start.manifest)
    known = {one.name: one for one in flags if one.name in made}
    given = known.keys() & args.given_flags
    same = {name for name in given if _is_same_words(made[name], getattr(args, name))}
    if not start.is_new_run:
        asked = {name: getattr(args, name) for name in given - same}
        if getattr(args, "strict_flags", False):
            free = frozenset()
        identity = Identity(network=asked, free=frozenset(free))
        identity.refuse_other_flags(start.path, start.manifest, start.remedy)
    is_precision_settled = bool(_PRECISION & given) or not start.is_resumed
    left = known.keys() - given - (_PRECISION if is_precision_settled else set())
    values = {name: stored_value(known[name], made[name], start.path) for name in left | same}
    changed = {name: values[name] for name in sorted(left) if values[name] != getattr(args, name)}
    notices = list(getattr(args, "notices", ()))
    if changed:
        listed = ", ".join(f"--{name} {shown(value)}" for name, value in changed.items())
        notices.append(f"notice: flags that were left out are those of {start.path}: {listed}")
    return with_values(args, **values, notices=tuple(notices))


def _is_same_words(made: Any, asked: Any) -> bool:
    """Whether two lists differ in blanks alone, as ``16, 8`` and ``16,8``."""
    are_words = isinstance(made, str) and isinstance(asked, str)
    return are_words and "".join(made.split()) == "".join(asked.split())
