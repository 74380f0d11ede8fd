"""How long sampling waits for its files: written in the loop, and behind it.

    python -m benchmarks.sample_writing

Once with a network on this CPU, once with a stand-in for a device, which takes `--device_seconds` a
sample and leaves the processor free. "share" is the part of the run in which the loop waited.
"""

from __future__ import annotations

import functools
import itertools
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any

import numpy as np
import torch

from benchmarks import nets
from benchmarks.harness import Measurement, TimingFlags, Variant, measure, quartiles
from benchmarks.record import Table, Target, write_record
from ddpm.flags import DiffusionFlags
from ddpm.process import create_diffusion
from sr_var.data.low_res import ReducedCrops
from sr_var.flags.scripts import SampleFlags
from sr_var.results.folder import sample_path
from sr_var.sampling import SRSampler
from utils.images.files import open_image
from utils.images.listing import Entry
from utils.images.pictures import write_picture
from utils.machine.threads import BackgroundWriter, tune_allocator
from utils.process.errors import EXIT_DONE, run_main
from utils.script_util import flag, from_args, make_parser

CPU, DEVICE = "this CPU", "stand-in for a device"
IN_LOOP, BEHIND = "written in the loop", "written behind it"
NAME, FACTOR, NUM_STEPS = "image.png", 4, 2
MAX_SHARE = 0.05


@dataclass(frozen=True)
class WritingFlags(TimingFlags):
    """What to draw."""

    rounds: int = flag(3, "rounds; each runs every variant once")
    num_samples: int = flag(48, "samples of one image; a sixth of them on this CPU")
    batch_size: int = flag(2, "samples per network evaluation")
    large_size: int = flag(128, "side of the samples, pixels")
    device_seconds: float = flag(0.04, "of a sample on the stand-in; 0.04: 2.2 h for 200 000")


class StandIn(torch.nn.Module):
    """Takes its time and no processor, as a network on a device does.

    Args:
        seconds: of one sample.
    """

    config = SimpleNamespace(num_classes=None, shown_channels=3)

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds / NUM_STEPS

    def condition(self, *args: Any) -> dict[str, torch.Tensor]:
        """There is none."""
        return {}

    def forward(self, x: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Neither noise nor a share of the variance."""
        time.sleep(self._seconds * len(x))
        return torch.cat([torch.zeros_like(x)] * 2, dim=1)


class InLoopWriter(BackgroundWriter):
    """Writes at once, as a loop without threads does."""

    def __enter__(self) -> InLoopWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing waits."""


class Sampling:
    """Runs of the sampler, and the share of each in which it waited.

    Args:
        root: temporary.
        flags: of the measurement.
    """

    def __init__(self, root: Path, flags: WritingFlags) -> None:
        self._root, self._flags, self._numbers = root, flags, itertools.count()
        size = flags.large_size
        rng = np.random.default_rng(0)
        write_picture(str(root / NAME), rng.integers(0, 256, (size, size, 3), dtype=np.uint8))
        changes = {"large_size": size, "small_size": size // FACTOR, "num_channels": 8}
        self._models = {
            CPU: nets.upsampler("tiny", **changes),
            DEVICE: StandIn(flags.device_seconds),
        }
        names = [_name(place, how) for place in self._models for how in (IN_LOOP, BEHIND)]
        self.shares: dict[str, list[float]] = {name: [] for name in names}

    def run(self, place: str, how: str) -> Path:
        """Draw and write everything; the folder of the image."""
        flags, folder = self._flags, self._root / f"samples_{next(self._numbers)}"
        sizes, device = (flags.large_size, flags.large_size // FACTOR), torch.device("cpu")
        sample = SampleFlags(
            data_dir=str(self._root),
            output_dir=str(folder),
            num_samples_per_image=self._count(place),
            batch_size=flags.batch_size,
        )
        sampler = SRSampler(
            model=self._models[place],  # type: ignore[arg-type]
            diffusion=create_diffusion(
                DiffusionFlags(learn_sigma=True, timestep_respacing=str(NUM_STEPS))
            ),
            images=ReducedCrops([Entry(NAME, 0)], sample, sizes, device),
            sizes=sizes,
            flags=sample,
            device=device,
            log=print,
        )
        writer = InLoopWriter() if how == IN_LOOP else BackgroundWriter()
        sampler._writer = writer
        started = time.perf_counter()
        sampler.run_loop()
        share = writer.seconds_waited / (time.perf_counter() - started)
        self.shares[_name(place, how)].append(share)
        return folder / NAME

    def variants(self) -> list[Variant]:
        """Both ways on both; each is compared with its own loop."""
        return [
            Variant(
                _name(place, how),
                functools.partial(self.run, place, how),
                functools.partial(self._pictures, place),
                against=_name(place, IN_LOOP),
            )
            for place in self._models
            for how in (IN_LOOP, BEHIND)
        ]

    def _count(self, place: str) -> int:
        num = self._flags.num_samples
        return num if place == DEVICE else max(1, num // 6)

    def _pictures(self, place: str, folder: Path) -> torch.Tensor:
        paths = [sample_path(str(folder), i) for i in range(self._count(place))]
        return torch.from_numpy(np.stack([np.asarray(open_image(path)) for path in paths]))


def _name(place: str, how: str) -> str:
    return f"{place}, {how}"


def targets_of(measured: Measurement, shares: dict[str, float]) -> list[Target]:
    """A device is to wait next to nothing; on a CPU the figure is for information."""
    behind = _name(DEVICE, BEHIND)
    return [
        Target(f"{behind}: share", shares[behind], MAX_SHARE, is_at_least=False, unit=""),
        Target(
            f"{_name(CPU, BEHIND)}: over in the loop",
            measured.ratio(_name(CPU, BEHIND), _name(CPU, IN_LOOP)),
            1.0,
            note="encoding competes with the network",
        ),
    ]


def main(argv: list[str] | None = None) -> int:
    """Measures, prints, writes."""
    flags = from_args(WritingFlags, make_parser(__doc__, benchmark=WritingFlags).parse_args(argv))
    tune_allocator()
    if flags.threads:
        torch.set_num_threads(flags.threads)
    with tempfile.TemporaryDirectory() as folder:
        sampling = Sampling(Path(folder), flags)
        measured = measure(sampling.variants(), flags)
    shares = {
        name: quartiles(values[flags.warmup :])[1] for name, values in sampling.shares.items()
    }
    for name, share in shares.items():
        print(f"{name}: {share:.1%} of the run")
    title = f"{flags.num_samples} samples of {flags.large_size}², {flags.batch_size} at a time"
    targets = targets_of(measured, shares)
    write_record(
        "sample_writing", flags, [Table(title, measured.rows())], targets, {"shares": shares}
    )
    return EXIT_DONE


if __name__ == "__main__":
    run_main(main)
