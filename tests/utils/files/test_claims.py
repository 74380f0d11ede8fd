"""Claims by name: one has it, a lease after its last sign of life the next one may."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.reliability.disks import file_size_limit
from utils.files import claims
from utils.files.claims import Claim, chosen_lease, see, take
from utils.process.errors import StorageError


@pytest.fixture(autouse=True)
def other_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a process lives cannot be asked, as where it is one of another machine."""
    monkeypatch.setattr(claims, "_is_dead_here", lambda content: False)


def _taken(folder: Path) -> Claim:
    claim = take(str(folder))
    assert claim is not None
    return claim


def _let_lapse(claim: Claim) -> None:
    """As if its process had been silent for a day."""
    claims._HEART.forget(claim)
    os.utime(claim._path, (0, 0))


def test_one_has_it_until_it_lets_go(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "x"
    first = _taken(folder)
    assert first.is_held() and take(str(folder)) is None
    first.close()
    assert not first.is_held()
    with _taken(folder) as second:
        assert second.is_held()
    second.close()
    assert len(list(folder.iterdir())) == 1


def test_claim_names_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    with _taken(tmp_path):
        seen = see(str(tmp_path))
    assert seen is not None
    assert f'"pid": {os.getpid()}' in seen.owner and '"job": "77"' in seen.owner


def test_silent_claim_is_taken_over_and_its_process_finds_out(tmp_path: Path) -> None:
    first = _taken(tmp_path)
    _let_lapse(first)
    assert first.is_held()  # as long as nobody else has it
    second = _taken(tmp_path)
    assert second.is_held() and not first.is_held()
    first.beat()
    first.close()
    assert second.is_held() and take(str(tmp_path)) is None
    second.close()


def test_a_claim_that_is_beating_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "_SECONDS_OF_BEAT", 0.02)
    with _taken(tmp_path) as claim:
        os.utime(claim._path, (0, 0))
        deadline = time.monotonic() + 30
        while os.stat(claim._path).st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert take(str(tmp_path)) is None


def test_beat_that_comes_too_late_does_not_bring_it_back(tmp_path: Path) -> None:
    first = _taken(tmp_path)
    _let_lapse(first)
    second = _taken(tmp_path)
    before = see(str(tmp_path))
    first.beat()
    assert see(str(tmp_path)) == before and not first.is_held()
    second.close()


def test_of_many_that_find_it_silent_one_takes_it(tmp_path: Path) -> None:
    for _ in range(20):
        dead = take(str(tmp_path))
        assert dead is not None
        _let_lapse(dead)
        barrier, found = threading.Barrier(8), []

        def try_it(barrier: threading.Barrier = barrier, found: list[Any] = found) -> None:
            barrier.wait()
            found.append(take(str(tmp_path)))

        threads = [threading.Thread(target=try_it) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (winner,) = [claim for claim in found if claim is not None]
        assert winner.is_held()
        _let_lapse(winner)


def test_who_saw_an_old_claim_cannot_take_what_was_taken_and_freed_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slowest of them has looked at the folder when the first claim was silent."""
    dead = _taken(tmp_path)
    _let_lapse(dead)
    old_view = claims._numbers(str(tmp_path))
    second = _taken(tmp_path)
    second.close()
    third = _taken(tmp_path)
    views = [old_view]
    real: Callable[[str], list[int]] = claims._numbers
    monkeypatch.setattr(claims, "_numbers", lambda folder: views.pop() if views else real(folder))
    monkeypatch.setattr(claims, "_is_free", lambda folder, number: True)
    assert take(str(tmp_path)) is None
    assert third.is_held()
    third.close()


def test_clocks_of_machines_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with _taken(tmp_path):
        for hours in (-10, 10):
            with monkeypatch.context() as patch:
                now = time.time() + 3600 * hours
                patch.setattr(time, "time", lambda now=now: now)
                assert take(str(tmp_path)) is None


def test_lease_is_the_one_that_the_owner_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(claims.LEASE_VARIABLE, "1000")
    claim = _taken(tmp_path)
    claims._HEART.forget(claim)
    monkeypatch.setenv(claims.LEASE_VARIABLE, "1")
    now = os.stat(claim._path).st_mtime
    os.utime(claim._path, (now - 500, now - 500))
    assert take(str(tmp_path)) is None
    claim.close()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"lease": "x", "machine": 1, "pid": 2}'])
def test_claim_that_cannot_be_read_lapses_as_others_do(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "000003"
    path.write_bytes(content)
    assert take(str(tmp_path)) is None
    os.utime(path, (0, 0))
    with _taken(tmp_path):
        assert [entry.name for entry in tmp_path.iterdir()] == ["000004"]


def test_claim_of_a_dead_process_of_this_machine_is_free_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    child = os.fork()
    if child == 0:
        claims.take(str(tmp_path))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert (tmp_path / "000001").exists()
    with _taken(tmp_path):
        pass


def test_forked_process_does_not_let_go(tmp_path: Path) -> None:
    with _taken(tmp_path) as claim:
        child = os.fork()
        if child == 0:
            claim.close()
            os._exit(0)
        os.waitpid(child, 0)
        assert claim.is_held() and take(str(tmp_path)) is None


def test_disk_without_room_is_named_and_nothing_is_claimed(tmp_path: Path) -> None:
    with file_size_limit(10), pytest.raises(StorageError, match=r"000001.*MiB free"):
        take(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_server_that_does_not_answer_is_no_takeover(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _taken(tmp_path) as claim:

        def fail(*args: Any) -> Any:
            raise OSError(errno.EIO, "Input/output error")

        with monkeypatch.context() as patch, pytest.raises(StorageError, match="000001"):
            patch.setattr("builtins.open", fail)
            claim.is_held()


@pytest.mark.parametrize("text", ["0", "x", "nan", "inf", "-5", "90000"])
def test_lease_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="FILE_LOCK_LEASE"):
        chosen_lease({"FILE_LOCK_LEASE": text})
    assert chosen_lease({}) == 120.0
