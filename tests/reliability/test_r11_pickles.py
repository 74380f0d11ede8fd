"""R11: hostile, damaged and random pickles are refused.

No side effect, less than 2 s and 200 MB each.
"""

from __future__ import annotations

import contextlib
import copyreg
import pickle
import random
import shlex
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.reliability.confined import assert_all_well, outcomes, slowest
from tests.reliability.extent import extent, is_full
from tests.reliability.hostile_pickles import BOMBS, EXTENSION_CODE, STREAMS, VALUES, runners
from tests.reliability.mutations import mutations
from utils.untrusted.pickles import UnsafePickleError, load_pickle, loads_pickle

PROTOCOLS = range(6)
MAX_SECONDS = 2.0
MAX_MEMORY_BYTES = 50_000_000
# from there on the growth of a process is measured alone, but where the long forms run
LARGE = 100_000


def _assert_refused(data: bytes, reason: str = "") -> None:
    """Refusal within the limits of time (CPU) and memory, with a message that fits a screen."""
    started = time.process_time()
    with pytest.raises(UnsafePickleError) as caught:
        loads_pickle(data, name="some.pkl")
    seconds = time.process_time() - started
    is_measured = len(data) < LARGE or is_full()
    peak_bytes = _peak_bytes(data) if is_measured else 0
    message = str(caught.value)
    assert message.startswith("some.pkl: refused: ")
    assert "plain Python values" in message
    assert reason in message
    assert len(message) < 1000
    assert message.isascii() or "…" in message
    assert seconds < MAX_SECONDS
    assert peak_bytes < MAX_MEMORY_BYTES


def _peak_bytes(data: bytes) -> int:
    """What the refusal allocates; several times slower than the refusal alone."""
    tracemalloc.start()
    try:
        with pytest.raises(UnsafePickleError):
            loads_pickle(data, name="some.pkl")
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", VALUES)
def test_value_beyond_plain_data_is_refused_in_every_protocol(name: str) -> None:
    for protocol in PROTOCOLS:
        _assert_refused(pickle.dumps(VALUES[name], protocol))
        _assert_refused(pickle.dumps({"y": [VALUES[name]]}, protocol))


@pytest.mark.parametrize("name", STREAMS)
def test_hostile_stream_is_refused(name: str) -> None:
    _assert_refused(STREAMS[name])
    for protocol in (2, 5):
        _assert_refused(b"\x80" + bytes((protocol,)) + STREAMS[name])


@pytest.mark.parametrize("name", BOMBS)
def test_bomb_is_stopped_by_its_limit(name: str) -> None:
    _assert_refused(*BOMBS[name])


@pytest.mark.parametrize("protocol", [6, 7, 128, 255])
def test_unknown_protocol_is_refused(protocol: int) -> None:
    _assert_refused(b"\x80" + bytes((protocol,)) + b"N.")


@pytest.fixture
def os_system_as_extension() -> Iterator[None]:
    copyreg.add_extension("os", "system", EXTENSION_CODE)
    yield
    copyreg.remove_extension("os", "system", EXTENSION_CODE)


@pytest.mark.usefixtures("os_system_as_extension")
@pytest.mark.parametrize("name", runners(""))
def test_pickle_that_runs_a_command_in_python_runs_nothing_here(tmp_path: Path, name: str) -> None:
    sentinel = tmp_path / "ran"
    path = tmp_path / "args.pkl"
    path.write_bytes(runners(f"touch {shlex.quote(str(sentinel))}")[name])
    with pytest.raises(UnsafePickleError, match=r"args\.pkl: refused"):
        load_pickle(path)
    assert not sentinel.exists()
    # The same bytes do run the command in Python's reader, so the refusal above means something.
    pickle.loads(path.read_bytes())
    assert sentinel.exists()


def test_named_module_is_not_imported() -> None:
    assert "antigravity" not in sys.modules
    for data in (STREAMS["not_imported"], pickle.dumps(VALUES["import"], 4)):
        with pytest.raises(UnsafePickleError):
            loads_pickle(data)
    assert "antigravity" not in sys.modules


def test_message_names_what_offends_and_where() -> None:
    with pytest.raises(UnsafePickleError, match=r"'os' 'system'.* 11"):
        loads_pickle(b"cos\nsystem\n)R.")


def _valid_pickles() -> list[bytes]:
    values: list[Any] = [
        {"tench": {"y": 0, "file_names": ["n0/a", "n0/b"]}, "shark": {"y": 1, "file_names": []}},
        {"num_heads": 4, "dropout": 0.1, "use_fp16": False, "channel_mult": "", "x": None},
        np.arange(6, dtype=np.float32).reshape(1, 2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        [(3, np.full(2, 0.5)), (np.int64(1), np.eye(2)[1])],
        np.array([True, False]),
        (b"bytes", -1, 2**40, "ü"),
    ]
    return [pickle.dumps(value, protocol) for value in values for protocol in PROTOCOLS]


@pytest.mark.parametrize("index", range(42))
def test_every_truncation_is_refused(index: int) -> None:
    data = _valid_pickles()[index]
    loads_pickle(data)
    for length in range(len(data)):
        with pytest.raises(UnsafePickleError):
            loads_pickle(data[:length])


def _only_plain_data(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_only_plain_data, value)) and all(map(_only_plain_data, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(_only_plain_data, value))
    if isinstance(value, (np.ndarray, np.generic)):
        return value.dtype.char in "?bhilqBHILQefd"
    return type(value) in (str, bytes, int, float, bool, type(None))


def _load_plain(data: bytes) -> None:
    assert _only_plain_data(loads_pickle(data, name="some.pkl"))


def test_random_mutation_loads_plain_data_or_is_refused(figure: Callable[[str], None]) -> None:
    payloads = mutations(_valid_pickles(), extent(2000, 20_000), seed=1)
    found = outcomes(_load_plain, payloads)
    num_refused = assert_all_well(found, payloads, "some.pkl")
    assert 0 < num_refused < len(found)
    figure(
        f"{len(found)}/{len(found)} mutations refused ({num_refused}) or read as plain data, "
        f"{slowest(found)}"
    )


def _many(item: bytes) -> bytes:
    """A list of many small things."""
    return b"]" + (b"(" + item * 20_000 + b"e") * 2 + b"."


# Plain, if odd, and so read: but not at a hundred times their size.
_WIDE = {
    "empty_lists": _many(b"]"),
    "empty_dicts": _many(b"}"),
    "remembered_lists": _many(b"]\x94"),
    "tuples": _many(b")\x85"),
}


def test_every_hostile_pickle_stays_within_time_and_memory(figure: Callable[[str], None]) -> None:
    payloads = [*STREAMS.values(), *(data for data, _ in BOMBS.values()), *_WIDE.values()]
    payloads += [
        pickle.dumps(value, protocol) for value in VALUES.values() for protocol in PROTOCOLS
    ]
    found = outcomes(lambda data: loads_pickle(data, name="some.pkl"), payloads)
    num_refused = assert_all_well(found, payloads, "some.pkl")
    assert num_refused == len(payloads) - len(_WIDE)
    figure(f"{num_refused}/{num_refused} hostile pickles refused, {slowest(found)}")


@pytest.mark.filterwarnings("error")
def test_random_bytes_are_refused() -> None:
    rng = random.Random(2)
    for _ in range(extent(2000, 20_000)):
        data = rng.randbytes(rng.randrange(1, 200))
        with contextlib.suppress(UnsafePickleError):
            assert _only_plain_data(loads_pickle(data))


def test_long_text_of_a_damaged_number_is_not_repeated() -> None:
    with pytest.raises(UnsafePickleError) as caught:
        loads_pickle(b"F" + b"x" * 5000 + b"\n.")
    assert len(str(caught.value)) < 600
