"""Hostile, damaged and strange ``.npz`` files end with one message and run nothing."""

from __future__ import annotations

import io
import os
import shlex
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from image_ddpm.quality.inputs import read_input
from utils.process.errors import DataError
from utils.untrusted.arrays import read_npz


class _Command:
    """Runs a shell command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self._command = f"touch {shlex.quote(str(marker))}"

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self._command,)


def _header(shape: str, descr: str = "|u1") -> bytes:
    """A ``.npy`` header that claims this shape, without values."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": descr, "fortran_order": False, "shape": (1,)}
    )
    old = buffer.getvalue()
    text = old[10:].replace(b"(1,)", shape.encode()).rstrip() + b"\n"
    return old[:8] + len(text).to_bytes(2, "little") + text


def _zip(path: Path, data: bytes, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("arr_0.npy", data)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_come_back_and_others_are_not_looked_at(tmp_path: Path, save: Any) -> None:
    path, marker = tmp_path / "x.npz", tmp_path / "ran"
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    save(path, images, mean=np.asfortranarray(np.eye(3)), labels=np.array([_Command(marker)]))
    found = read_npz(str(path), f"--samples {path}", ("mean", "arr_0", "count"))
    assert list(found) == ["mean", "arr_0"]
    np.testing.assert_array_equal(found["arr_0"], images)
    np.testing.assert_array_equal(found["mean"], np.eye(3))
    assert not marker.exists()


def test_pickled_objects_are_refused_and_not_run(tmp_path: Path) -> None:
    path, marker = tmp_path / "x.npz", tmp_path / "ran"
    np.savez(path, np.array([_Command(marker)], dtype=object))
    with pytest.raises(DataError, match=r"--samples .*x\.npz .*pickled"):
        read_npz(str(path), f"--samples {path}", ("arr_0",))
    assert not marker.exists()


@pytest.mark.parametrize(
    ("data", "compression", "part"),
    [
        (_header("(2, 99999999999)"), zipfile.ZIP_STORED, "room"),
        (_header("(99999999999,)") + bytes(9_000), zipfile.ZIP_DEFLATED, "room"),
        (_header("(4,)") + bytes(3), zipfile.ZIP_STORED, "no whole"),
        (_header("(4,)") + bytes(5), zipfile.ZIP_STORED, "behind its end"),
        (_header("(-4,)") + bytes(4), zipfile.ZIP_STORED, "impossible shape"),
        (b"no array", zipfile.ZIP_STORED, "no whole"),
        (b"", zipfile.ZIP_STORED, "no whole"),
        (_header("(4,)") + bytes(4), zipfile.ZIP_BZIP2, "packed"),
        (b"\x93NUMPY\x03\x00" + bytes(60), zipfile.ZIP_STORED, "has format"),
    ],
)
def test_what_is_no_array_is_refused(
    tmp_path: Path, data: bytes, compression: int, part: str
) -> None:
    path = _zip(tmp_path / "x.npz", data, compression)
    with pytest.raises(DataError, match=part) as caught:
        read_npz(str(path), f"--reference {path}", ("arr_0",))
    assert str(caught.value).startswith(f"--reference {path}")


@given(place=st.integers(0, 10_000), kind=st.sampled_from(["cut", "flip"]))
@settings(deadline=None, max_examples=150)
def test_any_damage_is_refused_or_leaves_the_array_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, place: int, kind: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    images = np.random.default_rng(0).integers(0, 256, (3, 5, 5, 3), dtype=np.uint8)
    np.savez(path, images)
    data = bytearray(path.read_bytes())
    place %= len(data)
    if kind == "cut":
        del data[place:]
    else:
        data[place] ^= 0x55
    path.write_bytes(data)
    try:
        found = read_npz(str(path), f"--samples {path}", ("arr_0",))
    except DataError as error:
        assert "damaged.npz" in str(error)
    else:  # a date, say; or a name that is no longer asked for
        assert not found or np.array_equal(found["arr_0"], images)


def test_missing_file_and_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--samples .*none\.npz"):
        read_input("--samples", str(tmp_path / "none.npz"), 0, 0)
    with pytest.raises(DataError, match="no whole"):
        read_npz(str(tmp_path), str(tmp_path), ("arr_0",))
