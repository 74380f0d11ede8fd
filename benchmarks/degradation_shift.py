"""What networks of one degradation say of images of another one, before and after a calibration.

    python -m benchmarks.degradation_shift --name noise --shifts noise:15,noise:25,noise:50 \
        --mean_model_path checkpoints/sr_mean/noise/model000400.pt \
        --var_model_path checkpoints/sr_var/noise/model000400.pt

The images are those of a test (`--data_info_dict_path`), the metrics those of the verification:
PSNR of the input and of the mean, share of the real values in mean ± 1.96 std, and z², the squared
error over the variance. Then the share in intervals of `--level` that `sr_calibrate.py` makes of
all other images: of the training's own degradation (`--own`), and of the one that is tested. Writes
`degradation_shift_<name>_<date>.json` and `.md` to `--output_dir`. docs/restoration.md has the
trainings and the table.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if not __package__:
    sys.path.insert(0, str(ROOT))  # run as a file, it finds only its own folder

import numpy as np  # noqa: E402
import torch  # noqa: E402

from benchmarks.record import RESULTS_DIR, write_rows  # noqa: E402
from ddpm.stored_flags import start_of_file  # noqa: E402
from sr_var.base_dataset import load_entries  # noqa: E402
from sr_var.calibrate.record import STD_FLOOR, interval_half_width  # noqa: E402
from sr_var.calibrate.risk import (  # noqa: E402
    FACTORS,
    Array,
    allowed_risk,
    alpha_of,
    risk_at,
    share_outside,
    smallest_factor,
)
from sr_var.degradation import mean_of, variance_of  # noqa: E402
from sr_var.degrade.view import View  # noqa: E402
from sr_var.flags.scripts import MeanModelFlags  # noqa: E402
from sr_var.predict.nets import load_mean_net, load_var_net  # noqa: E402
from sr_var.stored_flags import flags_of_checkpoint  # noqa: E402
from utils.images.crops.dataset import TestCrops  # noqa: E402
from utils.metrics import HALF_RANGE_255, WHITE, psnr_of_mse  # noqa: E402
from utils.process.errors import EXIT_DONE, DataError, run_main  # noqa: E402
from utils.script_util import FlagParser, flag, from_args, make_parser  # noqa: E402

_BATCH, _LEVEL_95 = 16, 0.95
_HALF_WIDTH_95 = interval_half_width(_LEVEL_95)


@dataclass(frozen=True)
class ShiftFlags:
    """Which nets, which images, and what is shown to them."""

    mean_model_path: str = flag("", "checkpoint of the mean net")
    var_model_path: str = flag("", "checkpoint of the variance net that was trained on it")
    data_dir: str = flag("data/demo", "folder of the test images")
    data_info_dict_path: str = flag("data/mine/to_sample_data_info.pkl", "their list")
    shifts: str = flag("noise:15,noise:25,noise:35,noise:50", "degradations, comma separated")
    own: str = flag("", "the degradation to calibrate on; empty: that of the training")
    level: float = flag(0.9, "of the calibrated intervals")
    name: str = flag("noise", "in the names of the two files")
    output_dir: str = flag(str(RESULTS_DIR), "folder of the two files")


@dataclass(frozen=True)
class Judged:
    """What was found on one degradation: of each image the risk at each of `FACTORS`, and sums.

    Attributes:
        outside: (n, K), the share of real values further from the mean than each factor times std.
        mse: (n,) of the mean, grey levels².
        input_mse: (n,) of the image that X begins with.
        z2: (n,).
        std: (n,) mean std, grey levels.
    """

    outside: Array
    mse: Array
    input_mse: Array
    z2: Array
    std: Array


def judge(
    nets: Sequence[torch.nn.Module], view: View, images: torch.Tensor, names: Sequence[str]
) -> Judged:
    """Show images (N, 3, H, W) bytes to mean and variance net as the view makes X of them."""
    x, y = view.pair(images, names, torch.device("cpu"))
    means, variances = [], []
    with torch.inference_mode():
        for part in torch.split(x, _BATCH):
            means.append(mean_of(nets[0], part, y.shape[2:]))
            variances.append(variance_of(nets[1], part, means[-1]))
    mean, variance = torch.cat(means).double(), torch.cat(variances).double()
    std = (variance.clamp(min=0).sqrt() * HALF_RANGE_255).clamp(min=STD_FLOOR)
    error = (y - mean) * HALF_RANGE_255
    of_input = (y - view.image_of(x)).double() * HALF_RANGE_255
    scores = (error.abs() / std).numpy()
    return Judged(
        np.stack([share_outside(one) for one in scores]),
        *(
            part.mean(dim=(1, 2, 3)).numpy()
            for part in (error.square(), of_input.square(), (error / std).square(), std)
        ),
    )


def calibrated_share(judged: Judged, other: Judged, level: float) -> float:
    """The mean share inside, of each image by the factor that all *other* images of `other` give.

    Raises:
        DataError: too few images for the level.
    """
    shares, number = [], len(judged.outside) - 1
    allowed = allowed_risk(number, alpha_of(level)) if number else -1.0
    if allowed < 0:
        raise DataError(f"{number + 1} images are too few for --level {level:g}: give more")
    for place, risk in enumerate(judged.outside):
        rest = np.delete(other.outside, place, axis=0).mean(axis=0)
        factor = smallest_factor(rest, allowed) or FACTORS[-1]
        shares.append(1 - risk_at(risk, factor))
    return float(np.mean(shares))


def row_of(name: str, judged: Judged, own: Judged, level: float) -> dict[str, float | str]:
    """The metrics of one degradation; PSNR is the mean over images."""
    psnr = [
        np.mean([psnr_of_mse(one, WHITE) for one in mse]) for mse in (judged.input_mse, judged.mse)
    ]
    outside = [risk_at(risk, _HALF_WIDTH_95) for risk in judged.outside]
    return {
        "degradation": name,
        "num_images": len(judged.mse),
        "psnr_input": float(psnr[0]),
        "psnr": float(psnr[1]),
        "rmse": float(np.sqrt(judged.mse.mean())),
        "std": float(judged.std.mean()),
        "coverage_95": 1 - float(np.mean(outside)),
        "z2": float(judged.z2.mean()),
        "calibrated_own": calibrated_share(judged, own, level),
        "calibrated_here": calibrated_share(judged, judged, level),
    }


def format_table(rows: Sequence[dict[str, float | str]], level: float) -> str:
    """The rows in Markdown."""
    head = ["tested on", "PSNR of the input", "of the mean", "rms error", "mean std"]
    head += ["in the 95 % interval", "z²"]
    head += [f"{100 * level:g} %, calibrated on its own", "calibrated on this one"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows:
        cells = [f"`{row['degradation']}`"]
        cells += [f"{row[name]:.1f}" for name in ("psnr_input", "psnr", "rmse", "std")]
        cells += [f"{100 * float(row['coverage_95']):.1f} %", f"{row['z2']:.2f}"]
        cells += [
            f"{100 * float(row[name]):.1f} %" for name in ("calibrated_own", "calibrated_here")
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def create_parser() -> FlagParser:
    """The flags of this script."""
    return make_parser(__doc__, benchmark=ShiftFlags)


def main(argv: list[str] | None = None) -> int:
    """Judges, writes, prints; returns the exit code."""
    flags = from_args(ShiftFlags, create_parser().parse_args(argv))
    start = start_of_file(flags.mean_model_path)
    trained = MeanModelFlags(**flags_of_checkpoint(start, "", MeanModelFlags, print))
    nets = load_mean_net(flags.mean_model_path), load_var_net(flags.var_model_path)
    entries = load_entries(flags.data_info_dict_path, flags.data_dir)
    crops = TestCrops(entries, trained.sizes[0], flags.data_dir)
    items = [item for item in map(crops.__getitem__, range(len(crops))) if item]
    images, names = torch.stack([item.image for item in items]), [item.name for item in items]

    def on(text: str) -> Judged:
        return judge(nets, View.of_test(trained, 0, text, print), images, names)

    own = on(flags.own)
    rows = [row_of(text, on(text), own, flags.level) for text in flags.shifts.split(",")]
    told = format_table(rows, flags.level)
    part = f"degradation_shift_{flags.name}"
    write_rows(part, Path(flags.output_dir), vars(flags), rows, told)
    return EXIT_DONE


if __name__ == "__main__":
    run_main(main)
