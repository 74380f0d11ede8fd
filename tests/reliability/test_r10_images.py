"""R10: truncated and damaged images are errors that name them, or are counted on request."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.layering import sources
from tests.native_files import NATIVE, native_seeds
from tests.pipeline import Pipeline
from tests.reliability.confined import assert_all_well, outcomes, slowest
from tests.reliability.extent import extent
from tests.reliability.mutations import mutations
from tests.scripts.runs import SCRIPTS, flags_of
from tests.tiny import ROOT, TinyData, photo, run, words
from utils.images.files import FORMATS, MAX_PIXELS, image_facts, open_image
from utils.images.float_tiff import start_float_tiff
from utils.images.native import read_native
from utils.process.errors import EXIT_DATA

WITH_INFO = [script for script in SCRIPTS if script != "sr_data_info"]


def _encoded(folder: Path, image_format: str) -> bytes:
    path = folder / f"x.{image_format.lower()}"
    Image.fromarray(photo(0)).save(path, image_format)
    return path.read_bytes()


def _reading(path: Path) -> Callable[[bytes], object]:
    def read(data: bytes) -> object:
        path.write_bytes(data)
        return image_facts(path), open_image(path)

    return read


def _reading_natively(path: Path) -> Callable[[bytes], object]:
    def read(data: bytes) -> object:
        path.write_bytes(data)
        return read_native(path)

    return read


@pytest.mark.parametrize("image_format", FORMATS)
def test_image_cut_off_anywhere_is_refused_by_name(
    tmp_path: Path, image_format: str, figure: Callable[[str], None]
) -> None:
    data = _encoded(tmp_path, image_format)
    # the last bytes of a file may be padding or an end mark that no pixel depends on
    lengths = range(0, len(data) - 32, max(1, len(data) // extent(60, 2000)))
    payloads = [data[:length] for length in lengths]
    found = outcomes(_reading(tmp_path / "n01_1.JPEG"), payloads)
    num_refused = assert_all_well(found, payloads, "n01_1.JPEG")
    assert num_refused == len(payloads)
    figure(f"{num_refused}/{len(payloads)} truncated {image_format} files refused by name")


@pytest.mark.parametrize("kind", NATIVE)
def test_image_in_its_own_numbers_cut_off_anywhere_is_refused_by_name(
    tmp_path: Path, kind: str, figure: Callable[[str], None]
) -> None:
    data = native_seeds()[kind]
    lengths = range(0, len(data) - 32, max(1, len(data) // extent(60, 2000)))
    payloads = [data[:length] for length in lengths]
    found = outcomes(_reading_natively(tmp_path / "x.tif"), payloads)
    assert assert_all_well(found, payloads, "x.tif") == len(payloads)
    figure(f"{len(payloads)}/{len(payloads)} truncated files ({kind}) refused by name")


def test_random_mutation_of_an_image_in_its_own_numbers_is_read_or_refused_by_name(
    tmp_path: Path, figure: Callable[[str], None]
) -> None:
    payloads = mutations([*native_seeds().values()], extent(400, 10000), seed=8)
    found = outcomes(_reading_natively(tmp_path / "x.tif"), payloads)
    num_refused = assert_all_well(found, payloads, "x.tif", most=8 * MAX_PIXELS)
    figure(f"{len(found)}/{len(found)} mutations refused ({num_refused}) or read, {slowest(found)}")


def test_random_mutation_of_the_place_of_a_tiff_is_written_again_or_left_out(
    tmp_path: Path, figure: Callable[[str], None]
) -> None:
    """What a file says of its place is divided and written as it was read."""
    place = tmp_path / "x.tif"
    payloads = mutations([native_seeds()["GeoTIFF"]], extent(400, 10000), seed=9)

    def copy(data: bytes) -> object:
        place.write_bytes(data)
        found = read_native(place).placement.divided(4)
        with open(tmp_path / "y.tif", "wb") as file:
            start_float_tiff(file, (5, 4, 1), found)
            file.write(bytes(80))
        read_native(tmp_path / "y.tif")
        return found

    found = outcomes(copy, payloads)
    num_refused = assert_all_well(found, payloads, "x.tif", most=8 * MAX_PIXELS)
    assert num_refused < len(found)
    figure(f"{len(found)}/{len(found)} mutations of a GeoTIFF refused ({num_refused}) or written")


def test_random_mutation_of_an_image_is_read_or_refused_by_name(
    tmp_path: Path, figure: Callable[[str], None]
) -> None:
    payloads = mutations([_encoded(tmp_path, kind) for kind in FORMATS], extent(200, 5000), seed=7)
    found = outcomes(_reading(tmp_path / "n01_1.JPEG"), payloads)
    num_refused = assert_all_well(found, payloads, "n01_1.JPEG", most=8 * MAX_PIXELS)
    figure(f"{len(found)}/{len(found)} mutations refused ({num_refused}) or read, {slowest(found)}")


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("extended", [False, True])
def test_webp_that_is_too_large_is_refused_before_its_canvas_is_taken(
    tmp_path: Path, lossless: bool, extended: bool
) -> None:
    """13459 x 10240 pixels: less than Pillow's own limit, and 1.1 GB in its decoder."""
    path = tmp_path / "x.webp"
    kinds = {"exif": b"Exif"} if extended else {}
    Image.fromarray(photo(0)).save(path, "WEBP", lossless=lossless, **kinds)
    data = bytearray(path.read_bytes())
    width, height = 13459, 10240
    if extended:
        data[24:30] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    elif lossless:
        data[21:25] = (width - 1 | (height - 1) << 14).to_bytes(4, "little")
    else:
        data[26:30] = width.to_bytes(2, "little") + height.to_bytes(2, "little")
    (found,) = outcomes(_reading(tmp_path / "n01_1.JPEG"), [bytes(data)])
    assert "13459x10240" in found.message
    assert found.num_bytes < 10_000_000


@pytest.mark.parametrize("image_format", ["GIF", "TIFF", "PPM", "ICO", "TGA", "PCX", "EPS", "PDF"])
def test_image_of_a_format_that_is_not_allowed_is_refused(
    tmp_path: Path, image_format: str
) -> None:
    payloads = [_encoded(tmp_path, image_format)]
    found = outcomes(_reading(tmp_path / "n01_1.JPEG"), payloads)
    assert assert_all_well(found, payloads, "n01_1.JPEG") == 1
    assert "not a whole" in found[0].message


def test_nothing_lets_truncated_images_or_other_formats_through() -> None:
    """Nobody sets ``LOAD_TRUNCATED_IMAGES``; every ``Image.open`` says which formats it takes."""
    num_opened = 0
    for path in sources(ROOT):
        if path.relative_to(ROOT).parts[0] == "tests":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign)):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                assert "LOAD_TRUNCATED_IMAGES" not in "".join(map(ast.unparse, targets)), path
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Image.open":
                assert "formats" in {keyword.arg for keyword in node.keywords}, path
                num_opened += 1
    assert num_opened


@pytest.fixture(params=["cut off", "a folder", "a link to nothing"])
def damaged_data(request: pytest.FixtureRequest, tmp_path: Path) -> TinyData:
    """The tiny data with one training and one test image damaged."""
    data = TinyData.write(tmp_path / "data" / "images", tmp_path / "data" / "info")
    for name in ("n01440764_18.JPEG", "n01440764_7.JPEG"):
        path = data.data_dir / name
        content = path.read_bytes()
        path.unlink()
        if request.param == "cut off":
            path.write_bytes(content[:300])
        elif request.param == "a folder":
            path.mkdir()
        else:
            path.symlink_to("none.JPEG")
    return data


@pytest.mark.parametrize("script", WITH_INFO)
def test_damaged_image_is_a_data_error_that_names_it(
    pipeline: Pipeline, tmp_path: Path, damaged_data: TinyData, script: str
) -> None:
    name = "n01440764_18.JPEG" if script.endswith("train") else "n01440764_7.JPEG"
    outcome = run(
        script,
        words(
            flags_of(pipeline, script, tmp_path),
            data_dir=damaged_data.data_dir,
            **({"batch_size": 7} if script.endswith("train") else {}),
        ),
    )
    assert outcome.code == EXIT_DATA and f"error: {damaged_data.data_dir}/{name}: " in outcome.err


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("sr_mean_train", "replaced by others: n01440764_18"),
        ("ddpm_sr_train", "replaced by others: n01440764_18"),
        ("sr_mean_test", "skipped: n01440764_7"),
        ("sr_var_test", "skipped: n01440764_7"),
        ("ddpm_sr_sample", "1 damaged"),
        ("sr_data_info", "8 images"),  # to it, a folder is one of images
    ],
)
def test_damaged_image_is_skipped_and_counted_on_request(
    pipeline: Pipeline, tmp_path: Path, damaged_data: TinyData, script: str, message: str
) -> None:
    changes = {"data_dir": damaged_data.data_dir, "on_bad_image": "skip"}
    if script.endswith("train"):
        changes["batch_size"] = 7
    outcome = run(script, words(flags_of(pipeline, script, tmp_path), **changes))
    assert outcome.code == 0, outcome.err
    assert message in outcome.out
