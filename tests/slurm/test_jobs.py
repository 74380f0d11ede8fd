"""Processes and jobs of a real Slurm: who they are, how they meet, and the whole chain."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipeline import Pipeline, flags_of_steps
from tests.processes import run_torchrun
from tests.scripts.runs import flags_of
from tests.slurm.cluster import Cluster
from tests.slurm.conftest import Workspace
from tests.tiny import ROOT, words
from tests.utils.training_loops import differences, saved_run
from utils.machine.launch import first_host

pytestmark = pytest.mark.slurm

_WHO = (
    "import os, utils.machine.launch as l; e = dict(os.environ);"
    "l.set_rendezvous(e); x = l.read_launch(e);"
    "print(x.rank, x.local_rank, x.world_size, l.num_local_processes(e), e.get('MASTER_ADDR'))"
)
STEPS = {
    "SAMPLE": "ddpm_sr_sample",
    "MEAN_TRAIN": "sr_mean_train",
    "MEAN_TEST": "sr_mean_test",
    "VAR_TRAIN": "sr_var_train",
    "VAR_TEST": "sr_var_test",
    "VERIFY": "sr_var_verification",
}


def _who(cluster: Cluster, *launcher: str) -> list[str]:
    return sorted(cluster.run(*launcher, sys.executable, "-c", _WHO).splitlines())


def test_tasks_of_a_step_know_their_ranks_and_their_meeting_place(cluster: Cluster) -> None:
    expected = [
        "0 0 3 2 127.0.0.1",
        "1 1 3 2 127.0.0.1",
        "2 0 3 1 127.0.0.1",
    ]
    assert _who(cluster, "srun", "-N", "2", "-n", "3") == expected
    assert _who(cluster, "srun", "--mpi=pmi2", "-N", "2", "-n", "3") == expected
    assert _who(cluster, "salloc", "-Q", "-N", "2", "-n", "3", "srun") == expected


def test_allocations_batch_scripts_and_terminals_are_single_processes(
    cluster: Cluster, tmp_path: Path
) -> None:
    single_process = ["0 0 1 1 None"]
    assert _who(cluster, "salloc", "-Q", "-n", "3") == single_process
    assert _who(cluster, "srun", "-n", "1") == single_process
    script = tmp_path / "who.sh"
    script.write_text(f'#!/bin/sh\n{sys.executable} -c "{_WHO}"\n')
    cluster.wait([cluster.submit("-n", "3", f"--output={tmp_path}/said", str(script))])
    assert (tmp_path / "said").read_text().splitlines() == single_process
    terminal = ["script", "-qec", f"srun -n 2 --pty sh {script}", "/dev/null"]
    said = subprocess.run(
        terminal, cwd=ROOT, env=cluster.environ, stdin=subprocess.DEVNULL, capture_output=True
    )
    assert single_process[0].encode() in said.stdout


@pytest.mark.parametrize(
    "hosts", ["n[08-10,12],login", "a,b[1-2]", "r[0-3]n[00-11]", "10.0.0.[5-6]"]
)
def test_first_host_is_the_one_that_slurm_names_first(cluster: Cluster, hosts: str) -> None:
    assert first_host(hosts) == cluster.run("scontrol", "show", "hostnames", hosts).split()[0]


@pytest.mark.parametrize("launcher", ["srun", "torchrun"])
def test_training_on_two_nodes_is_that_of_torchrun_on_one(
    pipeline: Pipeline, workspace: Workspace, launcher: str
) -> None:
    flags = {
        name: {**flags_of(pipeline, "sr_mean_train", workspace.root / name), "max_step": 3}
        for name in ("two", "one")
    }
    if launcher == "srun":
        script = (sys.executable, "sr_mean_train.py", *words(flags["two"]))
        workspace.cluster.run("srun", "-N", "2", "-n", "2", *script)
    else:
        workspace.write_settings(MEAN_TRAIN_FLAGS=flags["two"])
        job = workspace.submit("mean_train", "--nodes", "2")
        (ended,) = workspace.cluster.wait([job])
        assert ended["JobState"] == "COMPLETED", workspace.said()
    run_torchrun("sr_mean_train", words(flags["one"]))
    sets = [saved_run(workspace.root / name / "save", 3) for name in ("two", "one")]
    assert differences(*sets) == []
    print(f"\n{launcher} on two nodes: {len(sets[0])} values equal")


def test_chain_ends_with_the_verification_of_a_run_by_hand(
    pipeline: Pipeline, workspace: Workspace
) -> None:
    run = Pipeline(workspace.root, pipeline.data)
    flags = flags_of_steps(run)
    flags["ddpm_sr_sample"]["model_path"] = pipeline.ddpm_model
    for task in ("mean", "var"):
        flags[f"sr_{task}_test"]["log_dir"] = run.log_dir(f"sr_{task}")
        flags[f"sr_{task}_train"]["resume_checkpoint"] = "auto"
    workspace.write_settings(
        OPTIONS=f"--output={workspace.root}/%x-%j.out",
        SAMPLE_OPTIONS="--array 0-1",
        **{f"{step}_FLAGS": flags[script] for step, script in STEPS.items()},
    )
    chain = (sys.executable, "slurms/submit.py", "--config", str(workspace.settings))
    said = workspace.cluster.run(*chain, **workspace.variables)
    numbers = {line.split(":")[0]: line.split()[2] for line in said.splitlines()}
    assert set(numbers) == {step.lower() for step in STEPS}
    ended = workspace.cluster.wait(numbers.values(), 600)
    assert [job["JobState"] for job in ended] == ["COMPLETED"] * 7, workspace.said()
    times = {step: workspace.cluster.jobs(number) for step, number in numbers.items()}
    for step, needs in {
        "mean_test": "mean_train",
        "var_test": "var_train",
        "verify": "sample",
    }.items():
        assert times[step][0]["StartTime"] >= max(job["EndTime"] for job in times[needs])
    found, expected = (
        json.loads((one.log_dir("compare") / "results.json").read_text()) for one in (run, pipeline)
    )
    assert found["num_images"] == expected["num_images"]
    for part, name in (("mean", "mse"), ("var", "var_error")):
        assert found[part][name] == pytest.approx(expected[part][name], rel=1e-6)
    print(f"\n{len(ended)} jobs COMPLETED, mean.mse {found['mean']['mse']:.4f} as by hand")
