"""Measured pairs on disk, and the flags of the scripts that take them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.tiny import Outcome, run, words

NET = {"network": "subpixel", "model_channels": 8, "num_res_blocks": 1, "large_size": 16}
NUM_PAIRS = 12


def check_pairs(root: Path, **changes: Any) -> Outcome:
    """`sr_data_info.py` of both folders."""
    flags = {"data_dir": root / "true", "pairs_dir": root / "measured", "output_dir": root / "info"}
    more = {"log_dir": root / "log_info", "test_share": 0.3, "label_from": "none", "crop": "native"}
    return run("sr_data_info", words(flags, more, large_size=16, **changes))


def pair_data(root: Path, file: str = "train_data_info.pkl") -> dict[str, Any]:
    """The flags that name the pairs and a list of them."""
    folders = {"data_dir": root / "true", "pairs_dir": root / "measured", "crop": "native"}
    return {**folders, "data_info_dict_path": root / "info" / file}


def without(argv: Sequence[str], flag: str) -> list[str]:
    """Arguments without a flag and its value."""
    place = list(argv).index(flag)
    return [*argv[:place], *argv[place + 2 :]]


def require_one_line(outcome: Outcome, code: int, *told: str) -> None:
    """The exit code, and words in the last line of what was said of the error."""
    assert outcome.code == code, (outcome.out, outcome.err)
    last = outcome.err.strip().splitlines()[-1]
    assert all(word in last for word in told), last


def write_kinds(root: Path, measured: NDArray[Any], truth: NDArray[Any]) -> None:
    """Pairs of other channels and types: X of `measured` (h, w, C'), Y of `truth` (H, W, C)."""
    for folder in ("true", "measured"):
        (root / folder).mkdir()
    for seed in range(NUM_PAIRS):
        np.save(root / "measured" / f"p{seed:02}.npy", np.roll(measured, seed, axis=0))
        image = np.roll(truth, seed * truth.shape[0] // measured.shape[0], axis=0)
        Image.fromarray(image.squeeze()).save(root / "true" / f"p{seed:02}.png")


def kinds(num_channels: int, out_channels: int, kind: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """An image of whole numbers from 0 to `num_channels` thousands, and an 8-bit one."""
    rng = np.random.default_rng(0)
    measured = (1000 * rng.random((20, 20, num_channels))).astype(kind)
    return measured, rng.integers(0, 256, (20, 20, out_channels)).astype(np.uint8)
