"""The flags of the oracle's scripts; no torch: ``--help`` is quick."""

from __future__ import annotations

from dataclasses import dataclass

from ddpm.flags import SAMPLER_NAMES, ScheduleFlags
from sr_var.flags.scripts import VerificationFlags
from utils.flags.groups import (
    ImageFolder,
    OnBadImage,
    OrientationFlags,
    Output,
    ScriptFlags,
    Threads,
)
from utils.script_util import flag, require_at_least


@dataclass(frozen=True)
class OracleDataFlags(ImageFolder, OrientationFlags, OnBadImage, Output, Threads, ScriptFlags):
    """Which photographs become low-res images, and how much is drawn from the oracle's law."""

    data_dir: str = "data/demo"
    test_folder: str = flag(
        "test", "folder of data_dir whose photographs are for testing; empty: every tenth is"
    )
    output_dir: str = "data/oracle"
    sample_dir: str = flag("outputs/oracle/default", "folder of exact samples and exact moments")
    log_dir: str = "logs/oracle_data"
    large_size: int = flag(64, "side of the high-res images, pixels")
    small_size: int = flag(16, "side of the low-res images, pixels of a photograph")
    num_train_crops: int = flag(2000, "low-res images to train on, cut at random places")
    num_draws: int = flag(4, "high-res images drawn for each of them")
    num_test_crops: int = flag(32, "low-res images to test on")
    num_samples: int = flag(100, "exact samples of each test image")
    sample_pictures: bool = flag(True, "write the samples as pictures too, not only their moments")

    def __post_init__(self) -> None:
        """Refuses counts and sizes that make no data set."""
        require_at_least(self, num_train_crops=1, num_draws=1, num_test_crops=1, num_samples=2)
        factor, rest = divmod(self.large_size, max(self.small_size, 1))
        if rest or factor < 2 or self.small_size < 1:
            raise ValueError(
                f"--large_size {self.large_size} must be 2, 3, 4, … times --small_size "
                f"{self.small_size}"
            )

    @property
    def factor(self) -> int:
        """High-res pixels along the side of a low-res one."""
        return self.large_size // self.small_size


@dataclass(frozen=True)
class BudgetFlags(VerificationFlags, ScheduleFlags):
    """Whose error is to be told apart: nets and samplers on the oracle's test images."""

    data_dir: str = "data/oracle/images"
    data_info_dict_path: str = "data/oracle/to_sample_data_info.pkl"
    large_size: int = 64
    ddpm_sr_output_dir: str = "outputs/oracle/default"
    sr_model_output_dir: str = flag("outputs/sr_var/oracle", "folder of the nets' results")
    log_dir: str = "logs/sr_compare/oracle"
    trained_output_dir: str = flag(
        "", "folder of samples of a trained denoiser (ddpm_sr_sample.py); empty: no such row"
    )
    timestep_respacing: str = "logsnr25"
    sampler: str = flag("dpmpp_2m", "how to integrate (docs/samplers.md)", SAMPLER_NAMES)
