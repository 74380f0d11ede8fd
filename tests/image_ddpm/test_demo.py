"""The demo's commands are ones that a user could type, and its short form runs to the page."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from image_ddpm.demo import FULL, QUICK, SOLVERS, Preset, commands, demo_steps, write_report
from tests.tiny import done
from utils.process.errors import DataError


@pytest.mark.parametrize("preset", [FULL, QUICK], ids=lambda preset: preset.name)
def test_a_command_reads_what_an_earlier_one_wrote(preset: Preset) -> None:
    parsed = []
    for script, argv in commands(preset):
        parser = importlib.import_module(script.removesuffix(".py")).create_parser()
        parsed.append((script, vars(parser.parse_args(argv))))
    by_script = dict(parsed)
    train, images = by_script["image_train.py"], by_script["image_data.py"]
    assert train["data_dir"] == f"{images['output_dir']}/train"
    classifier = by_script["mnist_classification.py"]
    assert classifier["data_dir"] == by_script["mnist_data.py"]["output_dir"]
    samples = [args for script, args in parsed if script == "image_sample.py"]
    evaluations = [args for script, args in parsed if script == "image_eval.py"]
    for solver, sample, evaluation in zip(SOLVERS, samples, evaluations, strict=True):
        weights = f"{train['model_save_dir']}/ema_{train['ema_rate']}_{train['max_step']:06d}.pt"
        assert sample["model_path"] == weights
        network = ("image_size", "num_channels", "channel_mult", "class_dropout", "predict_xstart")
        assert all(sample[name] == train[name] for name in network)
        assert evaluation["samples"].startswith(preset.samples_dir(solver))
        assert f"_{sample['num_samples']}x" in evaluation["samples"].replace("samples_", "_")
        assert evaluation["log_dir"] == preset.eval_dir(solver)
        net = f"{classifier['model_save_dir']}/model{classifier['max_step']:06d}.pt"
        assert evaluation["features"] == net


def test_short_demo_runs_to_its_page_and_again_does_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = done("demo_images", ["--quick", "True"]).out
    page = (tmp_path / QUICK.report_dir / "report.html").read_text(encoding="utf-8")
    count = len(demo_steps(QUICK))
    assert f"step {count} of {count}, judging them" in said and "The demo took " in said
    assert "report.html" in said and page.count("data:image/png") == len(SOLVERS)
    assert all(f"<h3>{solver}</h3>" in page for solver in SOLVERS)
    weights = next((tmp_path / "checkpoints/image_ddpm").rglob("model*.pt"))
    before = weights.stat().st_mtime_ns
    again = done("demo_images", ["--quick", "True"]).out
    assert again.count("(done by an earlier run)") == count
    assert weights.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "{}",
        '{"dimension": 1, "reference": {"count": 1}, "frechet": 5}',
        '{"dimension": 1, "reference": {"count": 1}, "frechet": {"distance": "x", "floor": 1}}',
    ],
)
def test_page_of_damaged_figures_is_a_data_error_that_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / QUICK.eval_dir("ancestral")
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(content)
    with pytest.raises(DataError, match=r"ancestral/results\.json .*damaged"):
        write_report(QUICK)
