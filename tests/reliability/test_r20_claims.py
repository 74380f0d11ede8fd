"""R20: machines whose locks do not see each other share a folder by claims with a lease."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.reliability.nodes import Node, is_stopped, journal, wake
from tests.reliability.scripts import wait_until
from tests.sr_var.samplers import (
    NUM_SAMPLES,
    assert_same_moments,
    assert_same_pictures,
    make_sampler,
    stored,
)
from tests.tiny import TEST_NAMES, TinyData
from tests.utils.training_loops import training_loop
from utils.files import claims
from utils.files.lock import FLOCK, try_lock
from utils.process.errors import EXIT_DONE, EXIT_STOPPED, CheckpointError

pytestmark = pytest.mark.dist

NUM_NODES = 3
ALL = len(TEST_NAMES) * NUM_SAMPLES
# what a busy machine may let a thread wait for, and what a test can wait for
LONG, SHORT = 60.0, 2.0


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_data: TinyData) -> Path:
    """What one process draws in batches of the same size."""
    folder = tmp_path_factory.mktemp("whole")
    assert make_sampler(tiny_data, folder, batch_size=2).run_loop()
    return folder


def _assert_as(folder: Path, whole: Path) -> None:
    assert_same_pictures(folder, whole)
    for name in TEST_NAMES:
        assert_same_moments(stored(folder, name), stored(whole, name))


def test_nodes_draw_every_sample_once(
    tmp_path: Path, tiny_data: TinyData, whole: Path, figure: Callable[[str], None]
) -> None:
    nodes = [Node(tiny_data, tmp_path, number, LONG) for number in range(NUM_NODES)]
    said = [line for node in nodes for line in node.said()]
    assert [node.exit_code() for node in nodes] == [EXIT_DONE] * NUM_NODES
    assert sum("two descriptors got the same lock" in line for line in said) > 0
    written = journal(tmp_path)
    assert len(written) == len(set(written)) == ALL
    _assert_as(tmp_path, whole)
    figure(f"{len(written)} samples of {NUM_NODES} nodes, each once")


@pytest.fixture
def mounts(tmp_path: Path) -> Iterator[list[Path]]:
    """Two FUSE mounts of one folder: the ``flock`` of neither is seen in the other."""
    (real := tmp_path / "real").mkdir()
    found = [tmp_path / name for name in ("one", "other")]
    if shutil.which("bindfs") is None:
        pytest.skip("needs bindfs")
    for mount in found:
        mount.mkdir()
        if subprocess.run(["bindfs", real, mount], capture_output=True).returncode:
            pytest.skip("no FUSE here")
    yield found
    for mount in found:
        subprocess.run(["umount", mount], check=True)


def test_nodes_draw_every_sample_once_on_a_file_system_that_keeps_locks_on_the_machine(
    mounts: list[Path],
    tmp_path: Path,
    tiny_data: TinyData,
    whole: Path,
    figure: Callable[[str], None],
) -> None:
    nodes = [Node(tiny_data, mounts[i], i, LONG, has_flock=True) for i in range(2)]
    for node in nodes:
        assert any("fuse, which does not promise locks" in line for line in node.said())
        assert node.exit_code() == EXIT_DONE
    written = journal(tmp_path / "real")
    assert len(written) == len(set(written)) == ALL
    _assert_as(tmp_path / "real", whole)
    figure(f"{len(written)} samples through two FUSE mounts, each once")


def test_without_claims_they_would_draw_samples_twice(tmp_path: Path, tiny_data: TinyData) -> None:
    """What the test before would see if nothing kept the nodes apart."""
    first = Node(tiny_data, tmp_path, 0, LONG, fault=signal.SIGSTOP, locks=FLOCK)
    wait_until(lambda: is_stopped(first.pid))
    second = Node(tiny_data, tmp_path, 1, LONG, locks=FLOCK)
    assert any("FILE_LOCKS=flock, but" in line for line in second.said())
    wake(first.pid)
    assert (first.exit_code(), second.exit_code()) == (EXIT_DONE, EXIT_DONE)
    written = journal(tmp_path)
    assert len(written) > len(set(written)) == ALL


def test_what_a_killed_node_had_is_taken_over_before_the_others_end(
    tmp_path: Path, tiny_data: TinyData, whole: Path, figure: Callable[[str], None]
) -> None:
    victim = Node(tiny_data, tmp_path, 0, SHORT, fault=signal.SIGKILL)
    assert victim.exit_code() == -signal.SIGKILL
    left = len(journal(tmp_path))
    assert 0 < left < ALL
    others = [Node(tiny_data, tmp_path, number, SHORT) for number in (1, 2)]
    assert [node.exit_code() for node in others] == [EXIT_DONE] * 2
    _assert_as(tmp_path, whole)
    figure(f"killed behind {left} of {ALL} samples: the others ended with all of them")


def test_a_node_that_stood_still_leaves_what_was_taken_over(
    tmp_path: Path, tiny_data: TinyData, whole: Path, figure: Callable[[str], None]
) -> None:
    sleeper = Node(tiny_data, tmp_path, 0, SHORT, fault=signal.SIGSTOP)
    wait_until(lambda: is_stopped(sleeper.pid))
    other = Node(tiny_data, tmp_path, 1, SHORT)
    assert other.exit_code() == EXIT_DONE
    _assert_as(tmp_path, whole)
    wake(sleeper.pid)
    assert any("took it over" in line for line in sleeper.said())
    assert sleeper.exit_code() == EXIT_DONE
    _assert_as(tmp_path, whole)
    assert not list(tmp_path.rglob("*.tmp"))
    figure("stopped behind one sample and woken when all was done: nothing changed")


def test_a_stopped_node_is_ended_by_a_signal_while_it_waits_for_another(
    tmp_path: Path, tiny_data: TinyData
) -> None:
    """The image of the first is held for a minute, silently."""
    victim = Node(tiny_data, tmp_path, 0, LONG, fault=signal.SIGKILL)
    victim.exit_code()
    waiting = Node(tiny_data, tmp_path, 1, LONG)
    wait_until(lambda: len(set(journal(tmp_path))) > ALL - NUM_SAMPLES)
    os.kill(waiting.pid, signal.SIGTERM)
    assert waiting.exit_code() == EXIT_STOPPED


def test_a_training_that_stood_still_does_not_write_where_another_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FILE_LOCKS", "claim")
    monkeypatch.setattr(claims, "_is_dead_here", lambda content: False)
    first = training_loop(tmp_path)
    taken: list[claims.Claim | None] = []

    def take_over(*args: Any) -> None:
        folder = tmp_path / ".writer.lock.claims"
        if not taken:
            os.utime(folder / "000001", (0, 0))
            taken.append(claims.take(str(folder)))

    first.model.register_forward_hook(take_over)
    with pytest.raises(CheckpointError, match=r"taken over by another run.*--resume_checkpoint"):
        first.run_loop()
    assert taken[0] is not None and taken[0].is_held()
    assert not list(tmp_path.glob("*.pt"))
    taken[0].close()


def test_claims_hold_whoever_locks_as_soon_as_one_claims(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is on one machine's own disk, and the others reach it through a network."""
    path = str(tmp_path / "image.lock")
    with monkeypatch.context() as patch:
        patch.setenv("FILE_LOCKS", "claim")
        first = try_lock(path)
    assert first is not None
    with first:
        assert try_lock(path) is None
    second = try_lock(path)
    assert isinstance(second, claims.Claim)
    second.close()
