"""Flags that let each script run to its end on the tiny data, writing only below one folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.pipeline import TRAINING, Pipeline
from tests.tiny import DENOISER, PROCESS, REGRESSION_NET

TRAININGS = ["sr_mean_train", "sr_var_train", "ddpm_sr_train"]
SCRIPTS = [
    "sr_data_info",
    *TRAININGS,
    "sr_mean_test",
    "sr_var_test",
    "ddpm_sr_sample",
    "sr_var_verification",
]


def flags_of(pipeline: Pipeline, script: str, root: Path) -> dict[str, Any]:
    """The flags of one script; trainings take one step."""
    train = {"log_dir": root / "log", "model_save_dir": root / "save", "max_step": 1, **TRAINING}
    data, output = pipeline.data, {"output_dir": root / "out"}
    groups: dict[str, list[dict[str, Any]]] = {
        "sr_data_info": [{"data_dir": data.data_dir, "log_dir": root / "log"}, output],
        "sr_mean_train": [REGRESSION_NET, data.train_flags, train],
        "sr_mean_test": [pipeline.mean_test_flags, output],
        "sr_var_train": [REGRESSION_NET, data.train_flags, train, pipeline.mean_net_flags],
        "sr_var_test": [pipeline.var_test_flags, output],
        "ddpm_sr_train": [DENOISER, {**PROCESS, "timestep_respacing": ""}, data.train_flags, train],
        "ddpm_sr_sample": [pipeline.sample_flags, output, {"log_dir": root / "log"}],
        "sr_var_verification": [pipeline.verification_flags, {"log_dir": root / "log"}],
    }
    return {name: value for group in groups[script] for name, value in group.items()}
