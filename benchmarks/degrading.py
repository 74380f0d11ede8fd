"""Images a second with a degradation: made in the network's process, and in those that load.

    python -m benchmarks.degrading                  (two minutes)

JPEGs put together from the demo's photographs are decoded, cut and degraded; no network waits for
them. A second table has the seconds of the processor that the network's own process spends on an
image, which are what a training on a GPU waits for. Processes that load have started when the clock
does, and have filled what they may hold ahead.
"""

from __future__ import annotations

import functools
import itertools
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.harness import Measurement, Timed, TimingFlags, Variant, measure
from benchmarks.loader import LoaderFlags, write_jpegs
from benchmarks.record import Table, write_record
from sr_var.data import pairs
from sr_var.data.pairs import load_regression_data
from sr_var.degrade.language import Degradation
from sr_var.degrade.view import View
from sr_var.flags.scripts import DataFlags, MeanTrainFlags
from utils.process.errors import EXIT_DONE, run_main
from utils.script_util import flag, from_args, make_parser
from utils.sizes import Size
from utils.untrusted.pickles import dump_pickle

HERE, THERE = "in the network's process", "where images are loaded"
CPU = torch.device("cpu")


@dataclass(frozen=True)
class DegradingFlags(TimingFlags):
    """Which degradations, with how many processes."""

    rounds: int = flag(5, "rounds; each runs every variant once")
    degradations: str = flag("jpeg:30,poisson:30", "comma separated")
    workers: str = flag("1,2", "processes that load, comma separated")
    num_images: int = flag(96, "images a run, behind those that are there when the clock starts")
    batch_size: int = flag(8, "images of a batch")
    size: int = flag(256, "side of the crops, pixels")


class Loading:
    """Batches of a mean net's training.

    Args:
        folder: temporary; the images go there.
        flags: of the measurement.
    """

    def __init__(self, folder: Path, flags: DegradingFlags) -> None:
        self._flags = flags
        self.cpu_seconds: dict[str, list[float]] = {}
        names = write_jpegs(folder, LoaderFlags(num_images=48))
        dump_pickle({"photographs": {"y": 0, "file_names": names}}, folder / "info.pkl")
        self._data = {"data_dir": str(folder), "data_info_dict_path": str(folder / "info.pkl")}

    def run(self, name: str, text: str, num_workers: int, where: str) -> Timed:
        """Seconds of `num_images` images; those of this process's processor are kept by name."""
        size = Size.of(self._flags.size)
        view = View.seeing((size, size), Degradation.parse(text, 1, 3), net="mean")
        of = pairs.Seeing.of
        if where == HERE:  # the view as it is where no loading process may make X
            pairs.Seeing.of = classmethod(lambda cls, view, **rest: None)  # type: ignore[assignment]
        try:
            data = load_regression_data(
                DataFlags(**self._data, num_workers=num_workers),
                view,
                MeanTrainFlags(batch_size=self._flags.batch_size),
                CPU,
                lambda line: None,
            )
        finally:
            pairs.Seeing.of = of  # type: ignore[method-assign]
        batches = data.batches(0)
        num_ahead = 4 * num_workers + 1
        for _ in range(num_ahead):
            next(batches)
        started, cpu = time.perf_counter(), time.process_time()
        low_res = [
            batch[0]
            for batch in itertools.islice(batches, self._flags.num_images // self._flags.batch_size)
        ]
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        self.cpu_seconds.setdefault(name, []).append(cpu / self._flags.num_images)
        return Timed(seconds / self._flags.num_images, low_res[-1])


def measure_degrading(flags: DegradingFlags) -> tuple[Measurement, Measurement]:
    """Seconds an image, and those of the network's process's processor."""
    with tempfile.TemporaryDirectory() as folder:
        loading = Loading(Path(folder), flags)
        variants = []
        for text in flags.degradations.split(","):
            for num_workers in map(int, flags.workers.split(",")):
                names = [f"{text}, {num_workers} loading, {where}" for where in (HERE, THERE)]
                for name, where in zip(names, (HERE, THERE), strict=True):
                    call: Callable[[], Timed] = functools.partial(
                        loading.run, name, text, num_workers, where
                    )
                    variants.append(Variant(name, call, lambda x: x, against=names[0]))
        measured = measure(variants, flags)
    kept = {name: values[flags.warmup :] for name, values in loading.cpu_seconds.items()}
    return measured, Measurement(variants, kept, {})


def main(argv: list[str] | None = None) -> int:
    """Measures, prints, writes."""
    parser = make_parser(__doc__, benchmark=DegradingFlags)
    flags = from_args(DegradingFlags, parser.parse_args(argv))
    measured, of_network = measure_degrading(flags)
    tables = [
        Table("seconds an image", measured.rows()),
        Table("of the processor, in the network's process", of_network.rows()),
    ]
    write_record("degrading", flags, tables, [])
    return EXIT_DONE


if __name__ == "__main__":
    run_main(main)
