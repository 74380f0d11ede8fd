"""The flags of sr_calibrate.py; no torch."""

from __future__ import annotations

from dataclasses import dataclass

from sr_var.flags.verify import NetResultFlags
from utils.script_util import flag


@dataclass(frozen=True)
class CalibrateFlags(NetResultFlags):
    """Which promise, on which images."""

    data_info_dict_path: str = flag(
        "", "pickle of class -> label and file names: held-out images, none to be trained or tested"
    )
    small_size: int | str = flag(
        0,
        "side of the low-res images, pixels, or HEIGHTxWIDTH; 0: a quarter of --large_size",
        is_size=True,
    )
    output_dir: str = flag("outputs/sr_calibrate/64_256", "folder of calibration.json")
    log_dir: str = "logs/sr_calibrate"
    method: str = flag(
        "conformal",
        "conformal: the level is kept on average over calibrations and images; risk_control: with "
        "probability 1 - delta over calibrations",
        ("conformal", "risk_control"),
    )
    level: float = flag(0.9, "of the intervals: the share of pixels that they are to hold, 0 to 1")
    delta: float = flag(0.1, "of risk_control: the probability with which it may fail, 0 to 1")
    cluster: str = flag(
        "auto",
        "what is exchangeable: image; photograph: images that differ in the number at the end of "
        "their names alone; folder; auto: photograph if names are as NAME_004, else image",
        ("auto", "image", "photograph", "folder"),
    )
    recalibrate_std: bool = flag(
        False,
        "first fit the std to the errors, by isotonic regression on half of the units; the others "
        "give the factor",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("level", "delta"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"--{name} {getattr(self, name)} must lie between 0 and 1")
        if not self.data_info_dict_path:
            raise ValueError(
                "--data_info_dict_path is empty; name the info dict of the held-out images "
                "(sr_data_info.py writes it)"
            )
