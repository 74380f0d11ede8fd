"""Sets of checkpoint files: written so that a kill never costs one, resumed only when intact.

A set of step N is ``optN.pt``, ``modelN.pt``, ``ema_<rate>_N.pt`` and, written last, the manifest
``ckptN.json`` with size and sha256 of each. Reading a single state_dict from anybody's hands is
the business of ``state_dict_io``.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from utils.atomic_file import atomic_write, remove_stale_temp_files, sha256_of, write_json_atomic
from utils.errors import CheckpointError
from utils.state_dict_io import check_zip, local_or_remote_exists

_MANIFEST = re.compile(r"ckpt(\d+)\.json")
_MODEL = re.compile(r"model(\d+)\.pt")


def model_file_name(step: int) -> str:
    """``modelNNNNNN.pt``."""
    return f"model{step:06d}.pt"


def step_of(model_path: str) -> int:
    """The step in the name of a model file.

    Raises:
        CheckpointError: if the name carries no step.
    """
    match = re.search(r"(\d+)\.pt$", os.path.basename(model_path))
    if match is None:
        raise CheckpointError(
            f"{model_path}: the file name carries no step; name it modelNNNNNN.pt"
        )
    return int(match.group(1))


@dataclass(frozen=True)
class CheckpointSet:
    """The files to resume from. ``state`` is empty for a set without a manifest."""

    step: int
    model_path: str
    opt_path: str | None = None
    ema_paths: Mapping[str, str] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)


class CheckpointStore:
    """The checkpoints of one run in one folder.

    Args:
        folder: ``--model_save_dir``; may be remote.
        keep_last_k: delete older sets once a newer one has been verified; -1 keeps all.
        warn: receives one line whenever something is skipped or fallen back from.
    """

    def __init__(
        self, folder: str, *, keep_last_k: int = -1, warn: Callable[[str], None] = print
    ) -> None:
        self.folder, self._keep_last_k, self._warn = folder, keep_last_k, warn

    # ---- writing

    def save(
        self,
        step: int,
        parts: Mapping[str, Mapping[Any, Any]],
        manifest: Mapping[str, Any],
    ) -> None:
        """Writes one set; the manifest comes last and makes it count.

        Args:
            step: number of finished updates.
            parts: role → state_dict, in writing order: ``opt``, ``model``, ``ema_<rate>``.
            manifest: what else to remember (flags, versions, state of the run).

        Raises:
            StorageError: if a file cannot be written; older sets are intact.
        """
        os.makedirs(self.folder, exist_ok=True)
        remove_stale_temp_files(self.folder)
        files = {}
        for role, state in parts.items():
            path = os.path.join(self.folder, _file_name(role, step))
            with atomic_write(path) as file:
                torch.save(state, file)
            files[os.path.basename(path)] = {
                "role": role,
                "size": os.path.getsize(path),
                "sha256": sha256_of(path),
            }
        content = {"format": 1, "step": step, "files": files, **manifest}
        write_json_atomic(os.path.join(self.folder, f"ckpt{step:06d}.json"), content)
        self._delete_old(step)

    def _delete_old(self, newest: int) -> None:
        if self._keep_last_k < 1 or self._read_verified(newest) is None:
            return
        for step in self._manifest_steps()[self._keep_last_k :]:
            manifest_path = os.path.join(self.folder, f"ckpt{step:06d}.json")
            names = list(_read_json(manifest_path).get("files", {}))
            os.remove(manifest_path)  # first: from here on the set does not count
            for name in names:
                if os.path.basename(name) == name and os.path.exists(self._path(name)):
                    os.remove(self._path(name))

    # ---- finding

    def resolve(self, name: str) -> CheckpointSet | None:
        """The set that ``--resume_checkpoint`` names.

        Args:
            name: empty (None is returned), ``auto`` (newest intact set, or None), a step, a file
                name inside the folder, or a path.

        Raises:
            CheckpointError: if an explicit name does not exist or is damaged.
        """
        if not name:
            return None
        if name == "auto":
            return self._newest()
        if name.isdigit():
            name = model_file_name(int(name))
        path = name if os.path.dirname(name) or "://" in name else self._path(name)
        if not local_or_remote_exists(path):
            raise CheckpointError(f"{path} does not exist; {self._what_is_there(path)}")
        store = CheckpointStore(os.path.dirname(path), warn=self._warn)
        step = step_of(path)
        if os.path.exists(store._path(f"ckpt{step:06d}.json")):
            return store._verified(step)
        return store._without_manifest(step, path)

    def steps(self) -> list[int]:
        """Steps of which a model or a manifest is there, newest first."""
        return sorted({*self._manifest_steps(), *self._model_steps()}, reverse=True)

    def _newest(self) -> CheckpointSet | None:
        for step in self._manifest_steps():
            found = self._read_verified(step)
            if found is not None:
                return found
        for step in self._model_steps():
            if os.path.exists(self._path(f"ckpt{step:06d}.json")):
                continue  # its manifest says that it is damaged
            if self._manifest_steps():
                continue  # a save that was cut short, beside complete sets
            try:
                return self._without_manifest(step, self._path(model_file_name(step)))
            except CheckpointError as error:
                self._warn(f"warning: {error}; trying an older one")
        return None

    def _read_verified(self, step: int) -> CheckpointSet | None:
        try:
            return self._verified(step)
        except CheckpointError as error:
            self._warn(f"warning: {error}; trying an older one")
            return None

    def _verified(self, step: int) -> CheckpointSet:
        manifest_path = self._path(f"ckpt{step:06d}.json")
        manifest = _read_json(manifest_path)
        roles = {}
        for name, entry in manifest["files"].items():
            path = self._path(name)
            if os.path.basename(name) != name or not os.path.exists(path):
                raise CheckpointError(f"{manifest_path} names {name}, which is not there")
            if os.path.getsize(path) != entry["size"] or sha256_of(path) != entry["sha256"]:
                raise CheckpointError(
                    f"{path} is damaged (size or sha256 differs from its manifest)"
                )
            roles[entry["role"]] = path
        if "model" not in roles:
            raise CheckpointError(f"{manifest_path} names no model file")
        emas = {role[len("ema_") :]: p for role, p in roles.items() if role.startswith("ema_")}
        state = manifest.get("state", {})
        return CheckpointSet(step, roles["model"], roles.get("opt"), emas, state)

    def _without_manifest(self, step: int, path: str) -> CheckpointSet:
        check_zip(path)
        self._warn(
            f"notice: {path} has no manifest (made by another tool?); only its CRC was checked"
        )
        opt_path = os.path.join(os.path.dirname(path), f"opt{step:06d}.pt")
        return CheckpointSet(step, path, opt_path if local_or_remote_exists(opt_path) else None)

    def _what_is_there(self, path: str) -> str:
        folder = os.path.dirname(path)
        names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        models = [name for name in names if name.endswith(".pt") and not name.startswith("opt")]
        return f"there is: {', '.join(models[-8:])}" if models else f"{folder} holds no checkpoint"

    def _path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def _manifest_steps(self) -> list[int]:
        return self._steps(_MANIFEST)

    def _model_steps(self) -> list[int]:
        return self._steps(_MODEL)

    def _steps(self, pattern: re.Pattern[str]) -> list[int]:
        names = os.listdir(self.folder) if os.path.isdir(self.folder) else []
        return sorted((int(m.group(1)) for n in names if (m := pattern.fullmatch(n))), reverse=True)


def _file_name(role: str, step: int) -> str:
    return f"{role}_{step:06d}.pt" if role.startswith("ema_") else f"{role}{step:06d}.pt"


def _read_json(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        if not isinstance(content, dict) or not isinstance(content.get("files"), dict):
            raise ValueError("not a checkpoint manifest")
        for entry in content["files"].values():
            if not {"role", "size", "sha256"} <= entry.keys():
                raise ValueError("an entry lacks role, size or sha256")
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged ({error})") from None
    return content
