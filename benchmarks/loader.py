"""Crops per second and core: out of the files, and out of the cache.

    python -m benchmarks.loader                      (half a minute)

JPEGs of 500x375 pixels, put together from the demo's photographs, to 256x256: each image by each
way in turn, in one process and thread; medians over images. Writes `loader_<date>.json` and
`.md` to `--output_dir`.
"""

from __future__ import annotations

import datetime
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from utils.process.errors import EXIT_DONE, run_main
from utils.script_util import FlagParser, flag, from_args, make_parser, require_at_least

ROOT = Path(__file__).resolve().parent.parent
PLAIN, CACHE = "plain", "cache"
_TILE, _QUALITY = 100, 95


@dataclass(frozen=True)
class LoaderFlags:
    """What to load, and where to write."""

    num_images: int = flag(64, "JPEGs")
    num_rounds: int = flag(7, "times that each is loaded by each way")
    width: int = flag(500, "of a JPEG, pixels")
    height: int = flag(375, "of a JPEG, pixels")
    size: int = flag(256, "side of the crops, pixels")
    output_dir: str = flag(str(ROOT / "benchmarks/results"), "folder of the two files")

    def __post_init__(self) -> None:
        """Refuse counts that measure nothing."""
        require_at_least(self, num_images=1, num_rounds=1, width=_TILE, height=_TILE, size=1)


def create_parser() -> FlagParser:
    """The flags of this script."""
    return make_parser(__doc__, benchmark=LoaderFlags)


def write_jpegs(folder: Path, flags: LoaderFlags) -> list[str]:
    """Images of pieces of photographs side by side; returns their names."""
    from PIL import Image

    from utils.images.files import open_image

    tiles = [open_image(path) for path in sorted((ROOT / "data/demo").glob("*/*.jpg"))]
    names = []
    for number in range(flags.num_images):
        image = Image.new("RGB", (flags.width, flags.height))
        places = [
            (x, y) for y in range(0, flags.height, _TILE) for x in range(0, flags.width, _TILE)
        ]
        for i, place in enumerate(places):
            image.paste(tiles[(number * len(places) + 7 * i) % len(tiles)], place)
        names.append(f"{number:05d}")
        image.save(folder / f"{names[-1]}.JPEG", quality=_QUALITY)
    return names


def measure(folder: Path, names: Sequence[str], flags: LoaderFlags) -> list[dict[str, Any]]:
    """One row a way: rates of the crop alone and of the data set's item, and what differs."""
    import numpy as np

    from utils.flags.groups import CropFlags
    from utils.images.crops.cache import crop_source
    from utils.images.crops.dataset import CropDataset
    from utils.images.crops.recipes import CenterCrop
    from utils.images.listing import Entry

    plain = CropFlags(data_dir=str(folder))
    ways = {PLAIN: plain, CACHE: replace(plain, cache_dir=str(folder / "cache"))}
    entries = [Entry(name, 0) for name in names]
    crops, items = {}, {}
    for name, way in ways.items():
        recipe = CenterCrop(way.data_dir, flags.size)
        crops[name] = crop_source(names, recipe, way).read
        items[name] = _item_of(CropDataset(entries, flags.size, way, 0))
    references = [crops[PLAIN](i).pixels for i in range(len(names))]
    seconds, item_seconds = (_time(reads, flags) for reads in (crops, items))
    rows = []
    for name, read in crops.items():
        found = [np.abs(read(i).pixels.astype(int) - one) for i, one in enumerate(references)]
        row = {"way": name, "crops_per_second": 1 / seconds[name]}
        row |= {"ratio": seconds[PLAIN] / seconds[name], "items_per_second": 1 / item_seconds[name]}
        row |= {"item_ratio": item_seconds[PLAIN] / item_seconds[name]}
        row["largest_difference"] = int(max(one.max() for one in found))
        row["share_different"] = float(np.mean([(one > 0).mean() for one in found]))
        rows.append(row)
    return rows


def _item_of(dataset: Any) -> Callable[[int], Any]:
    return lambda index: dataset[index, 0, index]


def _time(reads: dict[str, Callable[[int], Any]], flags: LoaderFlags) -> dict[str, float]:
    """Median seconds of a crop by each way, after a round that warms up and checks checksums."""
    seconds: dict[str, list[float]] = {name: [] for name in reads}
    for number in range(flags.num_rounds + 1):
        for index in range(flags.num_images):
            for name, read in reads.items():
                started = time.perf_counter()
                read(index)
                if number:
                    seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def format_table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    lines = [
        "| way | crops a second and core | ratio | items of the data set a second and core "
        "| ratio | largest difference, grey levels | share of values that differ |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [row["way"], f"{row['crops_per_second']:.0f}", f"{row['ratio']:.2f}"]
        cells += [f"{row['items_per_second']:.0f}", f"{row['item_ratio']:.2f}"]
        cells += [str(row["largest_difference"]), f"{row['share_different']:.1e}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write_results(flags: LoaderFlags, rows: Sequence[dict[str, Any]]) -> Path:
    """JSON and Markdown; returns the path of the JSON."""
    from utils.files.records import versions

    today = datetime.date.today().isoformat()
    path = Path(flags.output_dir, f"loader_{today}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "date": today,
        "flags": {name: value for name, value in vars(flags).items() if name != "output_dir"},
        "machine": platform.machine(),
        "versions": versions(),
        "results": list(rows),
    }
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(format_table(rows), encoding="utf-8")
    return path


def main(argv: list[str] | None = None) -> int:
    """Make the images, measure, write, print; return the exit code."""
    flags = from_args(LoaderFlags, create_parser().parse_args(argv))
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder), write_jpegs(Path(folder), flags), flags)
    path = write_results(flags, rows)
    print(format_table(rows))
    print(f"written: {path} and its .md")
    return EXIT_DONE


if __name__ == "__main__":
    run_main(main)
