"""Arrays that were made of a larger file once, kept beside it for later runs and shared in memory.

An index is a safetensors file whose metadata name the content that it was made of (`KEY`). One that
is damaged, of another content or of another version counts as not there and is made again. Where it
cannot be kept, its arrays are in the memory of each process.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from utils.files.atomic import is_remote, remove_stale_temp_files
from utils.files.lock import Lock, try_lock
from utils.files.storage import make_folder
from utils.process.errors import CheckpointError, DataError
from utils.untrusted.safe_tensors import TENSORS_KEY, map_safetensors, write_safetensors

KEY = "made_of"
_OWN = (KEY, TENSORS_KEY)
_SECONDS_BETWEEN_TRIES = 0.2
_IN_CACHE = "conditional-risk-sr"


@dataclass(frozen=True, eq=False)
class Index:
    """Arrays by name, and words; mapped from `path`, or in memory where that is empty.

    A process that receives a mapped one from another maps the same file.
    """

    arrays: Mapping[str, NDArray[Any]]
    words: Mapping[str, str]
    path: str = ""
    key: str = ""

    def __reduce__(self) -> tuple[Any, ...]:
        if self.path:
            return _mapped_again, (self.path, self.key)
        return Index, (self.arrays, self.words)


def places_of(path: str, ending: str) -> list[str]:
    """Where the index of a file may lie: beside it, hidden; else in the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    whole = path if is_remote(path) else os.path.realpath(path)
    digest = hashlib.sha256(whole.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    in_cache = os.path.join(base, _IN_CACHE, f"{digest}{ending}")
    beside = os.path.join(os.path.dirname(whole), f".{os.path.basename(whole)}{ending}")
    return [in_cache] if is_remote(path) else [beside, in_cache]


def find_index(places: Sequence[str], key: str) -> Index | None:
    """The first one in these places that was made of this content; None if there is none."""
    for path in places:
        with contextlib.suppress(CheckpointError, OSError, DataError):
            arrays, metadata = map_safetensors(path)
            words = {name: word for name, word in metadata.items() if name not in _OWN}
            if metadata.get(KEY) == _stored(key, words):
                return Index(arrays, words, path, key)
    return None


def _stored(key: str, words: Mapping[str, str]) -> str:
    """What a file says it was made of; also of its words, which no other digest covers."""
    text = json.dumps(words, sort_keys=True)
    return f"{key}, words {hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"


def kept_index(
    places: Sequence[str],
    key: str,
    make: Callable[[], tuple[Mapping[str, NDArray[Any]], Mapping[str, str]]],
    is_fit: Callable[[Index], bool] = lambda index: True,
    log: Callable[[str], None] = print,
) -> Index:
    """The index of this content; made, by one process at a time, where there is none.

    Args:
        places: paths, the preferred one first; the first that takes a file gets it.
        key: names content and version.
        make: gives arrays and words.
        is_fit: whether an index of anybody says nothing impossible.
        log: is told what is waited for, and of an index that cannot be kept.
    """

    def found() -> Index | None:
        index = find_index(places, key)
        return index if index is not None and is_fit(index) else None

    if (index := found()) is not None:
        return index
    for path in places:
        try:
            lock = _sole_maker(path, log)
        except (OSError, DataError):
            continue  # a folder that takes no file
        with lock:
            if (index := found()) is None:  # nobody else has made it meanwhile
                index = Index(*make())
                _keep(path, index, key, log)
                index = found() or index
        return index
    return Index(*make())


def _keep(path: str, index: Index, key: str, log: Callable[[str], None]) -> None:
    try:
        remove_stale_temp_files(os.path.dirname(path))
        write_safetensors(path, index.arrays, {**index.words, KEY: _stored(key, index.words)})
    except OSError as error:
        log(f"notice: no index is kept, so that each process makes its own: {error}")


def _sole_maker(path: str, log: Callable[[str], None]) -> Lock:
    """The lock of the one process that makes the index; OSError where no file can be."""
    make_folder(os.path.dirname(path))
    is_told = False
    while (lock := try_lock(f"{path}.lock")) is None:
        if not is_told:
            log(f"waiting for another process that writes {path}")
        is_told = True
        time.sleep(_SECONDS_BETWEEN_TRIES)
    return lock


def _mapped_again(path: str, key: str) -> Index:
    index = find_index([path], key)
    if index is None:
        raise DataError(
            f"{path} has changed or gone since this run began, and with it what it was made of; "
            "run again"
        )
    return index
