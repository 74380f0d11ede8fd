"""Results by index, kept in parts as they are made: any number of processes, stopped at any time.

A part is ``<folder>/parts/<first index>_<count>_<digest>.npz`` with ``index`` (n,) and arrays whose
first dimension is n. Each process does the indices that are its own by rank; what any process has
kept counts as done, so the number of processes may change between runs.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utils.atomic_file import atomic_write, remove_stale_temp_files
from utils.errors import DataError
from utils.lock_util import try_lock

Arrays = Mapping[str, NDArray[Any]]
_PAUSE_SECONDS = 0.1


class PartStore:
    """The parts of one folder.

    Args:
        folder: holds ``parts/``.
        num_items: indices run from 0 to this.
    """

    def __init__(self, folder: str, num_items: int) -> None:
        self._folder, self._num_items = os.path.join(folder, "parts"), num_items
        self._finish_lock = os.path.join(folder, ".finish.lock")

    @contextlib.contextmanager
    def share(self, rank: int, world_size: int) -> Iterator[list[int]]:
        """The missing indices of this process, which nobody else takes meanwhile.

        Args:
            rank: of this process.
            world_size: number of processes; each takes every so many-th index.

        Raises:
            DataError: if another process has the same share.
        """
        lock = try_lock(os.path.join(self._folder, f"{rank}_of_{world_size}.lock"))
        if lock is None:
            raise DataError(
                f"{self._folder} is in use by process {rank} of {world_size}; wait for it, or give "
                "another --output_dir"
            )
        with lock:
            remove_stale_temp_files(self._folder)
            done = self.done()
            yield [i for i in range(rank, self._num_items, world_size) if i not in done]

    def done(self) -> set[int]:
        """Indices that are kept."""
        found = {int(i) for path in self._paths() for i in _read(path)["index"]}
        return {i for i in found if i < self._num_items}

    def save(self, indices: list[int], arrays: Arrays) -> None:
        """Keeps the results of some indices.

        Raises:
            StorageError: if the file cannot be written.
        """
        digest = hashlib.sha256(repr(indices).encode()).hexdigest()[:12]
        os.makedirs(self._folder, exist_ok=True)
        path = os.path.join(self._folder, f"{indices[0]:08d}_{len(indices)}_{digest}.npz")
        with atomic_write(path) as file:
            np.savez(file, allow_pickle=False, index=np.array(indices), **arrays)

    def items(self) -> Iterator[tuple[NDArray[np.int64], Arrays]]:
        """(indices, arrays) of every part; an index in two parts comes twice, with equal results.

        Parts of a larger run that was stopped may hold indices beyond ``num_items``: left out.

        Raises:
            DataError: for a part that cannot be read.
        """
        for path in self._paths():
            found = _read(path)
            index = found.pop("index")
            is_ours = index < self._num_items
            yield index[is_ours], {name: value[is_ours] for name, value in found.items()}

    @contextlib.contextmanager
    def finishing(self) -> Iterator[bool]:
        """Whether all parts are there and this process is the one to put them together.

        Waits for a process that is looking, or at it: the last one to come must see them all.
        """
        while (lock := try_lock(self._finish_lock)) is None:
            time.sleep(_PAUSE_SECONDS)
        with lock:
            yield len(self.done()) == self._num_items

    def remove(self) -> None:
        """Deletes the parts, once what was made of them is written."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _paths(self) -> list[str]:
        if not os.path.isdir(self._folder):
            return []
        names = sorted(name for name in os.listdir(self._folder) if name.endswith(".npz"))
        return [os.path.join(self._folder, name) for name in names]


def _read(path: str) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read ({error}); delete it and run again") from None
