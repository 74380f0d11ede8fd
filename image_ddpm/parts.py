"""Results by index, kept in parts as they are made: any number of processes, stopped at any time.

A part is `<folder>/parts/<first index>_<count>_<digest>.npz` with `index` (n,) and arrays whose
first dimension is n. Each process does the indices that are its own by rank; what any process has
kept counts as done, so the number of processes may change between runs.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utils.files.atomic import atomic_write, remove_stale_temp_files
from utils.files.lock import lock_or_sign_of_life, try_lock
from utils.files.storage import make_folder
from utils.process.errors import DataError
from utils.untrusted.arrays import read_npz

Arrays = Mapping[str, NDArray[Any]]
_PAUSE_SECONDS = 0.1
_REMEDY = "delete it and run again"


class PartStore:
    """The parts of indices from 0 to `num_items`, in `folder`, which holds the locks, too."""

    def __init__(self, folder: str, num_items: int) -> None:
        self._root, self._folder = folder, os.path.join(folder, "parts")
        self._num_items = num_items

    @contextlib.contextmanager
    def share(self, rank: int, world_size: int) -> Iterator[list[int]]:
        """The missing indices of a process, which nobody else takes meanwhile.

        Raises:
            DataError: if another process has the same share.
        """
        lock = lock_or_sign_of_life(self._lock_path(f"share_{rank}_of_{world_size}"))
        if lock is None:
            raise DataError(
                f"{self._root} is in use by process {rank} of {world_size}; wait for it, or give "
                "another --output_dir"
            )
        with lock:
            if os.path.isdir(self._folder):
                remove_stale_temp_files(self._folder)
            done = self.places()
            yield [i for i in range(rank, self._num_items, world_size) if i not in done]

    def places(self) -> dict[int, tuple[str, int]]:
        """Index → (path of its part, row in it); of two parts with one index, either will do.

        Parts of a larger run that was stopped may hold indices beyond `num_items`: left out.
        """
        found: dict[int, tuple[str, int]] = {}
        for path in self._paths():
            index = read_part(path, "index").get("index", np.empty(0, np.int64))
            found |= {int(i): (path, row) for row, i in enumerate(index) if i < self._num_items}
        return found

    def save(self, indices: Sequence[int], arrays: Arrays) -> None:
        """Keep the results of some indices; raise StorageError if that cannot be done."""
        make_folder(self._folder)
        digest = hashlib.sha256(repr(indices).encode()).hexdigest()[:12]
        path = os.path.join(self._folder, f"{indices[0]:08d}_{len(indices)}_{digest}.npz")
        with atomic_write(path) as file:
            np.savez(file, allow_pickle=False, index=np.array(indices), **arrays)

    @contextlib.contextmanager
    def finishing(self) -> Iterator[bool]:
        """Whether all parts are there, and nobody else puts them together meanwhile.

        Waits for a process that is at it: the last one to come must see them all. What a killed one
        has left half written is cleared.
        """
        while (lock := try_lock(self._lock_path("finish"))) is None:
            time.sleep(_PAUSE_SECONDS)
        with lock:
            remove_stale_temp_files(self._root)
            yield len(self.places()) == self._num_items

    def remove(self) -> None:
        """Delete the parts, once what was made of them is written."""
        for path in self._paths():
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)
        with contextlib.suppress(OSError):
            os.rmdir(self._folder)

    def _lock_path(self, name: str) -> str:
        # beside the parts: a lock file that is deleted while it is held would lock nobody out
        return os.path.join(self._root, f".{name}.lock")

    def _paths(self) -> list[str]:
        if not os.path.isdir(self._folder):
            return []
        names = sorted(name for name in os.listdir(self._folder) if name.endswith(".npz"))
        return [os.path.join(self._folder, name) for name in names]


def read_part(path: str, *names: str) -> dict[str, NDArray[Any]]:
    """The arrays of a part, or some of them; none if it was put together and deleted meanwhile.

    Raises:
        DataError: if it cannot be read.
    """
    try:
        arrays = read_npz(path, path, names or None, remedy=_REMEDY)
    except FileNotFoundError:
        return {}
    missing = [name for name in names if name not in arrays]
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)}; {_REMEDY}")
    return arrays
