"""One process makes the cache, whoever else waits; a killed one leaves its work to the next."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Callable
from multiprocessing import connection
from pathlib import Path
from typing import IO, Any

import pytest
from PIL import Image

from tests.tiny import photo
from tests.utils.processes import Child
from utils.files.lock import try_lock
from utils.flags.groups import CropFlags
from utils.images.crops import cache as crop_cache
from utils.images.crops.cache import crop_folder
from utils.images.crops.recipes import CenterCrop
from utils.process.errors import EXIT_DATA, EXIT_DONE, EXIT_STOPPED

pytestmark = pytest.mark.dist

NUM_IMAGES, SIDE = 24, 16
WAITS = "waits"
NAMES = [f"{i}.png" for i in range(NUM_IMAGES)]
Say = Callable[[Any], None]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of pictures."""
    folder = tmp_path / "images"
    folder.mkdir()
    for seed, name in enumerate(NAMES):
        Image.fromarray(photo(seed, (20, 24))).save(folder / name)
    return folder


def _open(say: Say, folder: str, seconds_per_crop: float) -> int:
    """Says the name of each crop it cuts, that it waits, and at last the digest of all crops."""
    plain, try_lock = CenterCrop.cut, crop_cache.try_lock

    def slow(recipe: CenterCrop, name: str) -> Any:
        time.sleep(seconds_per_crop)
        say(name)
        return plain(recipe, name)

    def telling(path: str) -> Any:
        file = try_lock(path)
        if file is None:
            say(WAITS)
        return file

    crop_cache.try_lock = telling
    CenterCrop.cut = slow  # type: ignore[method-assign]
    crop_cache._CHUNK_IMAGES = 4
    flags = CropFlags(data_dir=folder, cache_dir=folder + "_cache")
    source = crop_cache.crop_source(NAMES, CenterCrop(folder, SIDE), flags)
    digest = hashlib.sha256()
    for i in range(NUM_IMAGES):
        digest.update(source.read(i).pixels.tobytes())
    say(("digest", digest.hexdigest()))
    return EXIT_DONE


def _expected(folder: Path) -> tuple[str, str]:
    recipe = CenterCrop(str(folder), SIDE)
    crops = b"".join(recipe.cut(name).pixels.tobytes() for name in NAMES)
    return "digest", hashlib.sha256(crops).hexdigest()


def _cut(words: list[Any]) -> set[Any]:
    return set(words) & set(NAMES)


def test_exactly_one_of_several_processes_makes_the_cache(images: Path) -> None:
    children = [Child(_open, str(images), 0.01) for _ in range(3)]
    words = [child.words() for child in children]
    assert [child.exit_code() for child in children] == [EXIT_DONE] * 3
    assert all(said[-1] == _expected(images) for said in words)
    assert sorted(len(_cut(said)) for said in words) == [0, 0, NUM_IMAGES]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_stopped_or_killed_maker_leaves_its_work_to_the_one_that_waits(
    images: Path, number: signal.Signals
) -> None:
    with _held(images):
        children = [Child(_open, str(images), 0.05) for _ in range(2)]
        assert [child.next_word() for child in children] == [WAITS] * 2
    maker, cut = _maker(children)
    while len(cut) < 12:
        cut.append(maker.next_word())
    os.kill(maker.process.pid or 0, number)
    code = -number if number == signal.SIGKILL else EXIT_STOPPED
    assert maker.exit_code() == code
    children.remove(maker)
    said = children[0].words()
    assert children[0].exit_code() == EXIT_DONE
    assert said[-1] == _expected(images)
    assert len(_cut(said)) <= NUM_IMAGES - 8  # two chunks of four are kept
    assert _cut(said) | set(cut) | _cut(maker.words()) == set(NAMES)


def _held(images: Path) -> IO[str]:
    file = try_lock(
        os.path.join(crop_folder(CenterCrop(str(images), SIDE), f"{images}_cache"), ".lock")
    )
    assert file is not None
    return file


def _maker(children: list[Child]) -> tuple[Child, list[Any]]:
    """The one that has the lock, and the name that it said."""
    while True:
        ready = connection.wait([child._said for child in children])
        for child in children:
            # a slow machine lets one that waits be silent for longer than the making takes
            if child._said in ready and (word := child.next_word()) != WAITS:
                return child, [word]


def test_process_that_waits_can_be_stopped(images: Path) -> None:
    with _held(images):
        child = Child(_open, str(images), 0.0)
        assert child.next_word() == WAITS
        os.kill(child.process.pid or 0, signal.SIGTERM)
        assert child.exit_code() == EXIT_STOPPED


def test_damaged_cache_has_the_exit_code_of_data(images: Path) -> None:
    assert Child(_open, str(images), 0.0).exit_code() == EXIT_DONE
    (folder,) = Path(f"{images}_cache").iterdir()
    (folder / "crops.u8").write_bytes(b"")
    assert Child(_open, str(images), 0.0).exit_code() == EXIT_DATA
