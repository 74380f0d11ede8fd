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
_MARK = "settings-of-a-step:"


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
        ValueError: if there are no settings, or bash cannot read them to their end.
    """
    path = ROOT / config
    if path.is_dir():
        raise ValueError(f"--config {path} is a folder; name a file, such as slurms/config.sh")
    if not path.is_file():
        raise ValueError(f"--config {path} does not exist; copy slurms/config.sh")
    lines = [f"echo; echo {_MARK} ${{OPTIONS-}} ${{{step.upper()}_OPTIONS-}}" for step in steps]
    script = "\n".join(['set -euf; . "$0"', *lines])
    done = subprocess.run(
        ["bash", "-c", script, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode:
        look = f"look with {shlex.join(['bash', '-eux', str(path)])}"
        reason = done.stderr.strip() or f"a command in it ended with {done.returncode}; {look}"
        raise ValueError(f"--config {config}: bash cannot read it: {reason}")
    # whatever the settings print themselves, at their end or in a trap, has no mark
    said = [
        words[1:] for line in done.stdout.splitlines() if (words := line.split())[:1] == [_MARK]
    ]
    if len(said) != len(steps):
        raise ValueError(
            f"--config {config}: bash does not come to its end; take out what ends it (exit, exec) "
            "or sends its output elsewhere"
        )
    return said


def job_command(step: str, options: Sequence[str], after: str) -> list[str]:
    """The command that submits a step; `after`: jobs that must have ended well."""
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
        done = subprocess.run(
            command, cwd=ROOT, env=environ, capture_output=True, text=True, errors="replace"
        )
    except FileNotFoundError:
        raise ValueError("no sbatch here; start this where jobs are submitted") from None
    # behind a semicolon stands the cluster
    job = done.stdout.strip().partition(";")[0]
    if done.returncode or not job.isdecimal():
        said = (done.stderr or done.stdout).strip()
        raise ValueError(f"{shlex.join(command)} ended with {done.returncode} and said: {said}")
    return job
