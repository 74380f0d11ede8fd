"""Results in parts: any number of processes, stopped anywhere, put together once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from image_ddpm.parts import PartStore, read_part
from tests.processes import run_together
from utils.process.errors import DataError


def _do(store: PartStore, rank: int, world_size: int, limit: int = 99) -> list[int]:
    with store.share(rank, world_size) as missing:
        for index in missing[:limit]:
            store.save([index], {"square": np.array([index**2])})
        return missing


def test_each_index_is_some_process_s_and_what_is_kept_is_not_done_again(tmp_path: Path) -> None:
    store = PartStore(str(tmp_path), 10)
    assert _do(store, 0, 2) == [0, 2, 4, 6, 8]
    assert _do(store, 1, 2, limit=2) == [1, 3, 5, 7, 9]
    with store.finishing() as is_ours:
        assert not is_ours
    # with another number of processes the rest is what is left
    assert sorted(_do(store, 0, 3) + _do(store, 1, 3) + _do(store, 2, 3)) == [5, 7, 9]
    with store.finishing() as is_ours:
        assert is_ours
    assert sorted(store.places()) == list(range(10))
    for i, (path, row) in store.places().items():
        assert read_part(path, "square")["square"][row] == i**2


def test_parts_of_a_larger_run_do_not_disturb(tmp_path: Path) -> None:
    store = PartStore(str(tmp_path), 4)
    PartStore(str(tmp_path), 9).save([2, 7], {"square": np.array([4, 49])})
    assert list(store.places()) == [2]


def test_second_process_in_the_same_place_is_refused(tmp_path: Path) -> None:
    store = PartStore(str(tmp_path), 4)
    with store.share(0, 2), pytest.raises(DataError, match="process 0 of 2"):
        _do(store, 0, 2)
    _do(store, 0, 2)


def test_damaged_part_is_named(tmp_path: Path) -> None:
    store = PartStore(str(tmp_path), 4)
    _do(store, 0, 1)
    part = sorted((tmp_path / "parts").glob("*.npz"))[0]
    part.write_bytes(part.read_bytes()[:40])
    with pytest.raises(DataError, match=rf"{part.name} .*delete"):
        store.places()


def test_part_that_holds_code_is_refused(tmp_path: Path) -> None:
    store = PartStore(str(tmp_path), 4)
    _do(store, 0, 1)
    path = tmp_path / "parts" / "x.npz"
    np.savez(path, index=np.array([print], dtype=object))
    with pytest.raises(DataError, match="no whole"):
        store.places()


def test_part_that_was_put_together_meanwhile_is_none(tmp_path: Path) -> None:
    store = PartStore(str(tmp_path), 4)
    _do(store, 0, 1)
    path = str(next((tmp_path / "parts").glob("*.npz")))
    store.remove()
    assert read_part(path) == {} and store.places() == {}
    assert not (tmp_path / "parts").exists()


def test_locks_outlive_the_parts(tmp_path: Path) -> None:
    """One that went with the parts would let a second process in beside the one that holds it."""
    store = PartStore(str(tmp_path), 4)
    with store.share(0, 1) as missing:
        store.save(missing, {"square": np.arange(4)})
        store.remove()
        with pytest.raises(DataError, match="in use"):
            _do(store, 0, 1)


def test_last_of_two_processes_sees_all_parts_however_they_meet(tmp_path: Path) -> None:
    def work(rank: int) -> None:
        store = PartStore(str(tmp_path), 40)
        _do(store, rank, 2)
        with store.finishing() as is_whole:
            if is_whole:
                (tmp_path / f"whole{rank}").touch()
                store.remove()

    run_together(work, 2)
    assert len(list(tmp_path.glob("whole*"))) == 1
