"""The flags of cross-fitting, of the variance net's loss and of the baselines; no torch.

Those of data, networks and training are in ``sr_var.flags.scripts``.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from sr_var.flags.scripts import MeanModelFlags, TestFlags
from utils.flags.training import TrainFlags
from utils.script_util import flag, require_at_least

FOLD_FIELD = "{fold}"
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
        """Refuses a number of folds that leaves nothing out."""
        require_at_least(self, 0, cross_fit=2)
        if self.cross_fit == 0 and self.fold_by != "image":
            raise ValueError(f"--fold_by {self.fold_by} is about folds; give --cross_fit K, too")


@dataclass(frozen=True)
class FoldFlags(CrossFitFlags):
    """Which fold a mean net leaves out."""

    fold: int = flag(-1, "fold to leave out of training, 0 to cross_fit - 1")

    def __post_init__(self) -> None:
        """Refuses a fold that there is not."""
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
        "against the squared residual; same minimiser",
        (SQUARED_ERROR, ITAKURA_SAITO),
    )
    leakage_images: int = flag(
        256, "images on which to compare the residuals of the cross_fit nets at the start; 0: none"
    )

    def __post_init__(self) -> None:
        """Refuses a negative number of images."""
        super().__post_init__()
        require_at_least(self, leakage_images=0)


@dataclass(frozen=True)
class BaselineModelFlags(MeanModelFlags):
    """One network for several functionals of the conditional law."""

    objective: str = flag(NLL, "what training minimises", (NLL, BETA_NLL, QUANTILE))
    last_layer_type: str = flag(
        "softplus", "what keeps the variance positive (nll, beta_nll)", ("softplus", "exp")
    )
    beta: float = flag(0.5, "power of the variance that weighs the loss (beta_nll), 0 to 1")
    quantiles: str = flag("0.05,0.25,0.5,0.75,0.95", "levels, ascending, comma separated")

    def __post_init__(self) -> None:
        """Refuses what is no level and no power."""
        if not 0.0 <= self.beta <= 1.0:
            raise ValueError(f"--beta {self.beta} must be in [0, 1]")
        parse_levels(self.quantiles)

    @property
    def levels(self) -> tuple[float, ...]:
        """The parsed ``quantiles``."""
        return parse_levels(self.quantiles)

    @property
    def num_outputs(self) -> int:
        """Images that the network returns, side by side in the channels."""
        return len(self.levels) if self.objective == QUANTILE else 2


@dataclass(frozen=True)
class BaselineTrainFlags(TrainFlags):
    """Training of a baseline."""

    log_dir: str = "logs/sr_baseline/64_256"
    model_save_dir: str = "checkpoints/sr_baseline/64_256"


@dataclass(frozen=True)
class BaselineTestFlags(TestFlags):
    """What to test and where to write; the folder is not that of the two nets."""

    log_dir: str = "logs/sr_baseline/64_256"
    output_dir: str = "outputs/sr_var/64_256_baseline"
    truth: str = flag(
        "none", "exact quantiles to compare with: those of the oracle's images", ("none", "oracle")
    )


def parse_levels(text: str) -> tuple[float, ...]:
    """Ascending levels in (0, 1) from a comma-separated text."""
    remedy = f"--quantiles {text!r}: give ascending numbers between 0 and 1, as in 0.25,0.5,0.75"
    try:
        levels = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(remedy) from None
    if not all(0.0 < level < 1.0 for level in levels):
        raise ValueError(remedy)
    if any(low >= high for low, high in pairwise(levels)):
        raise ValueError(remedy)
    return levels
