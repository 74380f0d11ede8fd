"""One cluster for all tests, and jobs whose settings stand in a file of the test."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.cluster import HIGH, PROGRAMS, Cluster
from tests.tiny import words


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes; nothing of them is left behind, however the tests end."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        pytest.fail(f"{', '.join(missing)} missing: make test-slurm installs Slurm and munge")
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@dataclass(frozen=True)
class Workspace:
    """The folder of a test, its settings file and the jobs that read it."""

    root: Path
    cluster: Cluster

    @property
    def settings(self) -> Path:
        """What jobs take for ``slurms/config.sh``."""
        return self.root / "config.sh"

    @property
    def variables(self) -> dict[str, str]:
        """What jobs find in their environment."""
        return {"CONFIG": str(self.settings), "PYTHON": sys.executable}

    def write_settings(self, **values: dict[str, Any] | str) -> None:
        """One variable a line; flags become a command line."""
        lines = [
            f'{name}="{value if isinstance(value, str) else " ".join(words(value))}"\n'
            for name, value in values.items()
        ]
        self.settings.write_text("".join(lines), encoding="utf-8")

    def submit(self, step: str, *options: str) -> str:
        """The number of the job of a step."""
        output = f"--output={self.root}/%x-%j.out"
        return self.cluster.submit(output, *options, f"slurms/{step}.sbatch", **self.variables)

    def preempt(self, seconds: int) -> None:
        """Takes both nodes from whatever runs there, for as long."""
        options = ("--partition", HIGH, "--nodes", "2", "--exclusive", "--output=/dev/null")
        self.cluster.submit(*options, "--wrap", f"sleep {seconds}")

    def said(self) -> str:
        """What all jobs printed."""
        return "\n".join(path.read_text() for path in sorted(self.root.glob("*.out")))


@pytest.fixture
def workspace(tmp_path: Path, cluster: Cluster) -> Workspace:
    """An empty one."""
    return Workspace(tmp_path, cluster)
