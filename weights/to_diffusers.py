"""A denoiser as a folder that diffusers reads: network, scheduler and, if they fit, pipeline."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddpm.flags import DiffusionFlags
from diffusion.reverse import RESCALED_STEPS
from diffusion.schedules import Float64Array, get_named_beta_schedule
from models.layers import resize_linear
from models.unet import SuperResModel, TimeConditionedUNet
from utils.files.atomic import write_json_atomic
from utils.files.storage import make_folder
from utils.process.errors import CheckpointError
from utils.untrusted.safe_tensors import write_safetensors
from weights.diffusers_names import unet2d_config, unet2d_weights
from weights.flags import ExportFlags
from weights.graphs import Graph, quiet_exporter, require_same
from weights.networks import stored_flags
from weights.source import Log, Source
from weights.source_graphs import graph_of

_USAGE = """```python
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

unet = UNet2DModel.from_pretrained("{name}", subfolder="unet")
scheduler = DDPMScheduler.from_pretrained("{name}", subfolder="scheduler")
pipe = DDPMPipeline.from_pretrained("{name}")  # where there is a model_index.json
```

A network with a low-res image takes it, upsampled bilinearly, behind x in the channels.
"""
# of the names and flags that are written, and the first with all of them
_VERSION = "0.30.0"


def write(source: Source, path: str, flags: ExportFlags, log: Log) -> None:
    """Write the folder, unless diffusers is here and computes something else from it.

    Raises:
        CheckpointError: as `graph_of`, or the network is none that diffusers has.
        DataError: the outputs differ.
        ValueError: a flag of the network is in the way.
        StorageError: a file cannot be written.
    """
    graph = graph_of(source, log)
    network = graph.module.network
    if not isinstance(network, (TimeConditionedUNet, SuperResModel)):
        raise CheckpointError(
            f"{source.path} is of a {source.network_class}, and --format diffusers is for "
            "denoising U-Nets: give --format onnx or torch_export"
        )
    config = {"_diffusers_version": _VERSION, **unet2d_config(network)}
    weights = unet2d_weights(network)
    if importlib.util.find_spec("diffusers") is not None:
        require_same(graph, _theirs(graph, config, weights), "diffusers", log)
    else:
        log("not checked: diffusers is not installed (pip install diffusers)")
    process = stored_flags(source, DiffusionFlags)
    folders = {name: os.path.join(path, name) for name in ("unet", "scheduler")}
    make_folder(folders["unet"], "--output_path")
    about = {"format": "pt", "step": str(source.step), "checkpoint_sha256": source.sha256}
    write_safetensors(
        os.path.join(folders["unet"], "diffusion_pytorch_model.safetensors"), weights, about
    )
    write_json_atomic(os.path.join(folders["unet"], "config.json"), config)
    reason = _no_scheduler(process)
    if reason:
        log(f"notice: no scheduler and no pipeline, since {reason}")
        return
    make_folder(folders["scheduler"], "--output_path")
    write_json_atomic(
        os.path.join(folders["scheduler"], "scheduler_config.json"), scheduler_config(process)
    )
    if isinstance(network, SuperResModel) or network.config.num_classes is not None:
        log("notice: no model_index.json, since DDPMPipeline knows no condition")
        return
    write_json_atomic(os.path.join(path, "model_index.json"), _PIPELINE)


def usage(source: Source, name: str) -> str:
    """How to use the folder, for the model card."""
    return _USAGE.format(name=name)


_PIPELINE = {
    "_class_name": "DDPMPipeline",
    "_diffusers_version": _VERSION,
    "scheduler": ["diffusers", "DDPMScheduler"],
    "unet": ["diffusers", "UNet2DModel"],
}


def scheduler_config(process: DiffusionFlags) -> dict[str, Any]:
    """The flags of the `DDPMScheduler` of a process: the same betas, and ancestral steps.

    A linear schedule is told by its ends, any other by its values. Its timesteps are those that the
    network is told: with `rescale_timesteps` 0 to 999, among them the T of the chain.
    """
    betas = get_named_beta_schedule(process.noise_schedule, process.diffusion_steps)
    if process.rescale_timesteps:
        betas = _in_between(betas, int(RESCALED_STEPS) // betas.size)
    line = np.linspace(betas[0], betas[-1], betas.size)
    is_line = bool(np.allclose(betas, line, rtol=1e-12, atol=0.0))
    variance = "fixed_small" if process.sigma_small else "fixed_large"
    return {
        "_class_name": "DDPMScheduler",
        "_diffusers_version": _VERSION,
        "num_train_timesteps": betas.size,
        "beta_schedule": "linear",
        "beta_start": float(betas[0]),
        "beta_end": float(betas[-1]),
        "trained_betas": None if is_line else betas.tolist(),
        "variance_type": "learned_range" if process.learn_sigma else variance,
        "prediction_type": "sample" if process.predict_xstart else "epsilon",
        "clip_sample": True,
        "clip_sample_range": 1.0,
        "thresholding": False,
        "timestep_spacing": "leading",
        "steps_offset": 0,
        "rescale_betas_zero_snr": False,
    }


def _in_between(betas: Float64Array, times: int) -> Float64Array:
    """Betas of `times` as many steps: alpha_bar is the same at every step of the chain.

    Between two of them its logarithm is linear.
    """
    finer = (1.0 - betas) ** (1.0 / times)
    alphas = np.concatenate([1.0 - betas[:1], np.repeat(finer[1:], times)])
    alphas = np.concatenate([alphas, np.repeat(finer[-1:], times - 1)])
    return 1.0 - alphas


def _no_scheduler(process: DiffusionFlags) -> str:
    """Why diffusers has no scheduler for a process; empty if it has."""
    if process.rescale_timesteps and RESCALED_STEPS % process.diffusion_steps:
        return (
            f"--rescale_timesteps True with --diffusion_steps {process.diffusion_steps}, no "
            f"divisor of {RESCALED_STEPS:.0f}, tells the network fractions, and schedulers of "
            "diffusers have whole timesteps"
        )
    return ""


def _theirs(
    graph: Graph, config: dict[str, Any], weights: dict[str, Tensor]
) -> Callable[[Sequence[Tensor]], Tensor]:
    """The network as diffusers has it; a low-res image is upsampled here and put beside x."""
    with quiet_exporter():
        model_class = importlib.import_module("diffusers").UNet2DModel
        model = model_class.from_config(config).eval()
        model.load_state_dict(weights, strict=True)
    names = [one.name for one in graph.inputs]

    def run(inputs: Sequence[Tensor]) -> Tensor:
        given = dict(zip(names, inputs, strict=True))
        x, low_res = given["x"], given.get("low_res")
        if low_res is not None:
            x = torch.cat([x, resize_linear(low_res, tuple(x.shape[2:]))], dim=1)
        # what the network is told for a timestep of its chain
        timesteps = graph.module.told(given["timesteps"])  # type: ignore[operator]
        output: Tensor = model(x, timesteps, class_labels=given.get("labels")).sample
        return output

    return run
