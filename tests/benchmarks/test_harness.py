"""The harness compares what was measured in the same round, and its records say all of it."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks import harness
from benchmarks.harness import (
    Measurement,
    Timed,
    TimingFlags,
    Variant,
    format_rows,
    measure,
    pick_device,
    quartiles,
    row_named,
)
from benchmarks.record import Table, Target, format_all, write_record


def _counted(name: str, order: list[str], seconds: float) -> Variant:
    def call() -> Timed:
        order.append(name)
        return Timed(seconds, torch.full((2,), seconds))

    return Variant(name, call, lambda value: value)


def test_every_round_runs_every_variant_and_each_behind_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(harness, "_SHORT", 0.0)  # no call is repeated
    order: list[str] = []
    variants = [_counted(name, order, 1.0) for name in "abc"]
    measured = measure(variants, TimingFlags(rounds=12, warmup=2))
    assert order[:6] == [*"aabbcc"]
    rounds = ["".join(order[start : start + 3]) for start in range(6, len(order), 3)]
    assert all(sorted(one) == [*"abc"] for one in rounds)
    behind = {pair for one in rounds for pair in (one[:2], one[1:])}
    assert behind == {"ab", "ac", "ba", "bc", "ca", "cb"}
    assert [len(times) for times in measured.times.values()] == [12, 12, 12]


def test_short_calls_are_repeated_and_their_mean_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(harness, "CLOCKS", {"wall": lambda: now[0]})
    lasts = iter([0.5, *[0.004, *[0.001, 0.003] * 2, 0.002], 0.2])

    def call() -> None:
        now[0] += next(lasts)

    measured = measure([Variant("a", call)], TimingFlags(rounds=2, warmup=1))
    assert list(measured.times["a"]) == pytest.approx([0.002, 0.2])  # of five calls; of one


def test_what_tells_its_time_is_short_by_the_clock_alone() -> None:
    calls = []

    def call() -> Timed:
        calls.append(time.sleep(0.11))
        return Timed(1e-5)

    measured = measure([Variant("a", call)], TimingFlags(rounds=1, warmup=1))
    assert list(measured.times["a"]) == [1e-5] and len(calls) == 2


def test_no_round_starts_after_the_time_limit_but_one_always_runs() -> None:
    order: list[str] = []
    measured = measure([_counted("a", order, 1.0)], TimingFlags(rounds=9, time_limit=1e-9))
    assert len(measured.times["a"]) == 1


def test_ratio_is_the_median_over_rounds_and_not_the_ratio_of_medians() -> None:
    variants = [Variant("slow", lambda: None), Variant("fast", lambda: None)]
    # the machine is ten times as slow in the second round, for both
    times = {"slow": [2.0, 20.0, 2.0], "fast": [1.0, 10.0, 1.0]}
    row = row_named(Measurement(variants, times, {}).rows(), "fast")
    assert (row.ratio, row.ratio_lower, row.ratio_upper) == (2.0, 2.0, 2.0)
    assert row.median == 1.0 and row.against == "slow"


def test_results_are_compared_with_those_of_the_reference() -> None:
    order: list[str] = []
    variants = [_counted("a", order, 1.0), _counted("b", order, 1.5), Variant("c", lambda: None)]
    measured = measure(variants, TimingFlags(rounds=1))
    assert [row.max_difference for row in measured.rows()] == [0.0, 0.5, None]
    assert [row.max_difference for row in measured.rows("b")] == [0.5, 0.0, None]
    assert measured.ratio("a", "b") == 1.5 and measured.ratio("a", "not there") is None


def test_quartiles_of_one_value_are_that_value() -> None:
    assert quartiles([3.0]) == (3.0, 3.0, 3.0)
    assert quartiles([1.0, 2.0, 3.0, 4.0, 5.0]) == (2.0, 3.0, 4.0)


def test_flags_that_measure_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="--rounds 0"):
        TimingFlags(rounds=0)
    with pytest.raises(ValueError, match="--time_limit 0"):
        TimingFlags(time_limit=0)
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="--device cpu"):
            pick_device("cuda")


def test_target_says_whether_it_is_met_and_by_how_much() -> None:
    assert Target("a", 1.5, 1.0).verdict == "met, by 50.0%"
    assert Target("a", 0.9, 1.0).verdict == "**not met**, by 10.0%"
    assert Target("a", 0.9, 1.0, is_at_least=False).is_met
    assert Target("a", None, 1.0).verdict == "not measured here"


def test_record_holds_hardware_versions_command_and_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["x", "--rounds", "1", "--output_dir", str(tmp_path)])
    flags = TimingFlags(rounds=1, output_dir=str(tmp_path))
    rows = measure([_counted("a", [], 2.0)], flags).rows()
    targets = [Target("speed", 2.0, 1.0, note="on paper"), Target("size", None, 3.0, unit="GB")]
    path = write_record("forward", flags, [Table("title", rows)], targets, {"operations": 7})
    stored = json.loads(path.read_text(encoding="utf-8"))
    assert path.name == f"forward_{stored['date']}.json" and stored["operations"] == 7
    assert stored["command"] == "python -m benchmarks.forward --rounds 1"
    assert stored["hardware"].keys() >= {"cpu", "cores", "threads", "memory_gib", "gpu"}
    assert stored["versions"]["torch"] == torch.__version__
    assert stored["tables"]["title"][0]["median"] == 2.0
    assert str(tmp_path) not in path.read_text(encoding="utf-8")
    page = path.with_suffix(".md").read_text(encoding="utf-8")
    assert format_rows(rows) in page + "\n"
    assert "| speed | 2 × | ≥ 1 × | met, by 100.0% (on paper) |" in page
    assert "| forward: size | – | ≥ 3 GB | not measured here |" in format_all([stored])
