"""Files are written while the next batch is drawn; what counts on them waits for them."""

from __future__ import annotations

import errno
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import sr_var.sampling
from tests.sr_var.samplers import (
    ENTRIES,
    NUM_SAMPLES,
    assert_same_moments,
    assert_same_pictures,
    make_sampler,
    pictures,
    stored,
)
from tests.tiny import TEST_NAMES, TinyData
from utils.files.lock import try_lock
from utils.process.errors import StorageError

TIMEOUT, NUM_STEPS = 20.0, 4
real_save = sr_var.sampling.save_image


def _is_sample(path: str) -> bool:
    return "sample_" in path


def _write_after(event: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    """No sample is written before the event."""

    def save(path: str, image: torch.Tensor) -> None:
        if _is_sample(path):
            assert event.wait(TIMEOUT)
        real_save(path, image)

    monkeypatch.setattr(sr_var.sampling, "save_image", save)


def _count_evaluations(model: torch.nn.Module, action: Any = lambda num: None) -> list[int]:
    """Numbers of the evaluations so far; ``action`` gets each of them."""
    seen: list[int] = []

    def count(*args: Any) -> None:
        seen.append(len(seen) + 1)
        action(seen[-1])

    model.register_forward_hook(count)
    return seen


def test_next_batch_is_drawn_while_files_are_written(
    tmp_path: Path, tiny_data: TinyData, uninterrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_second_batch = threading.Event()

    _write_after(is_second_batch, monkeypatch)
    sampler = make_sampler(tiny_data, tmp_path)
    _count_evaluations(
        sampler._model, lambda num: is_second_batch.set() if num > NUM_STEPS else None
    )
    assert sampler.run_loop()
    assert_same_pictures(tmp_path, uninterrupted)


def test_image_stays_claimed_until_its_last_file_is_written(
    tmp_path: Path, tiny_data: TinyData, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler = make_sampler(tiny_data, tmp_path, batch_size=NUM_SAMPLES)
    counts: list[int] = []

    def save(path: str, image: torch.Tensor) -> None:
        if _is_sample(path):
            name = Path(path).parent.parent.name
            time.sleep(0.003)
            assert try_lock(sampler._lock_path(name)) is None
            moments = stored(tmp_path, name)
            assert moments is not None  # they are there before any picture that they count
            counts.append(len(moments.indices))
        real_save(path, image)

    monkeypatch.setattr(sr_var.sampling, "save_image", save)
    assert sampler.run_loop()
    assert counts == [NUM_SAMPLES] * NUM_SAMPLES * len(TEST_NAMES)
    for name in TEST_NAMES:
        lock = try_lock(sampler._lock_path(name))
        assert lock is not None
        lock.close()


def test_stop_waits_for_the_files_of_what_was_drawn(
    tmp_path: Path, tiny_data: TinyData, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(path: str, image: torch.Tensor) -> None:
        time.sleep(0.02 if _is_sample(path) else 0)
        real_save(path, image)

    monkeypatch.setattr(sr_var.sampling, "save_image", slow)
    sampler = make_sampler(tiny_data, tmp_path, entries=ENTRIES[:1])
    _count_evaluations(
        sampler._model,
        lambda num: signal.raise_signal(signal.SIGTERM) if num == NUM_STEPS + 1 else None,
    )
    assert not sampler.run_loop()
    moments = stored(tmp_path, TEST_NAMES[0])
    assert moments is not None and set(moments.indices) == {0, 1, 2, 3}
    assert set(pictures(tmp_path, TEST_NAMES[0])) == {0, 1, 2, 3}
    assert not list(tmp_path.rglob("*.tmp"))


def test_full_disk_ends_the_run_with_its_message_and_the_next_run_goes_on(
    tmp_path: Path, tiny_data: TinyData, uninterrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: str, image: torch.Tensor) -> None:
        if path.endswith("sample_2.png"):
            raise StorageError(errno.ENOSPC, f"cannot store {path}")
        real_save(path, image)

    with monkeypatch.context() as patch:
        patch.setattr(sr_var.sampling, "save_image", full)
        with pytest.raises(StorageError, match=r"sample_2\.png"):
            make_sampler(tiny_data, tmp_path).run_loop()
    assert make_sampler(tiny_data, tmp_path).run_loop()
    assert_same_pictures(tmp_path, uninterrupted)
    for name in TEST_NAMES:
        assert_same_moments(stored(tmp_path, name), stored(uninterrupted, name))


def test_no_more_than_three_batches_are_held(
    tmp_path: Path, tiny_data: TinyData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is written, one waits, and with the third in hand the drawing waits, too."""
    may_write = threading.Event()

    _write_after(may_write, monkeypatch)
    sampler = make_sampler(tiny_data, tmp_path, batch_size=2)
    seen = _count_evaluations(sampler._model)
    at_release: list[int] = []

    def release() -> None:
        deadline = time.monotonic() + TIMEOUT
        while len(seen) < 3 * NUM_STEPS and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(0.2)  # for a fourth batch, if it does not wait
        at_release.append(len(seen))
        may_write.set()

    releasing = threading.Thread(target=release)
    releasing.start()
    assert sampler.run_loop()
    releasing.join()
    assert at_release == [3 * NUM_STEPS]
    assert len(seen) == 8 * NUM_STEPS
