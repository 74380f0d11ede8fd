"""CIFAR-10: the published form of the archive becomes PNGs; what is not of that form is refused."""

from __future__ import annotations

import os
import pickle
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from image_ddpm.importers.sources import read_cifar10
from tests.image_ddpm.importers.archives import (
    BATCHES,
    CIFAR_FOLDER,
    CLASSES,
    cifar_batch,
    cifar_files,
    cifar_images,
    cifar_meta,
    python_2_pickle,
    tar_bytes,
    write_cifar,
)
from tests.tiny import done, run, words
from utils.process.errors import DataError


def _argv(archive: Path, root: Path, **flags: Any) -> list[str]:
    folders = {"output_dir": root / "out", "log_dir": root / "logs"}
    return words({"source": "cifar10", "archive": archive}, folders, **flags)


def _check(out: Path) -> None:
    """Every image is there, pixel by pixel, under its label and its number."""
    assert len(list((out / "train").iterdir())) == 20
    assert len(list((out / "test").iterdir())) == 4
    for name in BATCHES:
        folder = "test" if name == "test_batch" else "train"
        offset = 0 if folder == "test" else BATCHES.index(name) * 10_000
        images, labels = cifar_images(name)
        for i, (image, y) in enumerate(zip(images, labels, strict=True)):
            path = out / folder / f"{CLASSES[y]}_{offset + i + 1:05d}.png"
            with Image.open(path) as stored:
                assert stored.mode == "RGB"
                np.testing.assert_array_equal(np.asarray(stored), image)


def test_meta_of_the_tests_is_as_long_as_the_published_one() -> None:
    assert len(cifar_meta()) == 158
    assert pickle.loads(cifar_meta())["label_names"] == list(CLASSES)


def test_batch_of_the_tests_is_what_python_reads() -> None:
    batch = pickle.loads(python_2_pickle(cifar_batch("test_batch")), encoding="bytes")
    np.testing.assert_array_equal(batch[b"data"], cifar_batch("test_batch")["data"])
    assert batch[b"filenames"][0] == b"caf\xe9_s_000000.png"


def test_archive_becomes_pngs_with_labels(tmp_path: Path) -> None:
    outcome = done("image_data", _argv(write_cifar(tmp_path / "c.tar.gz"), tmp_path))
    _check(tmp_path / "out")
    assert "20 images" in outcome.out and "24 written" in outcome.out


@pytest.mark.parametrize("place", ["", CIFAR_FOLDER])
def test_unpacked_folder_and_the_one_around_it_give_the_same(tmp_path: Path, place: str) -> None:
    for name, data in cifar_files().items():
        path = tmp_path / "unpacked" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    done("image_data", _argv(tmp_path / "unpacked" / place, tmp_path))
    _check(tmp_path / "out")


@pytest.mark.parametrize("protocol", [2, 4])
def test_batches_saved_anew_by_python_3_are_read_too(tmp_path: Path, protocol: int) -> None:
    files = cifar_files()
    for name in BATCHES:
        files[f"{CIFAR_FOLDER}/{name}"] = pickle.dumps(cifar_batch(name), protocol)
    path = tmp_path / "c.tar"
    path.write_bytes(tar_bytes(files))
    done("image_data", _argv(path, tmp_path))
    _check(tmp_path / "out")


class _Runs:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.mark.parametrize("name", ["batches.meta", "data_batch_3"])
def test_pickle_that_would_run_a_command_runs_nothing(tmp_path: Path, name: str) -> None:
    ran = tmp_path / "ran"
    files = cifar_files()
    command = f"touch {shlex.quote(str(ran))}"
    files[f"{CIFAR_FOLDER}/{name}"] = pickle.dumps({"data": _Runs(command)}, 2)
    archive = write_cifar(tmp_path / "c.tar.gz", files)
    outcome = run("image_data", _argv(archive, tmp_path))
    assert outcome.code == 3 and not ran.exists()
    assert name in outcome.err and "c.tar.gz" in outcome.err and "refused" in outcome.err


def _changed(name: str, **change: Any) -> dict[str, bytes]:
    content = {**cifar_batch(name), **change}
    return {f"{CIFAR_FOLDER}/{name}": python_2_pickle(content)}


def _meta(names: Any) -> dict[str, bytes]:
    return {f"{CIFAR_FOLDER}/batches.meta": python_2_pickle({"label_names": names})}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_changed("data_batch_2", labels=[0, 1]), r"data_batch_2.*'labels'"),
        (_changed("data_batch_2", labels=[0, 1, 2, 10]), "label 10,"),
        (_changed("data_batch_2", labels=[0, 1, 2, "x"]), "label b'x'"),
        (_changed("test_batch", data=np.zeros((4, 9), np.uint8)), r"'data'.*shape"),
        (_changed("test_batch", data=[1]), r"'data'.*shape"),
        ({f"{CIFAR_FOLDER}/test_batch": b"\x80\x02]."}, "test_batch.*dict"),
        (_meta(["../x", *CLASSES[1:]]), "file name"),
        (_meta(["a/b", *CLASSES[1:]]), "file name"),
        (_meta(["", *CLASSES[1:]]), "file name"),
        (_meta(["cat", *CLASSES[1:]]), "twice"),
        (_meta([]), "label_names"),
    ],
)
def test_content_that_is_not_cifar_is_refused_by_name(
    tmp_path: Path, change: dict[str, bytes], message: str
) -> None:
    archive = write_cifar(tmp_path / "c.tar.gz", {**cifar_files(), **change})
    with pytest.raises(DataError, match=message):
        list(read_cifar10(str(archive), print).items)


def test_missing_batch_is_named_before_anything_is_written(tmp_path: Path) -> None:
    files = cifar_files()
    del files[f"{CIFAR_FOLDER}/data_batch_4"]
    outcome = run("image_data", _argv(write_cifar(tmp_path / "c.tar.gz", files), tmp_path))
    assert outcome.code == 3 and "lacks data_batch_4" in outcome.err
    assert not list((tmp_path / "out").glob("*/*"))


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    files = {**cifar_files(), "other/test_batch": b""}
    with pytest.raises(DataError, match=r"two .*test_batch"):
        read_cifar10(str(write_cifar(tmp_path / "c.tar.gz", files)), print)


def test_every_kind_of_cut_gives_a_data_error(tmp_path: Path) -> None:
    data = write_cifar(tmp_path / "c.tar.gz").read_bytes()
    path = tmp_path / "cut.tar.gz"
    for length in [0, 1, 2, 5, 100, *range(1000, len(data), len(data) // 20), len(data) - 4]:
        path.write_bytes(data[:length])
        with pytest.raises(DataError, match=r"cut\.tar\.gz"):
            list(read_cifar10(str(path), print).items)


def test_images_can_be_resized(tmp_path: Path) -> None:
    archive = write_cifar(tmp_path / "c.tar.gz")
    done("image_data", _argv(archive, tmp_path, image_size=16, max_per_class=1))
    sizes = {Image.open(path).size for path in (tmp_path / "out").glob("*/*.png")}
    assert sizes == {(16, 16)}
    assert len(list((tmp_path / "out/test").glob("airplane_*.png"))) == 1
