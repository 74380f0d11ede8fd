"""LSUN exports: real ones where lmdb is installed, the way there where it is not."""

from __future__ import annotations

import builtins
import faulthandler
import multiprocessing
import os
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from image_ddpm.importers import sources as lsun_files
from tests.image_ddpm.importers.archives import image_bytes
from tests.reliability.extent import extent
from tests.reliability.mutations import mutate
from tests.tiny import done, run, words
from utils.process.errors import DataError

NEEDS_LMDB = "needs the optional package lmdb (requirements-lsun.txt)"


def _argv(archive: Path, root: Path, **flags: Any) -> list[str]:
    folders = {"output_dir": root / "out", "log_dir": root / "logs"}
    return words({"source": "lsun", "archive": archive}, folders, **flags)


def _images(root: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (root / "out").iterdir() if p.name[0] != "."}


def _export(folder: Path, values: list[bytes]) -> Path:
    """An export as LSUN's: keys are hashes, so sorted by no order of the pictures."""
    lmdb = pytest.importorskip("lmdb", reason=NEEDS_LMDB)
    folder.mkdir(parents=True)
    with lmdb.open(str(folder), map_size=1 << 26) as env, env.begin(write=True) as transaction:
        for i, value in enumerate(values):
            transaction.put(f"{i:040x}".encode(), value)
    return folder


def test_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without_lmdb(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "lmdb":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "lmdb", raising=False)
    monkeypatch.setattr(builtins, "__import__", without_lmdb)
    outcome = run("image_data", _argv(tmp_path / "x", tmp_path))
    assert outcome.code == 3
    assert "pip install lmdb" in outcome.err and "requirements-lsun.txt" in outcome.err


def test_values_are_kept_byte_by_byte_and_named_by_category(tmp_path: Path) -> None:
    values = [image_bytes(i, kind) for i, kind in enumerate(("WEBP", "JPEG", "PNG"))]
    archive = _export(tmp_path / "church_outdoor_train_lmdb", values)
    before = {path.name: path.read_bytes() for path in archive.iterdir()}
    outcome = done("image_data", _argv(archive, tmp_path))
    stem = "church-outdoor_train_000000"
    names = [f"{stem}1.webp", f"{stem}2.jpg", f"{stem}3.png"]
    assert _images(tmp_path) == dict(zip(names, values, strict=True))
    assert {path.name: path.read_bytes() for path in archive.iterdir()} == before
    assert "3 written" in outcome.out
    assert "0 written, 3" in done("image_data", _argv(archive, tmp_path)).out


def test_folder_of_exports_gives_all_categories_and_sizes(tmp_path: Path) -> None:
    for name in ("bedroom_train_lmdb", "bedroom_val_lmdb", "tower"):
        _export(tmp_path / "lsun" / name, [image_bytes(i, "WEBP") for i in range(2)])
    done("image_data", _argv(tmp_path / "lsun", tmp_path, image_size=8))
    stems = ("bedroom_train_000000", "bedroom_val_000000", "tower_000000")
    assert sorted(_images(tmp_path)) == [f"{stem}{i}.png" for stem in stems for i in (1, 2)]
    with Image.open(tmp_path / "out/tower_0000001.png") as stored:
        assert np.asarray(stored).shape == (8, 8, 3)


def test_few_of_each_class_end_the_reader_early(tmp_path: Path) -> None:
    archive = _export(tmp_path / "tower_train_lmdb", [image_bytes(i) for i in range(5)])
    outcome = done("image_data", _argv(archive, tmp_path, max_per_class=2))
    assert len(_images(tmp_path)) == 2 and "3 beyond --max_per_class" in outcome.out


def test_damaged_value_is_named(tmp_path: Path) -> None:
    archive = _export(tmp_path / "tower", [image_bytes(0), b"<html>", image_bytes(1)])
    outcome = run("image_data", _argv(archive, tmp_path))
    assert outcome.code == 3 and "tower: image 2" in outcome.err
    done("image_data", _argv(archive, tmp_path, on_bad_image="skip"))
    assert sorted(_images(tmp_path)) == ["tower_0000001.jpg", "tower_0000003.jpg"]


def test_cut_export_is_a_data_error_and_no_crash(tmp_path: Path) -> None:
    values = [os.urandom(9000) for _ in range(40)]
    path = _export(tmp_path / "tower", values) / "data.mdb"
    data = path.read_bytes()
    for length in (0, 100, 5000, 8192, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        outcome = run("image_data", _argv(path.parent, tmp_path))
        assert outcome.code == 3, (length, outcome)
        assert "tower" in outcome.err and "zip file" in outcome.err


def test_damaged_pages_are_a_data_error_and_no_crash(tmp_path: Path) -> None:
    path = _export(tmp_path / "tower", [image_bytes(i) for i in range(200)]) / "data.mdb"
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for page in (2, 3, 50, len(data) // 4096 - 1):
        damaged = bytearray(data)
        damaged[page * 4096 : (page + 1) * 4096] = rng.bytes(4096)
        path.write_bytes(damaged)
        outcome = run("image_data", _argv(path.parent, tmp_path, dry_run=True))
        assert outcome.code == 3, (page, outcome)
        assert outcome.err.count("error:") == 1 and "tower" in outcome.err


def test_folder_without_export_is_told_what_to_do(tmp_path: Path) -> None:
    pytest.importorskip("lmdb", reason=NEEDS_LMDB)
    for archive in (tmp_path, tmp_path / "church.zip"):
        outcome = run("image_data", _argv(archive, tmp_path.with_name("elsewhere")))
        assert outcome.code == 3 and "unpack" in outcome.err
        assert not (tmp_path.with_name("elsewhere") / "out").exists()


def test_any_damage_to_an_export_is_read_or_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the two pages at its head, which say where everything lies, and of all others."""
    path = _export(tmp_path / "tower", [image_bytes(i) for i in range(60)]) / "data.mdb"
    data, rng = path.read_bytes(), random.Random(0)
    # a spawned process imports for a second, a forked one not at all
    fork, serve = multiprocessing.get_context("fork"), lsun_files._serve

    def serve_quietly(*args: Any) -> None:
        faulthandler.disable()  # it would write a page about each death
        serve(*args)

    monkeypatch.setattr(multiprocessing, "get_context", lambda method: fork)
    monkeypatch.setattr(lsun_files, "_serve", serve_quietly)
    damaged = [rng.randbytes(8192) + data[8192:]]
    for _ in range(extent(12, 40)):
        place, number = 24 + 8 * rng.randrange(17), rng.choice([0, 1, 1 << 40, 1 << 63])
        field = number.to_bytes(8, "little")
        head = b"".join(_with(data[at : at + 4096], place, field) for at in (0, 4096))
        damaged += [head + data[8192:], mutate(data, rng, [data])]
    num_refused = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            for item in lsun_files.read_lsun(str(path.parent)).items:
                item.load()
        except DataError as error:
            assert str(path.parent) in str(error) and "zip file" in str(error)
            num_refused += 1
    assert 0 < num_refused < len(damaged)


def _with(data: bytes, place: int, field: bytes) -> bytes:
    return data[:place] + field + data[place + len(field) :]
