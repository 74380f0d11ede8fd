"""Hostile, damaged and random pickles are refused: no side effect, little time, little memory."""

from __future__ import annotations

import contextlib
import copyreg
import pickle
import random
import sys
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.utils.hostile_pickles import BOMBS, EXTENSION_CODE, STREAMS, VALUES, runners
from utils.safe_pickle import UnsafePickleError, load_pickle, loads_pickle

PROTOCOLS = range(6)
MAX_SECONDS = 2.0
MAX_MEMORY_BYTES = 50_000_000


def _assert_refused(data: bytes, reason: str = "") -> None:
    """Refusal within the limits of time (CPU) and memory, with a message that fits a screen."""
    tracemalloc.start()
    started = time.process_time()
    try:
        with pytest.raises(UnsafePickleError) as caught:
            loads_pickle(data, name="some.pkl")
        seconds = time.process_time() - started
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    message = str(caught.value)
    assert message.startswith("some.pkl: refused: ")
    assert "Only plain Python values and numpy arrays" in message
    assert reason in message
    assert len(message) < 1000
    assert message.isascii() or "…" in message
    assert seconds < MAX_SECONDS
    assert peak_bytes < MAX_MEMORY_BYTES


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
    path.write_bytes(runners(f"touch {sentinel}")[name])
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
    with pytest.raises(UnsafePickleError, match=r"names 'os' 'system'.*at byte 11"):
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


def _mutate(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    mutated = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        place = rng.randrange(len(mutated))
        kind = rng.randrange(7)
        if kind == 0:
            mutated[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            mutated[place] = rng.randrange(256)
        elif kind == 2:
            mutated.insert(place, rng.choice(b"().]}latbRbcioQP0125egjhpqru\x81\x85\x93\x94"))
        elif kind == 3:
            del mutated[place : place + rng.randrange(1, 4)]
        elif kind == 4:
            end = min(len(mutated), place + rng.randrange(1, 30))
            mutated[place:place] = mutated[rng.randrange(place + 1) : end]
        elif kind == 5:
            other = rng.choice(others)
            start = rng.randrange(len(other))
            mutated[place:] = other[start:]
        else:
            mutated[place : place + 4] = rng.choice([b"\xff" * 4, b"\0" * 4, b"\xff\xff\xff\x7f"])
        mutated = mutated or bytearray(b".")
    return bytes(mutated)


def _only_plain_data(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_only_plain_data, value)) and all(map(_only_plain_data, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(_only_plain_data, value))
    if isinstance(value, (np.ndarray, np.generic)):
        return value.dtype.char in "?bhilqBHILQefd"
    return type(value) in (str, bytes, int, float, bool, type(None))


def _check_mutations(num_mutations: int, seed: int) -> None:
    rng = random.Random(seed)
    seeds = _valid_pickles()
    num_loaded = 0
    started = time.process_time()
    for _ in range(num_mutations):
        data = _mutate(rng.choice(seeds), rng, seeds)
        try:
            value = loads_pickle(data)
        except UnsafePickleError:
            continue
        assert _only_plain_data(value)
        num_loaded += 1
    assert 0 < num_loaded < num_mutations
    assert time.process_time() - started < 0.01 * num_mutations


@pytest.mark.filterwarnings("error")
def test_random_mutation_loads_plain_data_or_is_refused() -> None:
    _check_mutations(3000, seed=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
def test_many_random_mutations_load_plain_data_or_are_refused() -> None:
    _check_mutations(20_000, seed=1)


@pytest.mark.filterwarnings("error")
def test_random_bytes_are_refused() -> None:
    rng = random.Random(2)
    for _ in range(2000):
        data = rng.randbytes(rng.randrange(1, 200))
        with contextlib.suppress(UnsafePickleError):
            assert _only_plain_data(loads_pickle(data))
