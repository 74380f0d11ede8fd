"""What a U-Net's answer loses in tiles: error, calibration and seams by the size of the tile.

    python -m benchmarks.tile_size

Trains a mean and a variance net on the photographs of `data/demo` at their own resolution, by the
scripts, then predicts photographs that neither has seen, whole and in tiles of several sizes, of
which neighbours share a quarter. Run again, it takes the networks of `--work_dir`.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.process.errors import EXIT_DONE, run_main
from utils.script_util import FlagParser, flag, from_args, make_parser, require_at_least

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data/demo"
_NET = {"large_size": 64, "small_size": 16, "model_channels": 32, "num_res_blocks": 1}
_NET |= {"channel_mult": "1,2,2", "attention_resolutions": "16"}
_TRAIN = {"crop": "native", "random_flip": True, "batch_size": 8, "optimizer": "muon", "lr": 2e-3}
_TRAIN |= {"lr_schedule": "cosine", "save_interval": 200, "resume_checkpoint": "auto"}
_COLUMNS = ("tile", "PSNR, dB", "z²", "coverage of the 90 % interval", "mean std")
_DIFFERENCES = ("mean differs from the whole, rms", "largest", "CPU, s")


@dataclass(frozen=True)
class TileSizeFlags:
    """What to train and to compare."""

    mean_steps: int = flag(600, "steps of the mean net")
    var_steps: int = flag(100, "steps of the variance net")
    tiles: str = flag("8,12,16,24,32,48", "--tile of each run, pixels, comma separated")
    num_images: int = flag(8, "photographs to predict")
    sides: str = flag("64,80", "height and width of the low-res images, pixels")
    work_dir: str = flag(str(ROOT / "outputs/bench/tile_size"), "folder of the networks")
    output_dir: str = flag(str(ROOT / "benchmarks/results"), "folder of the two files")

    def __post_init__(self) -> None:
        """Refuse what cannot be trained."""
        require_at_least(self, mean_steps=1, var_steps=1, num_images=1)


def create_parser() -> FlagParser:
    """The flags of this script."""
    return make_parser(__doc__, benchmark=TileSizeFlags)


def train(flags: TileSizeFlags) -> tuple[str, str]:
    """Train both networks, or take those that are there; returns their paths."""
    work = Path(flags.work_dir)
    mean, var = (
        work / kind / f"model{steps:06d}.pt"
        for kind, steps in (("mean", flags.mean_steps), ("var", flags.var_steps))
    )
    data = {"data_dir": DATA, "log_dir": work / "log"}
    info = {"test_folder": "test", "label_from": "none", "large_size": 64, "crop": "native"}
    _run("sr_data_info", data | info | {"output_dir": work / "data"})
    data = {"data_dir": DATA, "data_info_dict_path": work / "data/train_data_info.pkl"}
    of_var = {"last_layer_type": "softplus", "loss": "itakura_saito", "mean_model_path": mean}
    for kind, steps, more in (
        ("mean", flags.mean_steps, {"predict_residual": True}),
        ("var", flags.var_steps, of_var),
    ):
        folders = {"log_dir": work / kind / "log", "model_save_dir": work / kind}
        length = {"max_step": steps, "lr_anneal_steps": steps}
        _run(f"sr_{kind}_train", _NET | _TRAIN | data | more | folders | length)
    return str(mean), str(var)


def _run(script: str, flags: dict[str, Any]) -> None:
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    subprocess.run([sys.executable, str(ROOT / f"{script}.py"), *words], cwd=ROOT, check=True)


def pairs(flags: TileSizeFlags, factor: int) -> Iterator[tuple[Any, Any]]:
    """Middles of test photographs, (f·h, f·w, 3), and their block means in 8 bits, (h, w, 3)."""
    import numpy as np

    from utils.images.files import open_image

    height, width = map(int, flags.sides.split(","))
    for path in sorted((DATA / "test").glob("*.jpg"))[: flags.num_images]:
        photo = np.asarray(open_image(path))
        top, left = (
            (side - factor * low) // 2
            for side, low in zip(photo.shape[:2], (height, width), strict=True)
        )
        truth = photo[top : top + factor * height, left : left + factor * width]
        blocks = truth.reshape(height, factor, width, factor, 3).mean(axis=(1, 3))
        yield truth.astype(np.float64), blocks.round().astype(np.uint8)


def measure(flags: TileSizeFlags, mean: str, var: str) -> list[dict[str, Any]]:
    """One row a tile, the whole image first; then the corner of an image alone."""
    from sr_var import Predictor

    size = max(map(int, flags.sides.split(",")))
    rows, wholes = [], []
    for tile in (size, *map(int, flags.tiles.split(","))):
        predictor = Predictor.from_checkpoints(mean, var, tile=tile, batch_size=8)
        started, found = time.process_time(), []
        for place, (truth, low_res) in enumerate(pairs(flags, predictor.factor)):
            prediction = predictor(low_res)
            if tile == size:
                wholes.append(prediction.mean)
            found.append(_compare(prediction, truth, wholes[place]))
        row = {key: sum(one[key] for one in found) / len(found) for key in found[0]}
        row |= {"tile": "whole" if tile == size else tile, "images": len(found)}
        row |= {"cpu_seconds": time.process_time() - started}
        row["largest"] = max(one["largest"] for one in found)
        rows.append(row)
        print(format_table([row]).splitlines()[-1], flush=True)
    return [*rows, _corner(flags, Predictor.from_checkpoints(mean, var, tile=size), wholes)]


def _corner(flags: TileSizeFlags, predictor: Any, wholes: Sequence[Any]) -> dict[str, Any]:
    """The upper left corner alone, of the size of the training, against that of the whole."""
    import numpy as np

    side, f = min(predictor.pair.train_size), predictor.factor
    alone, together, apart = [], [], []
    for (truth, low_res), whole in zip(pairs(flags, f), wholes, strict=True):
        own = predictor(np.ascontiguousarray(low_res[:side, :side])).mean
        corner = (slice(f * side), slice(f * side))
        alone.append(np.mean((own - truth[corner]) ** 2))
        together.append(np.mean((whole[corner] - truth[corner]) ** 2))
        apart.append(np.abs(own - whole[corner]))
    return {
        "tile": "corner",
        "rms_difference": float(np.sqrt(np.mean(np.square(apart)))),
        "largest": float(np.max(apart)),
        "rms_error_alone": float(np.sqrt(np.mean(alone))),
        "rms_error_of_whole": float(np.sqrt(np.mean(together))),
    }


def _compare(prediction: Any, truth: Any, whole: Any) -> dict[str, float]:
    import numpy as np

    from utils.metrics import VARIANCE_FLOOR, psnr

    variance = np.maximum(prediction.std.astype(np.float64) ** 2, VARIANCE_FLOOR)
    is_in = (prediction.lower <= truth) & (truth <= prediction.upper)
    apart = prediction.mean - whole
    return {
        "psnr": psnr(truth, prediction.mean.astype(np.float64)),
        "z2": float(np.mean((truth - prediction.mean) ** 2 / variance)),
        "coverage": float(is_in.mean()),
        "mean_std": float(prediction.std.mean()),
        "rms_difference": float(np.sqrt(np.mean(apart**2))),
        "largest": float(np.abs(apart).max()),
    }


def format_table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    lines = [f"| {' | '.join((*_COLUMNS, *_DIFFERENCES))} |", "|" + "---|" * 8]
    for row in rows:
        if row["tile"] == "corner":
            lines += ["", _in_words(row)]
            continue
        cells = [str(row["tile"]), f"{row['psnr']:.2f}", f"{row['z2']:.2f}"]
        cells += [f"{100 * row['coverage']:.1f} %", f"{row['mean_std']:.2f}"]
        cells += [f"{row['rms_difference']:.2f}", f"{row['largest']:.0f}"]
        cells.append(f"{row['cpu_seconds']:.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _in_words(corner: dict[str, Any]) -> str:
    return (
        f"A corner alone differs from that of the whole by {corner['rms_difference']:.2f} grey "
        f"levels (rms), {corner['largest']:.0f} at most; from the truth by "
        f"{corner['rms_error_alone']:.2f}, that of the whole by {corner['rms_error_of_whole']:.2f}."
    )


def main(argv: list[str] | None = None) -> int:
    """Train, measure, write, print; return the exit code."""
    flags = from_args(TileSizeFlags, create_parser().parse_args(argv))
    from benchmarks.record import write_rows

    rows = measure(flags, *train(flags))
    write_rows("tile_size", Path(flags.output_dir), vars(flags), rows, format_table(rows))
    return EXIT_DONE


if __name__ == "__main__":
    run_main(main)
