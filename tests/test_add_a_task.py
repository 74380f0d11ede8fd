"""A new task needs a data set, a loop, its flags and a script; nothing in utils, models or
diffusion changes. Here a task is written into a temporary folder and run.

The task: the conditional median of a number y given a number x, by absolute error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.layering import layer_faults
from tests.tiny import ROOT, done, run, tree
from utils.test_util import TestLoop
from utils.train_util import TrainLoop

FILES = {
    "median/__init__.py": '"""Task: the conditional median of a number given a number."""\n',
    "median/median_data.py": '''
"""y = x + noise of median 0 and mean 1, as a data set of (x, y)."""

from __future__ import annotations

import torch
from torch.utils.data import Dataset

from utils.loops.data import ItemKey, Pair


class Numbers(Dataset[Pair]):
    """512 pairs; an item is a function of its index."""

    def __len__(self) -> int:
        return 512

    def __getitem__(self, key: ItemKey) -> Pair:
        _, _, index = key
        generator = torch.Generator().manual_seed(index)
        x = torch.rand(1, generator=generator) * 2 - 1
        is_tail = torch.rand(1, generator=generator) < 0.25
        noise = torch.where(is_tail, torch.tensor([4.0]), torch.tensor([0.0]))
        return x, x + noise
''',
    "median/median_loops.py": '''
"""The loops of the task: what the loss is, and what is reported and written."""

from __future__ import annotations

import os
from typing import Any

import torch

from utils.files.atomic import write_json_atomic
from utils.test_util import TestLoop
from utils.train_util import TrainLoop


class MedianTrainLoop(TrainLoop):
    """Absolute error: its minimiser is the conditional median."""

    def compute_loss(self, micro_input: Any, micro_label: Any) -> tuple[torch.Tensor, Any]:
        """Mean of |f(x) - y|."""
        output = self.wrapped_model(micro_input)
        return (output - micro_label).abs().mean(), output

    def _post_process(self, micro_input: Any, micro_label: Any, micro_output: Any, i: int) -> None:
        self.logger.add("mean_output", micro_output.mean())


class MedianTestLoop(TestLoop):
    """Writes f(x) for every x of a grid."""

    def __init__(self, *, output_dir: str, **rest: Any) -> None:
        super().__init__(**rest)
        self._output_dir = output_dir

    def _post_process(self, batch: Any, output: Any, batch_kwargs: Any) -> None:
        for x, y in zip(batch[:, 0].tolist(), output[:, 0].tolist(), strict=True):
            path = os.path.join(self._output_dir, f"{x:+.2f}.json")
            write_json_atomic(path, {"x": x, "median": y})
''',
    "median/script_util.py": '''
"""Flags of the task and the network they make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from utils.script_util import flag
from utils.flags.training import TrainFlags


@dataclass(frozen=True)
class MedianFlags:
    """The network and the test."""

    width: int = flag(16, "hidden units")
    output_dir: str = flag("outputs/median", "folder of the results")


@dataclass(frozen=True)
class MedianTrainFlags(TrainFlags):
    """Training."""

    log_dir: str = "logs/median"
    model_save_dir: str = "checkpoints/median"


def create_model(width: int) -> Any:
    """A network with one hidden layer."""
    from torch import nn

    return nn.Sequential(nn.Linear(1, width), nn.SiLU(), nn.Linear(width, 1))
''',
    "median_train.py": '''
"""Learns the conditional median of a number given a number, and writes it on a grid."""

from __future__ import annotations

from median.script_util import MedianFlags, MedianTrainFlags, create_model
from utils.process.errors import run_main
from utils.script_util import from_args, make_parser


def main(argv: list[str] | None = None) -> int:
    """Parses, trains, tests; returns the exit code."""
    parser = make_parser(__doc__, median=MedianFlags, training=MedianTrainFlags)
    args = parser.parse_args(argv)
    flags, train = from_args(MedianFlags, args), from_args(MedianTrainFlags, args)
    import os

    import torch

    from median.median_data import Numbers
    from median.median_loops import MedianTestLoop, MedianTrainLoop
    from utils.loops.data import TrainData
    from utils.runs.start import started

    with started(args, train) as run:
        model = create_model(flags.width)
        data = TrainData(Numbers(), train.batch_size, seed=train.seed)
        loop = MedianTrainLoop(model=model, data=data, logger=run.logger, **train.common())
        run.is_done = loop.run_loop()
        if run.is_done:
            os.makedirs(flags.output_dir, exist_ok=True)
            grid = [(x[:, None], None) for x in torch.linspace(-1, 1, 9).split(4)]
            MedianTestLoop(model=model, data=grid, output_dir=flags.output_dir).run_loop()
    return run.exit_code


if __name__ == "__main__":
    run_main(main)
''',
}
STEPS = 250
ARGV = ["--batch_size", "64", "--microbatch", "24", "--lr", "0.02", "--save_interval", "100"]


def _write_task(root: Path) -> None:
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text.lstrip("\n"), encoding="utf-8")
    for layer in ("utils", "models", "diffusion"):
        (root / layer).symlink_to(ROOT / layer)


def test_new_task_obeys_the_layers(tmp_path: Path) -> None:
    _write_task(tmp_path)
    assert layer_faults(tmp_path) == []


@pytest.fixture
def task_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory of the new task; its modules are forgotten afterwards."""
    _write_task(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] in ("median", "median_train")]:
        del sys.modules[name]


def test_new_task_trains_resumes_and_tests_without_a_change_elsewhere(task_folder: Path) -> None:
    done("median_train", [*ARGV, "--max_step", "100"])
    said = done("median_train", [*ARGV, "--max_step", str(STEPS), "--resume_checkpoint", "auto"])
    assert "resumed from" in said.out and f"step {STEPS} | loss" in said.out
    files = tree(task_folder / "checkpoints")
    assert {f"median/model{step:06d}.pt" for step in (100, 200, STEPS)} <= files.keys()
    assert b"mean_output" in b"".join(tree(task_folder / "logs").values())

    results = [json.loads(content) for content in tree(task_folder / "outputs").values()]
    assert len(results) == 9
    for result in results:
        # the median is x; the mean, which squared error would find, is x + 1
        assert result["median"] == pytest.approx(result["x"], abs=0.2)

    wrong = run("median_train", ["--widht", "3"])
    assert wrong.code == 2 and "--width?" in wrong.err


def test_loop_without_its_report_cannot_be_made() -> None:
    """``_post_process`` is all that a task must write."""

    class Train(TrainLoop):
        pass

    class Test(TestLoop):
        pass

    for loop_class in (Train, Test):
        with pytest.raises(TypeError, match="_post_process"):
            loop_class(model=torch.nn.Linear(1, 1), data=[])  # type: ignore[abstract]
