"""The formats of a log that the environment chooses, the files of progress, and a tracker."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

import utils.log_formats
from tests.image_ddpm.tiny import NET, PROCESS, TRAINING, named_images
from tests.reliability.disks import file_size_limit
from tests.tiny import done, run, words
from tests.utils.events import read_scalars
from utils.log_formats import (
    Progress,
    ProgressLines,
    ProgressTable,
    chosen_formats,
    chosen_tracker,
)
from utils.logger import RunLogger
from utils.process.errors import EXIT_USAGE, StorageError


def _rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "progress.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _lines(folder: Path) -> list[dict[str, Any]]:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    text = (folder / "progress.json").read_text(encoding="utf-8")
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def test_formats_are_those_of_the_variable_and_all_but_two_without_it() -> None:
    assert chosen_formats({}) == chosen_formats({"OPENAI_LOG_FORMAT": ""})
    assert chosen_formats({}) == {"stdout", "log", "tensorboard"}
    assert chosen_formats({"OPENAI_LOG_FORMAT": "csv, stdout"}) == {"csv", "stdout"}
    assert chosen_formats({"OPENAI_LOG_FORMAT": "json,csv"}) == {"csv", "json"}
    with pytest.raises(ValueError, match=r"OPENAI_LOG_FORMAT=wandb,csv: there is no wandb"):
        chosen_formats({"OPENAI_LOG_FORMAT": "wandb,csv"})


def test_a_step_is_a_row_and_new_names_are_new_columns(tmp_path: Path) -> None:
    table = ProgressTable(str(tmp_path))
    table.add({"loss": 0.5}, 10)
    table.add({"loss": 0.25, "lr": 1e-4}, 20)
    table.add({"val/loss": 0.75}, 20)
    assert _rows(tmp_path) == [
        {"step": "10", "loss": "0.5", "lr": "", "val/loss": ""},
        {"step": "20", "loss": "0.25", "lr": "0.0001", "val/loss": "0.75"},
    ]


def test_a_later_run_goes_on_and_a_resumed_one_drops_what_came_after(tmp_path: Path) -> None:
    first = ProgressTable(str(tmp_path))
    for step in (1, 2, 3):
        first.add({"loss": step}, step)
    second = ProgressTable(str(tmp_path))
    second.forget_after(2)
    second.add({"loss": 30}, 3)
    assert [(row["step"], row["loss"]) for row in _rows(tmp_path)] == [
        ("1", "1"),
        ("2", "2"),
        ("3", "30"),
    ]


def test_a_table_of_somebody_else_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "progress.csv").write_bytes(b"a,b\n\xff,2\n,\n")
    ProgressTable(str(tmp_path)).add({"loss": 1.0}, 4)
    assert _rows(tmp_path) == [{"step": "4", "loss": "1"}]


def test_a_step_is_a_line_of_json_with_the_numbers_that_it_has(tmp_path: Path) -> None:
    lines = ProgressLines(str(tmp_path))
    lines.add({"loss": 0.5}, 10)
    lines.add({"loss": float("nan"), "lr": 1e-4}, 20)
    lines.add({"val/loss": 0.75}, 20)
    expected = [
        {"step": 10, "loss": 0.5},
        {"step": 20, "loss": None, "lr": 1e-4, "val/loss": 0.75},
    ]
    assert _lines(tmp_path) == expected
    later = ProgressLines(str(tmp_path))
    later.add({"loss": 0.125}, 30)
    assert _lines(tmp_path) == [*expected, {"step": 30, "loss": 0.125}]
    resumed = ProgressLines(str(tmp_path))
    resumed.forget_after(20)
    resumed.add({"loss": 2.0}, 30)
    assert _lines(tmp_path) == [*expected, {"step": 30, "loss": 2.0}]


def test_lines_of_somebody_else_are_replaced_and_whole_ones_stay(tmp_path: Path) -> None:
    texts = ['{"step": 1, "loss": 4, "note": "x"}', '{"step": true}', "[1]", "[" * 10_000]
    texts += ['{"step": 2, "loss": 1' + "0" * 400 + "}", '{"st']
    (tmp_path / "progress.json").write_bytes("\n".join(texts).encode() + b"\xff")
    ProgressLines(str(tmp_path)).add({"loss": 1.0}, 4)
    assert _lines(tmp_path) == [
        {"step": 1, "loss": 4.0, "note": None},
        {"step": 4, "loss": 1.0},
    ]


@pytest.mark.parametrize("make", [ProgressTable, ProgressLines])
def test_rows_are_appended_and_the_file_is_written_anew_for_new_columns_alone(
    tmp_path: Path, make: type[Progress]
) -> None:
    table, numbers = make(str(tmp_path)), []
    path = tmp_path / make.file_name
    for step in range(1, 6):
        table.add({"loss": step}, step)
        table.add({"lr": 0.1 / step}, step)
        numbers.append(path.stat().st_ino)
    # of a table the second name is a new column once
    assert len({*numbers}) == 1
    before = path.read_bytes()
    table.add({"loss": 6.0}, 6)
    assert path.read_bytes().startswith(before)
    table.add({"loss": 0.125, "val/loss": 7.0}, 6)
    assert make(str(tmp_path))._stored()[-1] == {"step": 6, "loss": "0.125", "val/loss": "7"}
    assert make(str(tmp_path))._stored()[:-1] == [
        {"step": step, "loss": f"{step}", "lr": f"{0.1 / step:.9g}"} for step in range(1, 6)
    ]


@pytest.mark.parametrize("make", [ProgressTable, ProgressLines])
def test_a_row_that_a_kill_has_cut_off_is_left_out(tmp_path: Path, make: type[Progress]) -> None:
    table = make(str(tmp_path))
    for step in (1, 2, 3):
        table.add({"loss": 12345.0}, step)
    path = tmp_path / make.file_name
    whole = path.read_bytes()
    for num_bytes in range(1, len(whole.splitlines(keepends=True)[-1])):
        path.write_bytes(whole[:-num_bytes])
        later = make(str(tmp_path))
        later.add({"loss": 4.0}, 4)
        assert [(row["step"], row["loss"]) for row in later._stored()] == [
            (1, "12345"),
            (2, "12345"),
            (4, "4"),
        ]


@pytest.mark.parametrize("make", [ProgressTable, ProgressLines])
def test_a_full_disk_leaves_whole_rows(tmp_path: Path, make: type[Progress]) -> None:
    table = make(str(tmp_path))
    table.add({"loss": 0.5}, 1)
    before = (tmp_path / make.file_name).read_bytes()
    with file_size_limit(len(before) + 3), pytest.raises(StorageError, match=make.file_name):
        table.add({"loss": 0.25}, 2)
    rows = make(str(tmp_path))._stored()
    assert rows == [{"step": 1, "loss": "0.5"}]
    table.add({"loss": 0.125}, 3)
    assert [row["step"] for row in make(str(tmp_path))._stored()] == [1, 3]


@pytest.mark.parametrize("make", [ProgressTable, ProgressLines])
def test_a_file_that_somebody_took_away_is_begun_anew(tmp_path: Path, make: type[Progress]) -> None:
    table = make(str(tmp_path))
    table.add({"loss": 0.5}, 1)
    (tmp_path / make.file_name).unlink()
    table.add({"loss": 0.25}, 2)
    assert make(str(tmp_path))._stored() == [{"step": 2, "loss": "0.25"}]


def test_a_training_writes_the_formats_that_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_LOG_FORMAT", "log,csv,json")
    images = named_images(tmp_path / "images")
    folders = {"log_dir": tmp_path / "log", "model_save_dir": tmp_path / "save"}
    flags = {**NET, **PROCESS, **TRAINING, **folders, "data_dir": images}
    said = done("image_train", words({**flags, "max_step": 2}))
    assert "step 2" not in said.out
    assert "step 2" in (tmp_path / "log" / "logs.txt").read_text(encoding="utf-8")
    assert not list((tmp_path / "log").glob("events*"))
    assert [row["step"] for row in _rows(tmp_path / "log")] == ["1", "2"]
    assert float(_rows(tmp_path / "log")[0]["loss"]) > 0
    done("image_train", words({**flags, "max_step": 3, "resume_checkpoint": "auto"}))
    assert [row["step"] for row in _rows(tmp_path / "log")] == ["1", "2", "3"]
    for row, line in zip(_rows(tmp_path / "log"), _lines(tmp_path / "log"), strict=True):
        assert {name: float(value) for name, value in row.items()} == line
    monkeypatch.setenv("OPENAI_LOG_FORMAT", "wandb")
    outcome = run("image_train", words({**flags, "max_step": 3}))
    assert outcome.code == EXIT_USAGE and "OPENAI_LOG_FORMAT=wandb" in outcome.err


class _Offered(EntryPoint):
    """An entry point whose package is this test."""

    def load(self) -> Any:
        if self.value == "broken":
            raise ImportError("no such module")
        return TRACKED[self.value]


CALLS: list[Any] = []


def _start(log_dir: str, args: Mapping[str, Any]) -> Callable[[Mapping[str, float], int], None]:
    CALLS.append(("start", log_dir, args["lr"]))
    return lambda values, step: CALLS.append((dict(values), step))


def _failing(log_dir: str, args: Mapping[str, Any]) -> Callable[[Mapping[str, float], int], None]:
    def track(values: Mapping[str, float], step: int) -> None:
        raise RuntimeError("the server is away")

    return track


TRACKED = {"good": _start, "failing": _failing}


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three entry points of the group."""
    names = ("good", "failing", "broken")
    points = [_Offered(name, name, "conditional_risk_sr.trackers") for name in names]
    monkeypatch.setattr(utils.log_formats, "entry_points", lambda group: points)


@pytest.mark.usefixtures("offered")
def test_a_tracker_gets_what_tensorboard_gets(tmp_path: Path) -> None:
    CALLS.clear()
    logger, start = RunLogger(str(tmp_path)), chosen_tracker({"RUN_TRACKER": "good"})
    assert start is not None
    logger.track(start, {"lr": 0.1})
    logger.scalars({"loss": 2.0}, 5)
    logger.close()
    assert [("start", str(tmp_path), 0.1), ({"loss": 2.0}, 5)] == CALLS
    assert read_scalars(tmp_path)["loss"] == {5: 2.0}


@pytest.mark.usefixtures("offered")
def test_a_tracker_that_fails_ends_itself_and_not_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logger, start = RunLogger(str(tmp_path)), chosen_tracker({"RUN_TRACKER": "failing"})
    assert start is not None
    logger.track(start, {})
    for step in (1, 2):
        logger.scalars({"loss": 2.0}, step)
    logger.close()
    assert capsys.readouterr().out.count("the server is away") == 1
    assert [*read_scalars(tmp_path)["loss"]] == [1, 2]


@pytest.mark.usefixtures("offered")
def test_a_tracker_that_is_not_there_is_named() -> None:
    assert chosen_tracker({}) is None
    with pytest.raises(ValueError, match=r"RUN_TRACKER=none: .*there are broken, failing, good"):
        chosen_tracker({"RUN_TRACKER": "none"})
    with pytest.raises(ValueError, match=r"RUN_TRACKER=broken cannot be loaded: no such module"):
        chosen_tracker({"RUN_TRACKER": "broken"})
