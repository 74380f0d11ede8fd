"""docs/add_a_task.md is a whole task: its files are taken off the page and run in an empty folder.

The task: the conditional median of an image y given an image x, by absolute error.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sr_var.mean_utils import SRMeanTrainLoop
from sr_var.var_utils import SRVarTrainLoop
from tests.layering import layer_faults
from tests.tiny import ROOT, Outcome, done, run, tree
from utils.test_util import TestLoop
from utils.train_util import TrainLoop

PAGE = (ROOT / "docs" / "add_a_task.md").read_text(encoding="utf-8")
# file → content of the blocks that begin with the name of a file
FILES = dict(re.findall(r"```python\n# (\S+\.py)\n(.*?)```", PAGE, re.DOTALL))
# the page's commands, without `python`
COMMANDS = [shlex.split(line)[1:] for line in re.findall(r"```sh\n(.*?)\n```", PAGE, re.DOTALL)]
TRAIN, TEST = COMMANDS


def _write_task(root: Path) -> None:
    for name, text in {"my_task/__init__.py": "", **FILES}.items():
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for layer in ("utils", "models", "diffusion"):
        (root / layer).symlink_to(ROOT / layer)


def _own(folder: Path) -> dict[str, bytes]:
    """What a run has written."""
    found = tree(folder).items()
    return {name: content for name, content in found if re.match("logs|checkpoints|outputs", name)}


def _run(command: list[str], *more: str) -> Outcome:
    return run(command[0].removesuffix(".py"), [*command[1:], *more])


def _done(command: list[str], *more: str) -> Outcome:
    return done(command[0].removesuffix(".py"), [*command[1:], *more])


@pytest.fixture
def task_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory of the new task; its modules are forgotten afterwards."""
    _write_task(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    names = ("my_task", "my_train", "my_test")
    for name in [name for name in sys.modules if name.split(".")[0] in names]:
        del sys.modules[name]


def test_page_has_every_file_that_it_names() -> None:
    named = set(re.findall(r"`(my_\w+(?:/\w+)?\.py)`", PAGE)) - {"my_task/__init__.py"}
    assert named <= FILES.keys() and len(FILES) == 7


def test_new_task_obeys_the_layers(tmp_path: Path) -> None:
    _write_task(tmp_path)
    assert layer_faults(tmp_path) == []


def test_new_task_trains_resumes_and_tests_without_a_change_elsewhere(task_folder: Path) -> None:
    _done(TRAIN, "--max_step", "100", "--microbatch", "24")
    said = _done(TRAIN, "--resume_checkpoint", "auto", "--microbatch", "24")
    assert "resumed from" in said.out and "step 300 | loss" in said.out
    files = _own(task_folder)
    steps = (100, 200, 300)
    assert {f"checkpoints/median/model{step:06d}.pt" for step in steps} <= files.keys()
    assert any(b"mean_output" in content for content in files.values())

    _done(TEST)
    results = list((task_folder / "outputs" / "median").glob("*.npy"))
    assert len(results) == 9
    for path in results:
        # the median is x; the mean, which squared error would find, is x + 1
        found = np.load(path)
        assert found.shape == (1, 8, 8)
        np.testing.assert_allclose(found, float(path.stem), atol=0.2)

    wrong = _run(TRAIN, "--widht", "3")
    assert wrong.code == 2 and "--width?" in wrong.err


def test_dry_runs_leave_no_file_and_no_folder(task_folder: Path) -> None:
    _done(TRAIN, "--max_step", "1")
    before = sorted(task_folder.rglob("*"))
    model = ["--model_path", "checkpoints/median/model000001.pt", "--dry_run", "True"]
    said = _done(TEST, *model, "--output_dir", "elsewhere", "--log_dir", "no_log")
    assert "nothing was written" in said.out
    new = ["--model_save_dir", "new", "--log_dir", "no_log", "--dry_run", "True"]
    assert "nothing was written" in _done(TRAIN, *new).out
    after = [path for path in sorted(task_folder.rglob("*")) if "__pycache__" not in path.parts]
    assert after == [path for path in before if "__pycache__" not in path.parts]


def test_u_net_of_the_page_trains_and_a_network_of_other_flags_is_refused(
    task_folder: Path,
) -> None:
    _done(TRAIN, "--network", "unet", "--max_step", "2", "--width", "8")
    model = ["--model_path", "checkpoints/median/model000002.pt"]
    _done(TEST, *model, "--network", "unet", "--width", "8")
    assert len(list((task_folder / "outputs" / "median").glob("*.npy"))) == 9
    other = _run(TEST, *model, "--network", "unet", "--width", "16")
    assert other.code == 4 and "width" in other.err
    missing = _run(TEST, "--model_path", "checkpoints/median/model000300.pt")
    assert missing.code == 4 and "model000002.pt" in missing.err


class _OfAnotherLibrary(nn.Module):
    """Called with a time, and returns an object, as `UNet2DModel` of diffusers does."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, sample: Tensor, timestep: Tensor) -> SimpleNamespace:
        assert timestep.shape == (len(sample),)
        return SimpleNamespace(sample=self.conv(sample))


class _Loop(TrainLoop):
    def _post_process(self, micro_input: Any, micro_label: Any, micro_output: Any, i: int) -> None:
        pass


def test_network_of_another_library_trains_behind_the_wrapper_of_the_page(
    task_folder: Path,
) -> None:
    """y = 2x: the centre of the kernel is 2 in the end, and the checkpoint has its names."""
    from my_task.networks import Foreign  # type: ignore[import-not-found]

    x = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    net = _OfAnotherLibrary()
    loop = _Loop(
        model=Foreign(net),
        data=[(x, 2 * x)],
        batch_size=16,
        lr=0.05,
        lr_anneal_steps=200,
        model_save_dir="checkpoints",
        log_interval=1000,
    )
    assert loop.run_loop()
    assert net.conv.weight[0, 0, 1, 1].item() == pytest.approx(2.0, abs=0.02)
    stored = torch.load("checkpoints/model000200.pt", weights_only=True)
    assert set(stored) == {"net.conv.weight", "net.conv.bias"}


def test_any_modules_are_the_mean_and_the_variance_net(task_folder: Path) -> None:
    """Both are told the size of the high-res image, and learn what their losses say."""
    from my_task.super_resolution import Mean, Variance  # type: ignore[import-not-found]

    random = torch.Generator().manual_seed(0)
    low_res = torch.rand(8, 3, 4, 4, generator=random) * 2 - 1
    flat = low_res.mean(dim=(2, 3), keepdim=True)
    low_res = flat.expand_as(low_res)
    noise = 0.5 * torch.randn(8, 3, 16, 16, generator=random)
    high_res = flat + 0.25 + noise
    common = {"batch_size": 8, "lr": 0.03, "lr_anneal_steps": 300, "log_interval": 1000}
    mean_net = Mean(nn.Conv2d(3, 3, 1))
    data = [(low_res, high_res)]
    assert SRMeanTrainLoop(model=mean_net, data=data, **common).run_loop()
    with torch.no_grad():
        mean = mean_net(low_res, (16, 16))
    torch.testing.assert_close(mean, (flat + 0.25).expand_as(mean), atol=0.1, rtol=0)
    var_net = Variance(nn.Conv2d(6, 3, 1))
    assert SRVarTrainLoop(model=var_net, mean_model=mean_net, data=data, **common).run_loop()
    with torch.no_grad():
        variance = var_net(low_res, mean)
    assert variance.shape == mean.shape
    assert variance.mean().item() == pytest.approx(0.25, rel=0.1)


def test_loop_without_its_report_cannot_be_made() -> None:
    """``_post_process`` is all that a task must write, and the page says so."""

    class Train(TrainLoop):
        pass

    class Test(TestLoop):
        pass

    for loop_class in (Train, Test):
        with pytest.raises(TypeError, match="_post_process"):
            loop_class(model=torch.nn.Linear(1, 1), data=[])  # type: ignore[abstract]
    assert "`_post_process` is obligatory" in PAGE
