"""The flags of what judges and calibrates the nets' results; no torch: `--help` is quick."""

from __future__ import annotations

from dataclasses import dataclass

from ddpm.flags import SAMPLER_NAMES, ScheduleFlags
from sr_var.flags.pairs import PairsFlags, require_native
from sr_var.flags.scripts import ListedImages, ValueFlags
from utils.flags.groups import OrientationFlags, ScaleFlags, ScriptFlags, Threads
from utils.script_util import flag, require_at_least
from utils.sizes import Size, require_sizes


@dataclass(frozen=True)
class NetResultFlags(
    ValueFlags, PairsFlags, ListedImages, OrientationFlags, ScaleFlags, Threads, ScriptFlags
):
    """Which images, and which results of the nets."""

    large_size: int | str = flag(
        256,
        "side of the results' images, pixels, or HEIGHTxWIDTH; photographs are cut to it",
        is_size=True,
    )
    small_size: int | str = flag(
        0,
        "of the low-res images, likewise; 0: that of the samples' low_res.png, a quarter of "
        "--large_size without one",
        is_size=True,
    )
    sr_model_output_dir: str = flag(
        "",
        "folder of the nets' results; empty: outputs/sr_var/128_512 for --large_size 512, else "
        "outputs/sr_var/64_256",
    )
    mean_model_step: int = flag(90000, "step of the mean net, as its results are named")
    var_model_step: int = flag(50000, "step of the variance net, likewise")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_native(self.pairs_dir, self.crop)
        require_sizes(self, "large_size")
        require_sizes(self, "small_size", smallest=0)
        if self.small_size and self.size.factor_over(self.small_size) is None:
            raise ValueError(
                f"--small_size {self.small_size} must divide --large_size {self.large_size}, by "
                "the same factor in height and width"
            )

    @property
    def size(self) -> Size:
        """Of the results' images."""
        return Size.of(self.large_size)

    @property
    def low_res_size(self) -> Size:
        """Of the low-res images, as far as flags say it: a quarter of `size` if they do not."""
        high = self.size
        return Size.of(self.small_size or (high.height // 4, high.width // 4))

    @property
    def is_writing(self) -> bool:
        """Whether anything is written; an empty `log_dir`, which no script takes, says no."""
        return bool(self.log_dir) and not self.dry_run

    @property
    def nets_dir(self) -> str:
        """`--sr_model_output_dir`, or where the documented commands put the nets' results."""
        name = "128_512" if self.large_size == 512 else "64_256"
        return self.sr_model_output_dir or f"outputs/sr_var/{name}"


@dataclass(frozen=True)
class VerificationFlags(NetResultFlags):
    """What to compare."""

    ddpm_sr_output_dir: str = flag(
        "outputs/ddpm_sr/64_256_step_250", "folder of the samples (of ddpm_sr_sample.py)"
    )
    num_samples: int = flag(
        100, "samples per image to use; 0: judge the nets against the real images alone"
    )
    log_dir: str = flag(
        "logs/sr_compare/64_256", "folder of results.json, results.csv, report.html and pictures"
    )
    num_panels: int = flag(50, "images to draw panels of, and to show in the report; -1: all")
    margin: float = flag(
        0.05,
        "of equivalence, 0.05 is 5 %: rms error of the mean over the std, rms error and bias of "
        "the variance over the variance; 0: intervals without a verdict",
    )
    cluster: str = flag(
        "auto",
        "what is independent, for intervals and verdict: image; photograph: images that differ in "
        "the number at the end of their names alone; class, of the info dict; folder; auto: "
        "photograph if names are as NAME_004 or those of oracle_data.py, else image",
        ("auto", "image", "photograph", "class", "folder"),
    )
    print_table: bool = flag(
        True, "print a table of metrics; False: what was found in words, the table is in logs.txt"
    )
    full_table: bool = flag(False, "print all metrics, not only the lines that say most")
    calibration: str = flag(
        "",
        "calibration.json of sr_calibrate.py for these nets: coverage before and after it, on "
        "images that took no part",
        is_path=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, num_panels=-1)
        require_at_least(self, 0, num_samples=2)
        if not 0 <= self.margin < 1:
            raise ValueError(f"--margin {self.margin} must be at least 0 and below 1, as 0.05")


@dataclass(frozen=True)
class BudgetFlags(VerificationFlags, ScheduleFlags):
    """Whose error is to be told apart: nets and samplers on the oracle's test images."""

    data_dir: str = flag("data/oracle/images", "folder of the images that oracle_data.py wrote")
    data_info_dict_path: str = "data/oracle/to_sample_data_info.pkl"
    large_size: int = 64
    ddpm_sr_output_dir: str = flag(
        "outputs/oracle/default", "folder of exact samples and exact moments (oracle_data.py)"
    )
    num_samples: int = flag(100, "samples per image, of the sampler with the exact denoiser, too")
    sr_model_output_dir: str = flag("outputs/sr_var/oracle", "folder of the nets' results")
    log_dir: str = flag("logs/sr_compare/oracle", "folder of budget.json and budget.png")
    num_panels: int = flag(50, "of the verification, whose flags fit here; no effect")
    margin: float = flag(0.05, "of the verification, whose flags fit here; no effect")
    print_table: bool = flag(True, "of the verification, whose flags fit here; no effect")
    full_table: bool = flag(False, "of the verification, whose flags fit here; no effect")
    calibration: str = flag(
        "", "of the verification, whose flags fit here; no effect", is_path=True
    )
    trained_output_dir: str = flag(
        "", "folder of samples of a trained denoiser (ddpm_sr_sample.py); empty: no such row"
    )
    timestep_respacing: str = "logsnr25"
    sampler: str = flag("dpmpp_2m", "how to integrate (docs/samplers.md)", SAMPLER_NAMES)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, num_samples=4)  # of a variance the noise is taken off
