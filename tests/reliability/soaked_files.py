"""Which files of a pipeline are whole, and what they hold; no assertions."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.pipeline import Pipeline
from tests.utils.training_loops import saved_run
from utils.loops.checkpoint import CheckpointStore
from utils.process.errors import CheckpointError
from utils.untrusted.pickles import loads_pickle

# script: name of its folders
TRAININGS = {"sr_mean_train": "sr_mean", "sr_var_train": "sr_var", "ddpm_sr_train": "ddpm_sr"}
# what may differ between two runs of the same work: when, how long, by which process
_OF_A_RUN = ("seconds", ".seconds", "args", "report.html")


def set_files(save_dir: Path, step: int) -> set[Path]:
    """The files of a set and its manifest; empty if the manifest does not verify."""
    manifest = save_dir / f"ckpt{step:06d}.json"
    try:
        CheckpointStore(str(save_dir), warn=lambda line: None).resolve(str(step))
        names = json.loads(manifest.read_text())["files"]
    except (CheckpointError, ValueError, OSError):
        return set()
    return {manifest, *(save_dir / name for name in names)}


def steps_of_sets(save_dir: Path) -> list[int]:
    """Steps of the sets that verify, in order."""
    steps = sorted(int(path.stem[4:]) for path in save_dir.glob("ckpt*.json"))
    return [step for step in steps if set_files(save_dir, step)]


def finished_files(pipeline: Pipeline) -> set[str]:
    """Relative paths of what a fault may not take: files of sets that verify, whole results."""
    found = _results(pipeline)
    whole = {path for path in found if not is_torn(path)}
    for task in TRAININGS.values():
        save_dir = pipeline.save_dir(task)
        for step in steps_of_sets(save_dir):
            whole |= set_files(save_dir, step)
    return {str(path.relative_to(pipeline.root)) for path in whole}


def torn_files(pipeline: Pipeline) -> set[str]:
    """Relative paths of files that have their names but cannot be read."""
    saved = [*pipeline.root.glob("checkpoints/*/*.pt"), *pipeline.root.glob("checkpoints/*/*.json")]
    found = [path for path in (*_results(pipeline), *saved) if is_torn(path)]
    return {str(path.relative_to(pipeline.root)) for path in found}


def is_torn(path: Path) -> bool:
    """Whether a file cannot be read from its first to its last byte."""
    read = _READERS.get(path.suffix)
    try:
        if read:
            read(path.read_bytes())
    except Exception:
        return True
    return False


def digests(pipeline: Pipeline) -> dict[str, str]:
    """What the finished pipeline has made: by file, or by tensor of the last sets."""
    found = {}
    for path in sorted(_results(pipeline)):
        if path.name.startswith(_OF_A_RUN):
            continue
        content = path.read_bytes()
        if path.name == "results.json":
            content = json.dumps(_without_costs(json.loads(content)), sort_keys=True).encode()
        found[str(path.relative_to(pipeline.root))] = hashlib.sha256(content).hexdigest()
    steps = (pipeline.mean_steps, pipeline.var_steps, pipeline.ddpm_steps)
    for task, last in zip(TRAININGS.values(), steps, strict=True):
        for name, value in saved_run(pipeline.save_dir(task), last).items():
            found[f"{task}/{name}"] = _digest(value)
    return found


def _results(pipeline: Pipeline) -> set[Path]:
    """Every file at its place, but for checkpoints, logs that grow, and what programs note."""
    roots = [pipeline.root / name for name in ("data", "logs", "outputs")]
    return {
        path
        for root in roots
        for path in root.rglob("*")
        if path.suffix in _READERS and not path.name.startswith(".") and path.is_file()
    }


def _without_costs(results: Any) -> Any:
    """Without the figures that a clock gave."""
    if not isinstance(results, dict):
        return results
    return {key: _without_costs(value) for key, value in results.items() if key != "cost"}


def _digest(value: Any) -> str:
    if hasattr(value, "numpy"):
        value = (str(value.dtype), tuple(value.shape), value.numpy().tobytes())
    return hashlib.sha256(repr(value).encode()).hexdigest()


def _read_image(content: bytes) -> None:
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        image.load()


def _read_archive(content: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if archive.testzip():
            raise ValueError("a member is damaged")


def _ends_with(content: bytes, end: bytes) -> None:
    if not content.rstrip(b"\r ").endswith(end):
        raise ValueError(f"it does not end with {end!r}")


_READERS: dict[str, Callable[[bytes], object]] = {
    ".csv": lambda content: _ends_with(content, b"\n"),
    ".html": lambda content: _ends_with(content.rstrip(), b"</html>"),
    ".png": _read_image,
    ".npy": lambda content: np.load(io.BytesIO(content), allow_pickle=False),
    ".npz": _read_archive,
    ".pt": _read_archive,
    ".json": json.loads,
    ".pkl": loads_pickle,
}
