"""ImageNet's forms: folders, a tar, a tar of tars; names become labels; bytes stay as they are."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from image_ddpm.importers.sources import ClassNamer
from tests.image_ddpm.importers.archives import class_tars, image_bytes, member, tar_bytes
from tests.tiny import done, photo, run, words
from utils.images.files import center_crop_arr
from utils.process.errors import DataError

FLAT = {name: data for files in class_tars().values() for name, data in files.items()}


def _argv(archive: Path, root: Path, **flags: Any) -> list[str]:
    folders = {"output_dir": root / "out", "log_dir": root / "logs"}
    return words({"source": "imagenet", "archive": archive}, folders, **flags)


def _images(root: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (root / "out").iterdir() if p.name[0] != "."}


def _write_tree(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def _class_tar_files() -> dict[str, bytes]:
    return {f"{key}.tar": tar_bytes(files) for key, files in class_tars().items()}


def _as(form: str, root: Path) -> Path:
    path = root / "train.tar"
    in_folders = {f"train/{name[:9]}/{name}": data for name, data in FLAT.items()}
    if form == "flat tar":
        path.write_bytes(tar_bytes({f"./{name}": data for name, data in FLAT.items()}))
    elif form == "tar of folders":
        path.write_bytes(tar_bytes(in_folders))
    elif form == "tar of class tars":
        path.write_bytes(tar_bytes(_class_tar_files()))
    else:
        contents = {
            "flat folder": FLAT,
            "folder of class folders": in_folders,
            "folder of class tars": _class_tar_files(),
        }
        return _write_tree(root / "train", contents[form])
    return path


FORMS = (
    *("flat tar", "tar of folders", "tar of class tars"),
    *("flat folder", "folder of class folders", "folder of class tars"),
)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_flat_folder_byte_by_byte(tmp_path: Path, form: str) -> None:
    outcome = done("image_data", _argv(_as(form, tmp_path), tmp_path))
    assert _images(tmp_path) == FLAT
    assert "6 images" in outcome.out and "2 classes" in outcome.out


@pytest.mark.parametrize("form", FORMS)
def test_first_of_each_class_can_be_asked_for(tmp_path: Path, form: str) -> None:
    archive = _as(form, tmp_path)
    done("image_data", _argv(archive, tmp_path, max_per_class=1))
    assert sorted(_images(tmp_path)) == ["n01440764_0.JPEG", "n01443537_0.JPEG"]
    outcome = done("image_data", _argv(archive, tmp_path, max_per_class=2))
    assert len(_images(tmp_path)) == 4 and "2 written, 2" in outcome.out


def test_images_are_cropped_and_resized_as_the_samplers_were_trained(tmp_path: Path) -> None:
    archive = _as("tar of class tars", tmp_path)
    done("image_data", _argv(archive, tmp_path, image_size=8))
    assert sorted(_images(tmp_path)) == [f"{name[:11]}.png" for name in sorted(FLAT)]
    with Image.open(tmp_path / "out/n01440764_1.png") as stored:
        source = _write_tree(tmp_path / "one", {"x.JPEG": FLAT["n01440764_1.JPEG"]}) / "x.JPEG"
        expected = center_crop_arr(Image.open(source), 8)
        np.testing.assert_array_equal(np.asarray(stored), expected)


def test_folders_give_the_label_where_names_do_not() -> None:
    namer = ClassNamer()
    assert namer.name("train/sea_lion/0001.jpg") == ("sea-lion", "sea-lion_0001")
    assert namer.name("sea_lion/sea_lion_2.jpg") == ("sea-lion", "sea-lion_2")
    assert namer.name("cat_7.x.png") == ("cat", "cat_7.x")
    assert namer.name("images/n01440764_3.JPEG") == ("n01440764", "n01440764_3")
    assert namer.name("9.JPEG", "n01440764") == ("n01440764", "n01440764_9")
    with pytest.raises(DataError, match="'sea-lion'"):
        namer.name("sea-lion/3.jpg")
    for name in ("cat.png", "_1.png"):
        with pytest.raises(DataError, match="no class"):
            namer.name(name)


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    files = {"train/cat/1.png": image_bytes(0, "PNG"), "val/cat/1.png": image_bytes(1, "PNG")}
    outcome = run("image_data", _argv(_write_tree(tmp_path / "in", files), tmp_path))
    assert outcome.code == 3
    assert "val/cat/1.png" in outcome.err and "cat_1" in outcome.err


def test_hostile_tar_writes_nothing_outside_its_folder(tmp_path: Path) -> None:
    evil = {"../up_1.png": b"x", "/tmp/root_1.png": b"x", "a/../../b_1.png": b"x"}
    extra = (
        member("out", tarfile.SYMTYPE, link="/tmp"),
        member("n01440764_9.JPEG", tarfile.SYMTYPE, link="/etc/passwd"),
        member("n01440764_8.JPEG", tarfile.CHRTYPE),
    )
    inner = tar_bytes({"../../n01440764_7.JPEG": image_bytes(0), "../n_3.png": b""})
    path = tmp_path / "in" / "t.tar"
    path.parent.mkdir()
    path.write_bytes(tar_bytes({**evil, **FLAT, "..x/n01.tar": inner}, extra))
    outcome = done("image_data", _argv(path, tmp_path))
    assert _images(tmp_path) == FLAT
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "logs", "out"]
    assert outcome.out.count("passed by:") == 8


def test_damaged_image_ends_the_run_or_is_left_out(tmp_path: Path) -> None:
    bad = {"n01440764_4.JPEG": b"<html>", "n01440764_5.JPEG": image_bytes(0)[:300]}
    path = tmp_path / "t.tar"
    path.write_bytes(tar_bytes({**bad, **FLAT}))
    outcome = run("image_data", _argv(path, tmp_path))
    assert outcome.code == 3
    assert "t.tar" in outcome.err and "n01440764_4.JPEG" in outcome.err
    assert "--on_bad_image skip" in outcome.err
    outcome = done("image_data", _argv(path, tmp_path, on_bad_image="skip"))
    assert _images(tmp_path) == FLAT and "2 damaged" in outcome.out


def test_cut_tar_keeps_what_came_before_and_the_whole_one_goes_on(tmp_path: Path) -> None:
    path = _as("tar of folders", tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"n01443537_1.JPEG") + 700])
    outcome = run("image_data", _argv(path, tmp_path))
    assert outcome.code == 3
    assert "n01443537_1.JPEG" in outcome.err and "run again" in outcome.err
    path.write_bytes(data)
    done("image_data", _argv(path, tmp_path))
    assert _images(tmp_path) == FLAT


def test_what_is_no_image_is_passed_by(tmp_path: Path) -> None:
    files = {**FLAT, "readme.txt": b"", "._n01440764_1.JPEG": b"", "__MACOSX/._x.png": b""}
    path = tmp_path / "t.tar"
    path.write_bytes(tar_bytes(files))
    outcome = done("image_data", _argv(path, tmp_path))
    assert _images(tmp_path) == FLAT and outcome.out.count("passed by") == 1
    folder = _write_tree(tmp_path / "in", {**files, "empty/.keep": b""})
    os.mkfifo(folder / "n01440764_9.JPEG")
    os.symlink(folder, folder / "again")
    outcome = run("image_data", _argv(folder, tmp_path))
    assert outcome.code == 3 and "n01440764_9.JPEG" in outcome.err and "plain file" in outcome.err
    outcome = done("image_data", _argv(folder, tmp_path, on_bad_image="skip"))
    assert "n01440764_9.JPEG" in outcome.out and "plain file" in outcome.out


def test_source_without_images_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    outcome = run("image_data", _argv(tmp_path / "in", tmp_path))
    assert outcome.code == 3 and "no image" in outcome.err


def test_hidden_folder_in_a_tar_is_no_class(tmp_path: Path) -> None:
    path = tmp_path / "t.tar"
    path.write_bytes(tar_bytes({**FLAT, ".thumbnails/a_1.png": image_bytes(1)}))
    done("image_data", _argv(path, tmp_path))
    assert _images(tmp_path) == FLAT


def test_name_that_cannot_be_written_down_ends_the_run_or_is_left_out(tmp_path: Path) -> None:
    folder = _write_tree(tmp_path / "in", {**FLAT, "n01440764_\n.JPEG": b""})
    outcome = run("image_data", _argv(folder, tmp_path))
    assert outcome.code == 3 and "n01440764_\\n.JPEG" in outcome.err and "rename" in outcome.err
    done("image_data", _argv(folder, tmp_path, on_bad_image="skip"))
    assert _images(tmp_path) == FLAT


def test_small_images_are_counted_left_out_or_refused_where_they_are_cut(tmp_path: Path) -> None:
    tag = Image.Exif()
    tag[0x0112] = 6
    sides = {"a_1.png": (9, 9), "b_1.png": (20, 30), "b_2.jpg": (20, 18)}
    (tmp_path / "in").mkdir()
    for seed, (name, side) in enumerate(sides.items()):
        kept = {"exif": tag} if name.endswith("jpg") else {}
        Image.fromarray(photo(seed, side)).save(tmp_path / "in" / name, **kept)
    argv = {"image_size": 16, "output_dir": tmp_path / "skipped", "small_images": "skip"}
    outcome = done("image_data", _argv(tmp_path / "in", tmp_path, **argv))
    assert (
        any("1 images" in line and "16 pixels" in line for line in outcome.out.splitlines())
        and "2 written" in outcome.out
    )
    assert sorted(path.name for path in (tmp_path / "skipped").glob("*.png")) == [
        "b_1.png",
        "b_2.png",
    ]
    argv = {"image_size": 16, "output_dir": tmp_path / "refused", "small_images": "error"}
    outcome = run("image_data", _argv(tmp_path / "in", tmp_path, **argv))
    assert outcome.code == 3 and "a_1.png" in outcome.err and "9×9" in outcome.err
    outcome = done("image_data", _argv(tmp_path / "in", tmp_path, image_size=16))
    assert "enlarged" in outcome.out and any(
        "1 of 3 images" in line and "EXIF" in line for line in outcome.out.splitlines()
    )
    argv = {"image_size": 16, "apply_orientation": True}
    outcome = run("image_data", _argv(tmp_path / "in", tmp_path, **argv))
    assert outcome.code == 3 and "apply_orientation" in outcome.err  # not into the same folder
    argv["output_dir"] = tmp_path / "turned"
    done("image_data", _argv(tmp_path / "in", tmp_path, **argv))
    plain, turned = (
        np.asarray(Image.open(tmp_path / folder / "b_2.png")) for folder in ("out", "turned")
    )
    assert not np.array_equal(plain, turned)
