"""Cuts the demo's photographs into small JPEG tiles: `data/demo/train/` and `data/demo/test/`.

For maintainers who want to change the tiles. It is not part of the demo itself, which reads the
tiles that are kept in the repository, and it is not a loader: nothing imports it. It alone needs
scikit-image and scikit-learn, and those only for the photographs that lie inside their wheels::

    pip install scikit-image scikit-learn pillow
    python data/demo/make_tiles.py

The same photographs and the same Pillow give the same bytes; another Pillow may bring another
JPEG encoder.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import io
import os
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageStat

TILE_SIZE = 100
JPEG_QUALITY = 92
# Below this standard deviation of the luminance (grey levels) a tile teaches nothing: empty sky,
# the black border around a round picture.
MIN_LUMINANCE_STD = 6.0
MAX_TILE_BYTES = 100_000
MAX_TOTAL_BYTES = 2_000_000

PIP_NAMES = {"skimage": "scikit-image", "sklearn": "scikit-learn"}


@dataclass(frozen=True)
class Photograph:
    """One source photograph and how it is cut.

    Attributes:
        name: class of its tiles, the part of a tile's name before the underscore.
        package: import name of the package whose wheel holds the photograph.
        file_path: where it lies inside that package.
        sha256: of that file, so that a replaced photograph is noticed.
        shrink: side of the square of pixels that is averaged into one before cutting.
        corners: (left, top) of each tile in pixels; empty for a whole grid of tiles.
    """

    name: str
    package: str
    file_path: str
    sha256: str
    shrink: int = 1
    corners: tuple[tuple[int, int], ...] = ()


TRAIN_PHOTOGRAPHS = (
    Photograph(
        "chelsea", "skimage", "data/chelsea.png",
        "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
    ),
    Photograph(
        "china", "sklearn", "datasets/images/china.jpg",
        "8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29",
    ),
    Photograph(
        "coffee", "skimage", "data/coffee.png",
        "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
    ),
    Photograph(
        "hubble", "skimage", "data/hubble_deep_field.jpg",
        "3a19c5dd8a927a9334bb1229a6d63711b1c0c767fb27e2286e7c84a3e2c2f5f4",
        shrink=2,
    ),
    Photograph(
        "retina", "skimage", "data/retina.jpg",
        "38a07f36f27f095e818aea7b96d34202c05176d30253c66733f2e00379e9e0e6",
        shrink=2,
    ),
    Photograph(
        "rocket", "skimage", "data/rocket.jpg",
        "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c",
    ),
)  # fmt: skip

# Chosen by eye, so that few pictures show a face, lettering, straight and round edges, texture,
# shallow focus and plain ground.
TEST_PHOTOGRAPHS = (
    Photograph(
        "astronaut", "skimage", "data/astronaut.png",
        "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
        corners=(
            (178, 75), (0, 0), (0, 150), (385, 20), (352, 185), (125, 335),
            (235, 300), (340, 335), (112, 178), (12, 252), (282, 65),
        ),
    ),
    Photograph(
        "flower", "sklearn", "datasets/images/flower.jpg",
        "a77f6ec41e353afdf8bdff2ea981b2955535d8d83294f8cfa49cf4e423dd5638",
        corners=((255, 170), (255, 70), (355, 170), (50, 50), (340, 327)),
    ),
)  # fmt: skip


def check_packages() -> None:
    """Say in one ImportError which packages with photographs are missing, and how to get them."""
    missing = [
        pip_name
        for import_name, pip_name in PIP_NAMES.items()
        if importlib.util.find_spec(import_name) is None
    ]
    if missing:
        names = " ".join(missing)
        raise ImportError(
            f"the demo's photographs lie inside packages that are not installed: {names}; "
            f"run `pip install {names}` (only this script needs them)"
        )


def load_photograph(photograph: Photograph) -> Image.Image:
    """Read one photograph from its wheel, with no import and no network; ValueError for another.

    Returns:
        RGB image, shrunk by the photograph's `shrink`.
    """
    spec = importlib.util.find_spec(photograph.package)
    assert spec is not None and spec.origin is not None, "check_packages() comes first"
    path = Path(spec.origin).parent / photograph.file_path
    pip_name = PIP_NAMES[photograph.package]
    if not path.is_file():
        raise ValueError(f"{pip_name} as installed has no {path}; install another version of it")
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != photograph.sha256:
        raise ValueError(
            f"{path} has sha256 {digest}, not {photograph.sha256}: check its licence and its "
            f"tiles, then change {photograph.name!r} in {Path(__file__).name}"
        )
    image = Image.open(io.BytesIO(content)).convert("RGB")
    return image.reduce(photograph.shrink) if photograph.shrink > 1 else image


def grid_corners(width: int, height: int) -> tuple[tuple[int, int], ...]:
    """Corners (left, top) of all whole tiles, row by row, the unused margin shared evenly."""
    num_columns, num_rows = width // TILE_SIZE, height // TILE_SIZE
    left = (width - num_columns * TILE_SIZE) // 2
    top = (height - num_rows * TILE_SIZE) // 2
    return tuple(
        (left + column * TILE_SIZE, top + row * TILE_SIZE)
        for row in range(num_rows)
        for column in range(num_columns)
    )


def check_corners(photograph: Photograph, width: int, height: int) -> None:
    """Refuse (ValueError) corners chosen by hand whose tiles overlap or leave the photograph."""
    for index, (left, top) in enumerate(photograph.corners):
        if not (0 <= left <= width - TILE_SIZE and 0 <= top <= height - TILE_SIZE):
            raise ValueError(
                f"{photograph.name}: the tile at {(left, top)} leaves the {width}x{height} "
                "photograph; move it inside"
            )
        for other in photograph.corners[:index]:
            if abs(left - other[0]) < TILE_SIZE and abs(top - other[1]) < TILE_SIZE:
                raise ValueError(
                    f"{photograph.name}: the tiles at {other} and {(left, top)} overlap; "
                    f"keep them {TILE_SIZE} pixels apart in one direction"
                )


def cut_photograph(photograph: Photograph) -> dict[str, bytes]:
    """Cut one photograph into tiles of `TILE_SIZE` pixels that do not overlap.

    The number in a name counts the places, so a flat tile that is left out leaves a gap; ValueError
    for one that was chosen by hand.

    Returns:
        File name, as `chelsea_004.JPEG`, to the content of the file.
    """
    image = load_photograph(photograph)
    check_corners(photograph, image.width, image.height)
    tiles: dict[str, bytes] = {}
    corners = photograph.corners or grid_corners(image.width, image.height)
    for index, (left, top) in enumerate(corners):
        tile = image.crop((left, top, left + TILE_SIZE, top + TILE_SIZE))
        if ImageStat.Stat(tile.convert("L")).stddev[0] >= MIN_LUMINANCE_STD:
            buffer = io.BytesIO()
            tile.save(buffer, format="JPEG", quality=JPEG_QUALITY, subsampling=0, optimize=True)
            tiles[f"{photograph.name}_{index:03d}.JPEG"] = buffer.getvalue()
        elif photograph.corners:
            raise ValueError(f"{photograph.name}: the tile at {(left, top)} is flat; move it")
    return tiles


def check_sizes(tiles: dict[str, bytes]) -> None:
    """Refuse (ValueError) files that would not keep the repository small."""
    for name, content in tiles.items():
        if len(content) > MAX_TILE_BYTES:
            raise ValueError(
                f"{name} has {len(content)} bytes, more than {MAX_TILE_BYTES}; lower JPEG_QUALITY"
            )
    num_bytes = sum(map(len, tiles.values()))
    if num_bytes > MAX_TOTAL_BYTES:
        raise ValueError(
            f"all tiles have {num_bytes} bytes, more than {MAX_TOTAL_BYTES}; cut fewer photographs"
        )


def write_tiles(folder: Path, tiles: dict[str, bytes]) -> None:
    """Write the tiles of one split and open each again; ValueError for tiles of an earlier cut."""
    folder.mkdir(parents=True, exist_ok=True)
    stale = sorted({path.name for path in folder.glob("*.JPEG")} - set(tiles))
    if stale:
        raise ValueError(f"{folder} holds tiles of an earlier cut, delete them first: {stale}")
    for name, content in tiles.items():
        path = folder / name
        path.write_bytes(content)
        with Image.open(path) as image:
            image.load()
            assert (image.mode, image.size) == ("RGB", (TILE_SIZE, TILE_SIZE)), path


def main(argv: list[str] | None = None) -> None:
    """Cut both splits, write them and print what each photograph gave."""
    parser = argparse.ArgumentParser(description="Cut the demo's photographs into JPEG tiles.")
    parser.add_argument(
        "--output_dir",
        type=lambda text: Path(os.path.expanduser(text)),
        default=Path(__file__).resolve().parent,
        help="folder of train/ and test/ (default: the folder of this script)",
    )
    output_dir: Path = parser.parse_args(argv).output_dir
    check_packages()
    splits: dict[str, dict[str, bytes]] = {"train": {}, "test": {}}
    for split, photographs in (("train", TRAIN_PHOTOGRAPHS), ("test", TEST_PHOTOGRAPHS)):
        for photograph in photographs:
            tiles = cut_photograph(photograph)
            splits[split].update(tiles)
            print(f"{split}/{photograph.name}: {len(tiles)} tiles")
    check_sizes(splits["train"] | splits["test"])
    for split, tiles in splits.items():
        write_tiles(output_dir / split, tiles)
        num_bytes = sum(map(len, tiles.values()))
        print(f"{output_dir / split}: {len(tiles)} tiles, {num_bytes} bytes")


if __name__ == "__main__":
    main()
