"""Later runs of a list map what it finds in a crop cache, and read none of the cache's lines.

They compare an image with its file when they read it.
"""

from __future__ import annotations

import os
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.tiny import photo
from utils.flags.groups import CropFlags
from utils.images.crops import cache_index
from utils.images.crops.cache import INDEX_FILE, CropCache
from utils.images.crops.dataset import CropBatch, CropDataset, TestCrops
from utils.images.files import BadImageError
from utils.images.listing import Entry
from utils.loops.data import make_loader
from utils.process.errors import DataError

SIDE = 16
NAMES = [f"class_{k}/{i}.png" for k in range(3) for i in range(3)]
ENTRIES = [Entry(name, i) for i, name in enumerate(NAMES)]


@pytest.fixture
def flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CropFlags:
    """Nine images, whose cache counts as a large one."""
    monkeypatch.setattr(cache_index, "INDEXED_BYTES", 1)
    for seed, name in enumerate(NAMES):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        _write(tmp_path / "images" / name, seed)
    return CropFlags(data_dir=str(tmp_path / "images"), cache_dir=str(tmp_path / "cache"))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Folders whose lines are read from now on."""
    found, plain = [], CropCache._read

    def counting(cache: CropCache) -> None:
        found.append(cache.folder)
        plain(cache)

    monkeypatch.setattr(CropCache, "_read", counting)
    return found


@pytest.fixture
def compares_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the start only the first image of a list is compared with its file."""
    monkeypatch.setattr(cache_index, "NUM_COMPARED", 1)


def _write(path: Path, seed: int) -> None:
    """An image in a file whose size does not depend on what it shows."""
    Image.fromarray(photo(seed)).save(path, compress_level=0)


def _replace(flags: CropFlags, name: str, how: str) -> Path:
    """Another image in the place of one."""
    path = Path(flags.data_dir) / name
    before = path.stat()
    if how == "other size":
        Image.fromarray(photo(99, (41, 52))).save(path)
    else:
        _write(path, 99)
        assert path.stat().st_size == before.st_size
    shift = -(10**9) if how == "same size, older" else 10**9
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + shift))
    return path


def _crops(flags: CropFlags, entries: list[Entry] = ENTRIES) -> torch.Tensor:
    crops = TestCrops.from_flags(entries, SIDE, flags)
    items = [crops[i] for i in range(len(entries))]
    return torch.stack([item.image for item in items if item is not None])


def _folder(flags: CropFlags) -> Path:
    (folder,) = Path(flags.cache_dir).iterdir()
    return folder


def _kept(flags: CropFlags) -> list[Path]:
    return sorted((_folder(flags) / "lists").glob("*.safetensors"))


def test_later_runs_of_a_list_read_no_line(flags: CropFlags, reads: list[str]) -> None:
    expected = _crops(flags)
    reads.clear()
    for _ in range(2):
        assert torch.equal(_crops(flags), expected)
    assert reads == [] and len(_kept(flags)) == 1


def test_each_list_has_its_own(flags: CropFlags, reads: list[str]) -> None:
    expected = _crops(flags)
    for _ in range(2):
        assert torch.equal(_crops(flags, ENTRIES[::-2]), expected.flip(0)[::2])
    assert len(reads) == 3 and len(_kept(flags)) == 2  # the first list read twice, before and in it


def test_cache_that_has_grown_is_read_again(flags: CropFlags, reads: list[str]) -> None:
    few = _crops(flags, ENTRIES[:4])
    _crops(flags)
    reads.clear()
    for _ in range(2):
        assert torch.equal(_crops(flags, ENTRIES[:4]), few)
    assert len(reads) == 1


def test_changed_image_and_damaged_cache_are_refused_as_without(flags: CropFlags) -> None:
    _crops(flags)
    data, index = (_folder(flags) / name for name in ("crops.u8", INDEX_FILE))
    whole, lines = data.read_bytes(), index.read_bytes()
    data.write_bytes(whole[:-1])
    with pytest.raises(DataError, match="6912; delete"):
        _crops(flags)
    data.write_bytes(bytes(6912))
    with pytest.raises(DataError, match=r"row 0 .*checksum"):
        _crops(flags)
    data.write_bytes(whole)
    index.write_bytes(b"no line\n" + lines)
    with pytest.raises(DataError, match=r"line 1 .*delete"):
        _crops(flags)
    index.write_bytes(lines)
    Image.fromarray(photo(99, (41, 52))).save(Path(flags.data_dir) / NAMES[3])
    with pytest.raises(DataError, match=rf"{NAMES[3]} .*changed"):
        _crops(flags)


def test_damaged_index_is_made_again(flags: CropFlags, reads: list[str]) -> None:
    expected = _crops(flags)
    (kept,) = _kept(flags)
    whole = kept.read_bytes()
    for place in range(0, len(whole), 61):
        damaged = bytearray(whole)
        damaged[place] ^= 0x21
        kept.write_bytes(damaged)
        assert torch.equal(_crops(flags), expected)
        assert kept.read_bytes() == whole, place


def test_data_set_travels_as_the_path_of_its_records(flags: CropFlags) -> None:
    many = ENTRIES * 500
    expected = _crops(flags, many)[:9]
    crops = TestCrops.from_flags(many, SIDE, flags)
    (kept,) = _kept(flags)
    data = pickle.dumps(crops)
    assert str(kept).encode() in data
    again = pickle.loads(data)
    assert torch.equal(torch.stack([again[i].image for i in range(9)]), expected)


@pytest.mark.parametrize("how", ["other size", "same size", "same size, older"])
@pytest.mark.usefixtures("compares_one")
def test_replaced_image_is_never_served(flags: CropFlags, reads: list[str], how: str) -> None:
    _crops(flags)
    reads.clear()
    _replace(flags, NAMES[3], how)
    refused = pytest.raises(DataError, match=rf"{NAMES[3]} has changed .*delete this folder")
    tests = TestCrops.from_flags(ENTRIES, SIDE, flags)
    training = CropDataset(ENTRIES, SIDE, replace(flags, random_flip=True), 0)
    assert reads == []  # so it is the reader who compares
    for _ in range(2):
        with refused:
            tests[3]
        with refused:
            training[3, 0, 3]
    assert tests[4] is not None and training[4, 0, 4].name == NAMES[4]


@pytest.mark.parametrize("context", ["fork", "forkserver"])
@pytest.mark.usefixtures("compares_one")
def test_loader_process_refuses_a_replaced_image(flags: CropFlags, context: str) -> None:
    """Also one that is replaced after the start, and where damaged images are skipped."""
    flags = replace(flags, on_bad_image="skip")
    _crops(flags)
    loader = make_loader(
        TestCrops.from_flags(ENTRIES, SIDE, flags), [[0, 1], [2, 3]], 1, CropBatch.of
    )
    loader.multiprocessing_context = context
    _replace(flags, NAMES[3], "same size")
    batches = iter(loader)
    assert next(batches).name == NAMES[:2]
    with pytest.raises(DataError, match=rf"{NAMES[3]} has changed"):
        next(batches)


@pytest.mark.usefixtures("compares_one")
def test_image_that_is_compared_at_the_start_is_refused_there(flags: CropFlags) -> None:
    _crops(flags)
    _replace(flags, NAMES[0], "same size")
    with pytest.raises(DataError, match=rf"{NAMES[0]} has changed"):
        TestCrops.from_flags(ENTRIES, SIDE, flags)


@pytest.mark.usefixtures("compares_one")
def test_crop_of_an_image_that_is_gone_is_not_served(flags: CropFlags) -> None:
    _crops(flags)
    (Path(flags.data_dir) / NAMES[3]).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{NAMES[3]}: no such image"):
        TestCrops.from_flags(ENTRIES, SIDE, flags)[3]


@pytest.mark.usefixtures("compares_one")
def test_damaged_image_that_was_mended_gets_its_crop(flags: CropFlags, reads: list[str]) -> None:
    expected, path = _crops(replace(flags, cache_dir="")), Path(flags.data_dir) / NAMES[4]
    whole = path.read_bytes()
    path.write_bytes(whole[:200])
    skips = replace(flags, on_bad_image="skip")
    for _ in range(2):
        assert len(_crops(skips)) == 8
    with pytest.raises(BadImageError, match=NAMES[4]):
        _crops(flags)
    path.write_bytes(whole)
    assert torch.equal(_crops(skips), expected)
    reads.clear()
    assert torch.equal(_crops(flags), expected) and reads == []
