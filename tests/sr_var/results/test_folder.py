"""Result folders: what counts as done, whose results are kept, and files as the contract says."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sr_var.results.folder import ResultFolder, save_array, strip
from tests.tiny import tree
from utils.files import records as json_file
from utils.flags.groups import Reading
from utils.images.listing import Entry
from utils.images.pixels import save_image, to_hwc
from utils.process.errors import CheckpointError, DataError

FILES = ("low_res.png", "high_res_mean_7.npy")
ENTRIES = [Entry("a", 0), Entry("class/b", 1), Entry("c.png", 2)]


def _folder(root: Path, model: bytes = b"weights") -> ResultFolder:
    root.mkdir(exist_ok=True)
    path = root / "model000007.pt"
    path.write_bytes(model)
    return ResultFolder(str(root / "out"), "mean", 7, FILES, [str(path)])


def _finish(results: ResultFolder, name: str) -> None:
    for file in FILES:
        Path(results.path(name, file)).write_bytes(b"done")


def test_finished_images_are_not_pending_again(tmp_path: Path) -> None:
    results = _folder(tmp_path)
    assert results.pending(ENTRIES) == ENTRIES
    _finish(results, "a")
    _finish(results, "c.png")
    assert _folder(tmp_path).pending(ENTRIES) == [ENTRIES[1]]


@pytest.mark.parametrize("file", FILES)
def test_image_that_lacks_a_file_is_pending(tmp_path: Path, file: str) -> None:
    results = _folder(tmp_path)
    results.pending(ENTRIES)
    _finish(results, "class/b")
    os.remove(results.path("class/b", file))
    assert ENTRIES[1] in results.pending(ENTRIES)


def test_results_of_another_checkpoint_of_the_same_step_are_removed(tmp_path: Path) -> None:
    results = _folder(tmp_path)
    results.pending(ENTRIES)
    _finish(results, "a")
    Path(results.path("a", "high_res_mean_8.npy")).write_bytes(b"of another step")
    again = _folder(tmp_path, model=b"other weights")
    assert again.pending(ENTRIES) == ENTRIES
    # the low-res image does not depend on the checkpoint
    assert sorted(os.listdir(tmp_path / "out" / "a")) == ["high_res_mean_8.npy", "low_res.png"]


def test_replaced_means_are_counted_and_the_variances_made_on_them_are_named(
    tmp_path: Path,
) -> None:
    results = _folder(tmp_path)
    lines: list[str] = []
    results.pending(ENTRIES, lines.append)
    for name in ("a", "class/b"):
        _finish(results, name)
    _folder(tmp_path).pending(ENTRIES, lines.append)
    assert lines == []  # nothing was replaced
    old = hashlib.sha256(b"weights").hexdigest()
    for step, models in ((50, ["var", old]), (60, ["var", "other"]), (70, ["var", "one", old])):
        (tmp_path / "out" / f".var_{step}.json").write_text(json.dumps({"models": models}))
    (tmp_path / "out" / ".var_80.json").write_text("{")
    _folder(tmp_path, model=b"other weights").pending(ENTRIES, lines.append)
    new = hashlib.sha256(b"other weights").hexdigest()
    removed, warning = lines
    assert "2 images" in removed and old[:12] in removed and new[:12] in removed
    assert "step 50, 70 in" in warning and "--mean_model_path" in warning


def test_results_without_a_stamp_are_replaced_and_said_to_be_of_an_unknown_checkpoint(
    tmp_path: Path,
) -> None:
    results = _folder(tmp_path)
    _finish(results, "a")
    lines: list[str] = []
    assert results.pending(ENTRIES, lines.append) == ENTRIES
    (line,) = lines
    assert "1 images" in line and "unknown checkpoint" in line


def test_results_of_another_image_of_the_same_name_are_not_mixed(tmp_path: Path) -> None:
    one, other = torch.zeros(3, 8, 8), torch.full((3, 8, 8), 0.5)
    first = _folder(tmp_path)
    first.pending(ENTRIES)
    first.save_low_res("a", one, (8, 8))
    before = tree(tmp_path / "out")
    again = _folder(tmp_path)
    again.pending(ENTRIES)
    again.save_low_res("a", one + 1 / 255, (8, 8))  # half a grey level, as a decoder may be off
    for image in (other, torch.zeros(3, 4, 4)):
        with pytest.raises(DataError, match=r"a/low_res\.png.*--data_dir"):
            again.save_low_res("a", image, image.shape[1:])
    assert tree(tmp_path / "out") == before
    # a damaged picture says nothing, and one of another tool neither
    (tmp_path / "out" / "a" / "low_res.png").write_bytes(b"half")
    again.save_low_res("a", other, (8, 8))
    (tmp_path / "out" / ".mean_7.json").unlink()
    foreign = _folder(tmp_path)
    foreign.pending(ENTRIES)
    foreign.save_low_res("a", one, (8, 8))


def test_results_of_images_that_were_read_another_way_up_are_refused_and_kept(
    tmp_path: Path,
) -> None:
    results = _folder(tmp_path)
    results.pending(ENTRIES)
    _finish(results, "a")
    before, path = tree(tmp_path / "out"), str(tmp_path / "model000007.pt")
    turned = ResultFolder(
        str(tmp_path / "out"), "mean", 7, FILES, [path], Reading(apply_orientation=True)
    )
    with pytest.raises(DataError, match=r"--output_dir .*--apply_orientation False"):
        turned.pending(ENTRIES)
    assert tree(tmp_path / "out") == before
    other = ResultFolder(
        str(tmp_path / "other"), "mean", 7, FILES, [path], Reading(apply_orientation=True)
    )
    other.pending(ENTRIES)
    _finish(other, "a")
    assert other.pending(ENTRIES) == ENTRIES[1:]


def test_folder_that_cannot_be_listed_does_not_keep_results_of_another_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root, permissions do not count: the refusal is made up."""
    results = _folder(tmp_path)
    results.pending(ENTRIES)
    _finish(results, "a")
    listed = os.scandir

    def refusing(path: str) -> Any:
        if os.path.basename(path) == "a":
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(PermissionError, match="out/a"):
        _folder(tmp_path, model=b"other weights").pending(ENTRIES)


def test_results_of_another_checkpoint_do_not_come_back_with_a_larger_info_dict(
    tmp_path: Path,
) -> None:
    results = _folder(tmp_path)
    results.pending(ENTRIES)
    for entry in ENTRIES:
        _finish(results, entry.name)
    assert _folder(tmp_path, model=b"other weights").pending(ENTRIES[:1]) == ENTRIES[:1]
    assert _folder(tmp_path, model=b"other weights").pending(ENTRIES) == ENTRIES


@pytest.mark.parametrize("content", [b"\xff{", b"", b"[1]", b"{}", b'{"models": 5}', b"[" * 99_999])
def test_damaged_stamp_is_refused_and_no_result_is_removed(tmp_path: Path, content: bytes) -> None:
    results = _folder(tmp_path)
    results.pending(ENTRIES)
    _finish(results, "a")
    stamp = tmp_path / "out" / ".mean_7.json"
    stamp.write_bytes(content)
    before = tree(tmp_path)
    with pytest.raises(DataError, match=r"\.mean_7\.json .*delete"):
        _folder(tmp_path).pending(ENTRIES)
    assert tree(tmp_path) == before
    stamp.unlink()
    assert _folder(tmp_path).pending(ENTRIES) == ENTRIES
    assert not (tmp_path / "out" / "a" / FILES[1]).exists()


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.ESTALE])
def test_stamp_that_the_file_system_does_not_give_is_no_reason_to_remove_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    results = _folder(tmp_path)
    results.pending(ENTRIES)
    _finish(results, "a")
    before = tree(tmp_path)

    def failing(path: str) -> Any:
        raise OSError(code, os.strerror(code), path)

    monkeypatch.setattr(json_file, "read_json", failing)
    with pytest.raises(DataError, match=r"\.mean_7\.json"):
        _folder(tmp_path).pending(ENTRIES)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", ["../a", "a/../../b", "/etc/a", "a\\b", "", "a\0"])
def test_name_that_leads_out_of_the_output_folder_is_refused(tmp_path: Path, name: str) -> None:
    results = _folder(tmp_path)
    with pytest.raises(ValueError):
        results.path(name, "low_res.png")
    assert {path.name for path in tmp_path.iterdir()} <= {"out", "model000007.pt"}


def test_name_that_leads_out_through_a_link_is_refused(tmp_path: Path) -> None:
    results = _folder(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="symbolic link"):
        results.path("link/a", "low_res.png")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_picture_is_rounded_and_array_is_float32_hwc(tmp_path: Path) -> None:
    image = torch.tensor([[-1.0, 0.0], [0.5, 2.0]]).expand(3, 2, 2)
    save_image(str(tmp_path / "a.png"), image)
    picture = np.asarray(Image.open(tmp_path / "a.png"))
    expected = np.array([[0, 128], [191, 255]])[..., None]  # 127.5 rounds to even, 191.25 down
    np.testing.assert_array_equal(picture, np.broadcast_to(expected, (2, 2, 3)))
    save_array(str(tmp_path / "a.npy"), to_hwc(image))
    found = np.load(tmp_path / "a.npy")
    assert found.shape == (2, 2, 3) and found.dtype == np.float32
    np.testing.assert_array_equal(found[..., 1], image[1].numpy())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_output_that_is_not_finite_is_never_written(tmp_path: Path, value: float) -> None:
    image = torch.zeros(3, 2, 2)
    image[1, 0, 1] = value
    with pytest.raises(CheckpointError, match=r"a\.png.*not finite"):
        save_image(str(tmp_path / "a.png"), image)
    assert list(tmp_path.iterdir()) == []


def test_strip_shows_a_row_per_item_and_a_column_per_argument() -> None:
    first, second = torch.full((2, 3, 4, 5), -1.0), torch.full((2, 3, 4, 5), 1.0)
    second[1] = 0.0
    picture = strip(first, second)
    assert picture.shape == (8, 10, 3) and picture.dtype == np.uint8
    assert np.all(picture[:, :5] == 0)
    assert np.all(picture[:4, 5:] == 255) and np.all(picture[4:, 5:] == 128)
