"""The batch size that fills a device, on a stand-in whose speed is known."""

from __future__ import annotations

import argparse

import pytest
import torch

from utils.machine import cost as batch_util
from utils.machine.cost import find_batch_size
from utils.script_util import AUTO, size_or_auto

CPU = torch.device("cpu")


class _Device:
    """Takes a second a call and a hundredth an item beyond ``width``; holds ``room`` items."""

    def __init__(self, width: int, room: int = 10**6, error: str = "CUDA out of memory") -> None:
        self.width, self.room, self.error = width, room, error
        self.now = 0.0
        self.tried: list[int] = []

    def run(self, size: int) -> None:
        self.tried.append(size)
        if size > self.room:
            raise torch.OutOfMemoryError(self.error)
        self.now += max(size, self.width)

    def clock(self) -> float:
        return self.now


def found_on(device: _Device, monkeypatch: pytest.MonkeyPatch) -> tuple[int, list[str]]:
    lines: list[str] = []
    monkeypatch.setattr(batch_util.time, "perf_counter", device.clock)
    return find_batch_size(device.run, CPU, lines.append), lines


@pytest.mark.parametrize(("width", "expected"), [(1, 1), (3, 4), (8, 8)])
def test_grows_until_items_get_no_faster(
    width: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    size, lines = found_on(_Device(width), monkeypatch)
    assert size == expected
    assert f"--batch_size auto: {expected}" in lines[-1]


def test_stops_where_memory_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    size, lines = found_on(_Device(64, room=20), monkeypatch)
    assert size == 16
    assert "32 does not" in lines[0]


def test_one_item_that_does_not_fit_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        found_on(_Device(1, room=0), monkeypatch)


def test_other_errors_are_not_taken_for_a_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(size: int) -> None:
        if size > 1:
            raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes"):
        find_batch_size(run, CPU, print)


def test_word_auto_is_a_size() -> None:
    assert size_or_auto("auto") == size_or_auto("AUTO") == AUTO
    assert size_or_auto("8") == 8
    for text in ("0", "-2", "many", "none", "1.5"):
        with pytest.raises(argparse.ArgumentTypeError, match="auto"):
            size_or_auto(text)
