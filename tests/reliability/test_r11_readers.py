"""R11 for all other formats: each reader reads damaged files, or refuses them by name.

What mutations once found stays here as an example.
"""

from __future__ import annotations

import gzip
import io
import json
import math
import pickle
import socket
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from noisy_label.files import read_idx
from tests.reliability.confined import assert_all_well, outcomes, slowest
from tests.reliability.extent import extent
from tests.reliability.mutations import mutations
from tests.reliability.readers import readers, reading
from tests.reliability.seed_files import Reader
from utils.images.files import MAX_PIXELS
from utils.process.errors import CheckpointError, DataError

_LIMIT = 1500
# a damaged header may claim an image of any allowed size
_MOST = 8 * MAX_PIXELS
_DEEP = b"[" * 100_000


@pytest.fixture(scope="module")
def all_readers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reader]:
    """The table, made once."""
    return readers(tmp_path_factory.mktemp("seeds"))


def test_random_mutation_of_any_file_is_read_or_refused_by_name(
    all_readers: dict[str, Reader], tmp_path: Path, figure: Callable[[str], None]
) -> None:
    found = []
    num_refused = 0
    for name, reader in all_readers.items():
        read = reading(reader, tmp_path / name)
        for seed in reader.seeds:
            read(seed)
        payloads = mutations(reader.seeds, extent(60, 5000), seed=6)
        part = outcomes(read, payloads)
        num_refused += assert_all_well(part, payloads, *reader.names(tmp_path / name), most=_MOST)
        found += part
    assert 0 < num_refused < len(found)
    figure(
        f"{len(all_readers)} other readers: {len(found)}/{len(found)} mutations refused "
        f"({num_refused}) or read, {slowest(found)}"
    )


# ---- what mutations have found


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("crop index", _DEEP + b"\n"),
        ("crop index", b'["a", Infinity, 0, 0, 0, ""]\n'),
        ("settings", _DEEP),
        ("import", _DEEP),
        ("seconds", _DEEP),
        ("seconds", b'{"seconds": 1, "num_items": Infinity, "device": "cpu"}'),
        ("steps", b'{"diffusion_steps": Infinity, "timestep_respacing": "4"}'),
        ("budget", b'{"budget": 5}'),
        ("run", _DEEP),
        ("budget", b'{"budget": [{"row": "a", "relative_mse": "b"}]}'),
        ("quantiles", _DEEP),
        ("quantiles", b'{"0.1": {"coverage": [1]}}'),
        ("quantiles", b'{"0.1": {"coverage": 1, "rms_error": 1e999}}'),
        ("quantiles", b'{"0.1": {"coverage": 1, "rms_error": ' + b"9" * 999 + b"}}"),
        ("evaluation", _DEEP),
        ("evaluation", b'{"dimension": 1, "reference": {"count": 2}, "frechet": []}'),
        ("stamp", _DEEP),
        ("lock", b'{"host": "", "pid": Infinity}'),
        ("lock", json.dumps({"host": socket.gethostname(), "pid": math.inf}).encode()),
        ("manifest", _DEEP),
        ("manifest", b"\xff" * 5000),
    ],
)
def test_odd_record_is_read_or_refused(
    all_readers: dict[str, Reader], tmp_path: Path, name: str, data: bytes
) -> None:
    reader = all_readers[name]
    found = outcomes(reading(reader, tmp_path), [data])
    assert_all_well(found, [data], *reader.names(tmp_path))


def _npz(arrays: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in arrays.items():
            archive.writestr(f"{name}.npy", data)
    return buffer.getvalue()


def _npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def _header(shape: str) -> str:
    return f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}}}"


@pytest.mark.parametrize(
    "name", ["moments", "exact moments", "arrays", "samples", "parts", "predictions"]
)
@pytest.mark.parametrize(
    "array",
    [
        _npy("{'descr': ("),
        _npy("-" * 5000),
        _npy(_header("(10**9,)")),
        _npy(_header(f"({10**12},)"), bytes(1000)),
        _npy(_header(f"({10**9},)"), bytes(10**7)),
    ],
    ids=["open bracket", "minus signs", "no literal", "a terabyte", "a bomb"],
)
def test_array_that_claims_or_hides_something_is_refused(
    all_readers: dict[str, Reader], tmp_path: Path, name: str, array: bytes
) -> None:
    names = ("count", "mean", "variance", "arr_0", "index", "training", "test")
    reader, data = all_readers[name], _npz(dict.fromkeys(names, array))
    found = outcomes(reading(reader, tmp_path), [data])
    assert assert_all_well(found, [data], *reader.names(tmp_path)) == 1


@pytest.mark.parametrize("count", [np.int64(10**15), np.float64("inf"), np.int64(-3)])
def test_moments_of_no_possible_count_are_refused(
    all_readers: dict[str, Reader], tmp_path: Path, count: Any
) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, count=count, mean=np.ones(3))
    data = buffer.getvalue()
    found = outcomes(reading(all_readers["moments"], tmp_path), [data])
    assert assert_all_well(found, [data], "moments.npz") == 1


def test_gzip_file_that_unpacks_to_many_times_its_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb-idx3.gz"
    path.write_bytes(gzip.compress(struct.pack(">4B3I", 0, 0, 8, 3, 9_000_000, 4, 4) + bytes(99)))
    with pytest.raises(DataError, match=r"bomb-idx3\.gz .*times"):
        read_idx(str(path), (4, 4))


# ---- well-formed files of any content

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["y", "file_names", "a"]) | st.text(max_size=3), inner)
    ),
    max_leaves=8,
)

_MANY = settings(
    deadline=None,
    max_examples=extent(60, 2000),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@given(value=_VALUES)
@_MANY
@pytest.mark.parametrize("name", ["info dict", "flags", "model flags", "array", "noisy labels"])
def test_pickle_of_any_values_is_read_or_refused_by_name(
    all_readers: dict[str, Reader], tmp_path: Path, name: str, value: object
) -> None:
    reader = all_readers[name]
    for content in (value, {"a": value}, [(value, value)] * 3):
        _assert_read_or_refused(reader, tmp_path, pickle.dumps(content, 4))


@given(value=_VALUES)
@_MANY
@pytest.mark.parametrize(
    "name",
    ["manifest", "crop index", "settings", "import", "seconds", "stamp", "quantiles", "evaluation"],
)
def test_json_of_any_values_is_read_or_refused_by_name(
    all_readers: dict[str, Reader], tmp_path: Path, name: str, value: object
) -> None:
    line = json.dumps(["a", value, value, 0, 0, ""]) + "\n"
    one = {"files": value, "steps": value, "models": value, "0.1": {"coverage": value}}
    two = {
        "dimension": 1,
        "reference": {"count": value},
        "frechet": {"distance": 1, "floor": value},
    }
    for text in (*map(json.dumps, (value, one, two, {"0.1": one["0.1"]})), line):
        _assert_read_or_refused(all_readers[name], tmp_path, text.encode())


def _assert_read_or_refused(reader: Reader, folder: Path, data: bytes) -> None:
    try:
        reading(reader, folder)(data)
    except ValueError as error:
        assert isinstance(error, (DataError, CheckpointError))
        assert any(name in str(error) for name in reader.names(folder))
        assert len(str(error)) < _LIMIT
