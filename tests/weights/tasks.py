"""A tiny training of every task, and how to export what it leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.image_ddpm.tiny import NET, PROCESS
from tests.pipeline import TRAINING, Pipeline
from tests.tiny import DENOISER, REGRESSION_NET, done, words
from tests.tiny import PROCESS as SR_PROCESS

CLASSIFIER: dict[str, Any] = {
    "image_size": NET["image_size"],
    "num_classes": 3,
    "classifier_width": 8,
    "classifier_depth": 1,
    "classifier_channel_mult": "1,2",
    "classifier_attention_resolutions": "8",
    "classifier_num_head_channels": 8,
}
SUBPIXEL: dict[str, Any] = {
    "network": "subpixel",
    "large_size": 32,
    "small_size": 8,
    "model_channels": 8,
    "num_res_blocks": 1,
}
# class of the network → script that trains it
TASKS = {
    "UNetModel": "sr_mean_train",
    "SubpixelModel": "sr_mean_train",
    "VarianceModel": "sr_var_train",
    "SubpixelVarianceModel": "sr_var_train",
    "baseline": "sr_baseline_train",
    "SuperResModel": "ddpm_sr_train",
    "SubpixelDenoiser": "ddpm_sr_train",
    "TimeConditionedUNet": "image_train",
    "EncoderUNet": "classifier_train",
    "SmallCNN": "mnist_classification",
}


def train(
    pipeline: Pipeline, images: Path, digits: Path, task: str, folder: Path, **more: Any
) -> Path:
    """One step of a task; the file of the weights."""
    noise = {"diffusion_steps": 20, "noise_schedule": "cosine"}
    sr = {**pipeline.data.train_flags, **TRAINING}
    image = {"data_dir": images, "batch_size": 2, "log_interval": 1}
    sub = {**SUBPIXEL, "num_channels": 8, "predict_xstart": True, "diffusion_steps": 100}
    del sub["model_channels"]
    flags: dict[str, dict[str, Any]] = {
        "UNetModel": {**REGRESSION_NET, **sr},
        "SubpixelModel": {**SUBPIXEL, **sr, "consistent": True},
        "VarianceModel": {**REGRESSION_NET, **sr, **pipeline.mean_net_flags},
        "SubpixelVarianceModel": {**SUBPIXEL, **sr, **pipeline.mean_net_flags},
        "baseline": {**REGRESSION_NET, **sr, "objective": "quantile", "quantiles": "0.2,0.5,0.8"},
        "SuperResModel": {**DENOISER, **SR_PROCESS, **sr, "timestep_respacing": ""},
        "SubpixelDenoiser": {**sub, **sr},
        "TimeConditionedUNet": {**NET, **PROCESS, **image, "class_cond": True, "num_classes": 3},
        "EncoderUNet": {**CLASSIFIER, **noise, **image},
        "SmallCNN": {"data_dir": digits, "batch_size": 20, "log_interval": 1, "hidden_dims": "8"},
    }
    places = {"log_dir": folder / "log", "model_save_dir": folder, "max_step": 1}
    done(TASKS[task], words(flags[task], places, more))
    return folder / "model000001.pt"


def export(path: Path, output: Path, **flags: Any) -> Path:
    """The safetensors file of a checkpoint."""
    done("export", words(model_path=path, output_path=output, log_dir=output.parent, **flags))
    return output
