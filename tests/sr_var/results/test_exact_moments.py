"""The file of exact moments: read safely, refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sr_var.results.moments import load_truth
from utils.process.errors import DataError

SIZE = 8
SHAPE = (SIZE, SIZE, 3)


def _write(folder: Path, **changes: Any) -> None:
    arrays: dict[str, Any] = {
        "mean": np.full(SHAPE, 100.0),
        "variance": np.full(SHAPE, 16.0),
        "third_central_moment": np.zeros(SHAPE),
        "fourth_central_moment": np.full(SHAPE, 768.0),
    }
    arrays = {name: array for name, array in {**arrays, **changes}.items() if array is not None}
    np.savez(folder / "exact_moments.npz", **arrays)


def test_exact_moments_are_read_and_their_absence_is_none(tmp_path: Path) -> None:
    assert load_truth(str(tmp_path), SIZE) is None
    _write(tmp_path)
    truth = load_truth(str(tmp_path), SIZE)
    assert truth is not None
    assert truth.variance[0, 0, 0] == 16 and truth.fourth[0, 0, 0] == 768


@pytest.mark.parametrize(
    "changes",
    [
        {"mean": np.zeros((4, 4, 3))},
        {"mean": np.full(SHAPE, np.nan)},
        {"variance": np.full(SHAPE, -1.0)},
        {"fourth_central_moment": None},
        {"variance": np.array([object()])},
    ],
    ids=["shape", "nan", "negative", "missing", "object"],
)
def test_wrong_exact_moments_are_refused_by_name(tmp_path: Path, changes: dict[str, Any]) -> None:
    _write(tmp_path, **changes)
    with pytest.raises(DataError, match=r"exact_moments\.npz"):
        load_truth(str(tmp_path), SIZE)


@pytest.mark.parametrize("content", [b"", b"PK", b"\x80\x04N."])
def test_damaged_exact_moments_are_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "exact_moments.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"exact_moments\.npz"):
        load_truth(str(tmp_path), SIZE)
