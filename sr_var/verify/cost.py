"""What each route costs: network evaluations per image. Measures no time."""

from __future__ import annotations

import json
import os
from typing import Any

from diffusion.respace import space_timesteps
from diffusion.schedules import get_named_beta_schedule
from sr_var.sample_jobs import SETTINGS_FILE

# one of the mean net, one of the variance net
_EVALUATIONS_OF_THE_NETS = 2


def cost(samples_dir: str, num_samples: int) -> dict[str, Any]:
    """Section ``cost``: 2 for the nets; samples × steps for the samples, None if unknown."""
    steps = num_steps(samples_dir)
    return {
        "nets": {"evaluations_per_image": _EVALUATIONS_OF_THE_NETS},
        "samples": {
            "steps": steps,
            "evaluations_per_image": None if steps is None else num_samples * steps,
        },
    }


def num_steps(samples_dir: str) -> int | None:
    """Steps of a sample by the settings that the sampler left; None without (readable) ones."""
    try:
        with open(os.path.join(samples_dir, SETTINGS_FILE), encoding="utf-8") as file:
            settings = json.load(file)
        length, respacing = int(settings["diffusion_steps"]), settings["timestep_respacing"]
        betas = get_named_beta_schedule(settings["noise_schedule"], length)
        return len(space_timesteps(length, respacing or [length], betas))
    except (OSError, ValueError, KeyError, TypeError):
        return None
