"""Stored model flags: what the files hold, who wins, and which slips are forgiven."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import pickletools
import shlex
from pathlib import Path
from typing import Any

import pytest

from sr_var.flags import MeanModelFlags, VarModelFlags
from sr_var.model_args import (
    args_path,
    load_model_args,
    save_model_args,
    settle_model_flags,
)
from utils.errors import CheckpointError

FLAGS = MeanModelFlags(large_size=32, channel_mult="0.5,1", use_fp16=True, dropout=0.25)

GIVEN = frozenset(vars(FLAGS))


class _Lines(list[str]):
    def __call__(self, line: str) -> None:
        self.append(line)


def _write(path: Path, **flags: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(flags, protocol=4))
    return str(path)


@pytest.mark.parametrize(
    ("flags", "name"),
    [(FLAGS, "mean_model_args"), (VarModelFlags(last_layer_type="exp"), "var_model_args")],
)
def test_file_is_a_plain_dict_with_a_readable_twin(
    tmp_path: Path, flags: MeanModelFlags, name: str
) -> None:
    path = args_path(str(tmp_path), type(flags))
    save_model_args(path, flags)
    assert sorted(os.listdir(tmp_path)) == [f"{name}.json", f"{name}.pkl"]
    content = Path(path).read_bytes()
    assert content[:2] == b"\x80\x04"  # protocol 4
    opcodes = {opcode.name for opcode, _, _ in pickletools.genops(content)}
    assert not opcodes & {"GLOBAL", "STACK_GLOBAL", "REDUCE"}
    assert pickle.loads(content) == dataclasses.asdict(flags)
    assert json.loads((tmp_path / f"{name}.json").read_text()) == dataclasses.asdict(flags)
    assert load_model_args(path, type(flags)) == dataclasses.asdict(flags)


def test_documented_path_without_its_slash_is_read_as_the_one_with_it(tmp_path: Path) -> None:
    """``logs/sr_mean/64_256mean_model_args.pkl`` stands in the documents."""
    log_dir = tmp_path / "64_256"
    path = args_path(str(log_dir), MeanModelFlags)
    log_dir.mkdir()
    save_model_args(path, FLAGS)
    lines = _Lines()
    found = load_model_args(f"{log_dir}mean_model_args.pkl", MeanModelFlags, lines)
    assert found == dataclasses.asdict(FLAGS)
    assert lines == [f"notice: {log_dir}mean_model_args.pkl does not exist; using {path}"]


def test_path_that_exists_without_a_slash_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    save_model_args(str(tmp_path / "a/mean_model_args.pkl"), FLAGS)
    bare = _write(tmp_path / "amean_model_args.pkl", large_size=64)
    lines = _Lines()
    assert load_model_args(bare, MeanModelFlags, lines)["large_size"] == 64
    assert lines == []


def test_missing_file_is_a_checkpoint_error_that_says_who_writes_it(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist; it is written by the training"):
        load_model_args(str(tmp_path / "mean_model_args.pkl"), MeanModelFlags)


def test_flag_that_an_older_file_lacks_keeps_its_default(tmp_path: Path) -> None:
    path = _write(tmp_path / "mean_model_args.pkl", large_size=512, channel_mult=None, dropout=0)
    found = load_model_args(path, MeanModelFlags)
    expected = {**dataclasses.asdict(MeanModelFlags()), "large_size": 512}
    assert found == expected
    assert type(found["dropout"]) is float and found["channel_mult"] == ""


def test_unknown_stored_flag_is_named_and_left_out(tmp_path: Path) -> None:
    path, lines = _write(tmp_path / "mean_model_args.pkl", num_wheels=4), _Lines()
    assert load_model_args(path, MeanModelFlags, lines) == dataclasses.asdict(MeanModelFlags())
    assert len(lines) == 1 and "num_wheels" in lines[0]


@pytest.mark.parametrize(
    "flags", [{"large_size": "32"}, {"large_size": 32.0}, {"use_fp16": 1}, {"large_size": True}]
)
def test_stored_value_of_another_type_is_refused(tmp_path: Path, flags: dict[str, Any]) -> None:
    path, name = _write(tmp_path / "mean_model_args.pkl", **flags), next(iter(flags))
    with pytest.raises(CheckpointError, match=f"{name} is .* expected a"):
        load_model_args(path, MeanModelFlags)


@pytest.mark.parametrize("flags", [{"out_channels": 1}, {"in_channels": 4}, {"dims": 1}])
def test_stored_flags_of_a_network_for_other_data_are_refused(
    tmp_path: Path, flags: dict[str, Any]
) -> None:
    path, name = _write(tmp_path / "mean_model_args.pkl", **flags), next(iter(flags))
    with pytest.raises(CheckpointError, match=f"{path}: {name} {flags[name]} does not fit the im"):
        load_model_args(path, MeanModelFlags)


def test_hostile_args_file_is_refused_without_side_effect(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    path = tmp_path / "mean_model_args.pkl"
    path.write_bytes(b'cos\nsystem\n(S"touch ' + shlex.quote(str(marker)).encode() + b'"\ntR.')
    with pytest.raises(CheckpointError, match="refused"):
        load_model_args(str(path), MeanModelFlags)
    assert not marker.exists()


def test_flags_of_another_model_are_kept_under_another_name(tmp_path: Path) -> None:
    path = tmp_path / "mean_model_args.pkl"
    for flags in (FLAGS, FLAGS, dataclasses.replace(FLAGS, large_size=64)):
        save_model_args(str(path), flags)
    assert load_model_args(str(path), MeanModelFlags)["large_size"] == 64
    (kept,) = tmp_path.glob("mean_model_args_until_*.pkl")
    assert load_model_args(str(kept), MeanModelFlags) == vars(FLAGS)


def test_command_line_decides_a_fresh_start(tmp_path: Path) -> None:
    path, lines = str(tmp_path / "none.pkl"), _Lines()
    found = settle_model_flags(FLAGS, path, is_resuming=False, given=vars(FLAGS), log=lines)
    assert found == vars(FLAGS)
    assert lines == []


def test_stored_flags_win_over_the_command_line_and_differences_are_named(tmp_path: Path) -> None:
    path = str(tmp_path / "mean_model_args.pkl")
    save_model_args(path, FLAGS)
    lines = _Lines()
    line = dataclasses.replace(FLAGS, large_size=64, channel_mult="1,2", use_fp16=False)
    given = {"large_size", "channel_mult", "use_fp16", "dropout"}
    found = settle_model_flags(line, path, is_resuming=True, given=given, log=lines)
    assert found == vars(FLAGS)
    assert len(lines) == 1
    for part in (
        path,
        "large_size 32 (command line 64)",
        "channel_mult '0.5,1' (command line '1,2')",
        "use_fp16 True (command line False)",  # given, though it is the default
    ):
        assert part in lines[0]
    assert "dropout" not in lines[0]


def test_flag_that_was_left_out_says_nothing(tmp_path: Path) -> None:
    path, lines = str(tmp_path / "mean_model_args.pkl"), _Lines()
    save_model_args(path, FLAGS)
    for flags, given in ((FLAGS, set(vars(FLAGS))), (MeanModelFlags(), set())):
        found = settle_model_flags(flags, path, is_resuming=True, given=given, log=lines)
        assert found == vars(FLAGS)
    assert lines == []
