"""Later runs of a list map what it finds in a crop cache, and read none of the cache's lines."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.tiny import photo
from utils.flags.groups import CropFlags
from utils.images.crops import cache_index
from utils.images.crops.cache import INDEX_FILE, CropCache
from utils.images.crops.dataset import TestCrops
from utils.images.listing import Entry
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
        Image.fromarray(photo(seed)).save(tmp_path / "images" / name)
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
