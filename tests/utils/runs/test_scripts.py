"""Scripts one after the other: what is said before each, and the time that is left."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from utils.process.errors import EXIT_DONE, EXIT_STOPPED
from utils.runs import scripts
from utils.runs.scripts import Step, Taken, in_words, read_times, run_steps, seconds_left

Seconds = dict[str, float]


def _step(word: str, guess: float) -> Step:
    return Step(("some_script.py", [word]), f"doing {word}", guess)


STEPS = [_step("a", 10), _step("b", 100), _step("c", 90)]
A, B, C = (step.line for step in STEPS)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Replace the script by one that takes these seconds, and the clock; returns what was run."""

    def install(seconds: Seconds, stop_at: str = "", fail_at: str = "") -> list[str]:
        now, ran = [0.0], []

        def main(argv: list[str]) -> int:
            ran.append(argv[0])
            now[0] += seconds[argv[0]]
            if argv[0] == fail_at:
                raise ValueError(fail_at)
            return EXIT_STOPPED if argv[0] == stop_at else EXIT_DONE

        module = types.ModuleType("some_script")
        module.main = main  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "some_script", module)
        monkeypatch.setattr(scripts.time, "monotonic", lambda: now[0])
        return ran

    return install


def test_steps_run_in_order_until_one_does_not_finish(
    script: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = script({"a": 1, "b": 1}, stop_at="b")
    assert run_steps(STEPS, str(tmp_path / "steps.json")) == EXIT_STOPPED
    assert ran == ["a", "b"]
    said = capsys.readouterr().out.splitlines()
    assert said[1] == "step 1 of 3, doing a, about 4 min left"
    assert said[2] == "python some_script.py a"  # no terminal: not dimmed
    assert said[4].startswith("step 2 of 3, doing b, about ")
    assert said[-1] == "stopped in step 2 of 3; run again to go on"


def test_guesses_are_scaled_by_what_the_steps_before_took() -> None:
    assert seconds_left(STEPS, {}) == pytest.approx(200)
    twice = {A: Taken(20, True), B: Taken(200, True)}
    left = seconds_left(STEPS, twice, 2)
    assert 170 < left < 180  # 5 % of all, 10 s, count as taken as guessed
    assert left == pytest.approx(90 * (10 + 220) / (10 + 110))
    # a first short step says little
    assert seconds_left(STEPS, {A: Taken(20, True)}, 1) == pytest.approx(190 * 30 / 20)
    # one that finds its work done says nothing of the others
    assert seconds_left(STEPS, {B: Taken(0.5, True)}, 2) >= 90 / 4


def test_a_step_that_was_stopped_counts_what_is_left_of_it() -> None:
    stopped = {A: Taken(10, True), B: Taken(60, False)}
    assert seconds_left(STEPS, stopped, 1) == pytest.approx(40 + 90)
    # late already: all are as late at least, and it is not at its end
    late = {A: Taken(10, True), B: Taken(300, False)}
    assert seconds_left(STEPS, late, 1) == pytest.approx((10 + 90) * (10 + 310) / (10 + 110))


def test_a_step_that_is_done_costs_a_look() -> None:
    done = {A: Taken(10, True), B: Taken(100, True)}
    assert seconds_left(STEPS, done) == pytest.approx(3 + 3 + 90)
    assert seconds_left(STEPS, {**done, A: Taken(1, True)}, 0) < 3 + 3 + 90


def test_a_run_that_goes_on_adds_up_what_a_step_took_and_keeps_what_is_done(
    script: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = str(tmp_path / "logs" / "steps.json")
    script({"a": 11, "b": 40}, stop_at="b")
    run_steps(STEPS, record)
    assert read_times(record) == {A: Taken(11, True), B: Taken(40, False)}
    script({"a": 1, "b": 70, "c": 80})
    capsys.readouterr()
    assert run_steps(STEPS, record) == EXIT_DONE
    assert read_times(record) == {A: Taken(11, True), B: Taken(110, True), C: Taken(80, True)}
    said = capsys.readouterr().out
    assert "step 1 of 3, doing a (done by an earlier run), about 3 min left" in said
    assert "step 2 of 3, doing b, about " in said
    rows = json.loads(Path(record).read_text(encoding="utf-8"))["steps"]
    assert [(row["what"], row["guess"]) for row in rows] == [
        (step.what, step.guess) for step in STEPS
    ]


def test_a_step_that_raises_has_taken_its_time(
    script: Callable[..., list[str]], tmp_path: Path
) -> None:
    record = str(tmp_path / "steps.json")
    script({"a": 11, "b": 40}, fail_at="b")
    with pytest.raises(ValueError, match="b"):
        run_steps(STEPS, record)
    assert read_times(record)[B] == Taken(40, False)


def test_a_step_of_another_command_is_forgotten(
    script: Callable[..., list[str]], tmp_path: Path
) -> None:
    record = str(tmp_path / "steps.json")
    script({"a": 11, "b": 40, "c": 1, "d": 5})
    run_steps(STEPS, record)
    other = [STEPS[0], _step("d", 5)]
    run_steps(other, record)
    assert set(read_times(record)) == {step.line for step in other}


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "{}",
        '{"steps": 1}',
        '{"steps": [{"command": "x"}]}',
        '{"steps": [{"command": "x", "seconds": "1", "is_done": true}]}',
        '{"steps": [{"command": ["x"], "seconds": 1, "is_done": true}]}',
    ],
)
def test_a_damaged_record_counts_as_none(
    script: Callable[..., list[str]], tmp_path: Path, content: str
) -> None:
    record = tmp_path / "steps.json"
    record.write_text(content)
    assert read_times(str(record)) == {}
    script({"a": 1, "b": 1, "c": 1})
    assert run_steps(STEPS, str(record)) == EXIT_DONE
    assert len(read_times(str(record))) == 3


def test_a_record_that_cannot_be_written_ends_no_step(
    script: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "logs").write_text("a file in the way")
    script({"a": 1, "b": 1, "c": 1})
    assert run_steps(STEPS, str(tmp_path / "logs" / "steps.json")) == EXIT_DONE
    assert "warning: what the steps take is not kept: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "10 s"), (31, "40 s"), (50, "50 s"), (51, "1 min"), (61, "2 min"), (600, "10 min")],
)
def test_times_are_said_rounded_up(seconds: float, words: str) -> None:
    assert in_words(seconds) == f"about {words} left"


def test_the_command_stands_back_on_a_terminal(
    script: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    script({"a": 1})
    run_steps(STEPS[:1], str(tmp_path / "steps.json"))
    assert "\033[2mpython some_script.py a\033[0m" in capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    run_steps(STEPS[:1], str(tmp_path / "steps.json"))
    assert "\033" not in capsys.readouterr().out
