"""Cached crops are the crops; a cache is completed, shared, checked and, if damaged, refused."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import PIL
import pytest
import torch
from PIL import Image

from tests.tiny import photo, tree
from utils.flags.groups import CropFlags
from utils.images.crops import cache as crop_cache
from utils.images.crops.cache import INDEX_FILE
from utils.images.crops.dataset import CropBatch, CropDataset, TestCrops
from utils.images.crops.recipes import CenterCrop
from utils.images.files import BadImageError
from utils.images.listing import Entry
from utils.loops.data import make_loader
from utils.process.errors import DataError, StorageError
from utils.process.stop import StopRequested

DATA_FILE = "crops.u8"
SIDE = 16
NAMES = [f"class_{k}/{i}.png" for k in range(3) for i in range(3)]
ENTRIES = [Entry(name, i) for i, name in enumerate(NAMES)]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Nine images in three folders."""
    folder = tmp_path / "images"
    for seed, name in enumerate(NAMES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(seed)).save(folder / name)
    return folder


def _flags(images: Path, **changes: Any) -> CropFlags:
    return CropFlags(
        **{"data_dir": str(images), "cache_dir": str(images.parent / "cache"), **changes}
    )


def _test_crops(flags: CropFlags, entries: list[Entry] = ENTRIES, **more: Any) -> torch.Tensor:
    crops = TestCrops.from_flags(entries, SIDE, flags, **more)
    items = [crops[i] for i in range(len(entries))]
    return torch.stack([item.image for item in items if item is not None])


def _folder(images: Path) -> Path:
    (folder,) = (images.parent / "cache").iterdir()
    return folder


def _count_cuts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the images that are cut from now on."""
    cut, plain = [], CenterCrop.cut

    def counting(recipe: CenterCrop, name: str) -> Any:
        cut.append(name)
        return plain(recipe, name)

    monkeypatch.setattr(CenterCrop, "cut", counting)
    return cut


@pytest.mark.parametrize("num_channels", [1, 3])
def test_cached_crops_are_the_crops_bit_for_bit(images: Path, num_channels: int) -> None:
    plain, cached = _flags(images, cache_dir=""), _flags(images)
    expected = _test_crops(plain, num_channels=num_channels)
    for _ in range(2):  # made, and found
        assert torch.equal(_test_crops(cached, num_channels=num_channels), expected)
    assert expected.shape == (9, num_channels, SIDE, SIDE)


@pytest.mark.parametrize("num_channels", [1, 3])
def test_flips_of_cached_crops_are_those_of_the_crops(images: Path, num_channels: int) -> None:
    plain, cached = (
        CropDataset(
            ENTRIES, SIDE, _flags(images, random_flip=True, **where), 3, num_channels=num_channels
        )
        for where in ({"cache_dir": ""}, {})
    )
    keys = [(7 * epoch + i, epoch, i) for epoch in range(4) for i in range(9)]
    for key in keys:
        one, other = plain[key], cached[key]
        assert torch.equal(one.image, other.image)
        assert one._replace(image=other.image) == other
    first = [cached[0, epoch, 0].image for epoch in range(12)]
    assert not all(torch.equal(crop, first[0]) for crop in first)


def test_complete_cache_decodes_nothing(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, before = _test_crops(_flags(images)), tree(_folder(images))
    cut = _count_cuts(monkeypatch)
    assert torch.equal(_test_crops(_flags(images)), expected)
    assert cut == []
    assert tree(_folder(images)) == before


def test_rows_do_not_depend_on_list_or_label(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folds, tests and training share a cache; what it lacks is added."""
    expected = _test_crops(_flags(images, cache_dir=""))
    _test_crops(_flags(images), ENTRIES[2:5])
    cut = _count_cuts(monkeypatch)
    backwards = [Entry(entry.name, 7) for entry in ENTRIES[::-1]]
    assert torch.equal(_test_crops(_flags(images), backwards), expected.flip(0))
    assert sorted(cut) == sorted(NAMES[:2] + NAMES[5:])
    assert torch.equal(_test_crops(_flags(images), ENTRIES[2:3] * 2)[1], expected[2])


def test_cache_is_one_plain_array(images: Path) -> None:
    expected = _test_crops(_flags(images))
    rows = np.fromfile(_folder(images) / DATA_FILE, np.uint8).reshape(-1, SIDE, SIDE, 3)
    lines = (_folder(images) / INDEX_FILE).read_text().splitlines()
    for name, row, *_ in map(json.loads, lines):
        hwc = expected[NAMES.index(name)].permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(rows[row], hwc)


def test_other_settings_have_another_folder(images: Path) -> None:
    _test_crops(_flags(images))
    _test_crops(_flags(images), num_channels=1)
    TestCrops.from_flags(ENTRIES, 8, _flags(images))
    other = images.parent / "others"
    shutil.copytree(images, other)
    _test_crops(_flags(other))
    assert len(list((images.parent / "cache").iterdir())) == 4


def test_folder_of_other_settings_is_refused(images: Path) -> None:
    _test_crops(_flags(images))
    path = _folder(images) / "settings.json"
    path.write_text(path.read_text().replace('"size": 16', '"size": 8'))
    with pytest.raises(DataError, match=r"--size 16 .*8.*--cache_dir"):
        _test_crops(_flags(images))


def test_changed_image_is_refused(images: Path) -> None:
    _test_crops(_flags(images))
    Image.fromarray(photo(99, (41, 52))).save(images / NAMES[3])
    with pytest.raises(DataError, match=rf"{NAMES[3]} .*changed"):
        _test_crops(_flags(images))
    assert len(_test_crops(_flags(images), ENTRIES[:3])) == 3


def test_damaged_image_ends_the_making_and_what_is_cut_stays(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = (images / NAMES[4]).read_bytes()
    (images / NAMES[4]).write_bytes(whole[:200])
    monkeypatch.setattr(crop_cache, "_CHUNK_IMAGES", 2)
    with pytest.raises(BadImageError, match=NAMES[4]):
        _test_crops(_flags(images))
    (images / NAMES[4]).write_bytes(whole)
    cut = _count_cuts(monkeypatch)
    assert len(_test_crops(_flags(images))) == 9
    assert sorted(cut) == NAMES[4:]


def test_link_to_nothing_is_a_damaged_image_until_it_leads_somewhere(images: Path) -> None:
    link = images / NAMES[2]
    image = link.rename(link.with_name("image"))
    link.symlink_to("later")
    with pytest.raises(BadImageError, match="a link to nothing"):
        _test_crops(_flags(images))
    assert len(_test_crops(_flags(images, on_bad_image="skip"))) == 8
    image.rename(link.with_name("later"))
    assert len(_test_crops(_flags(images))) == 9


def test_damaged_image_is_skipped_as_without_a_cache(images: Path) -> None:
    whole = (images / NAMES[4]).read_bytes()
    (images / NAMES[4]).write_bytes(whole[:200])
    plain, cached = (
        CropDataset(ENTRIES, SIDE, _flags(images, on_bad_image="skip", **where), 0)
        for where in ({"cache_dir": ""}, {})
    )
    one, other = plain[0, 0, 4], cached[0, 0, 4]
    assert torch.equal(one.image, other.image)
    assert one._replace(image=other.image) == other and one.bad == (NAMES[4],)
    assert len(_test_crops(_flags(images, on_bad_image="skip"))) == 8
    with pytest.raises(BadImageError, match=NAMES[4]):
        _test_crops(_flags(images))
    (images / NAMES[4]).write_bytes(whole)
    assert len(_test_crops(_flags(images))) == 9


def test_cache_of_an_earlier_version_stays_in_use(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It knew `--fast_crop`, and wrote what is wrong with damaged images."""
    settings = {"format": 2, "data_dir": str(images), "size": 16, "channels": 3}
    settings |= {"fast_crop": False, "apply_orientation": False, "pillow": PIL.__version__}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    expected = _test_crops(_flags(images), ENTRIES[:3])
    assert _folder(images).name == f"16x3_{digest}"
    with (_folder(images) / INDEX_FILE).open("a") as file:
        file.write(json.dumps([NAMES[3], -1, 0, 5, 6, "damaged", ""]) + "\n")
    cut = _count_cuts(monkeypatch)
    assert torch.equal(_test_crops(_flags(images), ENTRIES[:4])[:3], expected)
    assert cut == [NAMES[3]]


def test_truncated_cache_is_refused_with_a_remedy(images: Path) -> None:
    _test_crops(_flags(images))
    path = _folder(images) / DATA_FILE
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(DataError, match="6912; delete"):
        _test_crops(_flags(images))
    path.unlink()
    with pytest.raises(DataError, match="0 bytes of 6912"):
        _test_crops(_flags(images))


def test_wrong_byte_is_refused_and_not_taken_for_a_damaged_image(images: Path) -> None:
    _test_crops(_flags(images))
    path = _folder(images) / DATA_FILE
    content = bytearray(path.read_bytes())
    content[5 * 768 + 100] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"row 5 .*delete") as caught:
        _test_crops(_flags(images, on_bad_image="skip"))
    assert not isinstance(caught.value, BadImageError)


@pytest.mark.parametrize("line", ["no json", "{}", '["a", 7, 0, 0, 0, ""]', "[1, 0, 0, 0, 0, 0]"])
def test_damaged_index_is_refused(images: Path, line: str) -> None:
    _test_crops(_flags(images))
    path = _folder(images) / INDEX_FILE
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:4], line, *lines[5:]]) + "\n")
    with pytest.raises(DataError, match=r"line 5 .*delete"):
        _test_crops(_flags(images))


@pytest.mark.parametrize("num_bytes", [1, 30, 100])
def test_what_a_killed_process_left_is_completed(images: Path, num_bytes: int) -> None:
    """Rows without lines, and half a line."""
    expected = _test_crops(_flags(images))
    path = _folder(images) / INDEX_FILE
    path.write_bytes(path.read_bytes()[:-num_bytes])
    assert torch.equal(_test_crops(_flags(images)), expected)
    assert (_folder(images) / DATA_FILE).stat().st_size == 9 * 768
    names = [json.loads(line)[0] for line in path.read_text().splitlines()]
    assert sorted(names) == NAMES


def test_stopped_making_goes_on(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class StopsSoon(crop_cache.StopFlag):
        asked = 0

        @property
        def reason(self) -> str:
            self.asked += 1
            return "received SIGTERM" if self.asked >= 2 else ""

    cut = _count_cuts(monkeypatch)
    monkeypatch.setattr(crop_cache, "_CHUNK_IMAGES", 2)
    with monkeypatch.context() as patch, pytest.raises(StopRequested, match=r"SIGTERM.*run again"):
        patch.setattr(crop_cache, "StopFlag", StopsSoon)
        _test_crops(_flags(images))
    assert sorted(cut) == NAMES[:4]
    assert len(_test_crops(_flags(images))) == 9
    assert sorted(cut) == NAMES


def test_no_room_is_said_before_the_work(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut = _count_cuts(monkeypatch)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=9 * 768 - 1))
    with pytest.raises(StorageError, match="another --cache_dir"):
        _test_crops(_flags(images))
    assert cut == []


def test_data_set_travels_to_loader_processes_without_its_crops(images: Path) -> None:
    crops = TestCrops.from_flags(ENTRIES * 50, SIDE, _flags(images))
    expected = crops[1]
    assert expected is not None
    blob = pickle.dumps(crops)
    assert len(blob) < 9 * 768 / 2 + 450 * (40 + 16)  # size and time of change, too
    again = pickle.loads(blob)[1]
    assert torch.equal(again.image, expected.image)
    batches = [[0, 1, 2], [3, 4], [5, 6, 7, 8]]
    for context in ("fork", "forkserver"):
        loader = make_loader(crops, batches, 2, CropBatch.of)
        loader.multiprocessing_context = context
        found = torch.cat([batch.image for batch in loader])
        assert torch.equal(found, _test_crops(_flags(images, cache_dir="")))


def test_kept_crop_is_not_the_cache_itself(images: Path) -> None:
    crops = TestCrops.from_flags(ENTRIES, SIDE, _flags(images), num_channels=1)
    for _ in range(2):
        item = crops[0]
        assert item is not None
        assert item.image.float().mean() > 1
        item.image.zero_()


def test_dry_run_makes_no_cache(images: Path) -> None:
    assert len(_test_crops(_flags(images, dry_run=True))) == 9
    assert not (images.parent / "cache").exists()


def test_random_crops_are_not_kept() -> None:
    with pytest.raises(ValueError, match=r"--cache_dir x .*--random_crop True"):
        CropFlags(cache_dir="x", random_crop=True)
