"""The flags of cross-fitting, of the variance net's loss and of the baselines; those of published
upsamplers by name (`--preset 64_256_upsampler`). No torch.

The presets are facts from the documents of guided-diffusion (arXiv 2105.05233) and
improved-diffusion (arXiv 2102.09672); their checkpoints load as they are.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType

from ddpm.flags import Preset, apply_preset, make_preset
from sr_var.flags.network import SUBPIXEL
from sr_var.flags.scripts import (
    NET_LOG,
    MeanModelFlags,
    VarTestFlags,
)
from sr_var.flags.validation import NetTrainFlags
from utils.script_util import FlagValues, flag, require_at_least

FOLD_FIELD, RUN_FIELD = "{fold}", "{run}"
SQUARED_ERROR, ITAKURA_SAITO = "squared_error", "itakura_saito"
NLL, BETA_NLL, QUANTILE = "nll", "beta_nll", "quantile"


@dataclass(frozen=True)
class CrossFitFlags:
    """Mean nets that have each left out a part of the images."""

    cross_fit: int = flag(0, "number of mean nets that each leave one fold out; 0: a single net")
    fold_by: str = flag(
        "image",
        "what falls into a fold together: class keeps all images of an info dict's class",
        ("image", "class"),
    )

    def __post_init__(self) -> None:
        require_at_least(self, 0, cross_fit=2)
        if self.cross_fit == 0 and self.fold_by != "image":
            raise ValueError(f"--fold_by {self.fold_by} is about folds; give --cross_fit K, too")


@dataclass(frozen=True)
class EnsembleFlags(CrossFitFlags):
    """Several nets that are tested as one."""

    ensemble: str = flag(
        "",
        "names of at least two runs, comma separated, as 0,1,2: {run} stands for each in "
        "--model_path (of the variance test in --mean_model_path, too), and the average of their "
        "nets is tested; empty: a single net, or those of --cross_fit",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        runs = self.runs
        if self.ensemble and (len(runs) < 2 or not all(runs) or len({*runs}) < len(runs)):
            raise ValueError(
                f"--ensemble {self.ensemble} must name at least two different runs, as 0,1,2: one "
                "net has no variance between nets"
            )
        if self.ensemble and self.cross_fit:
            raise ValueError(
                f"--ensemble {self.ensemble} and --cross_fit {self.cross_fit} both say which nets "
                "there are; give one of them"
            )

    @property
    def runs(self) -> list[str]:
        """The parsed `ensemble`; empty without one."""
        return self.ensemble.split(",") if self.ensemble else []

    def members(self, path: str, name: str) -> list[str]:
        """The mean nets that the path of a flag stands for: of all folds, of all runs, or one.

        Raises:
            ValueError: {fold} or {run} is missing in it, or there without its flag.
        """
        if not self.cross_fit and FOLD_FIELD in path:
            raise ValueError(f"--{name} {path}: give --cross_fit K with it")
        if not self.cross_fit:
            return self.runs_of(path, name)
        if FOLD_FIELD not in path:
            raise ValueError(f"--{name} {path!r} must contain {FOLD_FIELD} with --cross_fit")
        return [path.replace(FOLD_FIELD, str(fold)) for fold in range(self.cross_fit)]

    def runs_of(self, path: str, name: str) -> list[str]:
        """The same of {run} alone."""
        if not self.runs and RUN_FIELD in path:
            raise ValueError(f"--{name} {path}: give --ensemble with the names of the runs")
        if self.runs and RUN_FIELD not in path:
            raise ValueError(f"--{name} {path!r} must contain {RUN_FIELD} with --ensemble")
        return [path.replace(RUN_FIELD, run) for run in self.runs] or [path]


@dataclass(frozen=True)
class FoldFlags(CrossFitFlags):
    """Which fold a mean net leaves out."""

    fold: int = flag(-1, "fold to leave out of training, 0 to cross_fit - 1")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cross_fit == 0 and self.fold != -1:
            raise ValueError(f"--fold {self.fold} needs --cross_fit K, the number of folds")
        if self.cross_fit and not 0 <= self.fold < self.cross_fit:
            raise ValueError(
                f"--fold {self.fold} must be 0 to {self.cross_fit - 1} with --cross_fit "
                f"{self.cross_fit}"
            )


@dataclass(frozen=True)
class ResidualFlags(CrossFitFlags):
    """What the variance net makes of the residuals, and whose they are."""

    loss: str = flag(
        SQUARED_ERROR,
        "what training minimises, of variance and squared residual; same minimiser",
        (SQUARED_ERROR, ITAKURA_SAITO),
    )
    leakage_images: int = flag(
        256, "images on which to compare the residuals of the cross_fit nets at the start; 0: none"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, leakage_images=0)


@dataclass(frozen=True)
class BaselineModelFlags(MeanModelFlags):
    """One network for several functionals of the conditional law."""

    objective: str = flag(
        NLL,
        "what training minimises: normal likelihood, β-weighted, pinball loss",
        (NLL, BETA_NLL, QUANTILE),
    )
    last_layer_type: str = flag(
        "softplus", "what keeps the variance positive (nll, beta_nll)", ("softplus", "exp")
    )
    beta: float = flag(0.5, "power of the variance that weighs the loss (beta_nll), 0 to 1")
    quantiles: str = flag("0.05,0.25,0.5,0.75,0.95", "levels, ascending, comma separated")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.beta <= 1.0:
            raise ValueError(f"--beta {self.beta} must be in [0, 1]")
        if self.consistent and self.objective == QUANTILE:
            raise ValueError(
                "--consistent True is for a mean, which --objective quantile has not: leave it out"
            )
        _ = self.levels  # refuses what are none

    @property
    def levels(self) -> tuple[float, ...]:
        """The parsed `quantiles`, in (0, 1) and ascending."""
        text = self.quantiles
        try:
            levels = tuple(float(part) for part in text.split(","))
        except ValueError:
            levels = ()
        is_ascending = all(low < high for low, high in pairwise((0.0, *levels, 1.0)))
        if not levels or not is_ascending:
            raise ValueError(
                f"--quantiles {text!r}: give ascending numbers between 0 and 1, as in 0.25,0.5,0.75"
            )
        return levels

    @property
    def num_outputs(self) -> int:
        """Images that the network returns, side by side in the channels."""
        return len(self.levels) if self.objective == QUANTILE else 2


@dataclass(frozen=True)
class BaselineTrainFlags(NetTrainFlags):
    """Training of a baseline."""

    log_dir: str = flag("logs/sr_baseline/64_256", NET_LOG)
    model_save_dir: str = "checkpoints/sr_baseline/64_256"


@dataclass(frozen=True)
class BaselineTestFlags(VarTestFlags):
    """What to test and where to write; the folder is not that of the two nets."""

    log_dir: str = "logs/sr_baseline/64_256"
    output_dir: str = flag(
        "outputs/sr_var/64_256_baseline", "folder of the results, one of its own an image"
    )
    truth: str = flag(
        "none", "exact quantiles to compare with: those of the oracle's images", ("none", "oracle")
    )


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


# 4.9 million parameters; a pass for 256² takes 0.040e12 operations, one of the U-Net 0.551e12
_SUBPIXEL: FlagValues = {"network": SUBPIXEL, "model_channels": 128, "num_res_blocks": 16}
_SIZES = {
    "subpixel_64_256": {"large_size": 256, "small_size": 64},
    "subpixel_128_512": {"large_size": 512, "small_size": 128},
}
MEAN_PRESETS: Mapping[str, Preset] = MappingProxyType(
    {name: make_preset("", _SUBPIXEL, sizes, consistent=True) for name, sizes in _SIZES.items()}
)
VAR_PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        name: make_preset("", _SUBPIXEL, sizes, last_layer_type="softplus", loss=ITAKURA_SAITO)
        for name, sizes in _SIZES.items()
    }
)


@dataclass(frozen=True)
class NetPresetFlags:
    """The flags of a mean or variance net by name; flags given beside it go first."""

    preset: str = flag("", "a network by name, with the loss that suits it", tuple(_SIZES))


@dataclass(frozen=True)
class PresetFlags:
    """The flags of a published upsampler; flags given beside it go first."""

    preset: str = flag("", "name of a published model", tuple(PRESETS))


def apply_presets(args: argparse.Namespace) -> argparse.Namespace:
    """The arguments with the preset's values for the flags that were not given."""
    return apply_preset(args, PRESETS, CHECKPOINT_DIR)
