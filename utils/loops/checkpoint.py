"""Sets of checkpoint files: written so that a kill never costs one, resumed only when intact.

A set of step N is `optN.pt`, `modelN.pt`, `ema_<rate>_N.pt` and, written last, the manifest
`ckptN.json` with size and sha256 of each. While its files are being written or deleted a marker
`.ckptN.unfinished` says that without a manifest they do not count. Reading a single state_dict
from anybody's hands is the business of `utils.untrusted.state_dict`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from utils.files.atomic import (
    JsonObject,
    atomic_write,
    remove_stale_temp_files,
    sha256_of,
    write_json_atomic,
    write_text_atomic,
)
from utils.files.records import read_json
from utils.files.storage import is_file, list_names, make_folder, remove, size_of
from utils.loops.portable import manifest_in
from utils.process.errors import CheckpointError
from utils.untrusted.safe_tensors import SUFFIX, is_safetensors
from utils.untrusted.state_dict import check_zip, refuse_computation

_MANIFEST = re.compile(r"ckpt(\d+)\.json")
_MODEL = re.compile(r"model(\d+)\.pt")
_PART = re.compile(r"(opt|model|ema_.+_)(\d+)\.pt")
_MARKER = re.compile(r"\.ckpt(\d+)\.unfinished")


def model_file_name(step: int) -> str:
    """`modelNNNNNN.pt`."""
    return f"model{step:06d}.pt"


def step_of(model_path: str) -> int:
    """The step of a model file, by its name or its metadata; CheckpointError if neither has one."""
    refuse_computation(model_path)
    manifest = manifest_in(model_path) if is_safetensors(model_path) else {}
    if "step" in manifest:
        return int(manifest["step"])
    match = re.search(r"(\d+)\.(pt|safetensors)$", os.path.basename(model_path))
    if match is None:
        raise CheckpointError(
            f"{model_path}: the file name carries no step; name it modelNNNNNN.pt"
        )
    return int(match.group(1))


@dataclass(frozen=True)
class CheckpointSet:
    """The files to resume from. `manifest` is empty for a set without one."""

    step: int
    model_path: str
    opt_path: str | None = None
    ema_paths: Mapping[str, str] = field(default_factory=dict)
    manifest: JsonObject = field(default_factory=dict)

    @property
    def state(self) -> JsonObject:
        """What the run that wrote it has to find again."""
        found: JsonObject = self.manifest.get("state", {})
        return found

    @property
    def is_average(self) -> bool:
        """Whether the model file is that of an average of weights, not of the weights."""
        return os.path.basename(self.model_path).startswith("ema_")


class CheckpointStore:
    """The checkpoints of one run in one folder.

    Args:
        folder: local or remote.
        keep_last_k: delete older sets once a newer one has been verified; -1 keeps all.
        kept: steps whose sets are not deleted.
        warn: receives one line whenever something is skipped or fallen back from.
    """

    def __init__(
        self,
        folder: str,
        *,
        keep_last_k: int = -1,
        kept: Collection[int] = (),
        warn: Callable[[str], None] = print,
    ) -> None:
        self.folder, self._keep_last_k, self._kept, self._warn = folder, keep_last_k, kept, warn

    # ---- writing

    def save(self, step: int, parts: Mapping[str, Mapping[Any, Any]], manifest: JsonObject) -> None:
        """Write one set; the manifest comes last and makes it count.

        `parts` are role → state_dict, in writing order: `opt`, `model`, `ema_<rate>`; `manifest` is
        what else to remember (flags, versions, state of the run).

        Raises:
            StorageError: if a file cannot be written; older sets are intact.
        """
        make_folder(self.folder)
        remove_stale_temp_files(self.folder)
        self._remove_unfinished()
        with self._unfinished(step):
            if is_file(self._manifest_path(step)):  # of a run that went on from an older step
                remove(self._manifest_path(step))
            files = {_file_name(role, step): role for role in parts}
            described = {name: self._write(name, role, parts[role]) for name, role in files.items()}
            content = {"format": 1, "step": step, "files": described, **manifest}
            content = json.loads(json.dumps(content))  # as it will be read: string keys, lists
            content["sha256"] = _digest(content)
            write_json_atomic(self._manifest_path(step), content)
        self._delete_old(step)

    def _write(self, name: str, role: str, state: Mapping[Any, Any]) -> JsonObject:
        path = self._path(name)
        with atomic_write(path) as file:
            torch.save(state, file)
        return {"role": role, "size": size_of(path), "sha256": sha256_of(path)}

    @contextlib.contextmanager
    def _unfinished(self, step: int) -> Iterator[None]:
        marker = self._path(f".ckpt{step:06d}.unfinished")
        write_text_atomic(marker, "")
        try:
            yield
        except OSError:
            self._remove_unfinished()  # half a set would fill the disk for nothing
            raise
        remove(marker)

    def _remove_unfinished(self) -> None:
        names = list_names(self.folder)
        for step in self._steps(_MARKER):
            if not is_file(self._manifest_path(step)):
                self._remove_parts(step, names)
            remove(self._path(f".ckpt{step:06d}.unfinished"))

    def _remove_parts(self, step: int, names: list[str]) -> None:
        for name in names:
            match = _PART.fullmatch(name)
            if match is not None and int(match.group(2)) == step:
                remove(self._path(name))

    def _delete_old(self, newest: int) -> None:
        if self._keep_last_k < 1 or self._read_verified(newest) is None:
            return
        # a newer one may be there, damaged or of a branch that was left: it neither counts nor goes
        steps = [step for step in self._steps(_MANIFEST) if step <= newest]
        for step in steps[self._keep_last_k :]:
            if step in self._kept:
                continue
            with self._unfinished(step):
                remove(self._manifest_path(step))  # first: from here on the set does not count
                self._remove_parts(step, list_names(self.folder))

    # ---- finding

    def resolve(self, name: str) -> CheckpointSet | None:
        """The set that `--resume_checkpoint` names; None for an empty name.

        A name is `auto` (newest intact set, or None), a step, a file name inside the folder, or a
        path. The file of an average stands in for the model, and so does a safetensors file, which
        is a set of its own.

        Raises:
            CheckpointError: if an explicit name does not exist or is damaged.
        """
        if not name:
            return None
        if name == "auto":
            return self.newest()
        path = self.path_of(name)
        refuse_computation(path)
        if os.path.isdir(path):
            inside = _what_is_there(os.path.join(path, "model.pt"))
            raise CheckpointError(f"{path} is a folder; name a file in it: {inside}")
        if not is_file(path):
            raise CheckpointError(f"{path} does not exist; {_what_is_there(path)}")
        if is_safetensors(path):
            manifest = manifest_in(path)
            return CheckpointSet(manifest.get("step", 0), path, manifest=manifest)
        store = CheckpointStore(os.path.dirname(path), warn=self._warn)
        step = step_of(path) if re.search(r"\d\.pt$", path) else 0
        if not is_file(store._manifest_path(step)):
            if step in store._steps(_MARKER):
                raise CheckpointError(
                    f"{path} is of a set that was being written or deleted when its run ended; "
                    f"name another one: {_what_is_there(path)}"
                )
            return store._without_manifest(step, path)
        found = store._verified(step)
        names = map(os.path.basename, [found.model_path, *found.ema_paths.values()])
        if os.path.basename(path) not in names:
            raise CheckpointError(
                f"{path} is no model of its set; name {model_file_name(step)} or give another step"
            )
        return replace(found, model_path=path)

    def peek(self, name: str) -> JsonObject:
        """The manifest of the set that `--resume_checkpoint` names; empty where there is none.

        Nothing is verified: for what has to be known before a network is built.
        """
        if name == "auto":
            found = (_readable_manifest(self._manifest_path(s), s) for s in self._steps(_MANIFEST))
            return next(filter(None, found), {})
        return manifest_beside(self.path_of(name)) if name else {}

    def path_of(self, name: str) -> str:
        """The path of the file that a step, a file name inside the folder, or a path stands for."""
        if name.isdecimal():
            name = model_file_name(int(name))
        return name if os.path.dirname(name) or "://" in name else self._path(name)

    def steps(self) -> list[int]:
        """Steps of which a model or a manifest is there, newest first."""
        manifest_steps, unfinished = self._steps(_MANIFEST), self._steps(_MARKER)
        foreign = set(self._steps(_MODEL)) - set(unfinished)
        return sorted({*manifest_steps, *foreign}, reverse=True)

    def newest(self) -> CheckpointSet | None:
        """The newest intact set; None if there is none."""
        manifest_steps = self._steps(_MANIFEST)
        foreign = [step for step in self.steps() if step not in manifest_steps]
        for step in foreign:
            if step > max(manifest_steps, default=step):
                name = self._path(model_file_name(step))
                self._warn(f"warning: {name} has no manifest; trying an older one that has")
        for step in manifest_steps:
            found = self._read_verified(step)
            if found is not None:
                return found
        for step in foreign:
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
        manifest_path = self._manifest_path(step)
        manifest = _read_manifest(manifest_path, step)
        roles = {}
        for name, entry in manifest["files"].items():
            path = self._path(name)
            if os.path.basename(name) != name or not is_file(path):
                raise CheckpointError(f"{manifest_path} names {name}, which is not there")
            if size_of(path) != entry["size"] or sha256_of(path) != entry["sha256"]:
                raise CheckpointError(
                    f"{path} is damaged (size or sha256 differs from its manifest)"
                )
            roles[entry["role"]] = path
        if "model" not in roles:
            raise CheckpointError(f"{manifest_path} names no model file")
        emas = {role[len("ema_") :]: p for role, p in roles.items() if role.startswith("ema_")}
        return CheckpointSet(step, roles["model"], roles.get("opt"), emas, manifest)

    def _without_manifest(self, step: int, path: str) -> CheckpointSet:
        roles = {}
        for name in list_names(self.folder):
            match = _PART.fullmatch(name)
            if match is not None and int(match.group(2)) == step and match.group(1) != "model":
                roles[match.group(1)] = self._path(name)
        for part in {path, *roles.values()}:
            check_zip(part)
        self._warn(
            f"notice: {path} has no manifest (made by another tool?); only its CRC was checked"
        )
        emas = {role[len("ema_") : -1]: p for role, p in roles.items() if role.startswith("ema_")}
        return CheckpointSet(step, path, roles.get("opt"), emas)

    def _path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def _manifest_path(self, step: int) -> str:
        return self._path(_manifest_name(step))

    def _steps(self, pattern: re.Pattern[str]) -> list[int]:
        names = list_names(self.folder) if self.folder else []
        return sorted((int(m.group(1)) for n in names if (m := pattern.fullmatch(n))), reverse=True)


def _file_name(role: str, step: int) -> str:
    return f"{role}_{step:06d}.pt" if role.startswith("ema_") else f"{role}{step:06d}.pt"


def _what_is_there(path: str) -> str:
    folder = os.path.dirname(path)
    names = list_names(folder)
    models = [name for name in names if name.endswith((".pt", SUFFIX)) and name[:3] != "opt"]
    if not models:
        return f"{folder or 'this folder'} holds no checkpoint"
    return f"there is: {', '.join(models[-8:])}"


def manifest_beside(model_path: str) -> JsonObject:
    """The manifest of the set that a model file is of; empty if it has none that can be read.

    That of a safetensors file is in its metadata. The files that it names are not verified: for
    what has to be known before a network is built.

    CheckpointError for an exported computation.
    """
    refuse_computation(model_path)
    if is_safetensors(model_path):
        try:
            return manifest_in(model_path)
        except CheckpointError:
            return {}
    match = re.search(r"(\d+)\.pt$", os.path.basename(model_path))
    step = int(match.group(1)) if match else 0
    return _readable_manifest(os.path.join(os.path.dirname(model_path), _manifest_name(step)), step)


def _readable_manifest(path: str, step: int) -> JsonObject:
    try:
        return _read_manifest(path, step) if is_file(path) else {}
    except CheckpointError:
        return {}


def _manifest_name(step: int) -> str:
    return f"ckpt{step:06d}.json"


def _digest(content: JsonObject) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _read_manifest(path: str, step: int) -> JsonObject:
    try:
        content = read_json(path)
        if content.pop("sha256") != _digest(content):
            raise ValueError("its own sha256 differs")
        if content["step"] != step:
            raise ValueError(f"it is about step {content['step']}")
        for entry in content["files"].values():
            if not {"role", "size", "sha256"} <= entry.keys() or not isinstance(entry["role"], str):
                raise ValueError("an entry lacks role, size or sha256")
        return {**content, "state": dict(content.get("state", {}))}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged ({error!r})") from None
