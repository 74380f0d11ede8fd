"""The IDX reader on good, damaged and hostile files."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from noisy_label.files import find_idx, read_idx
from utils.process.errors import DataError

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)


def idx_bytes(items: np.ndarray, num_items: int | None = None) -> bytes:  # type: ignore[type-arg]
    """A file of the format; ``num_items`` is what its header claims."""
    shape = (items.shape[0] if num_items is None else num_items, *items.shape[1:])
    header = bytes([0, 0, 8, items.ndim]) + struct.pack(f">{items.ndim}I", *shape)
    return header + items.tobytes()


@pytest.mark.parametrize("is_zipped", [False, True])
def test_images_and_labels_come_back(tmp_path: Path, is_zipped: bool) -> None:
    for items, shape in ((IMAGES, (28, 28)), (np.array([7, 0, 9], np.uint8), ())):
        data = idx_bytes(items)
        path = tmp_path / "file"
        path.write_bytes(gzip.compress(data) if is_zipped else data)
        np.testing.assert_array_equal(read_idx(str(path), shape), items)


WHOLE = idx_bytes(IMAGES)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "nothing"),
        (WHOLE[:10], "no IDX"),
        (b"\x89PNG" + WHOLE[4:], "89504e47"),
        (idx_bytes(np.zeros(3, np.uint8)), "no IDX"),
        (WHOLE[:-1], "3 items, 2352"),
        (WHOLE + b"\0", "holds more"),
        (idx_bytes(IMAGES, 4), "4 items"),
        (idx_bytes(IMAGES, 0), "0 items"),
        (idx_bytes(IMAGES, 2**32 - 1), "4294967295 items"),
        (idx_bytes(np.zeros((3, 28, 27), np.uint8)), "28×27"),
        (gzip.compress(WHOLE)[:-9], "is damaged"),
        (b"\x1f\x8b" + b"\0" * 20, "is damaged"),
    ],
)
def test_damaged_files_are_refused_by_name(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(data)
    with pytest.raises(DataError, match="train-images-idx3-ubyte") as error:
        read_idx(str(path), (28, 28))
    assert message in str(error.value)


def test_header_that_lies_makes_no_room_for_its_claim(tmp_path: Path) -> None:
    """Ten million images would be 7.8 GB."""
    path = tmp_path / "liar"
    path.write_bytes(idx_bytes(IMAGES, 10_000_000))
    tracemalloc.start()
    with pytest.raises(DataError, match="cut off"):
        read_idx(str(path), (28, 28))
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


def test_archive_that_unpacks_without_end_is_left_at_its_claim(tmp_path: Path) -> None:
    """50 MB of zeros in 50 kB: reading stops one byte behind the three images."""
    path = tmp_path / "bomb"
    path.write_bytes(gzip.compress(WHOLE + bytes(50_000_000)))
    tracemalloc.start()
    with pytest.raises(DataError, match="holds more"):
        read_idx(str(path), (28, 28))
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, len(WHOLE) - 1), value=st.integers(0, 255), is_zipped=st.booleans())
def test_any_changed_byte_gives_items_or_an_error(
    tmp_path: Path, place: int, value: int, is_zipped: bool
) -> None:
    data = bytearray(gzip.compress(WHOLE, mtime=0) if is_zipped else WHOLE)
    data[place % len(data)] = value
    path = tmp_path / "mutated"
    path.write_bytes(bytes(data))
    try:
        assert read_idx(str(path), (28, 28)).shape == (3, 28, 28)
    except DataError as error:
        assert "mutated" in str(error)


def test_file_is_found_under_the_names_that_people_have(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="t10k-labels-idx1-ubyte"):
        find_idx(str(tmp_path), "t10k-labels-idx1-ubyte")
    for name in ("t10k-labels.idx1-ubyte.gz", "t10k-labels-idx1-ubyte"):
        (tmp_path / name).touch()
        assert find_idx(str(tmp_path), "t10k-labels-idx1-ubyte") == str(tmp_path / name)
