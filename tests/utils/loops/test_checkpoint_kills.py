"""Checkpoint sets survive kills at every operation and the deletion of old ones; remote ones."""

from __future__ import annotations

import os
import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.utils.checkpoints import auto_step, foreign_sets, parts, save_sets
from utils.loops import checkpoint
from utils.loops.checkpoint import CheckpointStore, model_file_name
from utils.process.errors import CheckpointError


def _run_and_die_at(operation: int, work: Callable[[], Any]) -> bool:
    """Runs ``work`` in a child that dies before its n-th change on disk; whether it finished."""
    child = os.fork()
    if child == 0:
        count = iter(range(operation))
        for name in ("replace", "remove", "unlink", "fsync"):
            original = getattr(os, name)

            def dying(*args: Any, original: Any = original, **kwargs: Any) -> Any:
                if next(count, None) is None:
                    os._exit(9)
                return original(*args, **kwargs)

            setattr(os, name, dying)
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 0


@pytest.mark.parametrize("keep_last_k", [-1, 1])
def test_kill_at_any_point_of_a_save_costs_no_finished_set(
    tmp_path: Path, keep_last_k: int
) -> None:
    num_kills = 0
    save_sets(tmp_path / "before", 1, 2, keep_last_k=keep_last_k)
    while True:
        folder = tmp_path / str(num_kills)
        shutil.copytree(tmp_path / "before", folder)
        is_done = _run_and_die_at(
            num_kills, lambda folder=folder: save_sets(folder, 3, keep_last_k=keep_last_k)
        )
        step, _ = auto_step(folder)
        assert step == 3 if is_done else step in (2, 3)
        save_sets(folder, 3, keep_last_k=keep_last_k)
        expected = {1, 2, 3} if keep_last_k < 0 else set(range(4 - keep_last_k, 4))
        assert set(CheckpointStore(str(folder)).steps()) == expected
        assert len(os.listdir(folder)) == 4 * len(expected), "a leftover of the kill"
        if is_done:
            break
        num_kills += 1
    assert num_kills >= 15


def test_first_save_that_was_cut_short_counts_as_nothing(tmp_path: Path) -> None:
    """Without its averages and loss scale a resumed run would differ from an uninterrupted one."""
    operation = 0
    while not _run_and_die_at(operation, lambda: save_sets(tmp_path, 2)):
        step, said = auto_step(tmp_path)
        assert step is None or (tmp_path / "ckpt000002.json").exists()
        assert said == ""
        assert CheckpointStore(str(tmp_path)).steps() == ([2] if step else [])
        shutil.rmtree(tmp_path)
        operation += 1
    assert auto_step(tmp_path)[0] == 2


def test_keep_last_k_keeps_the_newest_k(tmp_path: Path) -> None:
    for k in (1, 2, 3):
        save_sets(tmp_path / str(k), 1, 2, 3, 4, 5, keep_last_k=k)
        assert CheckpointStore(str(tmp_path / str(k))).steps() == [5, 4, 3][:k]
        assert len(os.listdir(tmp_path / str(k))) == 4 * k


def test_keep_last_k_deletes_nothing_for_a_set_that_does_not_verify(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_sets(tmp_path, 1)
    monkeypatch.setattr(checkpoint, "sha256_of", lambda path: "0" * 64)
    store = CheckpointStore(str(tmp_path), keep_last_k=1, warn=lambda line: None)
    monkeypatch.setattr(store, "_write", lambda *rest: {"role": "model", "size": 0, "sha256": ""})
    store.save(2, parts(2), {})
    monkeypatch.undo()
    assert auto_step(tmp_path)[0] == 1


def test_keep_last_k_does_not_count_a_damaged_newer_set(tmp_path: Path) -> None:
    save_sets(tmp_path, 2, 3)
    (tmp_path / model_file_name(3)).write_bytes(b"")
    save_sets(tmp_path, 1, keep_last_k=1)  # a run that fell back and went on from an older step
    assert auto_step(tmp_path)[0] in (1, 2)
    save_sets(tmp_path, 2, 3, 4, keep_last_k=1)
    assert CheckpointStore(str(tmp_path)).steps() == [4] and auto_step(tmp_path) == (4, "")


def test_keep_last_k_leaves_the_files_of_others(tmp_path: Path) -> None:
    foreign_sets(tmp_path, 1)
    (tmp_path / "notes.txt").write_text("mine")
    save_sets(tmp_path, 2, 3, keep_last_k=1)
    assert {"notes.txt", "model000001.pt", "opt000001.pt"} <= set(os.listdir(tmp_path))


# ---- remote folders


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder that only ``blobfile`` can reach, on a stand-in for it."""

    def local(path: str) -> str:
        assert path.startswith("gs://")
        return str(tmp_path / "bucket" / path[len("gs://") :])

    module: Any = types.ModuleType("blobfile")
    module.BlobFile = lambda path, mode: open(local(path), mode)  # noqa: SIM115
    module.stat = lambda path: types.SimpleNamespace(size=os.path.getsize(local(path)))
    for name, function in {
        "exists": os.path.exists,
        "isdir": os.path.isdir,
        "listdir": os.listdir,
        "remove": os.remove,
        "makedirs": lambda path: os.makedirs(path, exist_ok=True),
    }.items():
        setattr(module, name, lambda path, function=function: function(local(path)))
    monkeypatch.setitem(sys.modules, "blobfile", module)
    monkeypatch.chdir(tmp_path)
    return "gs://bucket/run"


def test_remote_folder_holds_sets_as_a_local_one_does(remote: str, tmp_path: Path) -> None:
    save_sets(remote, 1, 2, 3, keep_last_k=2)
    assert CheckpointStore(remote).steps() == [3, 2]
    assert auto_step(remote) == (3, "")
    stored = tmp_path / "bucket" / "bucket" / "run"
    (stored / "model000003.pt").write_bytes(b"")
    assert auto_step(remote)[0] == 2
    assert os.listdir(tmp_path) == ["bucket"]
    with pytest.raises(CheckpointError, match=r"there is: .*model000002\.pt"):
        CheckpointStore(remote).resolve(f"{remote}/model000009.pt")
