"""The script as a whole: digits, going on after a stop, dry runs, the folder's record, flags."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from image_ddpm.importers import writer as image_writer
from image_ddpm.importers.flags import ImportFlags
from image_ddpm.importers.sources import ImageSource, Item, read_digits
from image_ddpm.importers.writer import SETTINGS_FILE, ImageWriter
from tests.image_ddpm.importers.archives import image_bytes, write_cifar
from tests.tiny import done, photo, run, tree, words
from utils.images.digits import load_digit_images
from utils.process.errors import DataError
from utils.process.stop import StopRequested


def _argv(root: Path, **flags: Any) -> list[str]:
    return words({"output_dir": root / "out", "log_dir": root / "logs"}, **flags)


def test_digits_are_the_whole_set_in_the_split_of_the_other_task(tmp_path: Path) -> None:
    done("image_data", _argv(tmp_path))
    train = list((tmp_path / "out/train").iterdir())
    test = list((tmp_path / "out/test").iterdir())
    assert (len(train), len(test)) == (1437, 360)
    digits = load_digit_images(16)
    for path, places in (
        (tmp_path / "out/train", digits.training),
        (tmp_path / "out/test", digits.test),
    ):
        for i in places[:20]:
            with Image.open(path / f"{digits.labels[i]}_{i + 1:04d}.png") as stored:
                assert stored.mode == "L" and stored.size == (16, 16)
                np.testing.assert_array_equal(np.asarray(stored), digits.images[i])


def test_digits_of_eight_pixels_are_the_bundled_ones() -> None:
    from sklearn.datasets import load_digits

    digits = load_digit_images(8)
    np.testing.assert_array_equal(digits.images, np.rint(load_digits().images * 255 / 16))
    assert sorted([*digits.training, *digits.test]) == list(range(1797))


def test_digits_have_the_size_that_is_asked_for(tmp_path: Path) -> None:
    done("image_data", _argv(tmp_path, image_size=24, max_per_class=2))
    images = list((tmp_path / "out").glob("*/*.png"))
    assert len(images) == 40 and {Image.open(path).size for path in images} == {(24, 24)}


def _items(num: int, loaded: list[int], stop_at: int = -1) -> Iterator[Item]:
    for i in range(num):
        yield Item("", "x", f"x_{i:04d}", ".png", f"item {i}", _Load(i, loaded, stop_at))


class _Load:
    """Counts what is read, and sends a signal at one of them."""

    def __init__(self, i: int, loaded: list[int], stop_at: int) -> None:
        self.i, self.loaded, self.stop_at = i, loaded, stop_at

    def __call__(self) -> bytes:
        self.loaded.append(self.i)
        if self.i == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return image_bytes(self.i % 7, "PNG", (4, 4))


def _flags(root: Path, **flags: Any) -> ImportFlags:
    return ImportFlags(output_dir=str(root / "out"), **flags).filled_in()


def test_stopped_run_goes_on_where_it_was(tmp_path: Path) -> None:
    loaded: list[int] = []
    lines: list[str] = []
    writer = ImageWriter(_flags(tmp_path), lines.append)
    with pytest.raises(StopRequested, match=r"SIGTERM.*run again"):
        writer.write(ImageSource(_items(500, loaded, stop_at=100), 500))
    num_first = len(loaded)
    assert 100 < num_first < 200
    assert len(list((tmp_path / "out").glob("*.png"))) == num_first
    ImageWriter(_flags(tmp_path), lines.append).write(ImageSource(_items(500, loaded), 500))
    # a few of those that are there are looked at, none is written twice
    again = loaded[num_first : num_first + 16]
    assert again == list(range(16))
    assert loaded[:num_first] + loaded[num_first + 16 :] == list(range(500))
    assert len(list((tmp_path / "out").glob("*.png"))) == 500


def test_signal_gives_exit_code_75(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[int] = []
    source = ImageSource(_items(300, loaded, stop_at=1), 300)
    monkeypatch.setattr(image_writer, "read_digits", lambda side: source)
    outcome = run("image_data", _argv(tmp_path))
    assert outcome.code == 75 and "run again" in outcome.out


def test_stop_is_heard_while_nothing_new_is_found(tmp_path: Path) -> None:
    def items() -> Iterator[Item]:
        for i, item in enumerate(_items(1000, [])):
            if i == 200:
                os.kill(os.getpid(), signal.SIGTERM)
            yield item

    ImageWriter(_flags(tmp_path), print).write(ImageSource(_items(1000, []), 1000))
    writer = ImageWriter(_flags(tmp_path), print)
    with pytest.raises(StopRequested):
        writer.write(ImageSource(items(), 1000))
    assert writer.counts["kept"] < 300


def test_second_run_writes_nothing_and_missing_files_come_back(tmp_path: Path) -> None:
    archive = write_cifar(tmp_path / "c.tar.gz")
    argv = _argv(tmp_path, source="cifar10", archive=archive)
    done("image_data", argv)
    before = tree(tmp_path / "out")
    assert "0 written, 24" in done("image_data", argv).out
    next((tmp_path / "out/train").glob("airplane_*")).unlink()
    assert "1 written, 23" in done("image_data", argv).out
    assert tree(tmp_path / "out") == before


def test_temporary_file_of_a_killed_run_is_cleared(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    left = out / ".x_0001.png.999999999.0123456789abcdef.tmp"
    left.write_bytes(b"half")
    os.utime(left, (0, 0))
    ImageWriter(_flags(tmp_path), print).write(ImageSource(_items(3, []), 3))
    names = sorted(path.name for path in out.iterdir())
    assert names == [SETTINGS_FILE, "x_0000.png", "x_0001.png", "x_0002.png"]


def test_dry_run_checks_and_counts_and_writes_nothing(tmp_path: Path) -> None:
    archive = write_cifar(tmp_path / "c.tar.gz")
    outcome = done("image_data", _argv(tmp_path, source="cifar10", archive=archive, dry_run=True))
    assert "20 images" in outcome.out and "24 whole" in outcome.out
    assert "dry run" in outcome.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.tar.gz"]


def test_folder_of_another_making_is_refused(tmp_path: Path) -> None:
    done("image_data", _argv(tmp_path, max_per_class=1))
    outcome = run("image_data", _argv(tmp_path, max_per_class=1, image_size=8))
    assert outcome.code == 3 and "--image_size 8" in outcome.err
    (tmp_path / "out" / SETTINGS_FILE).write_text("{")
    assert "is damaged" in run("image_data", _argv(tmp_path)).err
    (tmp_path / "out" / SETTINGS_FILE).unlink()
    outcome = run("image_data", _argv(tmp_path))
    assert outcome.code == 3 and "not written" in outcome.err


@pytest.mark.parametrize("size", [0, 4, 3])
@pytest.mark.parametrize("is_array", [True, False])
def test_images_of_another_archive_do_not_join_a_folder(
    tmp_path: Path, size: int, is_array: bool
) -> None:
    """Image 3 is another one in the second archive, under the same name."""

    def source(first: int) -> ImageSource:
        def item(i: int) -> Item:
            seed = i if i < 3 else first + i
            content = photo(seed, (4, 4)) if is_array else image_bytes(seed, "PNG", (4, 4))
            return Item("train", "x", f"x_{i:04d}", "", f"item {i}", lambda: content)

        return ImageSource(map(item, range(6)), 6)

    flags = _flags(tmp_path, image_size=size)
    ImageWriter(flags, print).write(source(0))
    before = tree(tmp_path / "out")
    ImageWriter(flags, print).write(source(0))
    with pytest.raises(DataError, match=r"train/x_0003.*item 3"):
        ImageWriter(flags, print).write(source(50))
    assert tree(tmp_path / "out") == before


def test_more_images_than_the_run_asks_for_are_said(tmp_path: Path) -> None:
    lines: list[str] = []
    ImageWriter(_flags(tmp_path), lines.append).write(ImageSource(_items(9, []), 9))
    assert not any("more images" in line for line in lines)
    fewer = _flags(tmp_path, max_per_class=4)
    ImageWriter(fewer, lines.append).write(ImageSource(_items(9, []), 9))
    assert "5 more images" in lines[-1]


def test_setting_that_a_record_does_not_name_was_at_its_default(tmp_path: Path) -> None:
    """The two that every record names are not made up."""
    out = tmp_path / "out"
    out.mkdir()
    for record in ({"source": "digits"}, {"image_size": 16}, {}):
        (out / SETTINGS_FILE).write_text(json.dumps(record))
        with pytest.raises(DataError, match="not recorded"):
            ImageWriter(_flags(tmp_path, image_size=16), print)
    whole = {"source": "digits", "image_size": 16, "old": 1}
    (out / SETTINGS_FILE).write_text(json.dumps(whole))
    ImageWriter(_flags(tmp_path, image_size=16), print)
    (out / SETTINGS_FILE).write_text(json.dumps({**whole, "apply_orientation": True}))
    with pytest.raises(DataError, match="--apply_orientation False"):
        ImageWriter(_flags(tmp_path, image_size=16), print)


def test_two_items_of_one_name_are_refused(tmp_path: Path) -> None:
    twice = [*_items(2, []), *_items(1, [])]
    with pytest.raises(DataError, match=r"item 0.*x_0000"):
        ImageWriter(_flags(tmp_path), print).write(ImageSource(twice, 3))


def test_link_in_the_output_folder_is_not_written_through(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/train").symlink_to(other)
    item = Item("train", "x", "x_1", "", "here", lambda: photo(0, (4, 4)))
    ImageWriter(_flags(tmp_path), print).write(ImageSource([item], 1))
    assert (other / "x_1.png").exists()  # a linked folder is the user's own wish
    outside = Item("", "x", "../x_1", "", "here", lambda: photo(0, (4, 4)))
    with pytest.raises(ValueError, match=r"has '\.\.'"):
        ImageWriter(_flags(tmp_path), print).write(ImageSource([outside], 1))
    assert not (tmp_path / "x_1.png").exists()


def test_little_is_read_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_writer, "_CHUNK_BYTES", 1)
    loaded: list[int] = []
    writer = ImageWriter(_flags(tmp_path), print)
    with pytest.raises(StopRequested):
        writer.write(ImageSource(_items(9, loaded, stop_at=2), 9))
    assert loaded == [0, 1, 2]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"source": "cifar10"}, "--archive is empty"),
        ({"archive": "x.tar"}, "--archive x.tar"),
        ({"image_size": -1}, "--image_size -1"),
        ({"image_size": 5000}, "--image_size 5000"),
        ({"max_per_class": -2}, "--max_per_class -2"),
        ({"source": "lsun", "archive": "gs://a/b"}, "--archive gs://a/b"),
        ({"output_dir": "az://a/b"}, "--output_dir az://a/b"),
        ({"source": "imagenet", "archive": "a", "output_dir": "a/b"}, "--output_dir a/b"),
        ({"source": "imagenet", "archive": "a", "output_dir": "c/../a"}, "--archive a"),
        ({"source": "mnist"}, "'mnist'"),
        ({"on_bad_image": "keep"}, "'keep'"),
    ],
)
def test_flags_that_cannot_be_meant_are_refused_at_once(
    flags: dict[str, Any], message: str
) -> None:
    outcome = run("image_data", words(flags))
    assert outcome.code == 2 and message in outcome.err


def test_items_of_the_digits_are_numbered_as_the_library_has_them() -> None:
    source = read_digits(8)
    stems = sorted(int(item.stem.split("_")[1]) for item in source.items)
    assert stems == list(range(1, 1798)) and source.total == 1797
