"""Requests to stop reach the loop as a flag, and the old handlers come back."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import threading
import time
from multiprocessing.connection import Connection

import pytest

from utils.process.stop import StopFlag, StopRequested, first_stop_is_last, leave_signals_to_parent

SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1]


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("times", [1, 2])
def test_signal_sets_the_flag_and_does_nothing_else(number: signal.Signals, times: int) -> None:
    stop = StopFlag()
    with stop.listening():
        assert stop.reason == ""
        for _ in range(times):
            os.kill(os.getpid(), number)
        assert stop.reason == f"received {number.name}"
    assert stop.reason == f"received {number.name}"


def test_check_ends_the_work_with_the_reason_and_the_remedy() -> None:
    stop = StopFlag()
    with stop.listening():
        stop.check("run again")
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(StopRequested, match=r"SIGTERM.*run again"):
            stop.check("run again")


def test_handlers_from_before_come_back_after_an_error_too() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(ZeroDivisionError), StopFlag().listening():
        assert [signal.getsignal(number) for number in SIGNALS] != before
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_process_that_was_asked_to_stop_hears_nothing_more_if_it_is_a_script() -> None:
    first_stop_is_last()
    with StopFlag().listening():
        pass
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
    with StopFlag().listening():
        os.kill(os.getpid(), signal.SIGTERM)
    assert [signal.getsignal(number) for number in SIGNALS] == [signal.SIG_IGN] * 3


def test_handler_that_was_not_set_by_python_is_no_obstacle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_handler = signal.signal
    monkeypatch.setattr(signal, "signal", lambda *args: set_handler(*args) and None)
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        with StopFlag().listening():
            pass
        assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
    finally:
        for number, handler in before.items():
            set_handler(number, handler)


def test_thread_other_than_the_main_one_only_has_the_clock() -> None:
    stop = StopFlag(1e-9)
    found: list[str] = []

    def work() -> None:
        with stop.listening():
            found.append(stop.reason)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == ["run_time has passed"]


def test_time_budget_sets_the_flag_when_it_has_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    start = time.monotonic()
    stop = StopFlag(2.0)
    monkeypatch.setattr(time, "monotonic", lambda: start + 2 * 3600 - 60)
    assert stop.reason == ""
    monkeypatch.setattr(time, "monotonic", lambda: start + 2 * 3600 + 60)
    assert "run_time" in stop.reason


@pytest.mark.parametrize("hours", [-1.0, 0.0])
def test_without_a_budget_time_does_not_matter(
    hours: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = StopFlag(hours)
    monkeypatch.setattr(time, "monotonic", lambda: 1e12)
    assert stop.reason == ""


def _help(say: Connection) -> None:
    leave_signals_to_parent()
    say.send("ready")
    time.sleep(60)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_helper_hears_sigterm_of_its_parent_only(method: str) -> None:
    context = multiprocessing.get_context(method)
    receiver, sender = context.Pipe(duplex=False)
    helper = context.Process(target=_help, args=(sender,))  # type: ignore[attr-defined]
    helper.start()
    assert receiver.poll(60) and receiver.recv() == "ready"
    for number in SIGNALS:
        subprocess.run(["kill", f"-{number.name[3:]}", str(helper.pid)], check=True)
    helper.join(0.5)
    assert helper.exitcode is None
    helper.terminate()
    helper.join(10)
    assert helper.exitcode == 0


def _start_helper_and_die(say: Connection) -> None:
    multiprocessing.get_context("fork").Process(target=_help, args=(say,)).start()
    os._exit(1)


def test_helper_ends_with_its_parent() -> None:
    """Even if the parent has died before the helper looks for it the first time."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    parent = context.Process(target=_start_helper_and_die, args=(sender,))
    parent.start()
    sender.close()
    assert receiver.poll(60) and receiver.recv() == "ready"
    assert receiver.poll(20)  # the end of its pipe
    with pytest.raises(EOFError):
        receiver.recv()
    parent.join()
