"""Tiny networks, data and training loops for the tests of the engineering layer; no assertions.

Functions that a test starts in another process live here or in a module of their own, where that
process can import them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from utils.loops.data import ItemKey, TrainData
from utils.train_util import TrainLoop

NUM_ITEMS = 11
SIDE = 8
# whatever a run may have to remember
EVERYTHING: dict[str, Any] = {
    "microbatch": 3,
    "lr_anneal_steps": 30,
    "ema_rate": "0.5,0.9",
    "weight_decay": 0.1,
    "dropout": 0.3,
}


class ConvNet(torch.nn.Module):
    """Two convolutions on 8×8 images; computes in the dtype of its weights."""

    def __init__(self, dropout: float = 0.0, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        torch.manual_seed(123)
        self.first = torch.nn.Conv2d(1, 4, 3, padding=1, dtype=dtype)
        self.dropout = torch.nn.Dropout(dropout)
        self.last = torch.nn.Conv2d(4, 1, 3, padding=1, dtype=dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.nn.functional.silu(self.first(x.to(self.first.weight.dtype)))
        return self.last(self.dropout(hidden))


class Images(torch.utils.data.Dataset[dict[str, Any]]):
    """Items that are a function of their index: an image, its label, and the key asked for."""

    def __init__(self, num_items: int = NUM_ITEMS) -> None:
        self._num_items = num_items

    def __len__(self) -> int:
        return self._num_items

    def __getitem__(self, key: ItemKey) -> dict[str, Any]:
        position, epoch, index = key
        x, y = image_pair(index)
        return {"x": x, "y": y, "position": position, "epoch": epoch, "index": index}


def image_pair(index: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Image (1, 8, 8) and label (1, 8, 8) of an index."""
    generator = torch.Generator().manual_seed(index)
    x = torch.randn(1, SIDE, SIDE, generator=generator)
    return x, 0.5 * x + 0.1 * torch.randn(1, SIDE, SIDE, generator=generator)


def batch_of(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and labels of the first ``size`` indices."""
    x, y = zip(*(image_pair(index) for index in range(size)), strict=True)
    return torch.stack(x), torch.stack(y)


class RecordedData(TrainData):
    """Shuffled images; ``seen`` lists the index of every item handed out."""

    def __init__(self, batch_size: int, *, num_items: int = NUM_ITEMS, **rest: Any) -> None:
        self.seen: list[int] = []
        super().__init__(Images(num_items), batch_size, self._pair, **rest)

    def _pair(self, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        self.seen += batch["index"].tolist()
        return batch["x"], batch["y"]


class QuietLoop(TrainLoop):
    """A loop that reports nothing of its own."""

    def _post_process(self, micro_input: Any, micro_label: Any, micro_output: Any, i: int) -> None:
        pass


def training_loop(folder: Path | str = "", **changes: Any) -> QuietLoop:
    """A loop over shuffled images, ready to run.

    Args:
        folder: of the checkpoints.
        changes: flags of the loop, and ``dtype``, ``dropout``, ``num_workers``, ``loop_class``,
            ``model``, ``data``.
    """
    dtype = changes.pop("dtype", torch.float32)
    dropout = changes.pop("dropout", 0.0)
    model = changes.pop("model", None) or ConvNet(dropout, dtype)
    flags = {"batch_size": 4, "lr": 1e-2, "max_step": 5, "log_interval": 2, "seed": 7, **changes}
    num_workers, loop_class = flags.pop("num_workers", 0), flags.pop("loop_class", QuietLoop)
    data = flags.pop("data", None) or RecordedData(
        flags["batch_size"], seed=flags["seed"], num_workers=num_workers
    )
    return loop_class(model=model, data=data, model_save_dir=str(folder), **flags)


def trained(folder: Path, max_step: int, **flags: Any) -> QuietLoop:
    """A loop with everything in it, run to its end."""
    loop = training_loop(folder, **{**EVERYTHING, **flags, "max_step": max_step})
    if not loop.run_loop():
        raise RuntimeError(f"stopped at step {loop.step}")
    return loop


def steps_of_data(num_steps: int, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The same batch again and again, in the same memory."""
    pair = batch_of(size)
    for _ in range(num_steps):
        yield pair


def with_bad_label(
    value: float, *, is_bad: Callable[[int], bool]
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches for ever; the label of a bad one holds ``value``."""
    step = 0
    while True:
        x, y = batch_of(4)
        if is_bad(step):
            y[0, 0, 0, 0] = value
        yield x, y
        step += 1


def read_manifest(folder: Path, step: int) -> dict[str, Any]:
    """``ckptNNNNNN.json``."""
    content: dict[str, Any] = json.loads((folder / f"ckpt{step:06d}.json").read_text())
    return content


def saved_run(folder: Path, step: int) -> dict[str, Any]:
    """Every tensor of a set by "<file role>/<path in it>", and the state in its manifest."""
    manifest = read_manifest(folder, step)
    found: dict[str, Any] = {"state": manifest["state"]}
    for name, entry in manifest["files"].items():
        _flatten(torch.load(folder / name, weights_only=True), entry["role"], found)
    return found


def _flatten(value: Any, prefix: str, into: dict[str, Any]) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _flatten(item, f"{prefix}/{key}", into)
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            _flatten(item, f"{prefix}/{i}", into)
    else:
        into[prefix] = value


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Names under which two saved runs differ in a single bit; empty if they are equal."""
    names = one.keys() | other.keys()
    return sorted(name for name in names if not _is_equal(one.get(name), other.get(name)))


def _is_equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    return type(one) is type(other) and bool(one == other)


def weights_of(loop: TrainLoop) -> list[torch.Tensor]:
    """Copies of the network's parameters."""
    return [parameter.detach().clone() for parameter in loop.model.parameters()]


def relative_error(found: list[torch.Tensor], truth: list[torch.Tensor]) -> float:
    """‖found − truth‖ / ‖truth‖ over all tensors, in float64."""
    pairs = list(zip(found, truth, strict=True))
    error = sum(((f.detach().double() - t.detach().double()) ** 2).sum() for f, t in pairs)
    return float((error / sum((t.detach().double() ** 2).sum() for _, t in pairs)) ** 0.5)
