"""Flags from a file: every script takes them, the command line goes first, slips are named."""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline import Pipeline
from tests.scripts.runs import flags_of
from tests.scripts.test_paths import SCRIPTS as ALL_SCRIPTS
from tests.scripts.test_paths import _parser
from tests.tiny import done, run, words
from tests.utils.training_loops import differences, saved_run
from utils.process.errors import EXIT_DONE, EXIT_USAGE
from utils.script_util import FlagParser, size_or_auto

Parse = Callable[..., argparse.Namespace]
# its --config is another file, and older
SCRIPTS = [script for script in ALL_SCRIPTS if script != "slurms.submit"]
NO_FLAGS = ("help", "local_rank", "config", "print_config")


def _actions(parser: FlagParser) -> list[argparse.Action]:
    return [action for action in parser._actions if action.dest not in NO_FLAGS]


def _other(action: argparse.Action) -> Any:
    """A value that is not the default."""
    if action.choices is not None:
        return [one for one in action.choices if one != action.default][-1]
    if isinstance(action.default, bool):
        return not action.default
    if isinstance(action.default, int):
        return 7 if action.default != 7 else 8
    if isinstance(action.default, float):
        return 0.125 if action.default != 0.125 else 0.25
    return "a: 'b' #\"c\",é, -1,{fold}"


@pytest.fixture(params=SCRIPTS)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> FlagParser:
    return _parser(request.param, monkeypatch)


def _printed(parser: FlagParser, capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    with pytest.raises(SystemExit) as stop:
        parser.parse_args([*argv, "--print_config"])
    assert stop.value.code == EXIT_DONE
    return capsys.readouterr().out


def _refused(parser: FlagParser, capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(list(argv))
    said = capsys.readouterr()
    assert stop.value.code == EXIT_USAGE and said.out == "" and said.err.count("\n") == 1
    return said.err


# ---- every script


def test_what_is_printed_says_the_same_again(
    parser: FlagParser, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """All flags of the script, each with another value than its default; and every second one."""
    actions = _actions(parser)
    assert actions
    for chosen in (actions, actions[::2], []):
        argv = [f"--{action.dest}={_other(action)}" for action in chosen]
        expected = parser.parse_args(argv)
        path = tmp_path / "run.yaml"
        path.write_text(_printed(parser, capsys, *argv), encoding="utf-8")
        assert parser.parse_args(["--config", str(path)]) == expected
        assert expected.given_flags == {action.dest for action in chosen}
        text = path.read_text(encoding="utf-8")
        assert all(f"{action.dest}: " in text for action in actions)


def test_json_and_the_record_of_a_run_say_the_same(parser: FlagParser, tmp_path: Path) -> None:
    """In a record all flags stand; those with their defaults count as left out."""
    chosen = _actions(parser)[::3]
    flags = {action.dest: _other(action) for action in chosen}
    expected = parser.parse_args([f"--{name}={value}" for name, value in flags.items()])
    plain, record = tmp_path / "run.json", tmp_path / "args_x.json"
    plain.write_text(json.dumps(flags))
    every = {action.dest: getattr(expected, action.dest) for action in _actions(parser)}
    record.write_text(json.dumps({"flags": every, "command": ["python", "x.py"]}))
    for path in (plain, record):
        assert parser.parse_args(["--config", str(path)]) == expected


def test_the_command_line_goes_first(parser: FlagParser, tmp_path: Path) -> None:
    one, *rest = _actions(parser)
    path = tmp_path / "run.json"
    path.write_text(json.dumps({action.dest: _other(action) for action in (one, *rest[:1])}))
    default = "auto" if one.type is size_or_auto and one.default == -1 else one.default
    if one.choices is not None and default not in one.choices:
        default = next(iter(one.choices))
    for argv in (
        ["--config", str(path), f"--{one.dest}={default}"],
        [f"--{one.dest}={default}", "--config", str(path)],
    ):
        args = parser.parse_args(argv)
        assert getattr(args, one.dest) == (one.default if default == "auto" else default)
        assert all(getattr(args, action.dest) == _other(action) for action in rest[:1])
        assert "config" not in args and "print_config" not in args


def test_an_unknown_key_is_named_with_its_file_and_the_nearest_flag(
    parser: FlagParser, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    name = _actions(parser)[-1].dest
    path = tmp_path / "run.yaml"
    path.write_text(f"{name}x: 1\n")
    said = _refused(parser, capsys, "--config", str(path))
    assert str(path) in said and f"--{name}x" in said and f"--{name}?" in said


@pytest.mark.parametrize("key", ["help", "local_rank", "config", "print_config", "-h", ""])
def test_what_is_no_flag_of_a_run_does_not_belong_into_a_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, key: str
) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps({key: "1"}))
    parser = importlib.import_module("sr_mean_train").create_parser()
    assert "unknown flag" in _refused(parser, capsys, "--config", str(path))


# ---- one script


@pytest.fixture
def parse() -> Parse:
    parser: FlagParser = importlib.import_module("sr_mean_train").create_parser()
    return lambda *argv: parser.parse_args(list(argv))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("lr: fast", ("--lr", "'fast'")),
        ("batch_size: 1.5", ("--batch_size", "1.5")),
        ("compile: maybe", ("--compile", "'maybe'")),
        ("learning_rate: 1", ("unknown flag --learning_rate", "here --lr")),
        ("lr: [1, 2", ("line", "YAML")),
        ("just words", ("no flags",)),
        ("log_dir: ~no body/x", ("--log_dir",)),
    ],
)
def test_a_slip_in_a_file_is_one_line_that_names_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, parts: tuple[str, ...]
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    parser = importlib.import_module("sr_mean_train").create_parser()
    said = _refused(parser, capsys, "--config", str(path))
    assert str(path) in said and all(part in said for part in parts), said


@pytest.mark.parametrize("name", ["none.yaml", "none.json", "."])
def test_a_file_that_cannot_be_read_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str
) -> None:
    parser = importlib.import_module("sr_mean_train").create_parser()
    assert str(tmp_path / name) in _refused(parser, capsys, "--config", str(tmp_path / name))


def test_a_file_may_lie_at_home(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, parse: Parse
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "run.yaml").write_text("lr: 0.5\nlog_dir: ~/logs\n")
    args = parse("--config", "~/run.yaml")
    assert args.lr == 0.5 and args.log_dir == str(tmp_path / "logs")


def test_a_flag_that_does_nothing_any_more_is_told_from_a_file_too(
    tmp_path: Path, parse: Parse
) -> None:
    (tmp_path / "run.yaml").write_text("fast_crop: yes\n")
    (line,) = parse("--config", str(tmp_path / "run.yaml")).notices
    assert "--fast_crop" in line


def test_a_preset_stays_below_the_flags_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("preset: subpixel_64_256\nnum_res_blocks: 2\n")
    from ddpm.flags import apply_preset
    from sr_var.flags.nets import MEAN_PRESETS

    parser = importlib.import_module("sr_mean_train").create_parser()
    args = apply_preset(parser.parse_args(["--config", str(path)]), MEAN_PRESETS, "")
    assert args.num_res_blocks == 2 and args.network == "subpixel"


# ---- whole runs


def test_a_run_is_repeated_and_gone_on_with_from_its_record(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    flags = {**flags_of(pipeline, "sr_mean_train", tmp_path / "whole"), "max_step": 3}
    done("sr_mean_train", words(flags))
    record = tmp_path / "whole" / "log" / "args.json"
    own = {name: tmp_path / "again" / name for name in ("log_dir", "model_save_dir")}
    for step in (2, 3):
        more = words(own, max_step=step, resume_checkpoint="auto")
        done("sr_mean_train", ["--config", str(record), *more])
    found = saved_run(tmp_path / "again" / "model_save_dir", 3)
    assert differences(found, saved_run(tmp_path / "whole" / "save", 3)) == []
    again = json.loads((tmp_path / "again" / "log_dir" / "args.json").read_text())
    assert "config" not in again["flags"]
    assert again["flags"]["lr"] == json.loads(record.read_text())["flags"]["lr"]


RECORDS = {
    "sr_mean_train": "sr_mean",
    "sr_var_train": "sr_var",
    "ddpm_sr_train": "ddpm_sr",
    "sr_mean_test": "sr_mean_test",
    "sr_var_test": "sr_var_test",
}


@pytest.mark.parametrize(("script", "task"), RECORDS.items())
def test_the_records_of_real_runs_are_taken(pipeline: Pipeline, script: str, task: str) -> None:
    path = pipeline.log_dir(task) / "args.json"
    parser = importlib.import_module(script).create_parser()
    args = parser.parse_args(["--config", str(path)])
    assert {
        name: getattr(args, name) for name in json.loads(path.read_text())["flags"]
    } == json.loads(path.read_text())["flags"]


def test_the_record_of_another_script_is_refused(pipeline: Pipeline) -> None:
    path = pipeline.log_dir("ddpm_sr") / "args.json"
    outcome = run("sr_mean_train", ["--config", str(path)])
    assert outcome.code == EXIT_USAGE and str(path) in outcome.err
    assert "unknown flag --num_channels (here --model_channels)" in outcome.err
