"""Flag sets of the published image models, by name: ``--preset cifar10_uncond_50M``.

Facts from the documents of improved-diffusion (arXiv 2102.09672) and guided-diffusion
(arXiv 2105.05233); their checkpoints load as they are. A flag on the command line goes before its
value in the preset. No torch.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from utils.script_util import flag

CHECKPOINT_DIR = "checkpoints/image_ddpm"


@dataclass(frozen=True)
class Preset:
    """One published model.

    Attributes:
        file: its checkpoint's published name.
        flags: what differs from the scripts' defaults.
    """

    file: str
    flags: Mapping[str, Any]


_HYBRID: dict[str, Any] = {"learn_sigma": True, "diffusion_steps": 4000, "noise_schedule": "cosine"}
_VLB = {**_HYBRID, "use_kl": True, "schedule_sampler": "loss-second-moment"}
_IMAGENET_64 = {"image_size": 64, "num_channels": 128, "num_res_blocks": 3, "batch_size": 128}
_CIFAR_10 = {"image_size": 32, "num_channels": 128, "num_res_blocks": 3, "dropout": 0.3}
_UNSCALED = {"rescale_timesteps": False, "rescale_learned_sigmas": False}
_LSUN_IDDPM = {
    **_UNSCALED,
    "image_size": 256,
    "num_channels": 128,
    "num_res_blocks": 2,
    "num_heads": 1,
    "learn_sigma": True,
    "use_scale_shift_norm": False,
    "attention_resolutions": "16",
    "diffusion_steps": 1000,
    "noise_schedule": "linear",
}
_GUIDED = {
    **_UNSCALED,
    "attention_resolutions": "32,16,8",
    "diffusion_steps": 1000,
    "noise_schedule": "linear",
    "learn_sigma": True,
    "num_channels": 256,
    "num_res_blocks": 2,
    "num_head_channels": 64,
    "resblock_updown": True,
    "use_fp16": True,
}
_LSUN_GUIDED = {**_GUIDED, "image_size": 256, "dropout": 0.1}


def _preset(file: str, *parts: Mapping[str, Any], **more: Any) -> Preset:
    flags: dict[str, Any] = {}
    for part in (*parts, more):
        flags |= part
    return Preset(file, MappingProxyType(flags))


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "imagenet64_uncond_100M": _preset(
            "imagenet64_uncond_100M_1500K.pt", _IMAGENET_64, _HYBRID, lr=1e-4
        ),
        "imagenet64_uncond_vlb_100M": _preset(
            "imagenet64_uncond_vlb_100M_1500K.pt", _IMAGENET_64, _VLB, lr=1e-4
        ),
        "cifar10_uncond_50M": _preset(
            "cifar10_uncond_50M_500K.pt", _CIFAR_10, _HYBRID, lr=1e-4, batch_size=128
        ),
        "cifar10_uncond_vlb_50M": _preset(
            "cifar10_uncond_vlb_50M_500K.pt", _CIFAR_10, _VLB, lr=1e-4, batch_size=128
        ),
        "imagenet64_cond_270M": _preset(
            "imagenet64_cond_270M_250K.pt",
            _IMAGENET_64,
            _HYBRID,
            _UNSCALED,
            num_channels=192,
            class_cond=True,
            lr=3e-4,
            batch_size=2048,
        ),
        "lsun_uncond_100M_bs128": _preset(
            "lsun_uncond_100M_1200K_bs128.pt", _LSUN_IDDPM, lr=1e-4, batch_size=128
        ),
        "lsun_uncond_100M_bs64": _preset(
            "lsun_uncond_100M_2400K_bs64.pt", _LSUN_IDDPM, lr=2e-5, batch_size=128
        ),
        "64x64_diffusion": _preset(
            "64x64_diffusion.pt",
            _GUIDED,
            image_size=64,
            num_channels=192,
            num_res_blocks=3,
            class_cond=True,
            dropout=0.1,
            noise_schedule="cosine",
            use_new_attention_order=True,
        ),
        "128x128_diffusion": _preset(
            "128x128_diffusion.pt",
            _GUIDED,
            image_size=128,
            class_cond=True,
            num_head_channels=-1,
            num_heads=4,
        ),
        "256x256_diffusion": _preset(
            "256x256_diffusion.pt", _GUIDED, image_size=256, class_cond=True
        ),
        "256x256_diffusion_uncond": _preset("256x256_diffusion_uncond.pt", _GUIDED, image_size=256),
        "512x512_diffusion": _preset(
            "512x512_diffusion.pt", _GUIDED, image_size=512, class_cond=True, use_fp16=False
        ),
        "lsun_bedroom": _preset("lsun_bedroom.pt", _LSUN_GUIDED),
        "lsun_cat": _preset("lsun_cat.pt", _LSUN_GUIDED),
        "lsun_horse": _preset("lsun_horse.pt", _LSUN_GUIDED),
        "lsun_horse_nodropout": _preset("lsun_horse_nodropout.pt", _LSUN_GUIDED, dropout=0.0),
    }
)
# what belongs to a training; a sampling script has a batch size of another kind
_TRAINING_ONLY = ("lr", "batch_size", "schedule_sampler")


@dataclass(frozen=True)
class PresetFlags:
    """The flags of a published model; flags given beside it go first."""

    preset: str = flag("", "name of a published model", tuple(PRESETS))


def settle_preset(args: argparse.Namespace) -> argparse.Namespace:
    """The arguments with the preset's values for the flags that were not given.

    ``model_path``, where the script has it, becomes ``checkpoints/image_ddpm/<published file>``.
    """
    if not args.preset:
        return args
    found = PRESETS[args.preset]
    values = dict(found.flags)
    if hasattr(args, "model_path"):
        values = {name: value for name, value in values.items() if name not in _TRAINING_ONLY}
        values["model_path"] = os.path.join(CHECKPOINT_DIR, found.file)
    changed = {
        name: value
        for name, value in values.items()
        if hasattr(args, name) and name not in args.given_flags
    }
    return argparse.Namespace(**{**vars(args), **changed})
