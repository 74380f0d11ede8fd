"""Work that a signal ends between two items, and what a script's run says and returns then."""

from __future__ import annotations

import argparse
import signal
from pathlib import Path

import pytest

from utils.flags.groups import Logged, ScriptFlags
from utils.process.errors import EXIT_DONE, EXIT_STOPPED
from utils.process.stop import ANEW, StopFlag, StopRequested, go_on_with, stop_line
from utils.runs.job import working
from utils.runs.start import started


def test_a_signal_ends_the_work_behind_the_item_it_came_in() -> None:
    done = []
    with (
        pytest.raises(StopRequested, match=r"^stopped \(received SIGUSR1\); run again with --x y"),
        working(5, "counting", "number", remedy=go_on_with("--x y")) as job,
    ):
        for i in range(5):
            if i == 2:
                signal.raise_signal(signal.SIGUSR1)
            done.append(i)
            job.done()
    assert done == [0, 1, 2]


def test_parts_of_one_work_hear_what_came_before_them() -> None:
    stop = StopFlag()
    with stop.listening():
        signal.raise_signal(signal.SIGTERM)
        with (
            pytest.raises(StopRequested, match=r"SIGTERM.*run again$"),
            working(1, "second", "item", stop=stop, remedy=ANEW) as job,
        ):
            job.done()


def test_a_stopped_script_says_so_in_its_log_and_gives_the_exit_code(tmp_path: Path) -> None:
    with started(argparse.Namespace(), Logged(str(tmp_path))) as run:
        raise StopRequested(stop_line("received SIGTERM"))
    assert run.exit_code == EXIT_STOPPED
    assert "stopped (received SIGTERM); run again" in (tmp_path / "logs.txt").read_text()


def test_a_run_that_ends_well_says_what_its_flags_ask_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = ScriptFlags(dry_run=True, debug_mode=True)
    with started(argparse.Namespace(), flags) as run:
        pass
    assert run.exit_code == EXIT_DONE
    *_, memory, last = capsys.readouterr().out.splitlines()
    assert "memory" in memory and last == "dry run: nothing was written"
