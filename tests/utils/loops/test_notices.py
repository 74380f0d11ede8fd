"""What settling the flags leaves to be said is said once the script has started."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from utils.flags.groups import Logged
from utils.runs.start import started


def test_notices_reach_the_terminal_and_the_log_but_not_the_flags(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = argparse.Namespace(seed=0, notices=("notice: one", "notice: two"))
    with started(args, Logged(str(tmp_path)), has_group=False):
        pass
    assert capsys.readouterr().out.splitlines()[:2] == ["notice: one", "notice: two"]
    assert "notice: two" in (tmp_path / "logs.txt").read_text()
    assert json.loads((tmp_path / "args.json").read_text())["flags"] == {
        "seed": 0,
        "log_dir": str(tmp_path),
    }
