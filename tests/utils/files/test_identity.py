"""What a checkpoint says it is, against what a run asks for; which run a folder's sets are of."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.utils.training_loops import (
    QuietLoop,
    RecordedData,
    read_manifest,
    saved_run,
    trained,
    training_loop,
    weights_of,
)
from utils.files.records import (
    UNKNOWN,
    Difference,
    Identity,
    differences,
    list_digest,
    require_same_settings,
)
from utils.logger import RunLogger
from utils.loops.checkpoint import CheckpointStore, model_file_name
from utils.process.errors import CheckpointError, DataError

NETWORK = {"width": 16, "num_heads": 4, "dropout": 0.0}
PROCESS = {"noise_schedule": "linear"}


def _identity(**changes: Any) -> Identity:
    network = {**NETWORK, **{k: v for k, v in changes.items() if k in NETWORK}}
    process = {**PROCESS, **{k: v for k, v in changes.items() if k in PROCESS}}
    return Identity("ConvNet", network, process, free=frozenset({"dropout"}))


class _ListedData(RecordedData):
    """Images that tell which they are."""

    def __init__(self, names: str, **rest: Any) -> None:
        self._names = names
        super().__init__(4, seed=7, num_workers=0, **rest)

    def listing(self) -> dict[str, Any]:
        return list_digest([(name, 0) for name in self._names])


# ---- comparing


@pytest.mark.parametrize(
    ("made", "asked", "default", "expected"),
    [
        ({"a": 1}, 1, None, None),
        ({"a": 1}, 2, None, (1, 2)),
        ({"a": True}, False, None, (True, False)),
        ({"a": ""}, False, None, ("", False)),  # an empty word is not False
        ({"a": 0}, False, None, (0, False)),
        ({}, True, True, None),  # older than the flag: made with its default
        ({}, "auto", "auto", None),
        ({}, False, True, (True, False)),
        ({}, False, None, (UNKNOWN, False)),  # older, and nobody knows what it was
        ({"a": [1, 2]}, (1, 2), None, None),  # as JSON keeps it
    ],
)
def test_a_setting_that_a_record_lacks_is_its_default(
    made: dict[str, Any], asked: Any, default: Any, expected: tuple[Any, Any] | None
) -> None:
    defaults = {} if default is None else {"a": default}
    found = differences(made, {"a": asked}, defaults)
    assert found == ([Difference("a", *expected)] if expected else [])


def test_results_of_an_older_version_take_a_new_flag_at_its_default(tmp_path: Path) -> None:
    path = str(tmp_path / "settings.json")
    require_same_settings(path, {"seed": 0}, defaults={})
    new = {"clip": True, "kind": "exact"}
    require_same_settings(path, {"seed": 0, **new}, defaults=new)
    with pytest.raises(DataError, match="--clip False"):
        require_same_settings(path, {"seed": 0, "clip": False}, defaults=new)


# ---- networks, processes, data


def test_the_manifest_says_network_process_data_and_origin(tmp_path: Path) -> None:
    data = _ListedData("abcdefgh", num_items=8)
    trained(tmp_path, 1, identity=_identity(), data=data)
    manifest = read_manifest(tmp_path, 1)
    assert manifest["network"] == {"class": "ConvNet", "flags": NETWORK}
    assert manifest["process"] == PROCESS
    assert manifest["data"]["num_images"] == 8 and len(manifest["data"]["digest"]) == 64
    assert len(manifest["origin"]) == 32


@pytest.mark.parametrize("change", [{"num_heads": 2}, {"noise_schedule": "cosine"}])
def test_a_run_of_another_network_or_process_is_not_gone_on_with(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    trained(tmp_path, 1, identity=_identity())
    with pytest.raises(CheckpointError) as caught:
        training_loop(tmp_path, identity=_identity(**change), resume_checkpoint="auto")
    ((name, value),) = change.items()
    text = str(caught.value)
    assert f"--{name} {value!r}" in text and "there: " in text and "--init_from" in text
    assert model_file_name(1) in text


def test_a_flag_that_weights_do_not_depend_on_may_change(tmp_path: Path) -> None:
    trained(tmp_path, 1, identity=_identity())
    changed = _identity(dropout=0.5)
    assert trained(tmp_path, 2, identity=changed, resume_checkpoint="auto").step == 2


def test_a_network_of_another_class_is_refused(tmp_path: Path) -> None:
    trained(tmp_path, 1, identity=_identity())
    with pytest.raises(CheckpointError, match="OtherNet"):
        training_loop(tmp_path, identity=Identity("OtherNet"), resume_checkpoint="auto")


@pytest.mark.parametrize("names", ["abcdefgi", "abcdefg", "bacdefgh"])
def test_a_run_on_another_list_of_images_is_not_gone_on_with(tmp_path: Path, names: str) -> None:
    trained(tmp_path, 1, data=_ListedData("abcdefgh", num_items=8))
    other = _ListedData(names, num_items=8)
    with pytest.raises(DataError, match="--init_from"):
        training_loop(tmp_path, data=other, resume_checkpoint="auto")
    same = _ListedData("abcdefgh", num_items=8)
    assert trained(tmp_path, 2, data=same, resume_checkpoint="auto").step == 2


@pytest.mark.parametrize("part", ["network", "process", "data", "origin"])
def test_a_manifest_of_an_earlier_version_is_gone_on_with(tmp_path: Path, part: str) -> None:
    data = _ListedData("abcdefgh", num_items=8)
    trained(tmp_path, 1, identity=_identity(), data=data)
    manifest = {k: v for k, v in read_manifest(tmp_path, 1).items() if k not in ("sha256", part)}
    parts = {
        role: torch.load(tmp_path / name, weights_only=True)
        for name, role in ((n, e["role"]) for n, e in manifest.pop("files").items())
    }
    CheckpointStore(str(tmp_path)).save(1, parts, manifest)
    assert part not in read_manifest(tmp_path, 1)
    again = trained(tmp_path, 2, identity=_identity(), data=data, resume_checkpoint="auto")
    assert again.step == 2
    assert part in read_manifest(tmp_path, 2)


# ---- which run


def test_a_resumed_run_keeps_its_origin_and_a_fresh_start_has_its_own(tmp_path: Path) -> None:
    trained(tmp_path / "a", 1)
    trained(tmp_path / "b", 1)
    trained(tmp_path / "a", 2, resume_checkpoint="auto")
    trained(tmp_path / "c", 2, resume_checkpoint=str(tmp_path / "a" / model_file_name(1)))
    origins = {
        name: read_manifest(tmp_path / name, step)["origin"]
        for name, step in (("a", 1), ("b", 1), ("c", 2))
    }
    assert read_manifest(tmp_path / "a", 2)["origin"] == origins["a"] == origins["c"]
    assert origins["b"] != origins["a"]


def test_a_named_set_does_not_overwrite_those_of_another_run(tmp_path: Path) -> None:
    trained(tmp_path / "first", 2)
    trained(tmp_path / "other", 4)
    before = (tmp_path / "other" / model_file_name(4)).read_bytes()
    named = str(tmp_path / "first" / model_file_name(2))
    with pytest.raises(CheckpointError) as caught:
        training_loop(tmp_path / "other", resume_checkpoint=named)
    assert "another run" in str(caught.value) and "--model_save_dir" in str(caught.value)
    assert (tmp_path / "other" / model_file_name(4)).read_bytes() == before


@pytest.mark.parametrize("has_manifest", [True, False])
def test_a_requeued_run_with_a_named_set_goes_on_from_its_newest(
    tmp_path: Path, has_manifest: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(tmp_path / "first", 2)
    if not has_manifest:
        (tmp_path / "first" / "ckpt000002.json").unlink()
    named = str(tmp_path / "first" / model_file_name(2))
    trained(tmp_path / "mine", 4, resume_checkpoint=named)
    whole = trained(tmp_path / "mine", 5, resume_checkpoint=named, logger=RunLogger())
    out = capsys.readouterr().out
    assert "at step 4" in out and "To go back" in out
    assert whole.step == 5 and len(whole.data.seen) == 4  # one step of four images


def test_sets_without_a_manifest_in_the_own_folder_are_gone_on_with(tmp_path: Path) -> None:
    trained(tmp_path / "first", 2)
    shutil.copytree(tmp_path / "first", tmp_path / "mine")
    trained(tmp_path / "mine", 4, resume_checkpoint="auto")
    for path in (tmp_path / "mine").glob("ckpt*.json"):
        path.unlink()
    named = str(tmp_path / "first" / model_file_name(2))
    assert training_loop(tmp_path / "mine", resume_checkpoint=named).step == 4


def test_an_older_set_of_unknown_origin_in_the_own_folder_is_of_the_run(tmp_path: Path) -> None:
    trained(tmp_path, 2)
    trained(tmp_path, 3, resume_checkpoint="auto")
    (tmp_path / "ckpt000002.json").unlink()
    assert training_loop(tmp_path, resume_checkpoint="2").step == 3


def test_a_set_that_is_further_than_the_folder_is_taken(tmp_path: Path) -> None:
    trained(tmp_path / "mine", 2)
    shutil.copytree(tmp_path / "mine", tmp_path / "far")
    trained(tmp_path / "far", 4, resume_checkpoint="auto")
    named = str(tmp_path / "far" / model_file_name(4))
    assert training_loop(tmp_path / "mine", resume_checkpoint=named).step == 4


def test_an_average_of_weights_is_no_point_to_go_on_from(tmp_path: Path) -> None:
    trained(tmp_path, 2)
    with pytest.raises(CheckpointError) as caught:
        training_loop(tmp_path, resume_checkpoint="ema_0.5_000002.pt")
    assert "ema_0.5_000002.pt" in str(caught.value) and "--init_from" in str(caught.value)


# ---- new runs from weights


@pytest.mark.parametrize("name", ["model000002.pt", "ema_0.5_000002.pt"])
def test_init_from_takes_the_weights_and_nothing_else(tmp_path: Path, name: str) -> None:
    trained(tmp_path / "old", 2)
    path = tmp_path / "old" / name
    new = training_loop(tmp_path / "new", init_from=str(path), ema_rate="0.9")
    stored = torch.load(path, weights_only=True)
    assert new.step == 0 and new.state.position == 0
    assert not new.mp_trainer.optimizer.state
    for key, value in new.model.state_dict().items():
        assert torch.equal(value, stored[key])
    (_, average), *_ = new.state._averages.items()
    assert all(map(torch.equal, average, new.mp_trainer.masters))
    assert new.run_loop()
    origins = {read_manifest(tmp_path / f, s)["origin"] for f, s in (("old", 2), ("new", 5))}
    assert len(origins) == 2


def test_init_from_with_auto_is_for_the_first_start_alone(tmp_path: Path) -> None:
    trained(tmp_path / "old", 2)
    path = str(tmp_path / "old" / model_file_name(2))
    both = {"init_from": path, "resume_checkpoint": "auto"}
    trained(tmp_path / "new", 3, **both)
    trained(tmp_path / "new", 6, **both)
    trained(tmp_path / "whole", 6, init_from=path)
    cut, whole = (saved_run(tmp_path / name, 6) for name in ("new", "whole"))
    assert all(torch.equal(cut[k], whole[k]) for k in whole if k.startswith("model/"))


def test_init_from_and_a_named_set_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="--init_from"):
        training_loop(init_from="a/model000001.pt", resume_checkpoint="b/model000001.pt")


def test_init_from_does_not_overwrite_another_run(tmp_path: Path) -> None:
    trained(tmp_path, 2)
    with pytest.raises(CheckpointError, match="already holds"):
        training_loop(tmp_path, init_from=str(tmp_path / model_file_name(2)))


def test_init_from_says_what_the_weights_were_made_with_otherwise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(tmp_path / "old", 1, identity=_identity())
    start = {
        "init_from": str(tmp_path / "old" / model_file_name(1)),
        "identity": _identity(num_heads=2),
        "logger": RunLogger(),
    }
    assert isinstance(training_loop(tmp_path / "new", **start), QuietLoop)
    assert "--num_heads 2" in capsys.readouterr().out
    with pytest.raises(CheckpointError, match="--num_heads 2"):
        training_loop(tmp_path / "new", strict_flags=True, **start)


def test_the_weights_of_a_fresh_start_do_not_depend_on_its_origin(tmp_path: Path) -> None:
    one, two = (weights_of(trained(tmp_path / name, 2)) for name in "ab")
    assert all(map(torch.equal, one, two))


def test_images_that_are_read_otherwise_name_the_flag(tmp_path: Path) -> None:
    class Turned(_ListedData):
        def listing(self) -> dict[str, Any]:
            return {**super().listing(), "apply_orientation": True}

    trained(tmp_path, 1, data=_ListedData("abcdefgh", num_items=8))
    # the sentence is held on purpose: every difference of flags has its form
    with pytest.raises(DataError, match=r"--apply_orientation True \(there: False\)"):
        training_loop(tmp_path, data=Turned("abcdefgh", num_items=8), resume_checkpoint="auto")
