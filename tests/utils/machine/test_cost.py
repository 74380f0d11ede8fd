"""Records of seconds: sums over runs, waits for no broken record, one device."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest
import torch

from utils.machine.cost import Stopwatch, seconds_per_item

CPU = torch.device("cpu")


def _watch(seconds: float, num_items: int) -> Stopwatch:
    return Stopwatch(CPU, seconds, num_items)


def test_counts_finished_passes_only() -> None:
    watch = Stopwatch(CPU)
    watch.start()
    time.sleep(0.02)
    watch.stop(3)
    counted = watch.seconds
    assert counted >= 0.02 and watch.num_items == 3
    watch.start()  # and never stopped
    assert watch.seconds == counted


def test_every_run_adds_its_share(tmp_path: Path) -> None:
    path = str(tmp_path / "seconds.json")
    assert seconds_per_item(path) is None
    _watch(0.0, 0).save(path)
    assert list(tmp_path.iterdir()) == []  # nothing done, nothing written
    _watch(1.0, 4).save(path)
    _watch(2.0, 2).save(path)
    assert seconds_per_item(path) == 0.5


def test_processes_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "seconds.json")
    threads = [threading.Thread(target=_watch(0.5, 1).save, args=[path]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert json.loads(Path(path).read_text())["num_items"] == 8


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"seconds": 1, "num_items": 0, "device": "x"}', '{"seconds": NaN}']
    + ['{"seconds": "a", "num_items": 1, "device": "x"}', '{"seconds": Infinity, "num_items": 1}'],
)
def test_a_damaged_record_is_none_and_begun_anew(tmp_path: Path, content: str) -> None:
    path = tmp_path / "seconds.json"
    path.write_text(content)
    assert seconds_per_item(str(path)) is None
    _watch(3.0, 2).save(str(path))
    assert seconds_per_item(str(path)) == 1.5


def test_another_devices_record_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "seconds.json"
    path.write_text(json.dumps({"seconds": 1.0, "num_items": 100, "device": "a faster one"}))
    _watch(3.0, 2).save(str(path))
    assert seconds_per_item(str(path)) == 1.5
