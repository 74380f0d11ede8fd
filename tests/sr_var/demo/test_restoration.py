"""`make demo-restore`: a fair split, commands that fit together, and figures that are true."""

from __future__ import annotations

import csv
import importlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import demo_restore
from sr_var.demo.restoration import commands
from sr_var.demo.restoration.commands import (
    FULL,
    QUICK,
    TASKS,
    Preset,
    demo_steps,
    list_commands,
    record_path,
    task_commands,
)
from sr_var.demo.restoration.photographs import NUM_ROUNDS, draw_split, write_lists
from sr_var.demo.restoration.results import Found, find_all, in_plain_words
from tests.tiny import ROOT, done, run
from utils.process.errors import EXIT_DATA, EXIT_USAGE, DataError
from utils.runs.scripts import read_times
from utils.untrusted.pickles import load_array

PRESETS = pytest.mark.parametrize("preset", [FULL, QUICK], ids=lambda preset: preset.name)
DATA = str(ROOT / "data" / "demo")
TINY = replace(QUICK, size=16, width=8, num_res_blocks=1, batch_size=2, mean_steps=2, var_steps=2)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_photograph_and_no_author_is_on_two_sides(seed: int) -> None:
    split = draw_split(seed, DATA)
    with open(f"{DATA}/photographs.csv", encoding="utf-8", newline="") as file:
        authors = {f"{r['split']}/{r['name']}.jpg": r["author"] for r in csv.DictReader(file)}
    assert sorted([*split.training, *split.held_out]) == sorted(authors)
    assert all((Path(DATA) / name).exists() for name in authors)
    counts = Counter(authors.values())
    assert {counts[authors[name]] for name in split.held_out} == {1}
    assert len(split.training) == 21 and [len(part) for part in split.rounds] == [8] * NUM_ROUNDS
    for place, part in enumerate(split.rounds):
        assert not {*part} & {*split.calibrating(place)}
        assert sorted([*part, *split.calibrating(place)]) == sorted(split.held_out)


def test_another_seed_draws_another_split() -> None:
    first, second = draw_split(0, DATA), draw_split(1, DATA)
    assert first == draw_split(0, DATA)
    assert set(first.training) != set(second.training) and first.rounds != second.rounds


def test_without_the_photographs_one_line_says_where_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = run("demo_restore", ["--quick", "True"])
    assert outcome.code == EXIT_DATA and "data/demo/photographs.csv" in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1
    outcome = run("demo_restore", ["--seed", "-1"])
    assert outcome.code == EXIT_USAGE and "--seed" in outcome.err


def _parse(script: str, argv: Any) -> dict[str, Any]:
    parser = importlib.import_module(script.removesuffix(".py")).create_parser()
    return vars(parser.parse_args(argv))


@PRESETS
def test_a_command_reads_what_an_earlier_one_wrote(preset: Preset) -> None:
    lists = [_parse(*line) for line in list_commands(preset)]
    held_out, *calibrating = (f"{args['output_dir']}/to_sample_data_info.pkl" for args in lists)
    for task in TASKS:
        mean, var, mean_test, var_test, *rounds = (
            _parse(*line) for line in task_commands(preset, task)
        )
        model = f"{mean['model_save_dir']}/model{mean['max_step']:06d}.pt"
        assert mean_test["model_path"] == var["mean_model_path"] == model
        assert var_test["model_path"] == f"{var['model_save_dir']}/model{var['max_step']:06d}.pt"
        assert var["degradation"] == mean["degradation"] == task.degradation
        for args in (mean_test, var_test):
            assert args["data_info_dict_path"] == held_out
            assert args["output_dir"] == preset.results_dir(task)
        assert [args["data_info_dict_path"] for args in rounds] == calibrating
        for place, args in enumerate(rounds):
            assert args["sr_model_output_dir"] == preset.results_dir(task)
            assert f"{args['output_dir']}/calibration.json" == preset.calibration(task, place)
            assert (args["mean_model_step"], args["var_model_step"], args["large_size"]) == (
                preset.mean_steps,
                preset.var_steps,
                preset.size,
            )


def test_trainings_are_in_bf16_where_a_preset_says_so() -> None:
    for is_bf16 in (False, True):
        for script, words in task_commands(FULL.with_bf16(is_bf16), TASKS[0]):
            of_training = script.endswith("_train.py")
            assert _parse(script, words).get("use_bf16", False) is (is_bf16 and of_training)


@PRESETS
def test_steps_have_words_of_their_own_and_another_seed_its_own_folders(preset: Preset) -> None:
    steps = demo_steps(preset)
    assert [step.command for step in steps] == commands.commands(preset)
    assert len({step.what for step in steps}) == len({step.line for step in steps}) == len(steps)
    assert record_path(preset).startswith("logs/demo/demo")  # as make clean removes it
    other = preset.with_seed(3)
    assert preset.with_seed(0) == preset
    own = {word for step in demo_steps(other) for word in step.command[1] if "/demo" in word}
    shared = own & {word for step in steps for word in step.command[1]}
    assert shared == {commands.DATA_DIR}
    seeded = [step.command for step in demo_steps(other) if "--seed" in step.command[1]]
    assert len(seeded) == 4 * len(TASKS)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The demo with tiny networks, run once: its folder and what it said."""
    root = tmp_path_factory.mktemp("demo")
    (root / "data").mkdir()
    (root / "data" / "demo").symlink_to(DATA, target_is_directory=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr(demo_restore, "QUICK", TINY)
        yield root, done("demo_restore", ["--quick", "True"]).out


def test_short_demo_runs_to_its_page_and_again_does_little(demo: tuple[Path, str]) -> None:
    root, said = demo
    page = (root / TINY.report_dir / "report.html").read_text(encoding="utf-8")
    count = len(demo_steps(TINY))
    assert f"step {count} of {count}, inpainting" in said and "The demo took " in said
    # eight pictures of each of two photographs, and a scale
    assert page.count("data:image/png") == len(TASKS) * (2 * 8 + 1)
    for task in TASKS:
        assert f'<section id="{task.name}"' in page and f"{task.title}: the mean is" in said
    again = done("demo_restore", ["--quick", "True"]).out
    assert again.count("(done by an earlier run)") == count


def _by_hand(found: Found, names: set[str], factor: float) -> float:
    """Average share of (hidden) values inside of mean ± factor std, from the files alone."""
    from sr_var.degrade.view import View
    from sr_var.flags.scripts import MeanModelFlags
    from utils.images.crops.dataset import TestCrops
    from utils.images.listing import Entry
    from utils.images.pixels import bytes_to_image

    flags = MeanModelFlags(
        large_size=TINY.size, small_size=TINY.size, degradation=found.task.degradation
    )
    view, shares = View.of(flags), []
    for name in names:
        item = TestCrops([Entry(name, 0)], TINY.size, "data/demo")[0]
        assert item is not None
        real = item.image.numpy().transpose(1, 2, 0).astype(np.float64)
        folder = Path(TINY.results_dir(found.task)) / name
        mean = np.load(folder / "high_res_mean_2.npy")
        variance = np.maximum(load_array(folder / "high_res_var_2.pkl"), 1 / 12)
        is_inside = np.abs(real - mean) <= factor * np.sqrt(variance)
        if found.task.name == "mask":
            x = view.x_of(bytes_to_image(item.image)[None], [name])
            is_inside = is_inside[(x[0, 3] == 0).numpy()]
        shares.append(float(is_inside.mean()))
    return float(np.mean(shares))


def test_each_photograph_is_judged_once_by_what_others_set(demo: tuple[Path, str]) -> None:
    split = draw_split(0, DATA)
    found = find_all(TINY, read_times(record_path(TINY)))
    assert [one.task for one in found] == list(TASKS)
    for one in found:
        assert sorted(judged.name for judged in one.judged) == sorted(split.held_out)
        assert one.num_calibrating == 40 and one.seconds is not None
        for place, names in enumerate(split.rounds):
            record = json.loads(Path(TINY.calibration(one.task, place)).read_text("utf-8"))
            assert {image["name"] for image in record["images"]} == {*split.calibrating(place)}
            share = _by_hand(one, {*names}, record["factor"])
            assert one.by_round("calibrated")[place] == pytest.approx(share, abs=2e-3)
            assert one.factors[place] == record["factor"]
        raw = _by_hand(one, {*split.held_out}, 1.6448536)
        assert one.mean("raw") == pytest.approx(raw, abs=2e-3)
        low, high = one.interval("calibrated")
        assert low < one.mean("calibrated") < high
    mask = found[-1]
    assert mask.task.name == "mask" and mask.mean("of_all") != mask.mean("calibrated")
    assert "Of the hidden values" in in_plain_words(found)[-1]


def test_the_calibrations_keep_their_promise_on_what_they_have_not_seen(
    demo: tuple[Path, str],
) -> None:
    """However wrong the nets are: here they have hardly been trained."""
    for one in find_all(TINY, {}):
        assert one.seconds is None
        assert 0.87 < one.mean("calibrated") < 0.95


def test_a_calibration_on_judged_photographs_is_refused(
    demo: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(TINY.calibration(TASKS[0], 0))
    before = path.read_text("utf-8")
    try:
        path.write_text(Path(TINY.calibration(TASKS[0], 1)).read_text("utf-8"), "utf-8")
        with pytest.raises(DataError, match="took part in it"):
            find_all(TINY, {})
        path.write_text("{", "utf-8")
        with pytest.raises(DataError, match=r"round_0/calibration\.json is damaged"):
            find_all(TINY, {})
    finally:
        path.write_text(before, "utf-8")


def test_lists_are_names_below_the_photographs(tmp_path: Path) -> None:
    split = draw_split(0, DATA)
    write_lists(split, str(tmp_path / "lists"))
    assert len(list((tmp_path / "lists").iterdir())) == 1 + NUM_ROUNDS
    lines = (tmp_path / "lists" / "calibrating_2.txt").read_text("utf-8").splitlines()
    assert lines == list(split.calibrating(2))
