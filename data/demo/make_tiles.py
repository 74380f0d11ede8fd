"""Cuts the photographs beside it into small pictures to train, calibrate and test on.

    python data/demo/make_tiles.py --output_dir data/demo_tiles
    python data/demo/make_tiles.py --output_dir data/demo_calibration --splits calibration

Tiles are PNG, so that they hold the photographs' pixels, and are named
`<split>/<photograph>_<place>.png`: the photograph is the class. The same photographs give the same
tiles. It needs Pillow alone.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageStat

FOLDER = Path(__file__).resolve().parent
SPLITS = ("train", "calibration", "test")
TILE_SIZE = 64
# of a photograph; 45 photographs give 900 training tiles
NUM_TILES = {"train": 20, "calibration": 5, "test": 5}
# Below this standard deviation of the luminance (grey levels) a tile teaches nothing: empty sky.
MIN_LUMINANCE_STD = 6.0


def grid_corners(width: int, height: int, size: int, stride: int = 0) -> list[tuple[int, int]]:
    """Corners (left, top) of all whole tiles, `stride` pixels apart (0: `size`), row by row.

    The unused margin is shared evenly.
    """
    stride = stride or size
    num_columns, num_rows = ((side - size) // stride + 1 for side in (width, height))
    left = (width - size - (num_columns - 1) * stride) // 2
    top = (height - size - (num_rows - 1) * stride) // 2
    return [
        (left + column * stride, top + row * stride)
        for row in range(num_rows)
        for column in range(num_columns)
    ]


def is_flat(tile: Image.Image) -> bool:
    """Whether the luminance of `tile` (RGB) varies too little to be worth keeping."""
    return ImageStat.Stat(tile.convert("L")).stddev[0] < MIN_LUMINANCE_STD


def cut_tiles(
    split: str,
    size: int = TILE_SIZE,
    num_tiles: int | None = None,
    folder: Path = FOLDER,
    stride: int = 0,
) -> Iterator[tuple[str, Image.Image]]:
    """Cut the photographs of one split into tiles.

    Args:
        split: `train`, `calibration` or `test`.
        size: side of a tile, pixels.
        num_tiles: at most so many of each photograph, spread evenly over those of its grid that are
            not flat; 0: all; None: `NUM_TILES` of the split.
        folder: holds the folders of the splits.
        stride: pixels from one tile to the next; 0: as many as a side has, so that none overlap.

    Yields:
        Name, as `chelsea_004`, whose number counts the places of the grid; and the tile, RGB.

    Raises:
        ValueError: if there is no photograph, or one gives no tile.
    """
    most = NUM_TILES[split] if num_tiles is None else num_tiles
    paths = sorted((folder / split).glob("*.jpg"))
    if not paths:
        raise ValueError(f"{folder / split} holds no photograph (.jpg)")
    for path in paths:
        with Image.open(path) as photograph:
            image = photograph.convert("RGB")
        corners = enumerate(grid_corners(image.width, image.height, size, stride))
        tiles = [(i, image.crop((x, y, x + size, y + size))) for i, (x, y) in corners]
        tiles = [(i, tile) for i, tile in tiles if not is_flat(tile)]
        if not tiles:
            raise ValueError(f"{path} gives no tile of {size} pixels; give a smaller --tile_size")
        if 0 < most < len(tiles):
            tiles = [tiles[(2 * k + 1) * len(tiles) // (2 * most)] for k in range(most)]
        for i, tile in tiles:
            yield f"{path.stem}_{i:03d}", tile


def write_tiles(
    output_dir: Path, split: str, size: int, num_tiles: int | None, stride: int = 0
) -> int:
    """Write the tiles of one split; return their number.

    Raises:
        ValueError: if its folder holds other tiles, which would be trained on.
    """
    cut = cut_tiles(split, size, num_tiles, stride=stride)
    tiles = {f"{name}.png": tile for name, tile in cut}
    folder = output_dir / split
    folder.mkdir(parents=True, exist_ok=True)
    if stale := sorted({path.name for path in folder.glob("*.png")} - set(tiles)):
        raise ValueError(
            f"--output_dir {folder} holds {len(stale)} tiles of another cut (the first: "
            f"{stale[0]}); delete them, or give another folder"
        )
    for name, tile in tiles.items():
        tile.save(folder / name)
    return len(tiles)


def create_parser() -> argparse.ArgumentParser:
    """The flags of this script."""
    parser = argparse.ArgumentParser(description="Cut the photographs into tiles.")
    parser.add_argument(
        "--output_dir",
        type=lambda text: Path(os.path.expanduser(text)),
        required=True,
        help="folder that a folder of each split is written to",
    )
    parser.add_argument("--splits", default="train,test", help="which, with commas between")
    parser.add_argument("--tile_size", type=int, default=TILE_SIZE, help="side, pixels")
    parser.add_argument(
        "--num_tiles",
        default="",
        help="of each photograph at most, a number a split or one for all; 0: all (20 and 5)",
    )
    parser.add_argument(
        "--strides",
        default="",
        help="pixels from a tile to the next, likewise; 0: the side, so that none overlap (0)",
    )
    return parser


def _per_split(parser: argparse.ArgumentParser, name: str, text: str, count: int) -> list[int]:
    """The numbers of a flag, one for each split; none if it was left out."""
    numbers = text.split(",") if text else []
    if not all(number.isdecimal() for number in numbers) or len(numbers) not in (0, 1, count):
        parser.error(f"--{name} {text}: give one whole number, or {count} with commas between")
    return [int(number) for number in numbers] * (count if len(numbers) == 1 else 1)


def main(argv: list[str] | None = None) -> int:
    """Cut, write, and print what each split gave."""
    parser = create_parser()
    flags = parser.parse_args(argv)
    splits = flags.splits.split(",")
    if unknown := set(splits) - set(SPLITS):
        parser.error(f"--splits {flags.splits}: no split is called {min(unknown)}; {SPLITS} are")
    most = _per_split(parser, "num_tiles", flags.num_tiles, len(splits)) or [None] * len(splits)
    strides = _per_split(parser, "strides", flags.strides, len(splits)) or [0] * len(splits)
    if flags.tile_size < 8:
        parser.error(f"--tile_size {flags.tile_size} must be at least 8")
    for split, num_tiles, stride in zip(splits, most, strides, strict=True):
        try:
            number = write_tiles(flags.output_dir, split, flags.tile_size, num_tiles, stride)
        except (ValueError, OSError) as error:
            parser.exit(3, f"error: {error}\n")
        print(f"{flags.output_dir / split}: {number} tiles")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
