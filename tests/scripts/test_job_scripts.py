"""The job scripts and the chain, without a Slurm: what is submitted, and how a job ends."""

from __future__ import annotations

import importlib
import itertools
import os
import re
import shlex
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from slurms.chain import CHAIN, NEEDS, waits_for
from tests.scripts.seed_commands import python_commands
from tests.tiny import ROOT

SLURMS = ROOT / "slurms"
JOB_SCRIPTS = sorted(SLURMS.glob("*.sbatch"))
SHELL_FILES = [*JOB_SCRIPTS, *sorted(SLURMS.glob("*.sh"))]
SCRIPTS = {
    "sample": "ddpm_sr_sample",
    "mean_train": "sr_mean_train",
    "mean_test": "sr_mean_test",
    "var_train": "sr_var_train",
    "var_test": "sr_var_test",
    "verify": "sr_var_verification",
    "noisy_labels": "noisy_label_sweep",
}


def _name(path: Path) -> str:
    return path.name


# ---- the files


@pytest.mark.parametrize("path", SHELL_FILES, ids=_name)
def test_bash_reads_every_file(path: Path) -> None:
    subprocess.run(["bash", "-n", str(path)], check=True)


# folders that only one machine has, addresses of mail, options of one site
_PLACES = (
    r"(?:^|[\s=!\"'])/(?!dev/null|bin/bash\b)\w",
    r"~/|\$HOME|[a-z]@[a-z]",
    r"--(?:partition|account|qos|mail|nodelist|constraint)",
)


def _places(text: str) -> list[str]:
    code = "\n".join(line.partition("# ")[0] for line in text.splitlines())
    return re.findall("|".join(_PLACES), code)


@pytest.mark.parametrize("path", SHELL_FILES, ids=_name)
def test_no_file_names_a_user_or_a_site(path: Path) -> None:
    assert _places(path.read_text()) == []


@pytest.mark.parametrize("line", ["cd /home/me", 'A="/data"', "#SBATCH --account=x", "a@b.org"])
def test_a_user_or_a_site_would_be_found(line: str) -> None:
    assert _places(line)


def test_all_job_scripts_ask_for_the_same() -> None:
    """Their own name apart: output, appended; requeueing; the signal before the end."""
    asked = {
        tuple(
            re.sub(r"--job-name=\w+", "", line)
            for line in path.read_text().splitlines()
            if line.startswith("#SBATCH")
        )
        for path in JOB_SCRIPTS
    }
    assert len(asked) == 1
    text = " ".join(asked.pop())
    for option in ("--requeue", "--open-mode=append", "--signal=B:USR1@120", "--output=logs/"):
        assert option in text


def _flags(step: str) -> Namespace:
    """What the settings of the checkout give the script of a step, parsed by it."""
    body = (SLURMS / f"{step}.sbatch").read_text().splitlines()[-1]
    launch = 'on_all() { python "$@"; }\non_one() { python "$@"; }'
    ((script, words),) = python_commands(f'. "{SLURMS}/config.sh"\n{launch}\n{body}')
    assert script == SCRIPTS[step]
    parsed: Namespace = importlib.import_module(script).create_parser().parse_args(words)
    return parsed


def test_every_step_has_a_job_script_whose_flags_its_script_takes() -> None:
    assert set(NEEDS) == set(SCRIPTS) == {path.stem for path in JOB_SCRIPTS} - {"run"}
    for step in NEEDS:
        assert _flags(step)


def test_each_step_of_the_settings_reads_what_an_earlier_one_writes() -> None:
    flags = {step: _flags(step) for step in CHAIN}
    mean, var, verify = flags["mean_train"], flags["var_train"], flags["verify"]
    mean_path = f"{mean.model_save_dir}/model{mean.max_step:06d}.pt"
    var_path = f"{var.model_save_dir}/model{var.max_step:06d}.pt"
    assert flags["mean_test"].model_path == mean_path == var.mean_model_path
    assert flags["var_test"].model_path == var_path
    assert flags["var_test"].mean_model_path == mean_path
    assert flags["mean_test"].log_dir == mean.log_dir and flags["var_test"].log_dir == var.log_dir
    assert var.mean_model_args_path == f"{mean.log_dir}/mean_model_args.pkl"
    assert (verify.mean_model_step, verify.var_model_step) == (mean.max_step, var.max_step)
    assert verify.ddpm_sr_output_dir == flags["sample"].output_dir
    assert verify.num_samples == flags["sample"].num_samples_per_image
    outputs = {flags[step].output_dir for step in ("mean_test", "var_test")}
    assert outputs == {verify.sr_model_output_dir}
    assert mean.resume_checkpoint == var.resume_checkpoint == "auto"


# ---- the chain


def _submit(*words: str, path: str = os.environ["PATH"]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SLURMS / "submit.py"), *words],
        capture_output=True,
        text=True,
        cwd="/",
        env={**os.environ, "PATH": path},
    )


def _ancestors(step: str) -> set[str]:
    return {name for need in NEEDS[step] for name in (need, *_ancestors(need))}


def test_a_step_waits_for_all_chosen_ones_whose_results_it_needs() -> None:
    for count in range(1, len(CHAIN) + 1):
        for chosen in itertools.combinations(CHAIN, count):
            before = {step: set(waits_for(step, chosen)) for step in chosen}
            for step in chosen:
                reached = set(before[step])
                for need in before[step]:
                    reached |= _ancestors(need) & set(chosen)
                assert reached == _ancestors(step) & set(chosen)


def test_dry_run_prints_the_chain_and_submits_nothing() -> None:
    said = _submit("--dry_run", "True", path=os.path.dirname(_which("bash")))
    assert said.returncode == 0, said.stderr
    waits = {}
    for line in said.stdout.splitlines():
        step = re.search(r"slurms/(\w+)\.sbatch$", line)
        after = re.search(r"'--dependency=afterok:(\S+)' --kill-on-invalid-dep=yes", line)
        assert step is not None and f"CONFIG={SLURMS}/config.sh sbatch --parsable" in line
        waits[step[1]] = after[1] if after else ""
    assert list(waits) == list(CHAIN)
    assert waits == {
        "sample": "",
        "mean_train": "",
        "mean_test": "<mean_train>",
        "var_train": "<mean_train>",
        "var_test": "<var_train>",
        "verify": "<sample>:<mean_test>:<var_test>",
    }
    assert "--array" in said.stdout.splitlines()[0] and "--gpus-per-node" in said.stdout


def test_part_of_the_chain_waits_for_given_jobs() -> None:
    said = _submit("--steps", "verify, var_test", "--after", "7:9", "--dry_run", "yes")
    first, second = said.stdout.splitlines()
    assert "afterok:7:9" in first and first.endswith("var_test.sbatch")
    assert "'--dependency=afterok:<var_test>'" in second and second.endswith("verify.sbatch")


def _which(program: str) -> str:
    return subprocess.run(
        ["sh", "-c", f"command -v {program}"], capture_output=True, text=True, check=True
    ).stdout.strip()


def _program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/bash\n{text}\n")
    (folder / name).chmod(0o755)


def test_submitted_jobs_get_their_settings_and_the_numbers_that_sbatch_says(tmp_path: Path) -> None:
    config, bin_dir = tmp_path / "config.sh", tmp_path / "bin"
    config.write_text('OPTIONS="--partition p"\nVAR_TEST_OPTIONS="--time 5"\necho noise\n')
    calls = shlex.quote(str(tmp_path / "calls"))
    _program(bin_dir, "sbatch", f'echo "$CONFIG $*" >> {calls}; echo "4$#;cluster"')
    said = _submit(
        "--steps",
        "var_train,var_test",
        "--config",
        str(config),
        path=f"{bin_dir}:{os.environ['PATH']}",
    )
    assert said.stdout.splitlines() == ["var_train: job 44", "var_test: job 48 after 44"]
    waiting = "--dependency=afterok:44 --kill-on-invalid-dep=yes"
    assert (tmp_path / "calls").read_text().splitlines() == [
        f"{config} --parsable --partition p slurms/var_train.sbatch",
        f"{config} --parsable {waiting} --partition p --time 5 slurms/var_test.sbatch",
    ]


def test_refused_job_is_an_error_that_says_what_is_left_and_how_to_go_on(tmp_path: Path) -> None:
    fails = 'case "$*" in *var_train*) echo "no such partition" >&2; exit 1;; esac'
    calls = shlex.quote(str(tmp_path / "calls"))
    count = f"echo >> {calls}; wc -l < {calls}"
    _program(tmp_path, "sbatch", f"{fails}; {count}")
    said = _submit(path=f"{tmp_path}:{os.environ['PATH']}")
    assert said.returncode == 2 and len(said.stdout.splitlines()) == 3
    error = said.stderr.strip()
    assert error.startswith("error: var_train: sbatch --parsable") and "no such partition" in error
    assert "sample 1, mean_train 2, mean_test 3" in error
    assert "--steps var_train,var_test,verify --after 1:2:3" in error
    assert "scancel 1 2 3" in error


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--steps", "mean"), "step 'mean'"),
        (("--config", "none.sh"), "none.sh"),
        (("--config", "LICENSE"), "LICENSE"),
        (("--config", "slurms"), "/slurms is a folder"),
        (("--after", "abc"), "--after 'abc'"),
        (("--after", "12;34"), "--after '12;34'"),
        (("--after", "12:"), "--after '12:'"),
        ((), "no sbatch"),
    ],
)
def test_usage_that_cannot_work_is_refused(
    tmp_path: Path, words: tuple[str, ...], part: str
) -> None:
    (tmp_path / "bash").symlink_to(_which("bash"))
    said = _submit(*words, path=str(tmp_path))
    assert said.returncode == 2 and said.stdout == ""
    assert part in said.stderr and "Traceback" not in said.stderr


# ---- how a job ends

PREEMPTED = "PreemptTime=2030-01-02T03:04:05"


@pytest.mark.parametrize(
    ("step_code", "fields", "job_code", "is_queued"),
    [
        (0, "JobState=RUNNING PreemptTime=None", 0, False),
        (3, "JobState=RUNNING PreemptTime=None", 3, False),
        (75, "JobState=RUNNING PreemptTime=None", 75, True),
        (75, "JobState=COMPLETING PreemptTime=None", 75, False),
        (1, f"JobState=RUNNING {PREEMPTED}", 75, True),
        (0, f"JobState=RUNNING {PREEMPTED}", 0, False),
        (1, "JobState=RUNNING PreemptTime=2020-01-02T03:04:05", 1, False),
        (3, "", 3, False),
        (75, "", 75, False),
    ],
)
def test_job_is_queued_again_if_its_script_was_stopped(
    tmp_path: Path, step_code: int, fields: str, job_code: int, is_queued: bool
) -> None:
    """One was preempted before it was started for this time; for the last two Slurm is silent."""
    code, calls = _run_job(tmp_path, step_code, fields)
    assert code == job_code
    assert ("requeue 7" in calls) == is_queued


def test_task_of_an_array_queues_itself_and_not_the_array(tmp_path: Path) -> None:
    array = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"}
    _, calls = _run_job(tmp_path, 75, "JobState=RUNNING PreemptTime=None", **array)
    assert calls == ["show job --oneliner 7_2", "requeue 7_2"]


def _run_job(folder: Path, step_code: int, fields: str, **variables: str) -> tuple[int, list[str]]:
    """The exit code of a job whose script ends so, and what it asks of Slurm."""
    _program(folder, "srun", f"exit {step_code}")
    _program(folder, "sleep", "true")  # there is no srun that would lose a signal
    shown = f"JobId=7 {fields} StartTime=2025-01-01T00:00:00 EndTime=2031-01-01T00:00:00"
    answer = f'echo "{shown}"' if fields else "exit 1"
    calls = shlex.quote(str(folder / "calls"))
    _program(folder, "scontrol", f'echo "$*" >> {calls}; {answer}')
    for name in ("config.sh", "calls"):
        (folder / name).touch()
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "1", "SLURM_CPUS_ON_NODE": "2", **variables}
    path = f"{folder}:{os.environ['PATH']}"
    ended = subprocess.run(
        ["bash", str(SLURMS / "run.sbatch"), "sr_mean_train.py"],
        cwd=ROOT,
        env={**os.environ, **job, "PATH": path, "CONFIG": str(folder / "config.sh")},
    )
    return ended.returncode, (folder / "calls").read_text().splitlines()
