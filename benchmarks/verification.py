"""Mean and variance of an image's samples: all PNGs at once, one by one, from stored moments.

    python -m benchmarks.verification

Pictures of noise. The project's ways give more than the plain one: third and fourth moments, the
variances of both halves, block means. Memory is the peak of what Python and numpy allocated
(tracemalloc), in a call of its own; Pillow's own buffer of a picture is not in it. A second table
has the whole verification of an image.
"""

from __future__ import annotations

import functools
import tempfile
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.harness import Measurement, TimingFlags, Variant, measure
from benchmarks.record import Table, Target, write_record
from benchmarks.reference.verification import mean_and_variance
from sr_var.flags.verify import VerificationFlags
from sr_var.results.folder import LOW_RES_FILE, SAMPLES_FOLDER, sample_path
from sr_var.results.moments import MOMENTS_FILE, SampleMoments
from sr_var.verify.read.images import Reference, load_reference
from sr_var.verify.run import verify_all
from utils.images.pictures import write_picture
from utils.logger import RunLogger
from utils.machine.threads import chosen_threads
from utils.process.errors import EXIT_DONE, run_main
from utils.script_util import flag, from_args, make_parser
from utils.seeds import stable_seed
from utils.untrusted.pickles import dump_pickle

PLAIN, ONE_THREAD, MORE_THREADS = "plain", "PNGs, 1 thread", "PNGs, {} threads"
STORED, TWO_ARRAYS = "moments.npz", "moments.npz, mean and variance alone"
FROM_PICTURES, FROM_MOMENTS = "whole verification, PNGs", "whole verification, moments.npz"
FACTOR = 4
NAME = "image.png"


@dataclass(frozen=True)
class VerificationBenchFlags(TimingFlags):
    """How many samples of what size."""

    num_samples: int = flag(100, "samples of the image")
    large_size: int = flag(256, "side of the image, pixels")


class Ways:
    """One image with its samples, and every way to their mean and variance.

    Args:
        root: temporary; pictures and moments lie in folders of their own, both read by themselves.
        flags: of the measurement.
    """

    def __init__(self, root: Path, flags: VerificationBenchFlags) -> None:
        self._root, self._flags = root, flags
        self.num_threads = chosen_threads(flags.threads)
        size = flags.large_size
        rng = np.random.default_rng(stable_seed(NAME))
        shape = (size, size, 3)
        mean, std = rng.uniform(80, 180, shape), rng.uniform(3, 12, shape)
        samples = _grey(mean + std * rng.standard_normal((flags.num_samples, *shape)))
        for folder in (self._folder("pictures"), self._folder("moments")):
            (folder / SAMPLES_FOLDER).mkdir(parents=True)
            write_picture(str(folder / LOW_RES_FILE), _grey(mean[::FACTOR, ::FACTOR]))
        for path, sample in zip(self._paths(), samples, strict=True):
            write_picture(path, sample)
        counted = SampleMoments().add(samples.astype(float), range(len(samples)), size // FACTOR)
        counted.save(str(self._folder("moments") / MOMENTS_FILE), is_final=True)
        for folder in (root / "nets" / NAME, root / "images"):
            folder.mkdir(parents=True)
        write_picture(str(root / "images" / NAME), _grey(mean + std * rng.standard_normal(shape)))
        np.save(root / "nets" / NAME / "high_res_mean_1.npy", mean.astype(np.float32))
        dump_pickle((std**2).astype(np.float32), root / "nets" / NAME / "high_res_var_1.pkl")
        dump_pickle({"class": {"y": 0, "file_names": [NAME]}}, root / "info.pkl")

    def _folder(self, source: str) -> Path:
        return self._root / source / NAME

    def _paths(self) -> list[str]:
        folder = str(self._folder("pictures"))
        return [sample_path(folder, i) for i in range(self._flags.num_samples)]

    def project(self, source: str, num_threads: int = 1) -> Reference:
        """What the verification takes from the samples of an image."""
        folder, size = str(self._folder(source)), self._flags.large_size
        num = self._flags.num_samples
        return load_reference(folder, num, size, size // FACTOR, num_threads=num_threads)

    def two_arrays(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Of stored moments only what the plain way gives."""
        with np.load(self._folder("moments") / MOMENTS_FILE, allow_pickle=False) as stored:
            return stored["mean"], stored["variance"]

    def variants(self) -> list[Variant]:
        """The plain way first."""
        pairs: list[tuple[str, Callable[[], object]]] = [
            (PLAIN, lambda: mean_and_variance(self._paths())),
            (ONE_THREAD, lambda: self.project("pictures")),
        ]
        if self.num_threads > 1:
            name = MORE_THREADS.format(self.num_threads)
            pairs.append((name, lambda: self.project("pictures", self.num_threads)))
        pairs += [(STORED, lambda: self.project("moments")), (TWO_ARRAYS, self.two_arrays)]
        return [Variant(name, call, _tensor) for name, call in pairs]

    def verify(self, source: str) -> None:
        """The whole verification of the image, without pictures of it."""
        flags = VerificationFlags(
            data_dir=str(self._root / "images"),
            data_info_dict_path=str(self._root / "info.pkl"),
            large_size=self._flags.large_size,
            ddpm_sr_output_dir=str(self._root / source),
            num_samples=self._flags.num_samples,
            sr_model_output_dir=str(self._root / "nets"),
            mean_model_step=1,
            var_model_step=1,
            log_dir=str(self._root / "log"),
            num_panels=0,
            num_threads=self.num_threads,
        )
        logger = RunLogger(flags.log_dir, is_quiet=True)
        verify_all(flags, logger)
        logger.close()

    def verifications(self) -> list[Variant]:
        """From pictures and from moments."""
        names = {FROM_PICTURES: "pictures", FROM_MOMENTS: "moments"}
        return [Variant(name, functools.partial(self.verify, s)) for name, s in names.items()]


def _grey(values: NDArray[Any]) -> NDArray[Any]:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _tensor(found: Reference | tuple[NDArray[Any], NDArray[Any]]) -> torch.Tensor:
    """Mean and variance, (2, H, H, 3)."""
    if isinstance(found, Reference):
        found = found.moments.mean, found.moments.variance
    return torch.from_numpy(np.stack(found).astype(np.float32))


def peak_bytes(call: Callable[[], object]) -> int:
    """The most that Python and numpy held at a time during a call."""
    call()  # imports and caches
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def targets_of(measured: Measurement, ways: Ways, memory: dict[str, int]) -> list[Target]:
    """Speed from pictures, memory, speed from stored moments."""
    more = MORE_THREADS.format(max(2, ways.num_threads))
    pictures = Target(
        f"{more} over plain",
        measured.ratio(more, PLAIN),
        2.2,
        note="" if ways.num_threads > 1 else "one core",
    )
    used = memory.get(more, memory[ONE_THREAD])
    least = Target("memory, PNGs over plain", used / memory[PLAIN], 1 / 8, is_at_least=False)
    stored = Target(
        "moments.npz over plain",
        measured.ratio(STORED, PLAIN),
        50.0,
        note="with all that the verification takes",
    )
    return [pictures, least, stored]


def main(argv: list[str] | None = None) -> int:
    """Make the image, measure, print, write."""
    parser = make_parser(__doc__, benchmark=VerificationBenchFlags)
    flags = from_args(VerificationBenchFlags, parser.parse_args(argv))
    with tempfile.TemporaryDirectory() as folder:
        ways = Ways(Path(folder), flags)
        measured = measure(ways.variants(), flags)
        memory = {variant.name: peak_bytes(variant.call) for variant in measured.variants}
        whole = measure(ways.verifications(), flags)
    title = f"mean and variance of {flags.num_samples} samples of {flags.large_size}²"
    tables = [Table(title, measured.rows()), Table("the whole verification", whole.rows())]
    for name, count in memory.items():
        print(f"{name}: {count / 1e6:.1f} MB at most")
    targets = targets_of(measured, ways, memory)
    write_record("verification", flags, tables, targets, {"peak_bytes": memory})
    return EXIT_DONE


if __name__ == "__main__":
    run_main(main)
