"""Checkpoint sets: what is written, and that only what is intact is found."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from tests.utils.checkpoints import EMA, auto_step, flip_byte, foreign_sets, resolve, save_sets
from utils.loops import checkpoint
from utils.loops.checkpoint import CheckpointStore, model_file_name, step_of
from utils.process.errors import CheckpointError

# ---- what is written


def test_manifest_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    replace = os.replace
    monkeypatch.setattr(
        os, "replace", lambda old, new: (written.append(os.path.basename(new)), replace(old, new))
    )
    save_sets(tmp_path, 3)
    files = [name for name in written if not name.startswith(".")]
    assert files == ["opt000003.pt", "model000003.pt", f"{EMA}_000003.pt", "ckpt000003.json"]
    assert sorted(os.listdir(tmp_path)) == sorted(files)


def test_manifest_names_step_size_and_sha256_of_each_file(tmp_path: Path) -> None:
    save_sets(tmp_path, 3)
    manifest = json.loads((tmp_path / "ckpt000003.json").read_text())
    assert manifest["step"] == 3 and manifest["state"] == {"position": 12}
    assert {entry["role"] for entry in manifest["files"].values()} == {"opt", "model", EMA}
    for name, entry in manifest["files"].items():
        content = (tmp_path / name).read_bytes()
        assert entry["size"] == len(content)
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()


def test_set_is_found_with_everything_in_it(tmp_path: Path) -> None:
    save_sets(tmp_path, 3)
    found = resolve(tmp_path, "auto")
    assert (found.step, found.state) == (3, {"position": 12})
    assert found.model_path == str(tmp_path / "model000003.pt")
    assert found.opt_path == str(tmp_path / "opt000003.pt")
    assert found.ema_paths == {"0.9": str(tmp_path / f"{EMA}_000003.pt")}


def test_model_is_a_bare_state_dict(tmp_path: Path) -> None:
    save_sets(tmp_path, 3)
    state = torch.load(tmp_path / model_file_name(3), weights_only=True)
    assert list(state) == ["weight"] and torch.equal(state["weight"], torch.full((3,), 3.0))


# ---- what is found


def test_flipped_byte_of_a_manifest_is_noticed_or_means_nothing(tmp_path: Path) -> None:
    save_sets(tmp_path, 2, 3)
    path = tmp_path / "ckpt000003.json"
    content = path.read_bytes()
    for place in range(0, len(content), 3):
        path.write_bytes(content)
        flip_byte(path, place)
        try:
            found = resolve(tmp_path, "3")
        except CheckpointError:
            continue
        assert found.state == {"position": 12} and found.opt_path and found.ema_paths


def test_auto_in_an_empty_or_missing_folder_is_a_fresh_start(tmp_path: Path) -> None:
    assert auto_step(tmp_path) == (None, "")
    assert auto_step(tmp_path / "missing") == (None, "")
    assert auto_step("") == (None, "")


def test_auto_finds_nothing_where_everything_is_damaged(tmp_path: Path) -> None:
    save_sets(tmp_path, 1, 2)
    for step in (1, 2):
        (tmp_path / model_file_name(step)).write_bytes(b"")
    step, said = auto_step(tmp_path)
    assert step is None and said.count("warning:") == 2


@pytest.mark.parametrize("name", ["2", "000002", "model000002.pt", "{folder}/model000002.pt"])
def test_step_file_name_and_path_name_the_same_set(tmp_path: Path, name: str) -> None:
    save_sets(tmp_path, 1, 2, 3)
    found = resolve(tmp_path, name.format(folder=tmp_path))
    assert found == resolve(tmp_path, "model000002.pt")
    assert found.step == 2


def test_path_leads_to_another_folder(tmp_path: Path) -> None:
    save_sets(tmp_path / "other", 2)
    found = resolve(tmp_path / "own", str(tmp_path / "other" / "model000002.pt"))
    assert found.state == {"position": 8} and os.path.dirname(found.opt_path).endswith("other")


@pytest.mark.parametrize("name", ["90000", "model090000.pt", "nothing.pt"])
def test_missing_name_is_an_error_that_lists_what_is_there(tmp_path: Path, name: str) -> None:
    save_sets(tmp_path, 1, 2)
    # the sentence is held on purpose: a name that is not there lists those that are
    with pytest.raises(CheckpointError, match=r"does not exist; there is: .*model000002\.pt"):
        resolve(tmp_path, name)
    with pytest.raises(CheckpointError, match="no checkpoint"):
        resolve(tmp_path / "empty", name)


def test_file_of_an_average_stands_in_for_the_model(tmp_path: Path) -> None:
    save_sets(tmp_path, 2)
    found = resolve(tmp_path, f"{EMA}_000002.pt")
    assert found.model_path == str(tmp_path / f"{EMA}_000002.pt") and found.step == 2


def test_optimizer_named_as_a_model_is_refused(tmp_path: Path) -> None:
    save_sets(tmp_path, 2)
    with pytest.raises(CheckpointError, match=r"of its set.*model000002\.pt"):
        resolve(tmp_path, "opt000002.pt")


def test_manifest_that_names_a_file_outside_of_the_folder_is_refused(tmp_path: Path) -> None:
    save_sets(tmp_path / "run", 2)
    path = tmp_path / "run" / "ckpt000002.json"
    content = json.loads(path.read_text())
    shutil.copy(tmp_path / "run" / "opt000002.pt", tmp_path / "outside.pt")
    content["files"]["../outside.pt"] = content["files"].pop("opt000002.pt")
    content.pop("sha256")
    content["sha256"] = checkpoint._digest(content)
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="outside"):
        resolve(tmp_path / "run", "2")


def test_step_is_read_from_the_file_name() -> None:
    assert step_of("a/b/model090000.pt") == 90000
    assert step_of("ema_0.9999_000010.pt") == 10
    with pytest.raises(CheckpointError, match="no step"):
        step_of("64_256_upsampler.pt")


# ---- sets of other tools


@pytest.mark.parametrize("name", ["auto", "5", "model000005.pt"])
def test_set_without_a_manifest_loads_with_a_notice(tmp_path: Path, name: str) -> None:
    foreign_sets(tmp_path, 4, 5)
    torch.save({"weight": torch.ones(3)}, tmp_path / "ema_0.9999_000005.pt")
    lines: list[str] = []
    found = CheckpointStore(str(tmp_path), warn=lines.append).resolve(name)
    assert found is not None and (found.step, found.state) == (5, {})
    assert found.opt_path == str(tmp_path / "opt000005.pt")
    assert found.ema_paths == {"0.9999": str(tmp_path / "ema_0.9999_000005.pt")}
    assert len(lines) == 1 and lines[0].startswith("notice:") and "no manifest" in lines[0]


@pytest.mark.parametrize("role", ["model", "opt"])
def test_flipped_byte_without_a_manifest_is_found_by_its_crc(tmp_path: Path, role: str) -> None:
    foreign_sets(tmp_path, 4, 5)
    path = tmp_path / f"{role}000005.pt"
    flip_byte(path, path.read_bytes().index(b"weight" if role == "model" else b"moment"))
    with pytest.raises(CheckpointError, match=rf"{role}000005.pt .*damaged"):
        resolve(tmp_path, "5")
    assert auto_step(tmp_path)[0] == 4


def test_name_without_a_step_starts_at_step_0(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(3)}, tmp_path / "64_256_upsampler.pt")
    found = resolve(tmp_path, str(tmp_path / "64_256_upsampler.pt"))
    assert (found.step, found.opt_path) == (0, None)


def test_folder_in_the_place_of_a_file_is_named_with_what_is_in_it(tmp_path: Path) -> None:
    save_sets(tmp_path, 1, 2)
    with pytest.raises(CheckpointError, match=r"folder.*model000002\.pt"):
        CheckpointStore("").resolve(str(tmp_path))
