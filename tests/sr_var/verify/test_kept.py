"""A verification that was stopped goes on with what it has compared, and with nothing else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sr_var.verify.kept
import sr_var.verify.run
from sr_var.verify.kept import FOLDER, KeptResults
from tests.sr_var.hand_made import SHAPE, Results, flat, make_results
from tests.tiny import tree
from utils.images.listing import Entry
from utils.process.errors import StorageError
from utils.process.stop import StopRequested

NAMES = ["a.png", "folder/b.png", "c.png"]
FILES = ("results.json", "results.csv", "report.html")


@pytest.fixture
def results(tmp_path: Path) -> Results:
    """Three images whose metrics are known, with the noise of a photograph in one."""
    made = make_results(tmp_path)
    noise = np.random.default_rng(0).uniform(10, 90, SHAPE)
    made.add_nets(NAMES[0], noise, flat(64))
    return made


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the images that are read from now on."""
    found, plain = list[str](), sr_var.verify.run.load_image_data

    def counting(entry: Entry, *args: Any, **kwargs: Any) -> Any:
        found.append(entry.name)
        return plain(entry, *args, **kwargs)

    monkeypatch.setattr(sr_var.verify.run, "load_image_data", counting)
    return found


def _verify(results: Results, **changes: Any) -> list[str]:
    """Compares all without pictures; returns what it says."""
    return results.verify(**{"num_samples": 4, "num_panels": 0, "num_threads": 1, **changes})


def _stop(results: Results, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Compares two images and stops before the third."""

    def stopped(entry: Entry, *args: Any, **kwargs: Any) -> Any:
        if entry.name == NAMES[2]:
            raise StopRequested("stopped")
        return plain(entry, *args, **kwargs)

    plain = sr_var.verify.run.verify_image
    with monkeypatch.context() as patch, pytest.raises(StopRequested):
        patch.setattr(sr_var.verify.run, "verify_image", stopped)
        _verify(results, **changes)


def _written(results: Results, log_dir: str = "log") -> dict[str, str]:
    text = {name: (results.root / log_dir / name).read_text("utf-8") for name in FILES}
    return {
        name: content.replace(str(results.root / log_dir), "") for name, content in text.items()
    }


def test_stopped_verification_goes_on_and_ends_as_a_whole_one(
    results: Results, monkeypatch: pytest.MonkeyPatch, read: list[str]
) -> None:
    _stop(results, monkeypatch)
    read.clear()
    said = _verify(results, num_threads=2)
    assert read == NAMES[2:] and any("2 images were compared by a run before" in s for s in said)
    found = _written(results)
    assert not (results.root / "log" / FOLDER).exists()
    read.clear()
    _verify(results, log_dir=str(results.root / "whole"))
    assert read == NAMES and _written(results, "whole") == found


def test_images_of_panels_are_read_again(
    results: Results, monkeypatch: pytest.MonkeyPatch, read: list[str]
) -> None:
    _stop(results, monkeypatch)
    read.clear()
    _verify(results, num_panels=1)
    assert read == [NAMES[0], NAMES[2]]
    assert (results.root / "log" / "panels" / "a.png.png").exists()


@pytest.mark.parametrize("name", ["high_res_mean.png", "high_res_var.pkl"])
def test_image_whose_written_files_are_gone_is_compared_again(
    results: Results, monkeypatch: pytest.MonkeyPatch, read: list[str], name: str
) -> None:
    _stop(results, monkeypatch)
    path = results.root / "samples" / NAMES[1] / name
    path.unlink()
    read.clear()
    _verify(results)
    assert read == NAMES[1:] and path.exists()


def _touch(path: Path) -> None:
    """Another content of the same size, or the same one: only the time tells."""
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1))


@pytest.mark.parametrize(
    "path",
    [
        "images/a.png",
        "nets/a.png/high_res_mean_70.npy",
        "nets/a.png/high_res_var_50.pkl",
        "samples/a.png/moments.npz",
        "samples/a.png/low_res.png",
        "samples/a.png/high_res_samples/sample_2.png",
    ],
)
def test_image_with_a_changed_file_is_compared_again(
    results: Results, monkeypatch: pytest.MonkeyPatch, read: list[str], path: str
) -> None:
    _stop(results, monkeypatch)
    read.clear()
    _touch(results.root / path)
    _verify(results)
    assert read == [NAMES[0], NAMES[2]]


@pytest.mark.parametrize("change", ["flag", "record", "list", "code", "versions"])
def test_everything_is_compared_again_by_other_settings(
    results: Results, monkeypatch: pytest.MonkeyPatch, read: list[str], change: str
) -> None:
    record = results.root / "nets" / "notes.txt"
    record.write_text("one")
    _stop(results, monkeypatch)
    read.clear()
    flags: dict[str, Any] = {"seed": 5} if change == "flag" else {}
    if change == "record":
        _touch(record)
    elif change == "list":
        _touch(results.root / "info.pkl")
    elif change == "code":
        monkeypatch.setattr(sr_var.verify.kept, "_code", lambda: "another")
    elif change == "versions":
        monkeypatch.setattr(sr_var.verify.kept, "versions", dict)
    _verify(results, **flags)
    assert read == NAMES


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-30], lambda data: b"", lambda data: data[::-1]]
)
def test_damaged_result_is_not_taken(
    results: Results,
    monkeypatch: pytest.MonkeyPatch,
    read: list[str],
    damage: Callable[[bytes], bytes],
) -> None:
    _stop(results, monkeypatch)
    for path in (results.root / "log" / FOLDER).iterdir():
        path.write_bytes(damage(path.read_bytes()))
    read.clear()
    _verify(results)
    assert read == NAMES


def test_nothing_is_kept_where_nothing_is_written(results: Results, read: list[str]) -> None:
    before = tree(results.root)
    kept = KeptResults(results.flags(log_dir=""), 5, print)
    assert kept.key(Entry(NAMES[0], 0)) == ""
    assert tree(results.root) == before


def test_disk_that_takes_no_more_is_said_once_and_the_run_goes_on(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: str, data: bytes) -> None:
        raise StorageError(28, f"{path}: no space left")

    expected = _verify(results) and _written(results)
    shutil.rmtree(results.root / "log")
    monkeypatch.setattr(sr_var.verify.kept, "write_bytes_atomic", full)
    said = _verify(results)
    assert sum("nothing is kept for a run after a stop" in line for line in said) == 1
    assert _written(results) == expected
