"""The settings of the job scripts: whatever bash makes of them, they are read or refused."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from slurms.chain import read_options
from tests.tiny import ROOT


def _read(folder: Path, text: str) -> list[list[str]]:
    (folder / "config.sh").write_text(text)
    return read_options(["sample", "verify"], str(folder / "config.sh"))


@pytest.mark.parametrize("noise", ["", "printf noise", "trap 'echo bye; printf x' EXIT"])
def test_what_the_settings_print_does_not_spoil_the_values(tmp_path: Path, noise: str) -> None:
    text = f'{noise}\nOPTIONS="--a 1"\nSAMPLE_OPTIONS="--b *\n--c"\n{noise}\n'
    assert _read(tmp_path, text) == [["--a", "1", "--b", "*", "--c"], ["--a", "1"]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("exit 0", "its end"),
        ("exec > /dev/null", "its output"),
        ("exit 5", "ended with 5; .*bash -eux .*config.sh"),
        ("false", "ended with 1"),
        ("echo $UNHEARD_OF", "UNHEARD_OF: unbound variable"),
        ("if", "syntax error"),
    ],
)
def test_settings_that_are_not_read_to_their_end_are_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(ValueError, match=rf"--config .*config.sh: .*{message}"):
        _read(tmp_path, f"{text}\n")


def test_commands_of_a_dry_run_can_be_pasted(tmp_path: Path) -> None:
    """A word that the shell would read otherwise is quoted, so none becomes a redirection."""
    config = tmp_path / "my settings.sh"
    config.write_text("OPTIONS='--comment a;b&c'\n")
    command = [sys.executable, str(ROOT / "slurms" / "submit.py"), "--dry_run", "True"]
    command += ["--config", str(config), "--steps", "mean_train,mean_test"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    script = f'sbatch() {{ printf \'%s\\n\' "$CONFIG" "$@" .; }}\n{said}'
    heard = subprocess.run(
        ["bash", "-euc", script], capture_output=True, text=True, check=True, cwd=tmp_path
    ).stdout
    waiting = ["--dependency=afterok:<mean_train>", "--kill-on-invalid-dep=yes"]
    assert heard.split("\n.\n")[:2] == [
        "\n".join([str(config), "--parsable", *more, "--comment", "a;b&c", f"slurms/{step}.sbatch"])
        for step, more in (("mean_train", []), ("mean_test", waiting))
    ]
    assert [path.name for path in tmp_path.iterdir()] == [config.name]
    assert shlex.split(said.splitlines()[0])[0] == f"CONFIG={config}"
