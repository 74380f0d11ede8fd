"""A process that saves set after set, and its death by SIGKILL at random; no assertions."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.utils.processes import Child
from utils.files import storage as storage_util
from utils.loops import checkpoint
from utils.loops.checkpoint import CheckpointStore

_MAX_SECONDS = {"saves": 0.05, "deletes": 0.03}  # about what each takes
_NUM_VALUES = 200_000


class _TalkingStore(CheckpointStore):
    """Tells when it begins to delete."""

    say: Callable[[Any], None]

    def _delete_old(self, newest: int) -> None:
        self.say(("deletes", newest))
        super()._delete_old(newest)


def values_of(step: int) -> torch.Tensor:
    """What every file of the set of this step holds."""
    return torch.full((_NUM_VALUES,), float(step))


def save_set(store: CheckpointStore, step: int) -> None:
    """A set of three files, 2.4 MB."""
    roles = ("opt", "model", "ema_0.9")
    store.save(step, {role: {"weight": values_of(step)} for role in roles}, {"state": {}})


def _slow_remove(path: str) -> None:
    """Deleting would be over before a signal arrives."""
    time.sleep(0.003)
    storage_util.remove(path)


def save_for_ever(say: Callable[[Any], None], folder: Path, first: int, keep_last_k: int) -> int:
    """Saves the sets of steps ``first``, ``first`` + 1, … and tells what it is about to do."""
    checkpoint.remove = _slow_remove
    store = _TalkingStore(str(folder), keep_last_k=keep_last_k, warn=lambda line: None)
    store.say = say  # type: ignore[method-assign]
    for step in itertools.count(first):
        say(("saves", step))
        save_set(store, step)


def kill_while(phase: str, folder: Path, first: int, keep_last_k: int, rng: random.Random) -> int:
    """Starts to save at step ``first`` and kills at random, soon after a phase has begun.

    Returns:
        the last step that it had told to be saved.
    """
    child = Child(save_for_ever, folder, first, keep_last_k)
    number = rng.randint(1, 3)
    words = []
    while [word for word, _ in words].count(phase) < number:
        words.append(child.next_word())
    time.sleep(rng.uniform(0, _MAX_SECONDS[phase]))
    child.process.kill()
    words += child.words()
    child.exit_code()
    last_phase, step = words[-1]
    return int(step) if last_phase == "deletes" else int(step) - 1


def unfinished_steps(folder: Path) -> list[int]:
    """Steps whose set was being written or deleted."""
    return sorted(int(path.name[5:11]) for path in folder.glob(".ckpt*.unfinished"))


def intact_steps(folder: Path) -> list[int]:
    """Steps whose set verifies and holds what was saved."""
    found = []
    for path in sorted(folder.glob("ckpt*.json")):
        step = int(path.stem[4:])
        store = CheckpointStore(str(folder), warn=lambda line: None)
        files = store.resolve(str(step))
        assert files is not None
        paths = [files.model_path, files.opt_path, *files.ema_paths.values()]
        states = [torch.load(path, weights_only=True) for path in paths]
        assert len(states) == 3
        assert all(torch.equal(state["weight"], values_of(step)) for state in states)
        found.append(step)
    return found
