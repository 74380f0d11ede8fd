"""Makes the photographs and `LICENCES.md` again from the packages that hold them.

For maintainers who want to change the choice, which is `photographs.csv`; nothing imports it. It
needs Pillow alone, and a folder in which each package is unpacked into a folder of its own name::

    mkdir packages
    apt-get download lomiri-wallpapers-16.04 palapeli-data gcompris-qt-data
    pip download --no-deps scikit-image==0.26.0 scikit-learn==1.9.1
    for deb in *.deb; do dpkg -x "$deb" "packages/${deb%%_*}"; done
    unzip -d packages/scikit-image scikit_image-*.whl 'skimage/data/*'
    unzip -d packages/scikit-learn scikit_learn-*.whl 'sklearn/datasets/images/*'
    python data/demo/make_photos.py --packages_dir packages

The same packages and the same Pillow give the same bytes; another Pillow may bring another JPEG
encoder.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

FOLDER = Path(__file__).resolve().parent
SPLITS = ("train", "calibration", "test")
JPEG_QUALITY = 94
MAX_TOTAL_BYTES = 8_000_000
VERSIONS = {
    "lomiri-wallpapers-16.04": "20.04.0-2",
    "palapeli-data": "4:22.12.3-1",
    "gcompris-qt-data": "3.1-2",
    "scikit-image": "0.26.0",
    "scikit-learn": "1.9.1",
}
LICENCES = {
    "CC0 1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "CC BY 2.0": "https://creativecommons.org/licenses/by/2.0/",
    "CC BY 3.0": "https://creativecommons.org/licenses/by/3.0/",
    "CC BY 4.0": "https://creativecommons.org/licenses/by/4.0/",
    "public domain": "",
}


@dataclass(frozen=True)
class Photograph:
    """One source photograph, a line of `photographs.csv`.

    Attributes:
        split: folder that it belongs to; a scene is in one split alone.
        name: of its file, and the class of its tiles.
        package: Debian package, or project on PyPI.
        file: its path inside; behind a colon, the path inside a Qt resource file.
        sha256: of that file, so that a replaced photograph is noticed.
        shrink: side of the square of pixels that is averaged into one.
        author: as the package names them.
        licence: one of `LICENCES`.
        source: where the package says that it is from.
        changed_before: what the package says was done to it; empty: nothing.
    """

    split: str
    name: str
    package: str
    file: str
    sha256: str
    shrink: int
    author: str
    licence: str
    source: str
    changed_before: str


def read_list() -> list[Photograph]:
    """All photographs, in the order of `photographs.csv`."""
    with open(FOLDER / "photographs.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [Photograph(shrink=int(row.pop("shrink")), **row) for row in rows]


def read_resource(content: bytes, path: str) -> bytes:
    """One file of a binary Qt resource collection (`.rcc`, formats 1 to 3), stored as it is.

    Source: Qt's `qresource.cpp`. All numbers are big-endian: a header with the offsets of tree,
    data and names; nodes of the tree with (name, flags, children) of a folder or (name, flags, …,
    data) of a file; names in UTF-16 behind their length and hash; data behind its length.

    Raises:
        ValueError: if it is no such collection, has no such file, or holds it compressed.
    """
    magic, version, tree, data, names = struct.unpack_from(">4s4i", content)
    if magic != b"qres":
        raise ValueError(f"not a Qt resource file: it begins with {magic!r}")
    node_size = 14 if version == 1 else 22

    def node(index: int) -> tuple[int, int]:
        start = tree + index * node_size
        flags: int = struct.unpack_from(">H", content, start + 4)[0]
        return start, flags

    def name_of(start: int) -> str:
        place = names + struct.unpack_from(">I", content, start)[0]
        length = struct.unpack_from(">H", content, place)[0]
        return content[place + 6 : place + 6 + 2 * length].decode("utf-16-be")

    start, flags = node(0)
    for part in path.strip("/").split("/"):
        num_children, first = struct.unpack_from(">2I", content, start + 6)
        children = [node(first + i) for i in range(num_children)] if flags & 2 else []
        found = [child for child in children if name_of(child[0]) == part]
        if not found:
            raise ValueError(f"the Qt resource file holds no {path}")
        start, flags = found[0]
    if flags:
        raise ValueError(f"{path} is a folder or compressed in the Qt resource file")
    place = data + struct.unpack_from(">I", content, start + 10)[0]
    length = struct.unpack_from(">I", content, place)[0]
    return content[place + 4 : place + 4 + length]


def load_photograph(photograph: Photograph, packages_dir: Path) -> Image.Image:
    """Read one photograph from its unpacked package: RGB, each block of `shrink`² pixels its mean.

    Rows and columns beyond the last whole block are cut off.

    Raises:
        ValueError: if the package lacks the file or holds another picture.
    """
    outer, _, inner = photograph.file.partition(":")
    path = packages_dir / photograph.package / outer
    if not path.is_file():
        raise ValueError(f"{path} is missing: unpack {photograph.package} there")
    content = path.read_bytes()
    if inner:
        content = read_resource(content, inner)
    digest = hashlib.sha256(content).hexdigest()
    if digest != photograph.sha256:
        raise ValueError(
            f"{photograph.file} of {path} has sha256 {digest}, not {photograph.sha256}: check its "
            f"licence and its picture, then change {photograph.name} in photographs.csv"
        )
    image = Image.open(io.BytesIO(content)).convert("RGB")
    side = photograph.shrink
    whole = image.crop((0, 0, image.width // side * side, image.height // side * side))
    return whole.reduce(side) if side > 1 else whole


def encode_jpeg(image: Image.Image) -> bytes:
    """JPEG file of `image` (RGB) with full colour resolution and no metadata."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=JPEG_QUALITY, subsampling=0, optimize=True)
    return buffer.getvalue()


def licences_page(photographs: list[Photograph]) -> str:
    """The text of `LICENCES.md`."""
    versions = ", ".join(f"{package} {version}" for package, version in VERSIONS.items())
    lines = [
        "# Authors and licences of the photographs",
        "",
        "`make_photos.py` writes this page from `photographs.csv`; change that file.",
        "",
        "Each photograph was changed here: reduced to means of blocks of pixels (their size is in",
        "its line) and stored again as JPEG.",
        "The line also says what was done before.",
        "Photographs, tiles cut from them and pictures made from them carry the licence of the",
        "photograph, not the licence of the code.",
        "Where that is CC BY, keep the author's name, the licence and the changes with every copy.",
        "Nobody named here endorses this project.",
        "",
        "Authors, licences and sources are as stated by the packages:",
        "",
        "- lomiri-wallpapers-16.04: `debian/copyright`",
        "- palapeli-data: the `.desktop` file beside each picture",
        "- gcompris-qt-data: the README beside the pictures in its resource files",
        "  (its `debian/copyright` still lists the pictures that they replaced)",
        "- scikit-image: the documentation of `skimage.data`",
        "- scikit-learn: `sklearn/datasets/images/README.txt`; for `flower` it prints the name",
        "  danielbuechele beside two links that both lead to vultilion, and the links are followed",
        "",
        f"Packages: {versions}.",
        "",
        "Licences: "
        + ", ".join(f"[{name}]({url})" if url else name for name, url in LICENCES.items())
        + ".",
    ]
    for split in SPLITS:
        lines += [
            "",
            f"## {split}/",
            "",
            "| photograph | author | licence | package: file | source | changed |",
            "|---|---|---|---|---|---|",
        ]
        lines += [_licence_row(one) for one in photographs if one.split == split]
    return "\n".join(lines) + "\n"


def _licence_row(one: Photograph) -> str:
    blocks = f"means of {one.shrink} × {one.shrink} pixels" if one.shrink > 1 else ""
    changed = "; ".join(filter(None, [one.changed_before, blocks, "stored as JPEG"]))
    source = f"<{one.source}>" if one.source.startswith("https://") else one.source
    return (
        f"| `{one.name}.jpg` | {one.author} | {one.licence} | "
        f"{one.package}: `{one.file.rpartition('/')[2]}` | {source} | {changed} |"
    )


def main(argv: list[str] | None = None) -> int:
    """Read all photographs, then write them and the page of their licences."""
    parser = argparse.ArgumentParser(description="Make the photographs again from their packages.")
    parser.add_argument(
        "--packages_dir",
        type=lambda text: Path(os.path.expanduser(text)),
        required=True,
        help="folder of the unpacked packages; the text at the top of this file makes it",
    )
    parser.add_argument(
        "--output_dir",
        type=lambda text: Path(os.path.expanduser(text)),
        default=FOLDER,
        help="folder of train/, calibration/ and test/ (default: the folder of this script)",
    )
    flags = parser.parse_args(argv)
    photographs = read_list()
    files = {
        f"{one.split}/{one.name}.jpg": encode_jpeg(load_photograph(one, flags.packages_dir))
        for one in photographs
    }
    there = {str(p.relative_to(flags.output_dir)) for p in flags.output_dir.glob("*/*.jpg")}
    if stale := sorted(there - set(files)):
        raise ValueError(f"{flags.output_dir} holds photographs that are in no list: {stale}")
    num_bytes = sum(map(len, files.values()))
    if num_bytes > MAX_TOTAL_BYTES:
        raise ValueError(f"{num_bytes} bytes are more than {MAX_TOTAL_BYTES}; choose fewer")
    for name, content in files.items():
        path = flags.output_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (flags.output_dir / "LICENCES.md").write_text(licences_page(photographs), encoding="utf-8")
    print(f"{flags.output_dir}: {len(files)} photographs, {num_bytes} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
