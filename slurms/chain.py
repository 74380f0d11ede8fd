"""The steps of the experiment, which of them wait for which, and how one becomes a job.

Runs on a login node: neither torch nor a virtual environment is needed.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOISY_LABELS = "noisy_labels"
# step -> those whose results it reads, in an order in which they can run
NEEDS: dict[str, tuple[str, ...]] = {
    "sample": (),
    "mean_train": (),
    "mean_test": ("mean_train",),
    "var_train": ("mean_train",),
    "var_test": ("var_train",),
    "verify": ("sample", "mean_test", "var_test"),
    NOISY_LABELS: (),
}
CHAIN = tuple(step for step in NEEDS if step != NOISY_LABELS)


def in_order(names: Sequence[str]) -> list[str]:
    """The named steps, in an order in which they can run.

    Raises:
        ValueError: if there is no such step.
    """
    for name in names:
        if name not in NEEDS:
            raise ValueError(f"--steps: there is no step {name!r}; choose from {', '.join(NEEDS)}")
    return [step for step in NEEDS if step in names]


def waits_for(step: str, chosen: Sequence[str]) -> list[str]:
    """The chosen steps that have to end first, also through steps that are not chosen."""
    found: list[str] = []
    for need in NEEDS[step]:
        found += [need] if need in chosen else waits_for(need, chosen)
    return list(dict.fromkeys(found))


def read_options(steps: Sequence[str], config: str) -> list[list[str]]:
    """What sbatch gets for each step.

    Raises:
        ValueError: if bash cannot read the settings.
    """
    if not (ROOT / config).is_file():
        raise ValueError(f"--config {ROOT / config} does not exist; copy slurms/config.sh")
    lines = [f"echo : ${{OPTIONS-}} ${{{step.upper()}_OPTIONS-}}" for step in steps]
    script = "\n".join(['set -euf; . "$0"', *lines])
    done = subprocess.run(
        ["bash", "-c", script, str(ROOT / config)], cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode:
        raise ValueError(f"--config {config}: bash cannot read it: {done.stderr.strip()}")
    return [line.split()[1:] for line in done.stdout.splitlines()[-len(steps) :]]


def job_command(step: str, options: Sequence[str], after: str) -> list[str]:
    """The command that submits a step; ``after``: jobs that must have ended well."""
    # without the second flag, a job whose forerunner failed would wait for ever
    waiting = [f"--dependency=afterok:{after}", "--kill-on-invalid-dep=yes"] if after else []
    return ["sbatch", "--parsable", *waiting, *options, f"slurms/{step}.sbatch"]


def submit(command: Sequence[str], config: str) -> str:
    """The number of the job.

    Raises:
        ValueError: if sbatch is missing, or refuses it.
    """
    environ = {**os.environ, "CONFIG": config}
    try:
        done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True)
    except FileNotFoundError:
        raise ValueError("no sbatch here; start this where jobs are submitted") from None
    # behind a semicolon stands the cluster
    job = done.stdout.strip().partition(";")[0]
    if done.returncode or not job.isdecimal():
        said = (done.stderr or done.stdout).strip()
        raise ValueError(f"{shlex.join(command)} ended with {done.returncode} and said: {said}")
    return job
