"""Held-out photographs and nets' results of them, whose errors in stds are known; no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.sr_var.hand_made import MEAN_STEP, VAR_STEP, Results
from tests.tiny import words
from utils.files.atomic import write_json_atomic
from utils.untrusted.pickles import dump_pickle

SIDE = 16
MEAN_SHA, VAR_SHA = "a" * 64, "b" * 64


def make_held_out(
    root: Path, names: list[str], *, seed: int = 0, scale: float = 2.0, is_stamped: bool = True
) -> Results:
    """Images whose errors are `scale` times the std that the nets say, and normal."""
    made, rng = Results(root), np.random.default_rng(seed)
    for name in names:
        picture = rng.integers(60, 200, (SIDE, SIDE, 3)).astype(np.uint8)
        path = root / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
        std = rng.uniform(2, 8, picture.shape)
        made.add_nets(name, picture + scale * std * rng.standard_normal(picture.shape), std**2)
    dump_pickle({"all": {"y": 0, "file_names": names}}, root / "info.pkl")
    if is_stamped:
        stamp(made, MEAN_SHA, VAR_SHA)
    return made


def stamp(made: Results, mean: str, var: str) -> None:
    """The records that sr_mean_test.py and sr_var_test.py leave."""
    nets = made.root / "nets"
    write_json_atomic(nets / f".mean_{MEAN_STEP}.json", {"models": [mean]})
    write_json_atomic(nets / f".var_{VAR_STEP}.json", {"models": [var, mean]})


def argv(made: Results, **changes: Any) -> list[str]:
    """The flags that both scripts share."""
    return words(
        {
            "data_dir": made.root / "images",
            "data_info_dict_path": made.root / "info.pkl",
            "large_size": SIDE,
            "sr_model_output_dir": made.root / "nets",
            "mean_model_step": MEAN_STEP,
            "var_model_step": VAR_STEP,
            "log_dir": made.root / "log",
            "num_threads": 1,
            **changes,
        }
    )


def calibrate_argv(made: Results, **changes: Any) -> list[str]:
    """The flags of sr_calibrate.py."""
    return argv(made, output_dir=made.root / "out", **changes)
