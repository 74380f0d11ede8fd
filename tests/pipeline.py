"""One run of every super-resolution script on tiny data, whose files many tests look at."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import tiny
from tests.tiny import Outcome, TinyData

MEAN_STEPS, VAR_STEPS, DDPM_STEPS = 4, 3, 2
NUM_SAMPLES = 4
TRAINING = {"batch_size": 2, "microbatch": 1, "log_interval": 1, "save_interval": 2}


@dataclass(frozen=True)
class Pipeline:
    """Where everything is; ``said`` holds what each script printed.

    ``mean_steps``, ``var_steps``, ``ddpm_steps`` are the last steps of the three trainings.
    """

    root: Path
    data: TinyData
    said: dict[str, Outcome] = field(default_factory=dict)
    mean_steps: int = MEAN_STEPS
    var_steps: int = VAR_STEPS
    ddpm_steps: int = DDPM_STEPS

    def log_dir(self, task: str) -> Path:
        """``logs/<task>``."""
        return self.root / "logs" / task

    def save_dir(self, task: str) -> Path:
        """``checkpoints/<task>``."""
        return self.root / "checkpoints" / task

    @property
    def samples_dir(self) -> Path:
        """Output of the sampler."""
        return self.root / "outputs" / "ddpm_sr"

    @property
    def nets_dir(self) -> Path:
        """Output of the two test scripts."""
        return self.root / "outputs" / "sr_var"

    @property
    def mean_model(self) -> Path:
        """The last checkpoint of the mean net."""
        return self.save_dir("sr_mean") / f"model{self.mean_steps:06d}.pt"

    @property
    def var_model(self) -> Path:
        """The last checkpoint of the variance net."""
        return self.save_dir("sr_var") / f"model{self.var_steps:06d}.pt"

    @property
    def ddpm_model(self) -> Path:
        """The last checkpoint of the denoiser."""
        return self.save_dir("ddpm_sr") / f"model{self.ddpm_steps:06d}.pt"

    def folders(self, task: str) -> dict[str, Any]:
        """``--log_dir`` and ``--model_save_dir`` of a training."""
        return {"log_dir": self.log_dir(task), "model_save_dir": self.save_dir(task)}

    @property
    def mean_net_flags(self) -> dict[str, Any]:
        """The mean net that the variance scripts stand on."""
        return {
            "mean_model_path": self.mean_model,
            "mean_model_args_path": self.log_dir("sr_mean") / "mean_model_args.pkl",
        }

    @property
    def mean_test_flags(self) -> dict[str, Any]:
        """What the mean test needs, except ``--output_dir``."""
        flags = {"log_dir": self.log_dir("sr_mean_test"), "model_path": self.mean_model}
        return {**self.data.tested_flags, **flags}

    @property
    def var_test_flags(self) -> dict[str, Any]:
        """What the variance test needs, except ``--output_dir``."""
        flags = {"log_dir": self.log_dir("sr_var_test"), "model_path": self.var_model}
        return {**self.data.tested_flags, **self.mean_net_flags, **flags}

    @property
    def sample_flags(self) -> dict[str, Any]:
        """What the sampler needs, except ``--output_dir`` and ``--log_dir``."""
        flags = {"model_path": self.ddpm_model, "num_samples_per_image": NUM_SAMPLES}
        return {**tiny.DENOISER, **tiny.PROCESS, **self.data.sample_flags, **flags}

    @property
    def verification_flags(self) -> dict[str, Any]:
        """What the verification needs, except ``--log_dir``."""
        return {
            **self.data.tested_flags,
            "large_size": tiny.LARGE,
            "ddpm_sr_output_dir": self.samples_dir,
            "sr_model_output_dir": self.nets_dir,
            "num_samples": NUM_SAMPLES,
            "mean_model_step": self.mean_steps,
            "var_model_step": self.var_steps,
        }


def flags_of_steps(run: Pipeline) -> dict[str, dict[str, Any]]:
    """The flags of every script, in an order in which they can run."""
    data = run.data
    groups: dict[str, list[dict[str, Any]]] = {
        "sr_data_info": [
            {"data_dir": data.data_dir, "output_dir": run.root / "data"},
            {"log_dir": run.root / "logs"},
        ],
        "sr_mean_train": [tiny.REGRESSION_NET, data.train_flags, TRAINING, run.folders("sr_mean")]
        + [{"max_step": run.mean_steps}],
        "sr_var_train": [tiny.REGRESSION_NET, data.train_flags, TRAINING, run.folders("sr_var")]
        + [run.mean_net_flags, {"last_layer_type": "exp", "max_step": run.var_steps}],
        "sr_mean_test": [run.mean_test_flags, {"output_dir": run.nets_dir, "batch_size": 2}],
        "sr_var_test": [run.var_test_flags, {"output_dir": run.nets_dir, "batch_size": 2}],
        "ddpm_sr_train": [tiny.DENOISER, tiny.PROCESS, data.train_flags, TRAINING]
        + [run.folders("ddpm_sr")]
        + [{"timestep_respacing": "", "ema_rate": "0.9", "max_step": run.ddpm_steps}],
        "ddpm_sr_sample": [run.sample_flags, {"output_dir": run.samples_dir, "batch_size": 4}]
        + [{"log_dir": run.log_dir("sample")}],
        "sr_var_verification": [run.verification_flags, {"log_dir": run.log_dir("compare")}],
    }
    return {
        script: {name: value for group in parts for name, value in group.items()}
        for script, parts in groups.items()
    }


def run_pipeline(root: Path, data: TinyData) -> Pipeline:
    """Runs every script once; raises if one of them fails."""
    run = Pipeline(root, data)
    for script, flags in flags_of_steps(run).items():
        if script == "sr_mean_test":
            copy_model_flags(run)
        run.said[script] = tiny.done(script, tiny.words(flags))
    return run


def copy_model_flags(run: Pipeline) -> None:
    """The tests log elsewhere, so that what the trainings logged can be looked at by itself."""
    for task, kind in (("sr_mean", "mean"), ("sr_var", "var")):
        folder = run.log_dir(f"{task}_test")
        folder.mkdir(exist_ok=True)
        shutil.copy(run.log_dir(task) / f"{kind}_model_args.pkl", folder)
