"""R9: ``auto`` passes a damaged newest set with a warning; its explicit name is an error."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pipeline import MEAN_STEPS, Pipeline
from tests.reliability.extent import extent
from tests.scripts.runs import flags_of
from tests.tiny import run, words
from tests.utils.checkpoints import EMA, auto_step, flip_byte, resolve, save_sets
from tests.utils.training_loops import differences, saved_run
from utils.process.errors import EXIT_CHECKPOINT, CheckpointError

NUM_FLIPS = extent(30, 300)


def _file(kind: str, change: Callable[[Path], object]) -> Callable[[Path, int], object]:
    suffix = ".json" if kind == "ckpt" else ".pt"
    return lambda folder, step: change(folder / f"{kind}{step:06d}{suffix}")


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _flip_one(path: Path) -> None:
    flip_byte(path, 500)


DAMAGES: dict[str, Callable[[Path, int], object]] = {
    "model truncated": _file("model", _truncate),
    "manifest gone": _file("ckpt", Path.unlink),
    "optimizer gone": _file("opt", Path.unlink),
    "byte of the model flipped": _file("model", _flip_one),
    "model emptied": _file("model", _empty),
    "model gone": _file("model", Path.unlink),
    "byte of the optimizer flipped": _file("opt", _flip_one),
    "average gone": _file(f"{EMA}_", Path.unlink),
    "manifest emptied": _file("ckpt", _empty),
    "manifest truncated": _file("ckpt", _truncate),
    "manifest of another step": lambda folder, step: shutil.copy(
        folder / "ckpt000002.json", folder / f"ckpt{step:06d}.json"
    ),
    "manifest is a list": _file("ckpt", lambda path: path.write_text("[1, 2]")),
    "manifest is deep": _file("ckpt", lambda path: path.write_text("[" * 10**5)),
}
# a set without a manifest is one of another tool: by name it loads, with a notice
OF_THIS_TOOL = [name for name in DAMAGES if name != "manifest gone"]
OF_A_SCRIPT = [name for name in DAMAGES if name != "average gone"][: extent(3, 99)]


@pytest.mark.parametrize("damage", DAMAGES)
def test_auto_falls_back_to_the_previous_set_with_a_warning(tmp_path: Path, damage: str) -> None:
    save_sets(tmp_path, 1, 2, 3)
    DAMAGES[damage](tmp_path, 3)
    step, said = auto_step(tmp_path)
    assert step == 2
    assert said.count("\n") == 0 and said.startswith("warning:") and "000003" in said


@pytest.mark.parametrize("damage", OF_THIS_TOOL)
@pytest.mark.parametrize("name", ["model000003.pt", "3"])
def test_explicit_name_of_a_damaged_set_is_an_error(tmp_path: Path, damage: str, name: str) -> None:
    save_sets(tmp_path, 2, 3)
    DAMAGES[damage](tmp_path, 3)
    with pytest.raises(CheckpointError, match="000003"):
        resolve(tmp_path, name)


@pytest.mark.parametrize("name", ["model000003.pt", "3"])
def test_set_that_a_kill_left_unfinished_is_refused_by_name(tmp_path: Path, name: str) -> None:
    """It has no manifest either, but it is not one of another tool."""
    save_sets(tmp_path, 2, 3)
    (tmp_path / "ckpt000003.json").unlink()
    (tmp_path / ".ckpt000003.unfinished").touch()
    with pytest.raises(CheckpointError, match=r"model000003\.pt .*deleted"):
        resolve(tmp_path, name)
    assert auto_step(tmp_path) == (2, "")


def test_no_flipped_byte_of_a_set_goes_unnoticed(
    tmp_path: Path, figure: Callable[[str], None]
) -> None:
    save_sets(tmp_path, 2, 3)
    rng, paths = random.Random(0), sorted(tmp_path.glob("*000003.pt"))
    for _ in range(NUM_FLIPS):
        path = rng.choice(paths)
        place = rng.randrange(path.stat().st_size)
        flip_byte(path, place)
        step, said = auto_step(tmp_path)
        assert step == 2 and path.name in said
        flip_byte(path, place)
    assert auto_step(tmp_path) == (3, "")
    figure(f"{NUM_FLIPS} of {NUM_FLIPS} flipped bytes found")


@pytest.mark.parametrize("damage", OF_A_SCRIPT)
def test_training_goes_on_from_the_set_before_to_the_bits_of_the_damaged_one(
    pipeline: Pipeline, tmp_path: Path, figure: Callable[[str], None], damage: str
) -> None:
    shutil.copytree(pipeline.save_dir("sr_mean"), tmp_path / "save")
    shutil.copytree(pipeline.log_dir("sr_mean"), tmp_path / "log")
    DAMAGES[damage](tmp_path / "save", MEAN_STEPS)
    flags = {**flags_of(pipeline, "sr_mean_train", tmp_path), "max_step": MEAN_STEPS}
    if damage in OF_THIS_TOOL:
        refused = run("sr_mean_train", words(flags, resume_checkpoint=MEAN_STEPS))
        assert refused.code == EXIT_CHECKPOINT and f"{MEAN_STEPS:06d}" in refused.err
    outcome = run("sr_mean_train", words(flags, resume_checkpoint="auto"))
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("warning: ") == 1 and "an older" in outcome.out
    assert "resumed from" in outcome.out and "model000002.pt (step 2)" in outcome.out
    truth = saved_run(pipeline.save_dir("sr_mean"), MEAN_STEPS)
    assert differences(saved_run(tmp_path / "save", MEAN_STEPS), truth) == []
    figure(damage)
