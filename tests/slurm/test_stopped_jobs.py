"""Jobs that are preempted or run out of time go on by themselves and end as if nothing had been."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline import Pipeline
from tests.processes import run_torchrun
from tests.scripts.runs import flags_of
from tests.slurm.cluster import wait_for
from tests.slurm.conftest import Workspace
from tests.tiny import TEST_NAMES, done, tree, words
from tests.utils.training_loops import differences, saved_run

pytestmark = pytest.mark.slurm

ENDLESS = 10**6
BOTH_NODES = ("--nodes", "2", "--ntasks-per-node", "1", "--cpus-per-task", "2")


@dataclass(frozen=True)
class Training:
    """A training that goes on until it is stopped; then it has two steps left."""

    pipeline: Pipeline
    workspace: Workspace
    launcher: str

    def flags(self, root: Path, last: int) -> dict[str, Any]:
        """The flags of a run in the folder."""
        intervals = {"log_interval": 1, "save_interval": ENDLESS, "resume_checkpoint": "auto"}
        return {**flags_of(self.pipeline, "sr_mean_train", root), **intervals, "max_step": last}

    def write(self, last: int) -> None:
        """Settings of the job; one that is started again reads them again."""
        flags = self.flags(self.workspace.root / "cut", last)
        self.workspace.write_settings(MEAN_TRAIN_FLAGS=flags, LAUNCHER=self.launcher)

    def run_until_stopped(self, stop: Callable[[str], Any], *options: str) -> tuple[str, int]:
        """The job, and its last step, which it has not yet come to."""
        self.write(ENDLESS)
        job = self.workspace.submit("mean_train", *options)
        wait_for(lambda: "step 5 " in self.workspace.said(), 180, "it made no 5 steps")
        stop(job)
        saved = self.workspace.root / "cut" / "save"
        wait_for(lambda: any(saved.glob("ckpt*.json")), 180, "nothing was saved")
        last = int(next(saved.glob("ckpt*.json")).stem[4:]) + 2
        self.write(last)
        return job, last

    def assert_went_on(self, job: str, last: int) -> None:
        """It was started again once, and ended with the weights of a run without a break."""
        (ended,) = self.workspace.cluster.wait([job])
        fields = [ended[name] for name in ("JobState", "Restarts", "ExitCode")]
        assert fields == ["COMPLETED", "1", "0:0"], self.workspace.said()
        argv = words(self.flags(self.workspace.root / "whole", last))
        if self.launcher == "one":
            done("sr_mean_train", argv)
        else:
            run_torchrun("sr_mean_train", argv)
        sets = [saved_run(self.workspace.root / name / "save", last) for name in ("cut", "whole")]
        assert differences(*sets) == []
        print(f"\nstopped at step {last - 2}, Restarts=1, COMPLETED, {len(sets[0])} values equal")


@pytest.mark.parametrize(
    ("launcher", "signal"), [("one", "USR1"), ("torchrun", "USR1"), ("torchrun", "TERM")]
)
def test_preempted_training_goes_on_and_ends_with_the_same_weights(
    pipeline: Pipeline, workspace: Workspace, launcher: str, signal: str
) -> None:
    """By the signal that the job asks for, or by SIGTERM to its processes alone."""
    cluster, training = workspace.cluster, Training(pipeline, workspace, launcher)
    options = () if launcher == "one" else BOTH_NODES

    by_term = cluster.preempting_by_term() if signal == "TERM" else contextlib.nullcontext()
    with by_term:
        job, last = training.run_until_stopped(lambda _: workspace.preempt(4), *options)
        training.assert_went_on(job, last)
    assert f"received SIG{signal}" in workspace.said()


def test_training_that_runs_out_of_time_goes_on_and_ends_with_the_same_weights(
    pipeline: Pipeline, workspace: Workspace
) -> None:
    """Slurm looks every half minute, so the signal comes 30 to 60 s after the start."""
    training = Training(pipeline, workspace, "srun")
    options = ("--time", "2", "--signal=B:USR1@60", *BOTH_NODES)
    job, last = training.run_until_stopped(lambda _: None, *options)
    training.assert_went_on(job, last)


def test_cancelled_job_is_not_queued_again(pipeline: Pipeline, workspace: Workspace) -> None:
    cluster, training = workspace.cluster, Training(pipeline, workspace, "one")
    job, _ = training.run_until_stopped(lambda job: cluster.run("scancel", job))
    (ended,) = cluster.wait([job])
    assert (ended["JobState"], ended["Restarts"]) == ("CANCELLED", "0")


def test_job_whose_script_refuses_its_flags_fails_with_its_code_and_is_not_queued_again(
    workspace: Workspace,
) -> None:
    workspace.write_settings(MEAN_TRAIN_FLAGS="--lr -1")
    (ended,) = workspace.cluster.wait([workspace.submit("mean_train")])
    fields = [ended[name] for name in ("JobState", "Restarts", "ExitCode")]
    assert fields == ["FAILED", "0", "2:0"]
    assert "error: --lr -1.0" in workspace.said()


def test_preempted_array_of_samplers_draws_each_sample_once(
    pipeline: Pipeline, workspace: Workspace
) -> None:
    num_samples = 16
    flags = {
        **flags_of(pipeline, "ddpm_sr_sample", workspace.root / "cut"),
        **{"num_samples_per_image": num_samples, "batch_size": 2, "timestep_respacing": "50"},
    }
    workspace.write_settings(SAMPLE_FLAGS=flags)
    cluster, out = workspace.cluster, workspace.root / "cut" / "out"
    job = workspace.submit("sample", "--array", "0-2")
    wait_for(lambda: any(out.rglob("sample_*.png")), 180, "no sample")
    workspace.preempt(1)
    ended = cluster.wait([job])
    assert [task["JobState"] for task in ended] == ["COMPLETED"] * 3, workspace.said()
    restarts = [int(task["Restarts"]) for task in ended]
    assert sum(restarts) >= 1
    done("ddpm_sr_sample", words({**flags, "output_dir": workspace.root / "whole"}))
    found, expected = (
        {path: content for path, content in tree(folder).items() if path.endswith(".png")}
        for folder in (out, workspace.root / "whole")
    )
    assert found == expected and len(found) == len(TEST_NAMES) * (num_samples + 1)
    num_drawn = json.loads((out / ".seconds.json").read_text())["num_items"]
    assert num_drawn == len(TEST_NAMES) * num_samples
    print(f"\n3 tasks, restarts {restarts}, {num_drawn} samples drawn, {len(found)} files equal")
