"""Pickles of plain values and arrays read back as what was written."""

from __future__ import annotations

import base64
import json
import os
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.golden_recipe import GOLDENS_DIR
from utils.files.storage import problem_with_name
from utils.process.errors import DataError
from utils.untrusted.pickles import (
    UnsafePickleError,
    dump_pickle,
    load_array,
    load_pickle,
    loads_pickle,
)

PROTOCOLS = range(6)
DTYPES = "?bhilqBHILQefd"

ARRAYS = {
    "c_order": np.arange(24.0).reshape(2, 3, 4),
    "fortran_order": np.asfortranarray(np.arange(6.0, dtype=np.float32).reshape(2, 3)),
    "permuted_axes": np.arange(24).reshape(2, 3, 4).transpose(1, 2, 0),
    "strided": np.arange(20)[::3],
    "reversed": np.arange(5.0)[::-1],
    "broadcast": np.broadcast_to(np.arange(3), (2, 3)),
    "zero_dimensional": np.array(3.5),
    "empty": np.zeros((0, 3)),
    "empty_fortran": np.zeros((3, 0, 2), order="F"),
    "big_endian": np.arange(4, dtype=">i4").reshape(2, 2),
    "big_endian_strided": np.arange(9, dtype=">f8")[::2],
    "not_finite": np.array([np.nan, np.inf, -0.0]),
}


def _random_value(rng: random.Random, depth: int = 0) -> Any:
    kinds = ["int", "float", "str", "bytes", "bool", "none", "big"]
    kind = rng.choice(kinds if depth > 3 else [*kinds, "list", "tuple", "dict"])
    size = rng.choice([0, 1, 2, 3, 5, 300 if depth == 0 else 4])
    if kind in ("list", "tuple"):
        items = [_random_value(rng, depth + 1) for _ in range(size)]
        return items if kind == "list" else tuple(items)
    if kind == "dict":
        return {_random_value(rng, 4): _random_value(rng, depth + 1) for _ in range(size)}
    text = "".join(rng.choice("aé\n\\'\"\udc80€😀\x00 u") for _ in range(size))
    return {
        "int": rng.randrange(-70_000, 70_000),
        "float": rng.uniform(-1e9, 1e9),
        "str": text,
        "bytes": rng.randbytes(size),
        "bool": rng.random() < 0.5,
        "none": None,
        "big": rng.randrange(-(2**63), 2**64),
    }[kind]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_values_round_trip(protocol: int) -> None:
    rng = random.Random(protocol)
    for _ in range(200):
        value = _random_value(rng)
        # repr tells True from 1 and -0.0 from 0.0, which equality does not
        assert repr(loads_pickle(pickle.dumps(value, protocol))) == repr(value)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_round_trip(name: str, protocol: int) -> None:
    array = ARRAYS[name]
    loaded = loads_pickle(pickle.dumps({"a": array, "same": [array]}, protocol))
    assert isinstance(loaded["a"], np.ndarray)
    assert loaded["a"].dtype == array.dtype.newbyteorder("=")
    assert loaded["a"].dtype.isnative
    np.testing.assert_array_equal(loaded["a"], array)
    assert loaded["a"].shape == array.shape
    assert loaded["a"] is loaded["same"][0]
    loaded["a"][...] = 0  # writable


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("code", DTYPES)
def test_every_allowed_dtype_round_trips_as_array_and_scalar(code: str, protocol: int) -> None:
    array = np.array([0, 1, 1, 0], dtype=code)
    loaded, scalar = loads_pickle(pickle.dumps((array, array[1]), protocol))
    assert loaded.dtype == array.dtype
    assert loaded.tobytes() == array.tobytes()
    assert isinstance(scalar, np.generic)
    assert scalar.dtype == array.dtype
    assert scalar == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_large_array_of_small_values_is_within_the_budget(protocol: int) -> None:
    # protocols 0 to 2 hold its bytes as text, half of them in two bytes each
    array = np.random.default_rng(0).integers(0, 256, (100, 300), dtype=np.uint8)
    np.testing.assert_array_equal(loads_pickle(pickle.dumps(array, protocol)), array)


def test_memory_order_is_kept() -> None:
    for protocol in PROTOCOLS:
        loaded = loads_pickle(pickle.dumps(ARRAYS["fortran_order"], protocol))
        assert loaded.flags.f_contiguous, protocol


def test_pickles_of_numpy_1_26_load() -> None:
    expected: dict[str, Any] = {
        "variance": np.arange(12, dtype=np.float32).reshape(2, 2, 3) / 8,
        "fortran": np.arange(6.0).reshape(2, 3),
        "big_endian": np.arange(4),
        "zero_dim": np.array(3.5),
        "empty": np.zeros((0, 3)),
        "strided": np.arange(10)[::3],
        "boolean": np.array([True, False]),
        "scalars": [0.5, -7, True, 2.0],
        "noisy_labels": [(3, np.full(10, 0.1)), (1, np.eye(10)[1])],
    }
    stored = json.loads((GOLDENS_DIR / "numpy126_pickles.json").read_text())
    assert stored.keys() == expected.keys()
    for name, by_protocol in stored.items():
        assert len(by_protocol) == len(PROTOCOLS)
        for encoded in by_protocol:
            loaded = loads_pickle(base64.b64decode(encoded), name=name)
            if name != "noisy_labels":
                np.testing.assert_array_equal(loaded, expected[name])
                continue
            for (label, law), (expected_label, expected_law) in zip(
                loaded, expected[name], strict=True
            ):
                assert label == expected_label
                np.testing.assert_array_equal(law, expected_law)


def test_shared_parts_stay_shared() -> None:
    law = [0.1] * 10
    loaded = loads_pickle(pickle.dumps([(i, law) for i in range(5000)], 4))
    assert loaded[0][1] == law
    assert loaded[0][1] is loaded[-1][1]


def test_dump_writes_protocol_4_that_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "high_res_var_50000.pkl"
    array = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    dump_pickle(array, path)
    assert path.read_bytes()[:2] == b"\x80\x04"
    np.testing.assert_array_equal(load_array(path, (2, 2, 3)), array)
    np.testing.assert_array_equal(pickle.loads(path.read_bytes()), array)
    assert os.listdir(tmp_path) == [path.name]


def test_dump_refuses_what_could_not_be_read_back(tmp_path: Path) -> None:
    with pytest.raises(UnsafePickleError, match=r"x\.pkl"):
        dump_pickle({"a": {1, 2}}, tmp_path / "x.pkl")
    assert os.listdir(tmp_path) == []


def test_file_over_the_limit_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "big.pkl"
    dump_pickle(b"x" * 1000, path)
    assert load_pickle(path) == b"x" * 1000
    with pytest.raises(UnsafePickleError, match=r"big\.pkl.* 999 bytes"):
        load_pickle(path, max_bytes=999)


def test_missing_file_is_file_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pkl"):
        load_pickle(tmp_path / "nowhere.pkl")


@pytest.mark.parametrize(
    "content",
    [[1.0], 1.5, None, np.array([1.0, np.nan]), np.array([np.inf]), np.array([True])],
    ids=repr,
)
def test_array_file_with_something_else_is_an_error_that_names_it(
    tmp_path: Path, content: Any
) -> None:
    dump_pickle(content, tmp_path / "var.pkl")
    with pytest.raises(DataError, match=r"var\.pkl"):
        load_array(tmp_path / "var.pkl")


def test_array_of_another_shape_is_an_error_with_both_shapes(tmp_path: Path) -> None:
    dump_pickle(np.zeros((2, 3)), tmp_path / "var.pkl")
    with pytest.raises(DataError, match=r"\(2, 3\).*\(3, 2\)"):
        load_array(tmp_path / "var.pkl", (3, 2))


@pytest.mark.parametrize("name", ["a", "a.b", "..a", "a..", "a/b/c.JPEG", "...", "ab:c", "./a"])
def test_ordinary_name_is_fit(name: str) -> None:
    assert problem_with_name(name) is None
