"""The flags of judging a network while it trains; no torch."""

from __future__ import annotations

from dataclasses import dataclass

from utils.flags.training import TrainFlags, ValidationExtent
from utils.script_util import flag


@dataclass(frozen=True)
class ValidationFlags(ValidationExtent):
    """On which images a network is judged while it trains, and how often; by default on none."""

    val_data_info_dict_path: str = flag(
        "",
        "pickle of class -> label and file names of images below --data_dir to judge the network "
        "on while it trains",
    )
    val_share: float = flag(
        0.0,
        "share of the training images to leave out and judge on instead, drawn by name: the same "
        "ones for the mean and the variance net; 0: none",
    )

    def __post_init__(self) -> None:
        """Refuse values no run could use, and two sources at once."""
        super().__post_init__()
        if not 0 <= self.val_share < 1:
            raise ValueError(f"--val_share {self.val_share} must be at least 0 and below 1, as 0.1")
        if self.val_share and self.val_data_info_dict_path:
            raise ValueError(
                f"--val_share {self.val_share} and --val_data_info_dict_path "
                f"{self.val_data_info_dict_path} both say what to validate on; give one of them"
            )
        if self.val_interval and not self.has_validation:
            raise ValueError(
                f"--val_interval {self.val_interval} needs images to validate on: give --val_share "
                "0.1, or their list with --val_data_info_dict_path"
            )

    @property
    def has_validation(self) -> bool:
        """Whether there is anything to validate on."""
        return bool(self.val_share or self.val_data_info_dict_path)


@dataclass(frozen=True)
class NetTrainFlags(ValidationFlags, TrainFlags):
    """Training of a mean, variance or baseline net."""

    def __post_init__(self) -> None:
        ValidationFlags.__post_init__(self)
        TrainFlags.__post_init__(self)
