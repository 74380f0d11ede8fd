"""The flags of the oracle's scripts; no torch: ``--help`` is quick."""

from __future__ import annotations

from dataclasses import dataclass

from ddpm.flags import SAMPLER_NAMES
from sr_var.flags.scripts import VerificationFlags
from utils.flags.data import ERROR, SKIP, OrientationFlags
from utils.script_util import flag


@dataclass(frozen=True)
class OracleDataFlags(OrientationFlags):
    """Which photographs become low-res images, and how much is drawn from the oracle's law."""

    data_dir: str = flag("data/demo", "folder of photographs, flat or in class folders")
    test_folder: str = flag(
        "test", "folder of data_dir whose photographs are for testing; empty: every tenth is"
    )
    output_dir: str = flag("data/oracle", "folder of the images and of the info dicts")
    sample_dir: str = flag("outputs/oracle/default", "folder of exact samples and exact moments")
    log_dir: str = flag("logs/oracle_data", "folder of logs.txt and args.json")
    large_size: int = flag(64, "side of the high-res images, pixels")
    small_size: int = flag(16, "side of the low-res images, pixels of a photograph")
    num_train_crops: int = flag(2000, "low-res images to train on, cut at random places")
    num_draws: int = flag(4, "high-res images drawn for each of them")
    num_test_crops: int = flag(32, "low-res images to test on")
    num_samples: int = flag(100, "exact samples of each test image")
    sample_pictures: bool = flag(True, "write the samples as pictures too, not only their moments")
    on_bad_image: str = flag(
        ERROR, "what to do with a photograph that is damaged or has an unfit name", (ERROR, SKIP)
    )
    num_threads: int = flag(-1, "images made at a time; -1: by the cores")
    seed: int = flag(0, "of the places and the draws")
    debug_mode: bool = flag(False, "print the memory in use")
    dry_run: bool = flag(False, "make one image of each kind, print what it costs, write nothing")

    def __post_init__(self) -> None:
        """Refuses counts and sizes that make no data set."""
        for name in ("num_train_crops", "num_draws", "num_test_crops"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} {getattr(self, name)} must be at least 1")
        if self.num_samples < 2:
            raise ValueError(f"--num_samples {self.num_samples} must be at least 2")
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
class BudgetFlags(VerificationFlags):
    """Whose error is to be told apart: nets and samplers on the oracle's test images."""

    data_dir: str = flag("data/oracle/images", "folder of the images that oracle_data.py wrote")
    data_info_dict_path: str = flag(
        "data/oracle/to_sample_data_info.pkl", "pickle of class -> label and file names"
    )
    large_size: int = flag(64, "side of the high-res image, pixels")
    ddpm_sr_output_dir: str = flag(
        "outputs/oracle/default", "folder of exact samples and exact moments (oracle_data.py)"
    )
    sr_model_output_dir: str = flag("outputs/sr_var/oracle", "folder of the nets' results")
    log_dir: str = flag("logs/sr_compare/oracle", "folder of budget.json and budget.png")
    trained_output_dir: str = flag(
        "", "folder of samples of a trained denoiser (ddpm_sr_sample.py); empty: no such row"
    )
    diffusion_steps: int = flag(1000, "steps of the chain whose exact denoiser samples")
    noise_schedule: str = flag("linear", "how noise grows with t", ("linear", "cosine"))
    timestep_respacing: str = flag("logsnr25", "steps to sample with, as for ddpm_sr_sample.py")
    sampler: str = flag("dpmpp_2m", "how to integrate (docs/samplers.md)", SAMPLER_NAMES)
