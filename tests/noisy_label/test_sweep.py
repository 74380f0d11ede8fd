"""The sweep on small data: complete, resumable run by run, and its summary and report."""

from __future__ import annotations

import json
import multiprocessing
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import noisy_label.sweep as sweep
from noisy_label import sweep as sweep_pool
from noisy_label.files import load_split
from noisy_label.flags import SweepFlags
from noisy_label.report import text_table
from noisy_label.summary import over_seeds, summarise
from noisy_label.sweep import SweepRun, clean_runs, do_run, noisy_runs, result_of, run_all
from tests.reliability.extent import is_full
from tests.tiny import ROOT, done, run, tree, words
from tests.utils.processes import preloaded_context
from utils.process.stop import StopFlag, StopRequested
from utils.runs.job import working

SCRIPT = "noisy_label_sweep"


def _flags(root: Path, data_dir: Path, **more: Any) -> dict[str, Any]:
    return {
        "data_dir": str(data_dir),
        "alphas": "0.8,0.3",
        "num_seeds": 2,
        "max_step": 30,
        "lr": 3e-3,
        "batch_size": 50,
        "num_processes": 2,
        "output_dir": str(root / "runs"),
        "log_dir": str(root / "log"),
        **more,
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    """A whole sweep of 2 clean and 12 noisy nets; read only."""
    root = tmp_path_factory.mktemp("sweep")
    with pytest.MonkeyPatch.context() as monkeypatch:
        if not is_full():
            contexts = SimpleNamespace(get_context=lambda method: preloaded_context())
            contexts.active_children = multiprocessing.active_children
            monkeypatch.setattr(sweep_pool, "multiprocessing", contexts)
        said = done(SCRIPT, words(_flags(root, data_dir)))
    assert "report.html" in said.out and "clean labels" in said.out
    assert "The theorem predicts: " in said.out and "Biased noise (" in said.out
    return root


def test_every_run_is_there(finished: Path, data_dir: Path) -> None:
    flags = SweepFlags(**_flags(finished, data_dir))
    runs = clean_runs(flags) + noisy_runs(flags)
    assert len(runs) == 2 + 3 * 2 * 2
    for one in runs:
        found = result_of(one, flags.output_dir)
        assert found is not None and found["seconds"] > 0 and found["seed"] == one.seed


@pytest.mark.parametrize("section", ["noise", "training", "test"])
@pytest.mark.parametrize("damaged", [None, [1], {"accuracy": "0.5"}, {}])
def test_a_result_without_its_figures_is_not_finished(
    finished: Path, data_dir: Path, tmp_path: Path, section: str, damaged: Any
) -> None:
    one = noisy_runs(SweepFlags(**_flags(finished, data_dir)))[0]
    content = json.loads(Path(one.folder(str(finished / "runs")), "run.json").read_text())
    assert section in content
    path = Path(one.folder(str(tmp_path)), "run.json")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content))
    assert result_of(one, str(tmp_path)) == content
    path.write_text(json.dumps({**content, section: damaged}))
    assert result_of(one, str(tmp_path)) is None


def test_summary_has_theorem_floor_and_intervals(finished: Path) -> None:
    found = json.loads((finished / "log/results.json").read_text())
    assert [(r["noise_type"], r["alpha"]) for r in found["runs"]][:3] == [
        ("uniform", 0.8),
        ("uniform", 0.3),
        ("fix", 0.8),
    ]
    for row in found["runs"]:
        low, high = row["test"]["accuracy"]["interval"]
        assert low <= row["test"]["accuracy"]["mean"] <= high
        kl, floor = row["test"]["kl"]["mean"], row["test"]["floor"]["mean"]
        assert row["test"]["cross_entropy"]["mean"] == pytest.approx(kl + floor)
        assert row["published_accuracy"] is not None or row["alpha"] == 0.3
    by_place = {(r["noise_type"], r["alpha"]): r["test"] for r in found["runs"]}
    assert by_place["fix", 0.3]["predicted_accuracy"]["mean"] == 0
    assert by_place["uniform", 0.3]["predicted_accuracy"]["mean"] == 1
    assert found["theorem"]["uniform"]["flip"] == pytest.approx(0.1)
    assert found["theorem"]["fix"]["flip"] == 0.5
    # where k classes are equally likely, the right one is predicted for 1/k of the images
    for kind, flip, at_flip in (("uniform", 0.1, 0.1), ("fix", 0.5, 0.5)):
        curve = found["theorem"][kind]
        place = curve["alpha"].index(flip)
        assert curve["accuracy"][place - 1 : place + 2] == pytest.approx([0.0, at_flip, 1.0])
    assert 0 < found["theorem"]["model"]["flip"] < 1


def test_report_is_one_file_with_both_plots(finished: Path) -> None:
    page = (finished / "log/report.html").read_text(encoding="utf-8")
    assert page.count('class="cross') == 2 * 3  # published figures of each type, and their legend
    assert page.count("<svg") >= 2 and "Content-Security-Policy" in page
    assert "biased" in page and "published (MNIST)" in page
    assert "The theorem predicts: " in page and "Generated noise (" in page
    paths = re.findall(r'd="([^"]*)" class="line series-', page)
    assert sum(path.count("V") for path in paths) == 2 * 3  # an interval for each accuracy


def test_second_call_trains_nothing(
    finished: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(finished / "runs")
    done(SCRIPT, words(_flags(finished, data_dir)))
    assert tree(finished / "runs") == before


def test_other_settings_are_refused(finished: Path, data_dir: Path) -> None:
    outcome = run(SCRIPT, words(_flags(finished, data_dir, max_step=31)))
    assert outcome.code == 3 and "--max_step 31" in outcome.err
    outcome = run(SCRIPT, words(_flags(finished, data_dir, noise_types="uniform,pink")))
    assert outcome.code == 2 and "--noise_types pink" in outcome.err


def test_stopped_run_goes_on_and_ends_as_a_whole_one(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, flags = SweepRun("uniform", 0.3, 0), SweepFlags(**_flags(tmp_path, data_dir))
    real = sweep.train_net

    def stopped(inputs: Any, labels: Any, net: Any, train: Any, *rest: Any) -> bool:
        """Ends after 12 steps, as a signal would end it."""
        real(inputs, labels, net, type(train)(**{**vars(train), "max_step": 12}), *rest)
        return False

    monkeypatch.setattr(sweep, "train_net", stopped)
    assert not do_run(one, flags) and result_of(one, flags.output_dir) is None
    monkeypatch.undo()
    assert do_run(one, flags)
    whole = SweepFlags(**_flags(tmp_path / "whole", data_dir))
    assert do_run(one, whole)
    found, expected = (result_of(one, f.output_dir) for f in (flags, whole))
    assert found is not None and expected is not None
    assert found["test"] == expected["test"] and found["noise"] == expected["noise"]


def test_signal_stops_all_runs_and_the_next_call_finishes_them(
    data_dir: Path, tmp_path: Path
) -> None:
    argv = words(_flags(tmp_path, data_dir, noise_types="uniform", num_seeds=1, max_step=3000))
    command = [sys.executable, str(ROOT / f"{SCRIPT}.py"), *argv]
    with subprocess.Popen(command, cwd=tmp_path, text=True, stdout=subprocess.PIPE) as process:
        log = tmp_path / "runs/clean/seed0/checkpoints/.writer.lock"
        deadline = time.monotonic() + 60
        while not log.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 75 and "run again" in said
    (saved,) = (tmp_path / "runs/clean/seed0/checkpoints").glob("model*.pt")
    assert 0 < int(saved.stem.removeprefix("model")) < 3000
    assert not list(tmp_path.glob("runs/*/*/run.json"))


def test_signal_ends_the_sweep_and_not_the_run_alone(data_dir: Path, tmp_path: Path) -> None:
    """What was not begun stays undone: at most the runs that end as the signal comes are more."""
    alphas = "0.9,0.8,0.7,0.6,0.5,0.4,0.3,0.2"
    more = {"noise_types": "uniform", "alphas": alphas, "num_seeds": 1, "num_processes": 1}
    argv = words(_flags(tmp_path, data_dir, **more))
    command = [sys.executable, str(ROOT / f"{SCRIPT}.py"), *argv]
    with subprocess.Popen(command, cwd=tmp_path, text=True, stdout=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("runs/u*/*/run.json")) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 75
    assert 1 <= len(list(tmp_path.glob("runs/u*/*/run.json"))) <= 4


def test_no_process_goes_on_behind_a_stopped_sweep(data_dir: Path, tmp_path: Path) -> None:
    flags = SweepFlags(**_flags(tmp_path, data_dir, num_seeds=4, max_step=3000))
    runs = clean_runs(flags)
    with pytest.raises(StopRequested), working(4, "sweep", "run", stop=StopFlag(1e-9)) as job:
        run_all(runs, flags, job)
    assert multiprocessing.active_children() == []
    assert not list(tmp_path.glob("runs/*/*/run.json"))


def test_generated_noise_needs_the_clean_net(data_dir: Path, tmp_path: Path) -> None:
    flags = SweepFlags(**_flags(tmp_path, data_dir))
    with pytest.raises(ValueError, match="clean"):
        do_run(SweepRun("model", 0.5, 0), flags)


def test_interval_over_seeds_is_students() -> None:
    """Of 1, 2, 3: mean 2, standard error 1/√3, t₀.₉₇₅ with two degrees of freedom 4.3027."""
    found = over_seeds([{"a": {"b": value}} for value in (1, 2, 3)], "a", "b")
    assert found["mean"] == 2
    np.testing.assert_allclose(
        found["interval"], [2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5], rtol=1e-4
    )
    assert over_seeds([{"a": {"b": 1.0}}], "a", "b")["interval"] is None
    found = over_seeds([{"a": {"accuracy": value}} for value in (0.1, 0.5, 0.9)], "a", "accuracy")
    assert found["interval"] == [0.0, 1.0]


def test_table_names_each_run_in_a_hundred_columns(finished: Path, data_dir: Path) -> None:
    flags = SweepFlags(**_flags(finished, data_dir))
    labels = [load_split(str(data_dir), split)[1].numpy() for split in ("training", "test")]
    lines = text_table(summarise(flags, *labels)).splitlines()
    assert len(lines) == 1 + 6 + 1 and max(map(len, lines)) <= 100
    assert lines[1].startswith("uniform      0.8")
