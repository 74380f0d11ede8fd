"""Seconds and memory of `sr_predict.py` by size of the result, network and tile.

    python -m benchmarks.prediction
    python -m benchmarks.prediction --nets preset,unet --megapixels 1

Each run is a process of its own, from its start to its end: reading, both networks, four arrays and
three pictures. Weights are drawn, which changes neither time nor memory. The input is a photograph
of `data/demo`, repeated to the size.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from utils.process.errors import EXIT_DONE, run_main
from utils.script_util import FlagParser, flag, from_args, make_parser

ROOT = Path(__file__).resolve().parent.parent
FACTOR = 4
_SIZES = {"large_size": 256, "small_size": 64}
_SUBPIXEL = {**_SIZES, "network": "subpixel"}
NETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "small": {**_SUBPIXEL, "model_channels": 32, "num_res_blocks": 4},
        "preset": {**_SUBPIXEL, "model_channels": 128, "num_res_blocks": 16},
        "unet": {
            **_SIZES,
            "model_channels": 32,
            "num_res_blocks": 1,
            "channel_mult": "1,1,2,2",
            "attention_resolutions": "32",
        },
    }
)


@dataclass(frozen=True)
class PredictionFlags:
    """What to predict, and where to write."""

    nets: str = flag("small", f"comma separated, of {', '.join(NETS)}")
    megapixels: str = flag("1,6,24", "of the result, comma separated")
    tiles: str = flag("auto", "--tile of each run, comma separated")
    threads: int = flag(0, "threads of torch; 0: as many as cores")
    output_dir: str = flag(str(ROOT / "benchmarks/results"), "folder of the two files")

    def __post_init__(self) -> None:
        """Refuse networks that are none."""
        for name in self.nets.split(","):
            if name not in NETS:
                raise ValueError(f"--nets {name}: give some of {', '.join(NETS)}")


def create_parser() -> FlagParser:
    """The flags of this script."""
    return make_parser(__doc__, benchmark=PredictionFlags)


def write_nets(folder: Path, name: str) -> list[str]:
    """Both networks as files of weights and of flags; returns the flags of sr_predict.py."""
    import torch

    from benchmarks.nets import fill
    from sr_var.flags.scripts import MeanModelFlags, VarModelFlags
    from sr_var.script_util import create_mean_model, create_var_model
    from sr_var.stored_flags import args_path, save_model_args

    words: list[str] = []
    kinds = (("mean", MeanModelFlags, create_mean_model), ("var", VarModelFlags, create_var_model))
    for kind, flags_class, create in kinds:
        flags, place = flags_class(**NETS[name]), folder / kind
        place.mkdir()
        save_model_args(str(place), flags)
        torch.save(fill(create(**vars(flags))).state_dict(), place / "model.pt")
        words += [f"--{kind}_model_path", str(place / "model.pt")]
        words += [f"--{kind}_model_args_path", args_path(str(place), flags_class)]
    return words


def write_input(path: Path, megapixels: float) -> tuple[int, int]:
    """A low-res image whose result has so many megapixels, 3:2; returns the result's sides."""
    import numpy as np

    from utils.images.files import open_image
    from utils.images.pictures import write_picture

    height = max(1, round(math.sqrt(megapixels * 1e6 / 1.5) / FACTOR))
    width = round(1.5 * height)
    photo = np.asarray(open_image(ROOT / "data/demo/test/cow.jpg"))
    repeats = (-(-height // photo.shape[0]), -(-width // photo.shape[1]), 1)
    write_picture(path, np.tile(photo, repeats)[:height, :width])
    return FACTOR * height, FACTOR * width


def run_once(words: Sequence[str], threads: int) -> dict[str, float]:
    """Seconds and the largest memory of one run.

    Raises:
        ValueError: it failed; with the end of what it said.
    """
    env = {**os.environ, **({"OMP_NUM_THREADS": str(threads)} if threads else {})}
    command = [sys.executable, str(ROOT / "sr_predict.py"), *words]
    started = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen(command, cwd=ROOT, env=env, stdout=said, stderr=said)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - started
        if child.returncode:
            said.seek(0)
            raise ValueError(f"sr_predict.py failed: {said.read()[-500:].decode(errors='replace')}")
    # kilobytes on Linux
    return {
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_mib": usage.ru_maxrss / 1024,
    }


def measure(flags: PredictionFlags) -> list[dict[str, Any]]:
    """One row a run."""
    rows = []
    for name in flags.nets.split(","):
        for megapixels in map(float, flags.megapixels.split(",")):
            for tile in flags.tiles.split(","):
                with tempfile.TemporaryDirectory() as folder:
                    place = Path(folder)
                    height, width = write_input(place / "input.png", megapixels)
                    words = write_nets(place, name)
                    words += ["--input", str(place / "input.png"), "--tile", tile]
                    words += ["--output_dir", str(place / "out"), "--log_dir", str(place / "log")]
                    row = {"nets": name, "megapixels": megapixels, "tile": tile}
                    row |= {"result": f"{width}×{height}", **run_once(words, flags.threads)}
                print(format_table([row]).splitlines()[-1], flush=True)
                rows.append(row)
    return rows


def format_table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    lines = ["| networks | result | tile | seconds | of the CPU | peak memory, MiB |"]
    lines.append("|---|---|---|---|---|---|")
    for row in rows:
        cells = [row["nets"], row["result"], row["tile"], f"{row['seconds']:.1f}"]
        cells += [f"{row['cpu_seconds']:.1f}", f"{row['peak_mib']:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> int:
    """Measure, write, print; return the exit code."""
    flags = from_args(PredictionFlags, create_parser().parse_args(argv))
    from benchmarks.record import write_rows

    rows = measure(flags)
    write_rows("prediction", Path(flags.output_dir), vars(flags), rows, format_table(rows))
    return EXIT_DONE


if __name__ == "__main__":
    run_main(main)
