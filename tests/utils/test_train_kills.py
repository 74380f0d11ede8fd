"""Real processes that are stopped or killed go on to the same bits as one that was not."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.utils.loops import QuietLoop, differences, saved_run, training_loop
from tests.utils.processes import Child
from utils.errors import EXIT_DONE, EXIT_STOPPED, CheckpointError

ENDLESS = 10**6
FLAGS: dict[str, Any] = {"dropout": 0.3, "ema_rate": "0.5", "log_interval": 1}


class _TalkingLoop(QuietLoop):
    """Tells every finished step."""

    def __init__(self, *, say: Callable[[int], None], **rest: Any) -> None:
        self._say = say
        super().__init__(**rest)

    def run_step(self, batch: Any, label: Any) -> None:
        super().run_step(batch, label)
        self._say(self.step)


def train(say: Callable[[int], None], folder: Path, flags: dict[str, Any]) -> int:
    """A training script: from ``auto`` to the end."""

    def talking(**rest: Any) -> QuietLoop:
        return _TalkingLoop(say=say, **rest)

    rest = {"loop_class": talking, "resume_checkpoint": "auto", **FLAGS, **flags}
    return EXIT_DONE if training_loop(folder, **rest).run_loop() else EXIT_STOPPED


def _start(folder: Path, **flags: Any) -> Child:
    return Child(train, folder, {"max_step": ENDLESS, "save_interval": ENDLESS, **flags})


def _wait_for_step(child: Child, step: int) -> None:
    while child.next_word() < step:
        pass


def _assert_goes_on_exactly(folder: Path, last: int) -> None:
    whole = folder.with_name("whole")
    assert training_loop(folder, resume_checkpoint="auto", max_step=last, **FLAGS).run_loop()
    assert training_loop(whole, max_step=last, **FLAGS).run_loop()
    assert differences(saved_run(folder, last), saved_run(whole, last)) == []


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
@pytest.mark.parametrize("num_signals", [1, 2])
def test_signal_saves_the_current_step_and_the_run_goes_on_exactly(
    tmp_path: Path, name: str, num_signals: int
) -> None:
    child = _start(tmp_path / "cut")
    _wait_for_step(child, 3)
    for _ in range(num_signals):
        os.kill(child.process.pid or 0, getattr(signal, name))
    last = max([3, *child.words()])
    assert child.exit_code() == EXIT_STOPPED
    assert [path.name for path in (tmp_path / "cut").glob("model*")] == [f"model{last:06d}.pt"]
    _assert_goes_on_exactly(tmp_path / "cut", last + 2)


def test_stopped_run_has_its_loader_processes_stopped_too(tmp_path: Path) -> None:
    child = _start(tmp_path / "cut", num_workers=1)
    _wait_for_step(child, 3)
    os.kill(child.process.pid or 0, signal.SIGTERM)
    last = max([3, *child.words()])
    assert child.exit_code() == EXIT_STOPPED
    _assert_goes_on_exactly(tmp_path / "cut", last + 2)


def test_killed_runs_go_on_with_auto_to_the_same_bits(tmp_path: Path) -> None:
    for step in range(2, 22, 2):
        child = _start(tmp_path / "cut", save_interval=1, keep_last_k=2)
        _wait_for_step(child, step)
        child.process.kill()
        assert child.exit_code() == -signal.SIGKILL
    steps = [int(path.stem[5:]) for path in (tmp_path / "cut").glob("model*.pt")]
    _assert_goes_on_exactly(tmp_path / "cut", max(steps) + 2)


def test_run_whose_writer_was_killed_under_its_loader_processes_goes_on(tmp_path: Path) -> None:
    child = _start(tmp_path / "cut", save_interval=1, num_workers=2)
    _wait_for_step(child, 2)
    pid = child.process.pid or 0
    child.process.kill()
    with contextlib.suppress(ProcessLookupError):
        while True:
            os.kill(pid, 0)
    assert Child(train, tmp_path / "cut", {"max_step": 50}).exit_code() == EXIT_DONE


def test_second_run_in_the_same_folder_is_refused_with_the_name_of_the_first(
    tmp_path: Path,
) -> None:
    first = _start(tmp_path / "cut")
    _wait_for_step(first, 1)
    with pytest.raises(
        CheckpointError, match=f'written by another run .*"pid": {first.process.pid}'
    ):
        training_loop(tmp_path / "cut", resume_checkpoint="auto").run_loop()
    first.process.terminate()
    assert first.exit_code() == EXIT_STOPPED
