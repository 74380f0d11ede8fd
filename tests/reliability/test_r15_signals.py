"""R15: SIGTERM, SIGINT and SIGUSR1 save the current step in time; the run goes on exactly."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.dist.ranks import exit_codes, run_ranks, start_ranks
from tests.reliability import launched
from tests.reliability.extent import extent
from tests.reliability.launched import NEVER, torchrun, wait_for_line
from tests.utils.processes import Child
from tests.utils.training_loops import QuietLoop, differences, saved_run, training_loop
from utils.process.errors import EXIT_DONE, EXIT_STOPPED

ENDLESS = 10**6
LEFT_LOOP = 10**9
GRACE_SECONDS = 30
SIGNALS = ["SIGUSR1", "SIGTERM", "SIGINT"]
HANDLED = "--signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"
FLAGS: dict[str, Any] = {"dropout": 0.3, "ema_rate": "0.5", "log_interval": 1}


class _TalkingLoop(QuietLoop):
    """Tells every finished step."""

    say: Callable[[int], None]

    def run_step(self, batch: Any, label: Any) -> None:
        super().run_step(batch, label)
        self.say(self.step)


def train(say: Callable[[int], None], folder: Path, num_workers: int = 0) -> int:
    """Trains from ``auto`` until it is stopped, telling every step."""
    _TalkingLoop.say = staticmethod(say)
    rest = {"resume_checkpoint": "auto", "max_step": ENDLESS, "save_interval": ENDLESS, **FLAGS}
    loop = training_loop(folder, loop_class=_TalkingLoop, num_workers=num_workers, **rest)
    return EXIT_DONE if loop.run_loop() else EXIT_STOPPED


def train_and_linger(say: Callable[[int], None], folder: Path) -> int:
    """The same; the process does not end at once."""
    code = train(say, folder)
    say(LEFT_LOOP)
    time.sleep(0.2)
    return code


def _wait_for_step(child: Child, step: int) -> None:
    while child.next_word() < step:
        pass


def _saved_steps(folder: Path) -> list[int]:
    return [int(path.stem[5:]) for path in folder.glob("model*.pt")]


def _assert_goes_on_exactly(folder: Path, last: int) -> None:
    whole = folder.with_name("whole")
    assert training_loop(folder, resume_checkpoint="auto", max_step=last, **FLAGS).run_loop()
    assert training_loop(whole, max_step=last, **FLAGS).run_loop()
    assert differences(saved_run(folder, last), saved_run(whole, last)) == []


@pytest.mark.parametrize("name", SIGNALS)
@pytest.mark.parametrize("num_signals", [1, 2])
def test_signal_saves_the_current_step_and_the_run_goes_on_exactly(
    tmp_path: Path, figure: Callable[[str], None], name: str, num_signals: int
) -> None:
    child = Child(train, tmp_path / "cut")
    _wait_for_step(child, 3)
    for _ in range(num_signals):
        os.kill(child.process.pid or 0, getattr(signal, name))
    sent = time.monotonic()
    last = max([3, *child.words()])
    assert child.exit_code() == EXIT_STOPPED
    seconds = time.monotonic() - sent
    assert seconds < GRACE_SECONDS
    assert _saved_steps(tmp_path / "cut") == [last]
    _assert_goes_on_exactly(tmp_path / "cut", last + 2)
    if num_signals == 1:
        figure(f"{name} {seconds:.1f} s")


def test_signals_to_a_stopped_run_on_its_way_out_change_nothing(tmp_path: Path) -> None:
    """Launchers send the second one up to seconds later."""
    child = Child(train_and_linger, tmp_path / "cut")
    _wait_for_step(child, 3)
    os.kill(child.process.pid or 0, signal.SIGTERM)
    _wait_for_step(child, LEFT_LOOP)
    for name in SIGNALS:
        os.kill(child.process.pid or 0, getattr(signal, name))
    assert child.exit_code() == EXIT_STOPPED


def test_stopped_run_has_its_loader_processes_stopped_too(tmp_path: Path) -> None:
    child = Child(train, tmp_path / "cut", 1)
    _wait_for_step(child, 3)
    os.kill(child.process.pid or 0, signal.SIGTERM)
    last = max([3, *child.words()])
    assert child.exit_code() == EXIT_STOPPED
    _assert_goes_on_exactly(tmp_path / "cut", last + 2)


@pytest.mark.dist
@pytest.mark.parametrize("rank", [0, 1])
def test_signal_to_one_rank_stops_all_at_the_same_step(tmp_path: Path, rank: int) -> None:
    children = start_ranks(train, tmp_path / "cut")
    _wait_for_step(children[rank], 3)
    os.kill(children[rank].process.pid or 0, signal.SIGTERM)
    last = [max([3, *child.words()]) for child in children]
    assert exit_codes(children) == [EXIT_STOPPED, EXIT_STOPPED]
    assert last[0] == last[1]
    assert _saved_steps(tmp_path / "cut") == [last[0]]


@pytest.mark.dist
@pytest.mark.slow
@pytest.mark.parametrize("name", SIGNALS[: extent(1, 3)])
def test_signal_to_torchrun_saves_in_time_and_the_run_goes_on_exactly(
    tmp_path: Path, figure: Callable[[str], None], name: str
) -> None:
    with torchrun(tmp_path / "cut", ENDLESS, NEVER, HANDLED) as process:
        wait_for_line(process, "finished 5")
        sent = time.monotonic()
        process.send_signal(getattr(signal, name))
        said = process.communicate(timeout=2 * GRACE_SECONDS)[0]
    seconds = time.monotonic() - sent
    assert seconds < GRACE_SECONDS
    # the sentence is held on purpose: it is how a stopped training goes on
    assert "run again with --resume_checkpoint auto" in said
    last = max(_saved_steps(tmp_path / "cut")) + 2
    run_ranks(launched.train, tmp_path / "cut", last)
    assert launched.differences_from_a_run_without_a_break(tmp_path / "cut", last) == []
    figure(f"torchrun {name} {seconds:.1f} s")
