"""Stored model flags: what the files hold, who wins, and which slips are forgiven."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pickle
import pickletools
import shlex
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddpm.stored_flags import Start
from sr_var.flags.scripts import MeanModelFlags, VarModelFlags
from sr_var.stored_flags import (
    args_path,
    flags_of_checkpoint,
    follow_net,
    load_args,
    load_model_args,
    save_model_args,
)
from utils.process.errors import CheckpointError, DataError
from utils.untrusted.pickles import dump_pickle

FLAGS = MeanModelFlags(large_size=32, channel_mult="0.5,1", use_fp16=True, dropout=0.25)

# the model flags of the documented commands
_DOCUMENTED = """large_size small_size in_channels model_channels out_channels num_res_blocks
    attention_resolutions dropout channel_mult conv_resample dims use_checkpoint use_fp16 num_heads
    num_head_channels num_heads_upsample resblock_updown use_new_attention_order"""
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
    save_model_args(str(tmp_path), flags)
    assert sorted(os.listdir(tmp_path)) == [f"{name}.json", f"{name}.pkl"]
    content = Path(path).read_bytes()
    assert content[:2] == b"\x80\x04"  # protocol 4
    opcodes = {opcode.name for opcode, _, _ in pickletools.genops(content)}
    assert not opcodes & {"GLOBAL", "STACK_GLOBAL", "REDUCE"}
    stored = pickle.loads(content)
    added = {"use_bf16", "predict_residual", "network", "consistent", "value_range", "functional"}
    added |= {"class_cond", "num_classes", "act", "res_block", "degradation", "condition_on_level"}
    values = dataclasses.asdict(flags)
    at_defaults = {name: values[name] for name in added & values.keys()}
    assert values == stored | at_defaults
    assert json.loads((tmp_path / f"{name}.json").read_text()) == stored
    assert load_model_args(path, type(flags)) == dataclasses.asdict(flags)


@pytest.mark.parametrize(
    ("flags", "more"),
    [
        (MeanModelFlags(), set()),
        (VarModelFlags(), {"last_layer_type"}),
        (MeanModelFlags(use_bf16=True), {"use_bf16"}),
        (MeanModelFlags(predict_residual=True), {"predict_residual"}),
    ],
)
def test_the_original_toolkit_knows_every_flag_of_the_file_that_has_its_default(
    tmp_path: Path, flags: MeanModelFlags, more: set[str]
) -> None:
    path = args_path(str(tmp_path), type(flags))
    save_model_args(str(tmp_path), flags)
    assert pickle.loads(Path(path).read_bytes()).keys() == {*_DOCUMENTED.split()} | more
    assert load_model_args(path, type(flags)) == dataclasses.asdict(flags)


@pytest.mark.parametrize("left_out", [(), ("use_bf16",), ("use_bf16", "predict_residual")])
def test_a_file_of_the_same_model_is_not_put_aside(
    tmp_path: Path, left_out: tuple[str, ...]
) -> None:
    stored = {k: v for k, v in dataclasses.asdict(FLAGS).items() if k not in left_out}
    _write(tmp_path / "mean_model_args.pkl", **stored)
    save_model_args(str(tmp_path), FLAGS)
    assert sorted(os.listdir(tmp_path)) == ["mean_model_args.json", "mean_model_args.pkl"]
    save_model_args(str(tmp_path), dataclasses.replace(FLAGS, use_bf16=True, use_fp16=False))
    assert len(list(tmp_path.glob("mean_model_args_until_*.pkl"))) == 1


def test_documented_path_without_its_slash_is_read_as_the_one_with_it(tmp_path: Path) -> None:
    """``logs/sr_mean/64_256mean_model_args.pkl`` stands in the documents."""
    log_dir = tmp_path / "64_256"
    path = args_path(str(log_dir), MeanModelFlags)
    log_dir.mkdir()
    save_model_args(str(log_dir), FLAGS)
    lines = _Lines()
    found = load_model_args(f"{log_dir}mean_model_args.pkl", MeanModelFlags, lines)
    assert found == dataclasses.asdict(FLAGS)
    assert lines == [f"notice: {log_dir}mean_model_args.pkl does not exist; using {path}"]


def test_path_that_exists_without_a_slash_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    save_model_args(str(tmp_path / "a"), FLAGS)
    bare = _write(tmp_path / "amean_model_args.pkl", large_size=64)
    lines = _Lines()
    assert load_model_args(bare, MeanModelFlags, lines)["large_size"] == 64
    assert lines == []


def test_missing_file_is_a_checkpoint_error_that_says_who_writes_it(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"mean_model_args\.pkl .*training"):
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
    with pytest.raises(CheckpointError, match=rf"{name} is .*expected"):
        load_model_args(path, MeanModelFlags)


@pytest.mark.parametrize("flags", [{"out_channels": 1}, {"in_channels": 0}, {"dims": 1}])
def test_stored_flags_of_a_network_for_other_data_are_refused(
    tmp_path: Path, flags: dict[str, Any]
) -> None:
    path, name = _write(tmp_path / "mean_model_args.pkl", **flags), next(iter(flags))
    with pytest.raises(CheckpointError, match=f"{path}: {name} {flags[name]}"):
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
        save_model_args(str(tmp_path), flags)
    assert load_model_args(str(path), MeanModelFlags)["large_size"] == 64
    (kept,) = tmp_path.glob("mean_model_args_until_*.pkl")
    assert load_model_args(str(kept), MeanModelFlags) == vars(FLAGS)


def _followed(
    root: Path, line: MeanModelFlags, given: Collection[str], *, is_strict: bool = False
) -> tuple[dict[str, Any], str]:
    """The flags that count for a net that was trained with ``FLAGS``, and what is said."""
    save_model_args(str(root), FLAGS)
    (root / "model000001.pt").touch()
    more = {"model_path": str(root / "model000001.pt"), "log_dir": str(root)}
    given = frozenset({*given, *more})
    args = argparse.Namespace(**vars(line), **more, given_flags=given, strict_flags=is_strict)
    found = follow_net(args, MeanModelFlags)
    return {name: getattr(found, name) for name in vars(FLAGS)}, "\n".join(found.notices)


def test_stored_flags_win_over_the_command_line_and_differences_are_named(tmp_path: Path) -> None:
    line = dataclasses.replace(FLAGS, channel_mult="1,2", use_fp16=False)
    found, said = _followed(tmp_path, line, {"channel_mult", "use_fp16", "dropout"})
    assert found == vars(FLAGS)
    for part in (
        "channel_mult '0.5,1' (command line '1,2')",
        "use_fp16 True (command line False)",  # given, though it is the default
        f"come from {args_path(str(tmp_path), MeanModelFlags)},",  # the checkpoint has no manifest
    ):
        assert part in said
    assert "dropout" not in said


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("large_size", 8, "warning"),  # said once more at the end
        ("small_size", 8, "warning"),
        ("channel_mult", "1", "warning"),
        ("dropout", 0.5, "notice"),
    ],
)
def test_what_makes_another_network_is_a_warning(
    tmp_path: Path, name: str, value: Any, kind: str
) -> None:
    line = dataclasses.replace(FLAGS, **{name: value})
    _, said = _followed(tmp_path, line, {name})
    assert said.startswith(f"{kind}: ")
    assert f"{name} {vars(FLAGS)[name]!r} (command line {value!r})" in said


def test_strict_flags_make_every_difference_an_error(tmp_path: Path) -> None:
    line = dataclasses.replace(FLAGS, dropout=0.5)
    with pytest.raises(CheckpointError, match="dropout"):
        _followed(tmp_path, line, {"dropout"}, is_strict=True)
    # what was left out cannot differ
    assert _followed(tmp_path, line, set(), is_strict=True)[0] == vars(FLAGS)


def test_flag_that_was_left_out_is_not_overruled(tmp_path: Path) -> None:
    assert _followed(tmp_path, FLAGS, set(vars(FLAGS))) == (vars(FLAGS), "")
    found, said = _followed(tmp_path, MeanModelFlags(), ())
    assert found == vars(FLAGS) and "command line" not in said


# ---- which network a checkpoint is of


def _checkpoint(flags: MeanModelFlags | None) -> Start:
    network = {"network": {"class": "UNetModel", "flags": dict(vars(flags))}} if flags else {}
    return Start("model000001.pt", network)


def test_manifest_and_args_file_of_one_run_agree(tmp_path: Path) -> None:
    path, lines = str(tmp_path / "mean_model_args.pkl"), _Lines()
    save_model_args(
        str(tmp_path), dataclasses.replace(FLAGS, dropout=0.5)
    )  # weights do not depend on it
    found = flags_of_checkpoint(_checkpoint(FLAGS), path, MeanModelFlags, lines)
    assert found == {**vars(FLAGS), "dropout": 0.5} and not lines


def test_args_file_of_another_network_is_refused_or_left_aside(tmp_path: Path) -> None:
    path, lines = str(tmp_path / "mean_model_args.pkl"), _Lines()
    save_model_args(str(tmp_path), dataclasses.replace(FLAGS, large_size=64))
    made = _checkpoint(FLAGS)
    with pytest.raises(CheckpointError) as caught:
        flags_of_checkpoint(made, path, MeanModelFlags, lines, path_flag="--log_dir")
    for part in ("model000001.pt", path, "--large_size 64", "--log_dir"):
        assert part in str(caught.value)
    # nobody named the file: it is that of the default folder
    assert flags_of_checkpoint(made, path, MeanModelFlags, lines) == vars(FLAGS)
    assert path in lines[0]


def test_manifest_is_enough_without_an_args_file(tmp_path: Path) -> None:
    path, lines = str(tmp_path / "mean_model_args.pkl"), _Lines()
    made = _checkpoint(FLAGS)
    assert flags_of_checkpoint(made, path, MeanModelFlags, lines) == vars(FLAGS)
    assert path in lines[0]
    for found, must_exist in ((made, True), (_checkpoint(None), False)):
        with pytest.raises(CheckpointError, match="does not exist"):
            flags_of_checkpoint(found, path, MeanModelFlags, lines, must_exist=must_exist)


@pytest.mark.parametrize("value", ["32", [1], 1e300, None, True])
def test_hostile_manifest_puts_nothing_odd_into_a_flag(tmp_path: Path, value: Any) -> None:
    network = {"class": "UNetModel", "flags": {**vars(FLAGS), "large_size": value}}
    made = Start("model000001.pt", {"network": network})
    with pytest.raises(CheckpointError, match="large_size"):
        flags_of_checkpoint(made, str(tmp_path / "none.pkl"), MeanModelFlags, _Lines())


def test_flags_round_trip_with_their_types(tmp_path: Path) -> None:
    flags = {"a": True, "b": 3, "c": 0.5, "d": "16,8", "e": None}
    dump_pickle({**flags, "f": np.int64(4), "g": np.float32(0.5)}, tmp_path / "args.pkl")
    loaded = load_args(tmp_path / "args.pkl")
    assert repr(loaded) == repr({**flags, "f": 4, "g": 0.5})


@pytest.mark.parametrize("content", [[("a", 1)], {1: 2}, {"a": [1]}, {"a": {}}, {"a": b"x"}])
def test_flags_of_another_form_are_an_error(tmp_path: Path, content: Any) -> None:
    dump_pickle(content, tmp_path / "mean_model_args.pkl")
    with pytest.raises(DataError, match=r"mean_model_args\.pkl"):
        load_args(tmp_path / "mean_model_args.pkl")
