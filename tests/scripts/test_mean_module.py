"""A function in the place of the mean net: from the training of the variance to its results."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from examples.restorers import bicubic, nl_means
from sr_var.calibrate.record import read_calibration
from sr_var.flags.scripts import VarModelFlags
from sr_var.mean_module import MeanModule, RestoredMean
from sr_var.predict.predictor import Predictor
from tests.pipeline import TRAINING, Pipeline
from tests.tiny import LARGE, REGRESSION_NET, SMALL, TEST_NAMES, done, photo, run, words
from utils.files.atomic import sha256_of
from utils.loops.checkpoint import manifest_beside
from utils.process.errors import EXIT_CHECKPOINT, EXIT_DATA, EXIT_USAGE, CheckpointError, DataError

NAME = "my_restorers:bilinear"
STEPS = 5
SHA256_OF_NOTHING = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
SUBPIXEL = {"network": "subpixel", "large_size": LARGE, "small_size": SMALL, "model_channels": 8}
NET: dict[str, Any] = {**SUBPIXEL, "num_res_blocks": 1, "last_layer_type": "softplus"}
SOURCE = """
import torch

def bilinear(low_res, size):
    low_res *= 1  # its own copy
    return torch.nn.functional.interpolate(low_res, size, mode="bilinear")

def zoomed(low_res, size): return torch.nn.functional.interpolate(low_res, size)
def nothing(low_res, size): return None
def small(low_res, size): return low_res
def whole(low_res, size): return torch.zeros(len(low_res), 3, *size, dtype=torch.int64)
def endless(low_res, size): return bilinear(low_res, size) / 0
def failing(low_res, size): raise KeyError("no weights\\nhere")
def other(low_res): return low_res
number = 3
class Net(torch.nn.Module): pass
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a module, which is the current one."""
    (tmp_path / "my_restorers.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for name in ("my_restorers", "broken", "leaves"):
        sys.modules.pop(name, None)
    yield tmp_path
    sys.modules.pop("my_restorers", None)


def _training(pipeline: Pipeline, root: Path, **changes: Any) -> list[str]:
    folders = {"log_dir": root / "log", "model_save_dir": root / "save"}
    flags = {**pipeline.data.train_flags, **TRAINING, **NET, **folders, "mean_module": NAME}
    return words({**flags, "max_step": STEPS, **changes})


def test_variance_is_trained_tested_verified_and_predicted_on_a_function(
    pipeline: Pipeline, here: Path
) -> None:
    said = done("sr_var_train", _training(pipeline, here)).out
    digest, model = sha256_of(here / "my_restorers.py"), here / "save" / "model000005.pt"
    state = manifest_beside(str(model))["state"]
    assert state["mean_models"] == [digest] and state["mean_module"] == NAME and digest in said

    out = {"output_dir": here / "out", "mean_module": NAME, **pipeline.data.tested_flags}
    done("sr_var_test", words(out, model_path=model, log_dir=here / "log"))
    sizes = {name: NET[name] for name in ("large_size", "small_size")}
    done("sr_mean_test", words(out, sizes, log_dir=here / "log_mean"))
    for name in TEST_NAMES:
        variance = np.load(here / "out" / name / f"high_res_std_{STEPS}.npy")
        assert variance.shape[:2] == (LARGE, LARGE) and np.isfinite(variance).all()
    flags = {**pipeline.verification_flags, "sr_model_output_dir": here / "out"}
    flags |= {"mean_model_step": 0, "var_model_step": STEPS, "log_dir": here / "compare"}
    done("sr_var_verification", words(flags))
    _require_calibrated(pipeline, here, digest)

    Image.fromarray(photo(2, (9, 11))).save(here / "in.png")
    nets = {"mean_module": NAME, "var_model_path": model, "input": here / "in.png"}
    done("sr_predict", words(nets, output_dir=here / "predicted", log_dir=here / "log_predict"))
    files = [path for path in (here / "predicted").rglob("*") if path.suffix == ".json"]
    assert any(digest in path.read_text() for path in files)
    predictor = Predictor.from_checkpoints(MeanModule(NAME), str(model), "cpu")
    found = predictor(photo(2, (9, 11)))
    x = torch.from_numpy(photo(2, (9, 11))).permute(2, 0, 1)[None] / 127.5 - 1
    wanted = torch.nn.functional.interpolate(x.float(), (36, 44), mode="bilinear")
    inner = (slice(8, 24), slice(8, 24))  # tiles fade into each other
    expected = (wanted[0].permute(1, 2, 0).numpy() + 1) * 127.5
    np.testing.assert_allclose(found.mean[inner], expected[inner], rtol=0, atol=2)
    assert (found.std > 0).all()


def _require_calibrated(pipeline: Pipeline, here: Path, digest: str) -> None:
    """The intervals around the function's answers, and those of another function are refused."""
    results = {**pipeline.data.tested_flags, "sr_model_output_dir": here / "out"}
    results |= {"mean_model_step": 0, "var_model_step": STEPS, "large_size": LARGE, "level": 0.5}
    folders = {"output_dir": here / "cal", "log_dir": here / "log_cal"}
    done("sr_calibrate", words(results, folders, small_size=SMALL))
    calibration = read_calibration(str(here / "cal" / "calibration.json"))
    assert calibration.mean_models == (digest,)
    model = str(here / "save" / "model000005.pt")
    predictor = Predictor.from_checkpoints(MeanModule(NAME), model, "cpu", calibration=calibration)
    found = predictor(photo(2, (9, 11)))
    half = (found.upper - found.lower) / 2
    np.testing.assert_allclose(half, calibration.factor * found.std, rtol=1e-3, atol=1e-3)
    with pytest.raises(CheckpointError, match="another mean net"):
        calibration.require_nets([SHA256_OF_NOTHING], calibration.var_models, "these")


def test_changed_function_is_noticed(pipeline: Pipeline, here: Path) -> None:
    done("sr_var_train", _training(pipeline, here))
    # another function of the same file
    changes = {"mean_module": "my_restorers:zoomed", "resume_checkpoint": "auto", "max_step": 6}
    outcome = run("sr_var_train", _training(pipeline, here, **changes))
    assert outcome.code == EXIT_CHECKPOINT and NAME in outcome.err
    with pytest.raises(CheckpointError, match=NAME):
        path = str(here / "save" / "model000005.pt")
        Predictor.from_checkpoints(MeanModule("my_restorers:zoomed"), path, "cpu")
    done("sr_var_train", _training(pipeline, here, resume_checkpoint="auto", max_step=6))
    (here / "my_restorers.py").write_text(SOURCE + "\n# another one\n")
    outcome = run("sr_var_train", _training(pipeline, here, resume_checkpoint="auto", max_step=7))
    assert outcome.code == EXIT_CHECKPOINT and NAME in outcome.err
    out = {"output_dir": here / "out", "mean_module": NAME, **pipeline.data.tested_flags}
    model = here / "save" / "model000005.pt"
    outcome = run("sr_var_test", words(out, model_path=model, log_dir=here / "log"))
    assert outcome.code == EXIT_CHECKPOINT and not (here / "out").exists()


@pytest.mark.parametrize(
    ("name", "code", "part"),
    [
        ("bilinear", EXIT_USAGE, "module:function"),
        ("my_restorers:", EXIT_USAGE, "module:function"),
        ("/etc/x.py:f", EXIT_USAGE, "module:function"),
        ("no_such_module:f", EXIT_USAGE, "no_such_module"),
        ("my_restorers:no_such", EXIT_USAGE, "no_such"),
        ("my_restorers:number", EXIT_USAGE, "int"),
        ("my_restorers:Net", EXIT_USAGE, "function"),
        ("sys:exit", EXIT_USAGE, "no file"),
        ("broken:f", EXIT_USAGE, "broken.py"),
        ("leaves:f", EXIT_USAGE, "SystemExit"),
        ("my_restorers:nothing", EXIT_DATA, "NoneType"),
        ("my_restorers:small", EXIT_DATA, "(1, 3, 32, 32)"),
        ("my_restorers:whole", EXIT_DATA, "int64"),
        ("my_restorers:endless", EXIT_DATA, "finite"),
        ("my_restorers:failing", EXIT_DATA, "my_restorers.py:13"),
        ("my_restorers:other", EXIT_DATA, "TypeError"),
    ],
)
def test_unfit_function_is_refused_in_one_line(
    pipeline: Pipeline, here: Path, name: str, code: int, part: str
) -> None:
    (here / "broken.py").write_text("def f(:")
    (here / "leaves.py").write_text("raise SystemExit(0)")
    outcome = run("sr_var_train", _training(pipeline, here, mean_module=name))
    errors = [line for line in outcome.err.splitlines() if line]
    assert outcome.code == code and "Traceback" not in outcome.err
    assert len(errors) == 1 and "--mean_module" in errors[0] and part in errors[0], errors
    assert not (here / "save").exists()


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"mean_model_path": "m.pt"}, "--mean_model_path"),
        ({"cross_fit": 2}, "--cross_fit"),
        ({"class_cond": True, "num_classes": 5}, "--class_cond"),
    ],
)
def test_what_a_function_cannot_be_is_refused(
    pipeline: Pipeline, here: Path, changes: dict[str, Any], part: str
) -> None:
    outcome = run("sr_var_train", _training(pipeline, here, **changes))
    assert outcome.code == EXIT_USAGE and part in outcome.err and "Traceback" not in outcome.err


def test_function_that_fails_later_ends_the_run_with_its_line(here: Path) -> None:
    calls: list[int] = []

    def later(low_res: Tensor, size: tuple[int, int]) -> Tensor:
        calls.append(1)
        scale = 1.0 if len(calls) < 2 else float("nan")
        return torch.nn.functional.interpolate(low_res, size) * scale

    net = RestoredMean("x:later", later, 3)
    x = torch.rand(2, 3, 8, 8)
    assert net(x, (16, 16)).shape == (2, 3, 16, 16)
    with pytest.raises(DataError, match="x:later"):
        net(x, (16, 16))


def test_function_cannot_change_what_others_see(here: Path) -> None:
    x = torch.rand(1, 3, 4, 4)
    before = x.clone()
    made = RestoredMean("x:zero", lambda low_res, size: low_res.zero_(), 3)(x)
    assert (made == 0).all() and torch.equal(x, before)


def test_network_of_another_tool_is_frozen_and_moved() -> None:
    net = torch.nn.Conv2d(3, 3, 1)
    made = RestoredMean("x:net", lambda low_res, size: net(low_res), 3)
    assert not made(torch.rand(1, 3, 4, 4)).requires_grad
    own = RestoredMean("x:net", net, 3)
    assert own.restore is net and not net.training and not net.weight.requires_grad
    assert len(own.state_dict()) == 2


def test_examples_fit_the_flags() -> None:
    flags = VarModelFlags(**NET)
    assert MeanModule("examples.restorers:bicubic").network(flags, print).name
    assert REGRESSION_NET["large_size"] == LARGE


def test_bicubic_example_keeps_planes_and_their_order() -> None:
    y, x = torch.meshgrid(torch.linspace(-1, 1, 8), torch.linspace(-1, 1, 10), indexing="ij")
    images = torch.stack([torch.stack([x, y, -x]), torch.stack([y, y, x])])
    found = bicubic(images, (32, 40))
    assert found.shape == (2, 3, 32, 40)
    inner = torch.nn.functional.interpolate(images, (32, 40), mode="bilinear")
    torch.testing.assert_close(found[..., 8:24, 8:32], inner[..., 8:24, 8:32], rtol=0, atol=1e-5)


def test_nl_means_example_takes_noise_away() -> None:
    clean = torch.from_numpy(photo(3, (40, 52))).permute(2, 0, 1)[None] / 127.5 - 1
    clean = torch.nn.functional.avg_pool2d(clean, 3, 1, 1)
    noisy = clean + 0.2 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    left = (nl_means(noisy, (40, 52)) - clean).square().mean()
    assert left < 0.5 * (noisy - clean).square().mean()
    with pytest.raises(ValueError, match="enlarge"):
        nl_means(noisy, (80, 104))
