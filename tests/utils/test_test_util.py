"""The test loop: each item once, in evaluation mode, without gradients."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.utils.training_loops import ConvNet, image_pair
from utils.logger import RunLogger
from utils.loops.data import shard_batches
from utils.test_util import TestLoop

NUM_IMAGES = 5


class _WritingLoop(TestLoop):
    """Writes one file an item."""

    def __init__(self, *, folder: Path, **rest: Any) -> None:
        super().__init__(**rest)
        self.folder = folder
        self.outputs: list[torch.Tensor] = []

    def _post_process(self, batch: Any, output: Any, batch_kwargs: Any) -> None:
        assert torch.is_inference_mode_enabled() and not output.requires_grad
        assert batch.device == self.device
        self.outputs.append(output)
        for name in batch_kwargs["name"]:
            with open(self.folder / name, "x"):
                pass


class _StoppedLoop(_WritingLoop):
    """Is asked to stop while it works on its first batch."""

    def forward(self, batch: Any, batch_kwargs: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return super().forward(batch, batch_kwargs)


def _data(batch_size: int) -> list[tuple[torch.Tensor, dict[str, Any]]]:
    return [
        (torch.stack([image_pair(i)[0] for i in batch]), {"name": [str(i) for i in batch]})
        for batch in shard_batches(NUM_IMAGES, batch_size)
    ]


def _loop(
    folder: Path, batch_size: int = 2, kind: type[_WritingLoop] = _WritingLoop, **rest: Any
) -> _WritingLoop:
    flags = {"num_items": NUM_IMAGES, "data": _data(batch_size), "model": ConvNet(0.5), **rest}
    return kind(folder=folder, **flags)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 9])
def test_each_item_is_processed_once_whatever_the_batch_size(
    tmp_path: Path, batch_size: int
) -> None:
    loop = _loop(tmp_path, batch_size)
    assert loop.run_loop()
    assert sorted(os.listdir(tmp_path)) == [str(i) for i in range(NUM_IMAGES)]
    assert sum(len(output) for output in loop.outputs) == NUM_IMAGES


def test_network_is_in_evaluation_mode_so_that_outputs_repeat(tmp_path: Path) -> None:
    loops = []
    for name in "ab":
        (tmp_path / name).mkdir()
        loops.append(_loop(tmp_path / name, model=ConvNet(0.5).train()))
        assert loops[-1].run_loop()
    for one, other in zip(loops[0].outputs, loops[1].outputs, strict=True):
        assert torch.equal(one, other)
    with torch.no_grad():
        truth = ConvNet(0.0)(torch.cat([batch for batch, _ in _data(2)]))
    assert torch.allclose(torch.cat(loops[0].outputs), truth, atol=1e-6)


def test_dry_run_reports_the_cost_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loop = _loop(tmp_path, logger=RunLogger())
    loop.dry_run()
    assert os.listdir(tmp_path) == [] and loop.outputs == []
    said = capsys.readouterr().out
    parts = ["parameters:", "memory", "s an image", "5 images"]
    assert [part for part in parts if part not in said] == []


@pytest.mark.parametrize("method", ["run_loop", "dry_run"])
def test_process_without_items_has_nothing_to_do(tmp_path: Path, method: str) -> None:
    getattr(_loop(tmp_path, data=[], num_items=0), method)()
    assert os.listdir(tmp_path) == []


def test_signal_ends_the_loop_after_the_batch_it_works_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loop = _loop(tmp_path, kind=_StoppedLoop, logger=RunLogger())
    assert loop.run_loop() is False
    assert sorted(os.listdir(tmp_path)) == ["0", "1"]
    # the sentence is held on purpose: a stopped run says so
    assert "stopped (received SIGTERM); run again to go on" in capsys.readouterr().out
