"""Every script does its work where nobody can see it: streams closed, full, or of few letters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from noisy_label.files import TEST, TRAINING, save_split
from tests.image_ddpm.tiny import named_images
from tests.pipeline import Pipeline
from tests.scripts.runs import flags_of
from tests.scripts.streams import Commands, image_commands, label_commands
from tests.tiny import ROOT, tree, words, write_photos
from utils.process.errors import EXIT_DONE, EXIT_USAGE

SCRIPTS = sorted(path.stem for path in ROOT.glob("*.py")) + ["slurms.submit"]
# a letter that ascii lacks: in paths, and so in lines, logs and records
LETTER = "λ"
# what is done to stdout and stderr
CLOSED, FULL, FILE = "closed", "full", "file"


def _codes(commands: Commands, root: Path, out: str, err: str) -> list[int]:
    """Exit codes of commands in one process, whose streams are of ascii letters."""
    (root / "commands.json").write_text(json.dumps(commands, default=str), encoding="utf-8")
    closed = [number for number, kind in ((1, out), (2, err)) if kind == CLOSED]

    def close() -> None:
        for number in closed:
            os.close(number)

    files = {CLOSED: os.devnull, FULL: "/dev/full", FILE: str(root / "said")}
    command = [sys.executable, "-m", "tests.scripts.streams"]
    with open(files[out], "ab") as stdout, open(files[err], "ab") as stderr:
        done = subprocess.run(
            [*command, str(root / "commands.json"), str(root / "codes.json")],
            cwd=ROOT,
            env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)},
            stdout=stdout,
            stderr=stderr,
            preexec_fn=close,
        )
    said = (root / "said").read_text("ascii") if FILE in (out, err) else ""
    assert done.returncode == 0 and "Traceback" not in said, said
    return [int(code) for code in json.loads((root / "codes.json").read_text())]


@pytest.mark.parametrize(("out", "err"), [(CLOSED, FILE), (FILE, CLOSED), (FULL, FULL)])
def test_help_and_a_slip_of_every_script_end_as_on_a_terminal(
    tmp_path: Path, out: str, err: str
) -> None:
    commands = [(name, [word]) for name in SCRIPTS for word in ("--help", f"--{LETTER}")]
    expected = [EXIT_DONE, EXIT_USAGE] * len(SCRIPTS)
    assert _codes(commands, tmp_path, out, err) == expected


def _super_resolution(pipeline: Pipeline, root: Path) -> Commands:
    """A training, a sampling and a verification."""

    def command(name: str, **more: Any) -> tuple[str, list[str]]:
        return name, words(flags_of(pipeline, name, root / name), **more)

    return [
        command("sr_mean_train"),
        command("ddpm_sr_sample"),
        command("sr_var_verification"),
    ]


def _others(pipeline: Pipeline, root: Path) -> Commands:
    write_photos(root / "photos", ["train/a_1", "test/b_1"])
    folders = {"output_dir": root / "oracle", "log_dir": root / "oracle_log"}
    export = {"model_path": pipeline.mean_model, "output_path": root / "exported"}
    return [
        ("oracle_data", words(folders, data_dir=root / "photos", dry_run=True)),
        ("sr_data_info", words(flags_of(pipeline, "sr_data_info", root), num_test_per_class=1)),
        ("sr_mean_test", words(flags_of(pipeline, "sr_mean_test", root))),
        ("export", words(export, log_dir=root / "export_log", license=LETTER)),
    ]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Images and digits, below a folder with a letter that ascii lacks."""
    root = tmp_path / LETTER
    named_images(root / "images")
    for split in (TRAINING, TEST):
        labels = torch.arange(20) % 10
        images = torch.zeros(20, 28, 28, dtype=torch.uint8)
        save_split(str(root / "digits"), split, images, labels)
    return root


def _assert_whole(pipeline: Pipeline, root: Path) -> None:
    """What the scripts have written is what they write where everybody sees them."""
    folder = root / "sr_mean_train"
    lines = (folder / "log" / "logs.txt").read_text("utf-8").splitlines()
    assert [line for line in lines if line.endswith(f"saved step 1 in {folder / 'save'}")]
    args = json.loads((folder / "log" / "args.json").read_text("utf-8"))
    assert args["flags"]["log_dir"] == str(folder / "log")
    found, expected = tree(root / "ddpm_sr_sample" / "out"), tree(pipeline.samples_dir)
    pictures = [path for path in found if path.endswith(".png")]
    assert pictures and [path for path in pictures if found[path] != expected[path]] == []
    assert (root / "sr_var_verification" / "log" / "report.html").exists()


def test_work_is_whole_where_stdout_is_closed(pipeline: Pipeline, root: Path) -> None:
    commands = _super_resolution(pipeline, root)
    assert _codes(commands, root, CLOSED, FILE) == [EXIT_DONE] * len(commands)
    _assert_whole(pipeline, root)


def test_work_is_whole_where_stdout_lacks_letters(pipeline: Pipeline, root: Path) -> None:
    commands = [
        *_super_resolution(pipeline, root),
        *image_commands(root, root / "images"),
        *label_commands(root, root / "digits"),
        *_others(pipeline, root),
    ]
    assert _codes(commands, root, FILE, CLOSED) == [EXIT_DONE] * len(commands)
    _assert_whole(pipeline, root)
    said = (root / "said").read_text("ascii")
    assert f"saved step 1 in {root / 'sr_mean_train' / 'save'}".replace(LETTER, "\\u03bb") in said
