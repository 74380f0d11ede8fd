"""Flag sets of the published upsamplers: ``--preset 64_256_upsampler``. No torch.

Facts from the documents of guided-diffusion (arXiv 2105.05233) and improved-diffusion (arXiv
2102.09672); their checkpoints load as they are.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ddpm.flags import Preset, make_preset, settle_preset
from utils.script_util import FlagValues, flag

CHECKPOINT_DIR = "checkpoints/ddpm_sr"
_UPSAMPLER: FlagValues = {
    "num_channels": 192,
    "num_res_blocks": 2,
    "learn_sigma": True,
    "class_cond": True,
    "noise_schedule": "linear",
}
_GUIDED = {**_UPSAMPLER, "diffusion_steps": 1000, "resblock_updown": True}

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "64_256_upsampler": make_preset(
            "64_256_upsampler.pt",
            _GUIDED,
            large_size=256,
            small_size=64,
            attention_resolutions="32,16,8",
            num_heads=4,
        ),
        "128_512_upsampler": make_preset(
            "128_512_upsampler.pt",
            _GUIDED,
            large_size=512,
            small_size=128,
            attention_resolutions="32,16",
            num_head_channels=64,
        ),
        "upsample_cond": make_preset(
            "upsample_cond_500K.pt",
            _UPSAMPLER,
            diffusion_steps=4000,
            large_size=256,
            small_size=64,
            lr=3e-4,
            batch_size=256,
        ),
    }
)


@dataclass(frozen=True)
class PresetFlags:
    """The flags of a published upsampler; flags given beside it go first."""

    preset: str = flag("", "name of a published model", tuple(PRESETS))


def settle_presets(args: argparse.Namespace) -> argparse.Namespace:
    """The arguments with the preset's values for the flags that were not given."""
    return settle_preset(args, PRESETS, CHECKPOINT_DIR)
