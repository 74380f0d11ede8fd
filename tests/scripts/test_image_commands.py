"""Every documented command of plain image diffusion runs with its flags, made small at the end.

Under ``mpiexec``, too: two real processes.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.image_ddpm.tiny import named_images, read_samples
from tests.reliability.extent import is_full
from tests.scripts.seed_commands import blocks, python_commands, with_tail
from tests.tiny import ROOT, done, words

BLOCKS = {name: text for name, text in blocks().items() if name.startswith("image/")}
NET: dict[str, Any] = {"image_size": 32, "num_channels": 16, "num_res_blocks": 1, "num_classes": 3}
TRAIN_TAIL = {**NET, "batch_size": 2, "max_step": 2, "log_interval": 1}
SAMPLE_TAIL = {**NET, "batch_size": 2, "num_samples": 3, "timestep_respacing": 2}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with images where the document says, and its log directory."""
    named_images(tmp_path / "path/to/images")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_LOGDIR", str(tmp_path / "logs"))
    return tmp_path


def _commands(name: str) -> list[tuple[str, list[str]]]:
    return [(Path(script).name, argv) for script, argv in python_commands(BLOCKS[name])]


@pytest.mark.parametrize("name", BLOCKS)
def test_documented_training_and_sampling_run(place: Path, name: str) -> None:
    train, same_under_mpi, sample = _commands(name)
    assert train == same_under_mpi
    for script, argv in (train, sample):
        args = vars(importlib.import_module(script).create_parser().parse_args(argv))
        given = dict(zip(argv[::2], argv[1::2], strict=True))  # the last one wins
        for flag, value in given.items():
            found = args[flag.removeprefix("--")]
            assert found == (value == "True" if isinstance(found, bool) else type(found)(value))
    said = done(train[0], [*train[1], *words(TRAIN_TAIL)]).out
    assert "step 2" in said
    names = {path.name for path in (place / "logs").glob("*.pt")}
    assert names == {"model000002.pt", "ema_0.9999_000002.pt", "opt000002.pt"}
    tail = {**SAMPLE_TAIL, "model_path": place / "logs/ema_0.9999_000002.pt"}
    done(sample[0], [*sample[1], *words(tail)])
    found = read_samples(place / "logs")
    assert found["arr_0"].shape == (3, 32, 32, 3)
    assert ("arr_1" in found) == ("--class_cond True" in BLOCKS[name])


@pytest.mark.parametrize(
    "more", ["--timestep_respacing 5", "--timestep_respacing ddim5", "--use_ddim True"]
)
def test_documented_ways_to_sample_faster_run(place: Path, more: str) -> None:
    train, _, sample = _commands("image/example")
    done(train[0], [*train[1], *words(TRAIN_TAIL, diffusion_steps=50)])
    tail = {**NET, "batch_size": 2, "num_samples": 2, "diffusion_steps": 50}
    model = {"model_path": place / "logs/ema_0.9999_000002.pt"}
    done(sample[0], [*sample[1], *words(tail, model), *more.split()])
    assert read_samples(place / "logs")["arr_0"].shape[0] == 2


def _mpiexec() -> Path:
    """The one of the environment that runs the tests."""
    path = Path(sys.executable).parent / "mpiexec"
    if not path.exists():
        pytest.skip("no mpiexec in this environment (requirements-dev.txt has mpich's wheel)")
    return path


@pytest.mark.dist
def test_documented_commands_run_under_mpiexec_with_two_processes(place: Path) -> None:
    """The block in a real shell, but for its training in one process.

    Sampling in two as well where the long forms run, else in this one.
    """
    bin_dir = place / "bin"
    bin_dir.mkdir()
    for name, program in (("python", sys.executable), ("mpiexec", _mpiexec())):
        (bin_dir / name).write_text(f'#!/bin/sh\nexec "{program}" "$@"\n')
        (bin_dir / name).chmod(0o755)
    (place / "scripts").symlink_to(ROOT)
    lines = BLOCKS["image/imagenet64_vlb"].strip().splitlines()
    kept = [line for line in lines if not line.startswith("python ")]
    sample = next(line for line in lines if "image_sample" in line)
    model = {"model_path": place / "logs/ema_0.9999_000002.pt"}
    text = with_tail("\n".join(kept), words(TRAIN_TAIL))
    if is_full():
        text += with_tail(f"mpiexec -n $NUM_GPUS {sample}", words(SAMPLE_TAIL, model))
    unwanted = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    environ = {name: value for name, value in os.environ.items() if name not in unwanted}
    environ |= {"PATH": f"{bin_dir}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    outcome = subprocess.run(
        ["bash", "-euc", f"NUM_GPUS=2\n{text}"],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=200,
        env=environ,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert outcome.stdout.count("step 2 |") == 1  # one of the two speaks
    if not is_full():
        script, argv = _commands("image/imagenet64_vlb")[-1]
        done(script, [*argv, *words(SAMPLE_TAIL, model)])
    assert '"world_size": 2' in (place / "logs/args_image_train.json").read_text()
    assert read_samples(place / "logs")["arr_0"].shape == (3, 32, 32, 3)
