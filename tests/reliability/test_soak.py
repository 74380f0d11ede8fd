"""The soak can fail: what it counts is seen when it is there; in full, one cycle of it."""

from __future__ import annotations

import json
import os
import random
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.pipeline import Pipeline
from tests.reliability import soak
from tests.reliability.extent import extent
from tests.reliability.faults import Trial
from tests.reliability.soaked_files import digests, finished_files, is_torn, torn_files
from utils.process.errors import EXIT_DATA, EXIT_DONE

SUFFIXES = {".csv", ".html", ".png", ".npy", ".npz", ".pt", ".json", ".pkl"}


@dataclass
class Ended:
    """In place of a process: its exit code and what it has said."""

    code: int
    output: str = ""
    pid: int = 2**22 + 1

    def exit_code(self) -> int:
        return self.code

    def said(self) -> str:
        return self.output


@pytest.fixture
def copied(pipeline: Pipeline, tmp_path: Path) -> Pipeline:
    """A finished pipeline whose files may be damaged."""
    shutil.copytree(pipeline.root, tmp_path / "copied")
    return replace(pipeline, root=tmp_path / "copied")


def trial_of(pipeline: Pipeline) -> Trial:
    made = finished_files(pipeline)
    return Trial("sr_mean_train", {}, pipeline, pipeline.root, None, 1.0, made, random.Random(0))


def test_nothing_is_wrong_with_a_finished_pipeline(copied: Pipeline, pipeline: Pipeline) -> None:
    assert torn_files(copied) == set()
    assert digests(copied) == digests(pipeline)


def test_every_kind_of_file_is_seen_to_be_torn(copied: Pipeline) -> None:
    seen = set()
    for path in sorted(copied.root.rglob("*.*")):
        if path.suffix not in SUFFIXES - seen or path.stat().st_size < 2:
            continue
        seen.add(path.suffix)
        assert not is_torn(path)
        os.truncate(path, path.stat().st_size // 2)
        name = str(path.relative_to(copied.root))
        assert name in torn_files(copied)
        assert name not in finished_files(copied)
    assert seen == SUFFIXES


def test_a_set_is_not_finished_once_a_file_of_it_is_gone(copied: Pipeline) -> None:
    before = finished_files(copied)
    (copied.save_dir("sr_mean") / "opt000004.pt").unlink()
    gone = before - finished_files(copied)
    assert {"checkpoints/sr_mean/ckpt000004.json", "checkpoints/sr_mean/model000004.pt"} <= gone
    assert "checkpoints/sr_mean/model000002.pt" not in gone


def test_one_other_number_gives_another_digest(copied: Pipeline) -> None:
    before = digests(copied)
    array_path = min(copied.nets_dir.rglob("*.npy"))
    array = np.load(array_path)
    array.flat[0] = np.nextafter(array.flat[0], np.inf, dtype=array.dtype)
    np.save(array_path, array)
    weights = torch.load(copied.mean_model, weights_only=True)
    name = next(iter(weights))
    weights[name].view(-1)[0] += 1
    torch.save(weights, copied.mean_model)
    after = digests(copied)
    wrong = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    assert str(array_path.relative_to(copied.root)) in wrong
    assert {key for key in wrong if key.startswith("sr_mean/")}
    assert len(wrong) == 2


@pytest.mark.parametrize(
    ("ended", "wrong"),
    [
        (Ended(1, "Traceback"), "does not explain"),
        (Ended(EXIT_DATA, "no space"), "without saying"),
        (Ended(EXIT_DATA, "3 MiB free"), ""),
        (Ended(EXIT_DONE), ""),
    ],
)
def test_an_ending_must_be_explained(copied: Pipeline, ended: Ended, wrong: str) -> None:
    trial = trial_of(copied)
    trial.end(ended, "full disk", EXIT_DATA, says=("MiB free",))
    assert len(trial.unexpected) == bool(wrong)
    assert wrong in "".join(trial.unexpected)


def test_work_that_is_called_done_must_be_complete(copied: Pipeline) -> None:
    trial = trial_of(copied)
    copied.mean_model.unlink()
    trial.end(Ended(EXIT_DONE), "full disk")
    assert "its work is not complete" in trial.unexpected[0]


def test_no_temporary_file_may_stay(copied: Pipeline) -> None:
    trial, ended = trial_of(copied), Ended(EXIT_DATA)
    stray = copied.root / "logs" / f".file.{ended.pid}.{0:016x}.tmp"
    stray.touch()
    trial.end(ended, "full disk", EXIT_DATA)
    assert stray.name in "".join(trial.unexpected)


@pytest.mark.skipif(not extent(0, 1), reason="three minutes: in full only")
def test_a_cycle_ends_well(tmp_path: Path) -> None:
    assert soak.main(["--minutes", "0.01", "--output_dir", str(tmp_path)]) == 0
    counts = json.loads((tmp_path / "counts.json").read_text())
    assert counts["cycles"] == 1
    assert sum(counts["faults"].values()) > 0
