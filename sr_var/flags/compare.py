"""The flags of sr_compare_runs.py: which runs; no torch."""

from __future__ import annotations

from dataclasses import dataclass

from utils.files.storage import with_home
from utils.flags.groups import DryRun, Logged
from utils.script_util import flag


@dataclass(frozen=True)
class CompareFlags(Logged, DryRun):
    """Which runs to compare, and where to write."""

    log_dirs: str = flag(
        "",
        "log folders of trainings, comma separated; or without the flag, as words with spaces "
        "between them",
        is_path=True,
    )
    log_dir: str = flag("logs/sr_compare_runs", "folder of runs.png, runs.csv and logs.txt")

    def __post_init__(self) -> None:
        if not self.folders:
            raise ValueError("name the log folders of the runs to compare, as logs/a logs/b")

    @property
    def folders(self) -> list[str]:
        """The parsed `log_dirs`."""
        return [with_home(part.strip()) for part in self.log_dirs.split(",") if part.strip()]
