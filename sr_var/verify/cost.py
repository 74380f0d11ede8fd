"""What each route costs an image: network evaluations, and seconds where its runs left them."""

from __future__ import annotations

import os
from typing import Any

from diffusion.schedules import get_named_beta_schedule
from diffusion.spacing import space_timesteps
from sr_var.flags.scripts import VerificationFlags
from sr_var.results.folder import seconds_path, stamp_path
from sr_var.results.jobs import SECONDS_FILE, SETTINGS_FILE
from utils.files.json import read_json
from utils.machine.cost import seconds_per_item


def cost(flags: VerificationFlags) -> dict[str, Any]:
    """Section ``cost``; ``None`` for what is not known.

    Nets: one evaluation of the mean net and one of the variance net, or one of a baseline; the
    seconds are those of the variance test, which runs both. Samples: times samples, times steps.
    """
    steps = num_steps(flags.ddpm_sr_output_dir)
    a_sample = seconds_per_item(os.path.join(flags.ddpm_sr_output_dir, SECONDS_FILE))
    nets_dir, step = flags.sr_model_output_dir, flags.var_model_step
    is_baseline = os.path.exists(stamp_path(nets_dir, "baseline", step))
    kind = "baseline" if is_baseline else "var"
    return {
        "nets": {
            "evaluations_per_image": 1 if is_baseline else 2,
            "seconds_per_image": seconds_per_item(seconds_path(nets_dir, kind, step)),
        },
        "samples": {
            "steps": steps,
            "evaluations_per_image": None if steps is None else flags.num_samples * steps,
            "seconds_per_image": None if a_sample is None else flags.num_samples * a_sample,
        },
    }


def num_steps(samples_dir: str) -> int | None:
    """Steps of a sample by the settings that the sampler left; None without (readable) ones."""
    try:
        settings = read_json(os.path.join(samples_dir, SETTINGS_FILE))
        length, respacing = int(settings["diffusion_steps"]), settings["timestep_respacing"]
        betas = get_named_beta_schedule(settings["noise_schedule"], length)
        return len(space_timesteps(length, respacing or [length], betas))
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None
