"""One writer per folder, and a lock that dies with its process."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.reliability.disks import file_size_limit
from tests.tiny import run, words
from utils.files import claims, mounts
from utils.files import lock as lock_util
from utils.files.lock import lock_notice, sole_writer, try_lock
from utils.files.mounts import Mount
from utils.process.errors import EXIT_USAGE, CheckpointError, StorageError


def _fork(work: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return child


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _hold(folder: Path, marker: Path, release: Path | None) -> None:
    with sole_writer(str(folder)):
        if release is not None:
            _fork(lambda: _wait_for(release))  # as a loader process does
        marker.touch()
        time.sleep(60)


def _start_holder(folder: Path, release: Path | None = None) -> int:
    """A process that holds the lock; an orphan of it holds it until ``release`` is there."""
    marker = folder / "held"
    child = _fork(lambda: _hold(folder, marker, release))
    _wait_for(marker)
    return child


def _kill(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_second_writer_is_refused_at_once_and_told_who_holds_the_folder(tmp_path: Path) -> None:
    child = _start_holder(tmp_path)
    try:
        started = time.monotonic()
        with pytest.raises(CheckpointError) as caught, sole_writer(str(tmp_path)):
            pass
        # a lock of a living process is not waited for
        assert time.monotonic() - started < lock_util._MAX_SECONDS_OF_ORPHANS / 2
    finally:
        _kill(child)
    message = str(caught.value)
    assert str(tmp_path) in message and "another --model_save_dir" in message
    owner = json.loads(message[message.index("({") + 1 : message.index("})") + 1])
    assert (owner["host"], owner["pid"]) == (socket.gethostname(), child)
    time.strptime(owner["since"], "%Y-%m-%d %H:%M:%S")


def test_second_writer_of_the_same_process_is_refused(tmp_path: Path) -> None:
    with (
        sole_writer(str(tmp_path)),
        pytest.raises(CheckpointError),
        sole_writer(str(tmp_path)),
    ):
        pass


def test_folder_is_free_after_the_block_and_after_an_error_in_it(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), sole_writer(str(tmp_path)):
        raise ZeroDivisionError
    for _ in range(2):
        with sole_writer(str(tmp_path)):
            pass
    assert (tmp_path / ".writer.lock").read_text() == ""


def test_lock_dies_with_its_process(tmp_path: Path) -> None:
    _kill(_start_holder(tmp_path))
    with sole_writer(str(tmp_path)):
        assert json.loads((tmp_path / ".writer.lock").read_text())["pid"] == os.getpid()


def test_lock_that_outlives_its_writer_in_loader_processes_is_waited_for(tmp_path: Path) -> None:
    release = tmp_path / "release"
    _kill(_start_holder(tmp_path, release))
    threading.Timer(0.2, release.touch).start()
    with sole_writer(str(tmp_path)):
        assert release.exists()


def test_lock_that_is_never_freed_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_util, "_MAX_SECONDS_OF_ORPHANS", 0.3)
    release = tmp_path / "release"
    _kill(_start_holder(tmp_path, release))
    with pytest.raises(CheckpointError), sole_writer(str(tmp_path)):
        pass
    release.touch()


@pytest.mark.parametrize("owner", ["", "{", "[]", '{"host": "x"}', '{"host": 1, "pid": "y"}'])
def test_unreadable_owner_counts_as_alive(tmp_path: Path, owner: str) -> None:
    file = try_lock(str(tmp_path / ".writer.lock"))
    assert file is not None
    with file:
        file.write(owner)
        file.flush()
        with (
            pytest.raises(CheckpointError, match="another run"),
            sole_writer(str(tmp_path)),
        ):
            pass


def test_an_owner_that_has_not_yet_said_who_it_is_is_waited_for(tmp_path: Path) -> None:
    file = try_lock(str(tmp_path / ".writer.lock"))
    assert file is not None

    def tell() -> None:
        file.write('{"host": "elsewhere", "pid": 1}')
        file.flush()

    timer = threading.Timer(0.5, tell)
    timer.start()
    with file:
        with pytest.raises(CheckpointError, match="elsewhere"), sole_writer(str(tmp_path)):
            pass
        timer.join()


def test_owner_on_another_machine_counts_as_alive(tmp_path: Path) -> None:
    file = try_lock(str(tmp_path / ".writer.lock"))
    assert file is not None
    with file:
        json.dump({"host": "elsewhere", "pid": 2**22 + 1}, file)
        file.flush()
        with pytest.raises(CheckpointError, match="elsewhere"), sole_writer(str(tmp_path)):
            pass


def test_second_writer_is_refused_where_folders_are_claimed_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FILE_LOCKS", "claim")
    with sole_writer(str(tmp_path)):
        claim = tmp_path / ".writer.lock.claims" / "000001"
        monkeypatch.setattr(claims, "_SECONDS_OF_BEAT", 0.1)
        with pytest.raises(CheckpointError) as caught, sole_writer(str(tmp_path)):
            pass
        assert f'"pid": {os.getpid()}' in str(caught.value)
        assert "--model_save_dir" in str(caught.value)
        assert json.loads(claim.read_text())["pid"] == os.getpid()
    with sole_writer(str(tmp_path)):
        assert not claim.exists()


@pytest.mark.parametrize(
    ("name", "value"), [("FILE_LOCKS", "hard"), ("FILE_LOCK_LEASE", "soon"), ("FILE_LOCKS", "0")]
)
def test_kind_of_locks_that_is_none_ends_a_script_before_its_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    outcome = run("sr_data_info", words({"data_dir": tmp_path, "output_dir": tmp_path}))
    assert outcome.code == EXIT_USAGE and f"{name}={value}" in outcome.err


def test_people_are_told_where_locks_may_not_keep_machines_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(tmp_path / "out")
    assert lock_notice(folder) == ""
    mount = Mount(str(tmp_path), "nfs", frozenset({"rw", "nolock"}))
    monkeypatch.setattr(mounts, "mount_of", lambda folder: mount)
    lock_util._why_not_locks.cache_clear()
    found = lock_notice(folder)
    assert folder in found and "nfs, mounted with nolock" in found and "120 s" in found
    lock = try_lock(os.path.join(folder, "x.lock"))
    assert isinstance(lock, claims.Claim)
    lock.close()
    monkeypatch.setenv("FILE_LOCKS", "flock")
    assert "FILE_LOCKS=auto" in lock_notice(folder)
    monkeypatch.setenv("FILE_LOCKS", "claim")
    assert lock_notice(folder) == ""
    lock_util._why_not_locks.cache_clear()


def test_lock_can_be_taken_once(tmp_path: Path) -> None:
    path = str(tmp_path / "new" / "image.lock")
    first = try_lock(path)
    assert first is not None and try_lock(path) is None
    first.close()
    second = try_lock(path)
    assert second is not None
    second.close()


def test_a_forked_process_neither_keeps_the_lock_nor_lets_it_go(tmp_path: Path) -> None:
    path, has_closed, release = (tmp_path / name for name in ("image.lock", "closed", "release"))
    first = try_lock(str(path))
    assert first is not None

    def inherit() -> None:
        first.close()
        has_closed.touch()
        _wait_for(release)

    closer = _fork(inherit)
    keeper = _fork(lambda: _wait_for(release))
    _wait_for(has_closed)
    assert try_lock(str(path)) is None
    first.close()
    second = try_lock(str(path))
    release.touch()
    for child in (closer, keeper):
        os.waitpid(child, 0)
    assert second is not None
    second.close()


def test_disk_without_room_for_the_owner_is_named_and_the_folder_not_held(tmp_path: Path) -> None:
    with (
        file_size_limit(10),
        pytest.raises(StorageError, match=r"\.writer\.lock.*MiB free"),
        sole_writer(str(tmp_path)),
    ):
        pass
    with sole_writer(str(tmp_path)):
        pass
