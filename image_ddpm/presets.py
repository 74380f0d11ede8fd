"""Flag sets of the published image models, by name: ``--preset cifar10_uncond_50M``.

Facts from the documents of improved-diffusion (arXiv 2102.09672) and guided-diffusion
(arXiv 2105.05233); their checkpoints load as they are. A flag on the command line goes before its
value in the preset. No torch.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ddpm.flags import Preset, make_preset, settle_preset
from utils.script_util import FlagValues, flag

CHECKPOINT_DIR = "checkpoints/image_ddpm"


_HYBRID: FlagValues = {"learn_sigma": True, "diffusion_steps": 4000, "noise_schedule": "cosine"}
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


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "imagenet64_uncond_100M": make_preset(
            "imagenet64_uncond_100M_1500K.pt", _IMAGENET_64, _HYBRID, lr=1e-4
        ),
        "imagenet64_uncond_vlb_100M": make_preset(
            "imagenet64_uncond_vlb_100M_1500K.pt", _IMAGENET_64, _VLB, lr=1e-4
        ),
        "cifar10_uncond_50M": make_preset(
            "cifar10_uncond_50M_500K.pt", _CIFAR_10, _HYBRID, lr=1e-4, batch_size=128
        ),
        "cifar10_uncond_vlb_50M": make_preset(
            "cifar10_uncond_vlb_50M_500K.pt", _CIFAR_10, _VLB, lr=1e-4, batch_size=128
        ),
        "imagenet64_cond_270M": make_preset(
            "imagenet64_cond_270M_250K.pt",
            _IMAGENET_64,
            _HYBRID,
            _UNSCALED,
            num_channels=192,
            class_cond=True,
            lr=3e-4,
            batch_size=2048,
        ),
        "lsun_uncond_100M_bs128": make_preset(
            "lsun_uncond_100M_1200K_bs128.pt", _LSUN_IDDPM, lr=1e-4, batch_size=128
        ),
        "lsun_uncond_100M_bs64": make_preset(
            "lsun_uncond_100M_2400K_bs64.pt", _LSUN_IDDPM, lr=2e-5, batch_size=128
        ),
        "64x64_diffusion": make_preset(
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
        "128x128_diffusion": make_preset(
            "128x128_diffusion.pt",
            _GUIDED,
            image_size=128,
            class_cond=True,
            num_head_channels=-1,
            num_heads=4,
        ),
        "256x256_diffusion": make_preset(
            "256x256_diffusion.pt", _GUIDED, image_size=256, class_cond=True
        ),
        "256x256_diffusion_uncond": make_preset(
            "256x256_diffusion_uncond.pt", _GUIDED, image_size=256
        ),
        "512x512_diffusion": make_preset(
            "512x512_diffusion.pt", _GUIDED, image_size=512, class_cond=True, use_fp16=False
        ),
        "lsun_bedroom": make_preset("lsun_bedroom.pt", _LSUN_GUIDED),
        "lsun_cat": make_preset("lsun_cat.pt", _LSUN_GUIDED),
        "lsun_horse": make_preset("lsun_horse.pt", _LSUN_GUIDED),
        "lsun_horse_nodropout": make_preset("lsun_horse_nodropout.pt", _LSUN_GUIDED, dropout=0.0),
    }
)


_CLASSIFIER = {
    "classifier_width": 128,
    "classifier_attention_resolutions": "32,16,8",
    "classifier_pool": "attention",
    "classifier_resblock_updown": True,
    "classifier_use_scale_shift_norm": True,
    "classifier_depth": 2,
}
CLASSIFIER_PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "64x64_classifier": make_preset("64x64_classifier.pt", _CLASSIFIER, classifier_depth=4),
        **{
            f"{size}x{size}_classifier": make_preset(f"{size}x{size}_classifier.pt", _CLASSIFIER)
            for size in (128, 256, 512)
        },
    }
)


@dataclass(frozen=True)
class PresetFlags:
    """The flags of a published model; flags given beside it go first."""

    preset: str = flag("", "name of a published model", tuple(PRESETS))


@dataclass(frozen=True)
class ClassifierPresetFlags:
    """The same of a published classifier."""

    classifier_preset: str = flag("", "name of a published classifier", tuple(CLASSIFIER_PRESETS))


def settle_presets(args: argparse.Namespace) -> argparse.Namespace:
    """The arguments with the values of the presets for the flags that were not given."""
    args = settle_preset(args, PRESETS, CHECKPOINT_DIR)
    if hasattr(args, "classifier_preset"):
        names = {"flag": "classifier_preset", "path_flag": "classifier_path"}
        args = settle_preset(args, CLASSIFIER_PRESETS, CHECKPOINT_DIR, **names)
    return args
