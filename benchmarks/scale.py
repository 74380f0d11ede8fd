"""What long lists cost: a million images, 200 000 samples; CPU seconds and memory of each start.

    python -m benchmarks.scale --data_dir /tmp/scale
    python -m benchmarks.scale --data_dir /tmp/scale --only listed,sampler

The data are made up in `--data_dir` and stay there: an info dict, hard links to a few small images,
a crop cache whose data file is a hole, samples and moments of noise. Each row is a process of its
own. CPU seconds are of all of its threads; memory is what the process has gained since its imports
(RSS: at the end, of that private, and at its peak).
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from benchmarks.record import write_rows
from benchmarks.usage import Usage
from utils.process.errors import EXIT_DONE, run_main
from utils.script_util import flag, from_args, make_parser

if TYPE_CHECKING:
    from sr_var.flags.verify import VerificationFlags
    from utils.images.crops.dataset import CropDataset

ROOT = Path(__file__).resolve().parent.parent
RESULTS_DIR = ROOT / "benchmarks" / "results"
# links to one file that every file system takes
_MAX_LINKS = 1000
_CROP_SIDE = 8
_CHILD = "--measure"


@dataclass(frozen=True)
class ScaleFlags:
    """How much of everything, and which rows."""

    data_dir: str = flag("outputs/scale", "folder of the synthetic data, which stay there")
    num_images: int = flag(1_280_000, "images of the info dict")
    num_files: int = flag(1_000_000, "files of the crop cache and for sr_data_info.py")
    num_sampled: int = flag(2000, "images with samples, for the start of the samplers")
    num_verified: int = flag(20, "images to verify, of pictures and of stored moments")
    num_samples: int = flag(100, "samples of each")
    only: str = flag("", "rows to measure, comma separated; empty: all")
    output_dir: str = flag("", "folder of the record; empty: benchmarks/results")
    measure: str = flag("", "of the processes that this script starts")


class Scale:
    """The rows; each makes what it needs (`prepare_…`, not measured) and does its work."""

    def __init__(self, flags: ScaleFlags) -> None:
        self.flags, self._root = flags, Path(flags.data_dir)
        self.usage, self.curve = Usage(), list[dict[str, float]]()

    # ---- lists

    def prepare_plain(self) -> None:
        """An info dict of a thousand classes at most."""
        each = -(-self.flags.num_images // 1000)
        _write_info(self._info, self.flags.num_images // each, each, "train/")

    def plain(self) -> object:
        """The info dict as a list of Python objects, as without an index."""
        from ddpm.info_dict import load_info_dict
        from utils.images.listing import Entry

        info = load_info_dict(self._info)
        return [
            Entry(name, one["y"], key) for key, one in info.items() for name in one["file_names"]
        ]

    def prepare_first(self) -> None:
        """No index."""
        self.prepare_plain()
        for path in self._root.glob(f".{self._info.name}.index*"):
            path.unlink()

    prepare_listed = prepare_plain

    def listed(self) -> object:
        """The images of the info dict, as a training takes them: data set and digest."""
        from sr_var.base_dataset import load_entries
        from utils.flags.groups import CropFlags
        from utils.images.crops.dataset import CropDataset

        entries = load_entries(str(self._info), str(self._root))
        dataset = CropDataset(entries, 64, CropFlags(data_dir=str(self._root)), 0)
        return dataset, dataset.listing()

    first = listed

    def prepare_epoch(self) -> None:
        """The index is there."""
        self.prepare_plain()
        self.listed()

    def epoch(self) -> object:
        """Every image of an epoch by name and label, in the shuffled order."""
        from sr_var.base_dataset import load_entries
        from utils.loops.data import EpochOrder

        entries = load_entries(str(self._info), str(self._root))
        order = EpochOrder(len(entries), 0).permutation(0)
        for place in order:
            entries[int(place)]
        return entries

    @property
    def _info(self) -> Path:
        return self._root / f"info_{self.flags.num_images}.pkl"

    # ---- crop cache

    def prepare_crops(self) -> None:
        """An info dict of all files and a cache of them, whose crops are a hole."""
        from utils.files.records import require_same_settings
        from utils.images.crops import cache
        from utils.images.crops.cache_index import Record
        from utils.images.crops.recipes import CenterCrop
        from utils.images.folder import file_stamps

        self._make_files()
        _write_info(self._files_info, *self._num_by_class)
        recipe = CenterCrop(str(self._files), _CROP_SIDE)
        folder = Path(cache.crop_folder(recipe, str(self._root / "cache")))
        for path in folder.glob("lists/*"):
            path.unlink()
        if folder.exists():
            return
        names = self._file_names()
        settings = folder / "settings.json"
        require_same_settings(
            str(settings), cache._settings(recipe), defaults={}, folder_flag="--cache_dir"
        )
        empty = bytes(_CROP_SIDE**2 * 3)
        with open(folder / cache.INDEX_FILE, "wb") as file:
            stamps, crc = file_stamps(names, str(self._files)).tolist(), zlib.crc32(empty)
            for row, (name, stamp) in enumerate(zip(names, stamps, strict=True)):
                file.write(cache.index_line(name, Record(row, crc, tuple(stamp), "96x80")))
        with open(folder / "crops.u8", "wb") as file:
            file.truncate(len(names) * len(empty))

    def crops(self) -> CropDataset:
        """A data set of an info dict with a crop cache, whose lines are read."""
        from sr_var.base_dataset import load_entries
        from utils.flags.groups import CropFlags
        from utils.images.crops.dataset import CropDataset

        flags = CropFlags(data_dir=str(self._files), cache_dir=str(self._root / "cache"))
        entries = load_entries(str(self._files_info), flags.data_dir)
        return CropDataset(entries, _CROP_SIDE, flags, 0)

    def prepare_cached(self) -> None:
        """What the list finds in the cache is kept."""
        self.prepare_crops()
        self.crops()

    cached = crops
    prepare_reads = prepare_cached

    def reads(self) -> object:
        """Every crop read once: compared with its file and with its checksum."""
        dataset = self.crops()
        for place in range(len(dataset)):
            dataset[place, 0, place]
        return dataset

    def prepare_stamps(self) -> None:
        """The files."""
        self._make_files()

    def stamps(self) -> object:
        """Size and time of change of every file: part of the first start, and of all reads."""
        from utils.images.folder import file_stamps

        return file_stamps(self._file_names(), str(self._files))

    # ---- sr_data_info.py

    @property
    def _files(self) -> Path:
        return self._root / f"images_{self.flags.num_files}"

    @property
    def _files_info(self) -> Path:
        return self._root / f"info_of_{self._files.name}.pkl"

    @property
    def _num_by_class(self) -> tuple[int, int]:
        """How many classes, and files of each."""
        each = min(_MAX_LINKS, self.flags.num_files)
        return self.flags.num_files // each, each

    def _file_names(self) -> list[str]:
        num_classes, each = self._num_by_class
        return [n for c in range(num_classes) for n in _names(c, range(each))]

    def _make_files(self) -> None:
        """A thousand links to a file, a file and a folder a class."""
        _once(self._files, self._write_files)

    def _write_files(self, folder: Path) -> None:
        for name in self._file_names():
            path = folder / f"{name}.JPEG"
            if not path.parent.exists():
                path.parent.mkdir(parents=True)
                first = path
                _noise(80, 96, name).save(path, quality=90)
            else:
                os.link(first, path)

    def prepare_info(self) -> None:
        """The files, and none of an earlier list."""
        self._make_files()
        for path in (self._root / "lists").glob("*.pkl"):
            path.unlink()

    prepare_unchecked = prepare_info

    def info(self, *more: str) -> object:
        """`sr_data_info.py`, which decodes every image."""
        import sr_data_info

        words = {"data_dir": self._files, "output_dir": self._root / "lists", "num_threads": 1}
        words |= {"log_dir": self._root / "log", "large_size": 64}
        argv = [str(word) for name, value in words.items() for word in (f"--{name}", value)]
        if sr_data_info.main([*argv, *more]) != EXIT_DONE:
            raise SystemExit("sr_data_info.py failed")
        return None

    def unchecked(self) -> object:
        """The same with `--check_images False`."""
        return self.info("--check_images", "False")

    # ---- samples

    def prepare_sampler(self) -> None:
        """Many finished images: links to those of the verification."""
        from benchmarks.scale_data import write_links

        self.prepare_pictures()
        known, more = (
            [_sampled(number) for number in range(count)]
            for count in (self.flags.num_verified, self.flags.num_sampled)
        )
        source = self._root / "verified"
        _once(self._root / "sampled", lambda folder: write_links(source, folder, more, known))

    def sampler(self) -> object:
        """What `ddpm_sr_sample.py` has to do in a folder of finished samples: nothing."""
        from sr_var.sampling import missing_in

        folder = self._root / "sampled" / "samples"
        for number in range(self.flags.num_sampled):
            if missing_in(str(folder / _sampled(number)), self.flags.num_samples, print)[0]:
                raise SystemExit("samples are missing")
        return None

    def prepare_parts(self) -> None:
        """Parts of 50 plain samples each."""
        from image_ddpm.parts import PartStore

        store = PartStore(str(self._root / "parts"), self._num_in_all)
        if not (self._root / "parts").exists():
            arrays = {"samples": np.zeros((50, 8, 8, 3), np.uint8)}
            for first in range(0, self._num_in_all, 50):
                store.save(range(first, first + 50), arrays)

    def parts(self) -> object:
        """What `image_sample.py` has to draw where all parts are there: nothing."""
        from image_ddpm.parts import PartStore

        with PartStore(str(self._root / "parts"), self._num_in_all).share(0, 1) as missing:
            return missing

    @property
    def _num_in_all(self) -> int:
        return self.flags.num_sampled * self.flags.num_samples

    # ---- verification

    def prepare_pictures(self) -> None:
        """Images of 256 pixels a side with their nets' results and samples as pictures."""
        from benchmarks.scale_data import write_verification

        names = [_sampled(number) for number in range(self.flags.num_verified)]
        _once(
            self._root / "verified",
            lambda folder: write_verification(folder, names, self.flags.num_samples),
        )

    prepare_moments = prepare_pictures
    prepare_many = prepare_sampler

    def pictures(self, source: str = "samples") -> object:
        """The verification from pictures, in one thread."""
        from sr_var.verify.run import verify_all
        from utils.logger import RunLogger

        flags = self._verification("verified", source)
        with closing(RunLogger(flags.log_dir, is_quiet=True)) as logger:
            verify_all(flags, logger)
        return None

    def moments(self) -> object:
        """The same from stored moments, without ranks, whose samples are not there."""
        return self.pictures("stored")

    def many(self) -> object:
        """Many images from stored moments, with the first samples as pictures for ranks.

        `curve` gets what each tenth of the images has taken so far.
        """
        from sr_var.verify.run import compare, inputs_of
        from utils.logger import RunLogger
        from utils.runs.job import working

        flags, counts = self._verification("sampled", "samples"), itertools.count(1)
        with closing(RunLogger(flags.log_dir, is_quiet=True)) as logger:
            entries, units = inputs_of(flags, logger)
            with working(len(entries), "verifying", "image") as job:

                def done() -> None:
                    job.done()
                    count = next(counts)
                    if count * 10 // len(entries) > (count - 1) * 10 // len(entries):
                        self.curve.append({"images": count, **self.usage.taken()})
                        print(self.curve[-1], file=sys.stderr)

                compare(entries, units, flags, logger, done).write(flags.log_dir, logger)
        return None

    def _verification(self, folder: str, source: str) -> VerificationFlags:
        from sr_var.flags.verify import VerificationFlags

        root = self._root / folder
        return VerificationFlags(
            data_dir=str(root / "images"),
            data_info_dict_path=str(root / "info.pkl"),
            ddpm_sr_output_dir=str(root / source),
            num_samples=self.flags.num_samples,
            sr_model_output_dir=str(root / "nets"),
            mean_model_step=1,
            var_model_step=1,
            log_dir=str(self._root / "log_verified"),
            num_panels=0,
            num_threads=1,
        )


def _once(folder: Path, write: Callable[[Path], None]) -> None:
    """Write a folder that is there whole or not at all."""
    if not folder.exists():
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)  # of a run that was stopped
        write(partial)
        partial.rename(folder)


def _write_info(path: Path, num_classes: int, each: int, prefix: str = "") -> None:
    """An info dict of so many names of each class."""
    from utils.untrusted.pickles import dump_pickle

    if not path.exists():
        names = {c: list(_names(c, range(each), prefix)) for c in range(num_classes)}
        dump_pickle({f"n{c:08d}": {"y": c, "file_names": names[c]} for c in names}, path)


def _names(label: int, numbers: range, prefix: str = "") -> Iterator[str]:
    return (f"{prefix}n{label:08d}/n{label:08d}_{number:05d}" for number in numbers)


def _sampled(number: int) -> str:
    return f"image_{number:05d}.png"


def _noise(height: int, width: int, name: str) -> Image.Image:
    rng = np.random.default_rng([*name.encode()])
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


ROWS: Mapping[str, str] = {
    "plain": "info dict as Python objects (as without an index)",
    "first": "info dict, first start: index made",
    "listed": "info dict, later starts",
    "epoch": "likewise, and each image of an epoch once, shuffled",
    "stamps": "size and time of change of every file",
    "crops": "crop cache, first start of a list: its lines read",
    "cached": "crop cache, later starts",
    "reads": "likewise, and each crop read once",
    "unchecked": "sr_data_info.py --check_images False",
    "info": "sr_data_info.py, every image decoded",
    "sampler": "ddpm_sr_sample.py: which samples are missing (none)",
    "parts": "image_sample.py: which samples are missing (none)",
    "pictures": "verification from pictures",
    "moments": "verification from moments.npz alone",
    "many": "verification of all images with samples, from moments.npz, and ranks",
}


def _measure(name: str, scale: Scale) -> dict[str, Any]:
    """What a row takes beyond the imports, in this process."""
    import torch  # noqa: F401 - part of the imports

    import sr_var.sampling
    import sr_var.verify.run  # noqa: F401

    scale.usage = Usage()
    kept = getattr(scale, name)()
    found: dict[str, Any] = scale.usage.taken()
    del kept
    return found | ({"curve": scale.curve} if scale.curve else {})


def _in_child(name: str, flags: ScaleFlags) -> dict[str, Any]:
    """Prepare a row in one process, measure it in the next."""
    prepare: Callable[[], None] | None = getattr(Scale, f"prepare_{name}", None)
    words = [word for key, value in asdict(flags).items() for word in (f"--{key}", str(value))]
    command = [sys.executable, "-m", "benchmarks.scale", *words, _CHILD]
    if prepare is not None:
        subprocess.run([*command, f"prepare_{name}"], cwd=ROOT, check=True)
    done = subprocess.run([*command, name], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {"row": name, "what": ROWS[name], **found}


def _table(rows: list[dict[str, Any]]) -> str:
    lines = ["| what | CPU, s | s | RSS, MiB | private | peak |", "|---|---|---|---|---|---|"]
    for row in rows:
        memory = " | ".join(f"{row[kind]:.0f}" for kind in ("rss", "private", "peak"))
        lines.append(f"| {row['what']} | {row['cpu']:.2f} | {row['wall']:.2f} | {memory} |")
        for point in row.get("curve", ()):
            memory = " | ".join(f"{point[kind]:.0f}" for kind in ("rss", "private", "peak"))
            seconds = f"{point['cpu']:.2f} | {point['wall']:.2f}"
            lines.append(f"| … after {point['images']} | {seconds} | {memory} |")
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> int:
    """Make the data, measure each row, print, write."""
    flags = from_args(ScaleFlags, make_parser(__doc__, benchmark=ScaleFlags).parse_args(argv))
    Path(flags.data_dir).mkdir(parents=True, exist_ok=True)
    scale = Scale(flags)
    if flags.measure.startswith("prepare_"):
        getattr(scale, flags.measure)()
        return EXIT_DONE
    if flags.measure:
        print(json.dumps(_measure(flags.measure, scale)))
        return EXIT_DONE
    rows = []
    for name in flags.only.split(",") if flags.only else ROWS:
        rows.append(_in_child(name, flags))
        print("\n".join(_table(rows[-1:]).splitlines()[2:]), flush=True)
    folder = Path(flags.output_dir) if flags.output_dir else RESULTS_DIR
    write_rows("scale", folder, asdict(flags), rows, _table(rows))
    return EXIT_DONE


if __name__ == "__main__":
    run_main(main)
