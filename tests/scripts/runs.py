"""Flags that let each script run to its end on the tiny data, writing only below one folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.pipeline import TRAINING, Pipeline
from tests.tiny import DENOISER, PROCESS, REGRESSION_NET, run, tree, words

TRAININGS = ["sr_mean_train", "sr_var_train", "ddpm_sr_train"]
SCRIPTS = [
    "sr_data_info",
    *TRAININGS,
    "sr_mean_test",
    "sr_var_test",
    "ddpm_sr_sample",
    "sr_var_verification",
]
# every folder that a script makes
FOLDERS = [
    *[(script, "log_dir") for script in SCRIPTS],
    *[(script, "model_save_dir") for script in TRAININGS],
    *[(script, "output_dir") for script in SCRIPTS[:1] + SCRIPTS[4:7]],
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


def info_key(script: str) -> str:
    """The flag of the info dict."""
    return "to_sample_images_dict_path" if script == "ddpm_sr_sample" else "data_info_dict_path"


def assert_refused(
    pipeline: Pipeline, script: str, root: Path, code: int, *parts: str, **changes: Any
) -> None:
    """The script ends with the code, one message that has all parts, and no result."""
    outcome = run(script, words(flags_of(pipeline, script, root), **changes))
    assert outcome.code == code, f"exit code {outcome.code}: {outcome.err}"
    assert "Traceback" not in outcome.err
    for part in parts:
        assert part in outcome.err, f"{part!r} is not in: {outcome.err}"
    results = {path for path in tree(root) if path.startswith(("out/", "save/"))}
    assert {path for path in results if not Path(path).name.startswith(".")} == set()
