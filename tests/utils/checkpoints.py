"""Tiny checkpoint sets for the tests of the store; no assertions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from utils.loops.checkpoint import CheckpointStore, model_file_name

EMA = "ema_0.9"


def parts(step: int) -> dict[str, dict[str, Any]]:
    tensor = torch.full((3,), float(step))
    return {"opt": {"moment": tensor}, "model": {"weight": tensor}, EMA: {"weight": tensor / 2}}


def save_sets(folder: Path | str, *steps: int, keep_last_k: int = -1) -> list[str]:
    lines: list[str] = []
    for step in steps:
        store = CheckpointStore(str(folder), keep_last_k=keep_last_k, warn=lines.append)
        store.save(step, parts(step), {"state": {"position": 4 * step}})
    return lines


def auto_step(folder: Path | str) -> tuple[int | None, str]:
    """The step that ``auto`` finds, and what it says on the way."""
    lines: list[str] = []
    found = CheckpointStore(str(folder), warn=lines.append).resolve("auto")
    return (found.step if found else None), "\n".join(lines)


def resolve(folder: Path, name: str) -> Any:
    return CheckpointStore(str(folder), warn=lambda line: None).resolve(name)


def foreign_sets(folder: Path, *steps: int) -> None:
    for step in steps:
        torch.save({"weight": torch.ones(3)}, folder / model_file_name(step))
        torch.save({"moment": torch.ones(3)}, folder / f"opt{step:06d}.pt")


def flip_byte(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
