"""Sampling with one process and with two, one thread each: does the second core do as much?

    python -m benchmarks.ranks

`image_sample.py` draws the same samples of a tiny network into folders of their own. "sampling" is
the seconds that the network and the solver took, by the script's own record: the sum over the
processes divided by their number, as they work at the same time. "whole script" has start-up and
files in it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import nets
from benchmarks.harness import Measurement, Timed, TimingFlags, Variant, measure
from benchmarks.record import Table, Target, write_record
from benchmarks.startup import ROOT, words
from ddpm.sampling import SECONDS_FILE
from image_ddpm.networks import create_image_model
from utils.process.errors import EXIT_DONE, run_main
from utils.script_util import flag, from_args, make_parser

WHOLE, SAMPLING = "whole script", "sampling"


@dataclass(frozen=True)
class RanksFlags(TimingFlags):
    """What to draw, with how many processes."""

    rounds: int = flag(3, "rounds; each runs every variant once")
    processes: int = flag(2, "processes to compare with one")
    num_samples: int = flag(32, "samples in all")
    batch_size: int = flag(4, "samples per network evaluation")
    num_steps: int = flag(25, "steps of a sample")
    side: int = flag(32, "of the images, pixels")
    width: int = flag(32, "channels of the network")


class Sampling:
    """Runs of the script with any number of processes.

    Args:
        folder: temporary; the checkpoint and the results go there.
        flags: of the measurement.
    """

    def __init__(self, folder: Path, flags: RanksFlags) -> None:
        self._folder, self._flags = folder, flags
        self.seconds: dict[int, list[float]] = {1: [], flags.processes: []}
        network: dict[str, Any] = {
            **{"image_size": flags.side, "num_channels": flags.width, "num_res_blocks": 1},
            **{"channel_mult": "1,2", "attention_resolutions": "16", "learn_sigma": True},
        }
        model = nets.fill(create_image_model(**network))
        torch.save(model.state_dict(), folder / "model.pt")
        self._words = {
            **network,
            **{"model_path": folder / "model.pt", "num_samples": flags.num_samples},
            **{"batch_size": flags.batch_size, "timestep_respacing": flags.num_steps},
        }

    def run(self, num_processes: int) -> Timed:
        """Draw everything; the value is the samples.

        Raises:
            ValueError: with what a process said that failed.
        """
        out = self._folder / f"samples_{num_processes}"
        shutil.rmtree(out, ignore_errors=True)
        command = [sys.executable, "image_sample.py", *words(self._words)]
        command += ["--log_dir", str(out), "--output_dir", str(out)]
        started = time.perf_counter()
        runs = [
            subprocess.Popen(
                command,
                cwd=ROOT,
                env=_environment(rank, num_processes),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(num_processes)
        ]
        said = [run.communicate()[1] for run in runs]
        seconds = time.perf_counter() - started
        for run, text in zip(runs, said, strict=True):
            if run.returncode != EXIT_DONE:
                raise ValueError(f"image_sample.py ended with {run.returncode}: {text[-500:]}")
        record = json.loads((out / SECONDS_FILE).read_text(encoding="utf-8"))
        self.seconds[num_processes].append(float(record["seconds"]) / num_processes)
        return Timed(seconds, _samples(out))


def _environment(rank: int, num_processes: int) -> dict[str, str]:
    """That of a launcher, with one thread a process."""
    return {
        **os.environ,
        **{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(num_processes)},
        "OMP_NUM_THREADS": "1",
    }


def _samples(folder: Path) -> torch.Tensor:
    import numpy as np

    (path,) = folder.glob("samples_*.npz")
    with np.load(path, allow_pickle=False) as stored:
        return torch.from_numpy(stored[stored.files[0]])


def measure_ranks(flags: RanksFlags) -> Measurement:
    """The whole script, and its sampling, with one process and with more."""
    with tempfile.TemporaryDirectory() as folder:
        sampling = Sampling(Path(folder), flags)
        counts = (1, flags.processes)
        variants = [
            Variant(_name(WHOLE, count), lambda n=count: sampling.run(n), lambda x: x)
            for count in counts
        ]
        measured = measure(variants, flags)
    first = _name(SAMPLING, 1)
    more = {_name(SAMPLING, n): sampling.seconds[n][flags.warmup :] for n in counts}
    variants += [Variant(name, lambda: None, against=first) for name in more]
    return Measurement(variants, {**measured.times, **more}, measured.results)


def _name(what: str, count: int) -> str:
    return f"{what}, {count} process" + ("es" if count > 1 else "")


def main(argv: list[str] | None = None) -> int:
    """Measures, prints, writes."""
    flags = from_args(RanksFlags, make_parser(__doc__, benchmark=RanksFlags).parse_args(argv))
    measured = measure_ranks(flags)
    title = f"{flags.num_samples} samples of {flags.side}², {flags.num_steps} steps, one thread"
    bound = 0.95 * flags.processes
    targets = [
        Target(
            f"{what}: 1 process over {flags.processes}",
            measured.ratio(_name(what, flags.processes), _name(what, 1)),
            bound,
        )
        for what in (SAMPLING, WHOLE)
    ]
    write_record("ranks", flags, [Table(title, measured.rows())], targets)
    return EXIT_DONE


if __name__ == "__main__":
    run_main(main)
