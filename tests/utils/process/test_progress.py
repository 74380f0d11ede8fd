"""Progress in a file or a pipe is a line now and then; on a terminal it is a bar."""

from __future__ import annotations

import sys
import time

import pytest

from utils.process.progress import Progress


class _Clock:
    """Time that the test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    clock = _Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def test_line_every_ten_seconds_has_rate_and_rest(
    clock: _Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress(100, "testing", unit="image", done=40) as bar:
        for _ in range(5):
            clock.now += 4
            bar.update(2, "loss 3")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "testing: 46/100 image, 0.5 image/s, 108 s left loss 3",
        "testing: 50/100 image, 0.5 image/s, 100 s left loss 3",
    ]


def test_units_of_an_earlier_run_say_nothing_of_the_rate(
    clock: _Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress(100, "testing", unit="image") as bar:
        bar.skip(40)
        clock.now += 5
        bar.update(5)
    assert capsys.readouterr().err == "testing: 45/100 image, 1 image/s, 55 s left\n"


def test_part_of_the_next_units_counts_for_rate_and_rest(
    clock: _Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress(8, "testing", unit="image") as bar:
        clock.now += 11
        bar.note("step 5 of 10", 2)
        clock.now += 5
        bar.note("step 9 of 10", 3.6)
        clock.now += 4
        bar.update(4)
    assert capsys.readouterr().err.splitlines() == [
        "testing: 0/8 image, 0.182 image/s, 33 s left step 5 of 10",
        "testing: 4/8 image, 0.2 image/s, 20 s left",
    ]


def test_without_a_total_no_end_is_promised(
    clock: _Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress(None, "training") as bar:
        clock.now += 5
        bar.update(10)
    assert capsys.readouterr().err == "training: 10/? it, 2 it/s, no end known\n"


@pytest.mark.parametrize("flags", [{"is_shown": False}, {"has_lines": False}])
def test_silence_where_it_is_asked_for_and_where_nothing_was_done(
    flags: dict[str, bool], clock: _Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress(3, "testing", **flags) as bar:
        clock.now += 60
        bar.update()
    with Progress(3, "testing"):
        pass
    assert capsys.readouterr() == ("", "")


def test_terminal_gets_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress(4, "testing", unit="image") as bar:
        bar.update(4, "note")
        bar.write("a line")
    out, err = capsys.readouterr()
    assert out == "a line\n" and "testing: 100%" in err and "note" in err
