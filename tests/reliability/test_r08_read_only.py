"""R8: a folder that may not be written stops a script before its work, with one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pipeline import Pipeline
from tests.reliability.disks import mounted
from tests.reliability.scripts import Script
from tests.scripts.runs import flags_of
from tests.tiny import run, words
from utils.process.errors import EXIT_DATA

FOLDERS = [
    ("sr_mean_train", "model_save_dir"),
    ("sr_mean_train", "log_dir"),
    ("sr_var_train", "model_save_dir"),
    ("ddpm_sr_train", "model_save_dir"),
    ("sr_mean_test", "output_dir"),
    ("ddpm_sr_sample", "output_dir"),
    ("sr_var_verification", "log_dir"),
]
WORK = ("step 1 ", "mean.mse", "saved")


def _assert_refused(said: str, folder: Path, reason: str) -> None:
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert reason in line and f"{folder}/" in line and "another folder" in line
    assert "MiB free" not in line, "space is not what is missing"
    assert [word for word in WORK if word in said] == []


@pytest.mark.parametrize(("script", "flag"), FOLDERS)
def test_read_only_mount_stops_the_script_before_its_work(
    pipeline: Pipeline, tmp_path: Path, figure: Callable[[str], None], script: str, flag: str
) -> None:
    with mounted(tmp_path / "disk", "ro") as disk:
        outcome = run(script, words(flags_of(pipeline, script, tmp_path), **{flag: disk}))
    assert outcome.code == EXIT_DATA
    _assert_refused(outcome.out + outcome.err, disk, "Read-only file system")
    figure(f"{script}.py --{flag}")


@pytest.mark.parametrize(("script", "flag"), FOLDERS)
def test_folder_without_permission_stops_the_script_before_its_work(
    pipeline: Pipeline, tmp_path: Path, script: str, flag: str
) -> None:
    """Root gives up what lets it write anywhere."""
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o555)
    flags = {**flags_of(pipeline, script, tmp_path), flag: folder}
    process = Script(script, flags, tmp_path / "said", is_unprivileged=True)
    assert process.exit_code() == EXIT_DATA, process.said()
    _assert_refused(process.said(), folder, "Permission denied")
