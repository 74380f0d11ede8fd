"""`sr_var.verify_results`: the metrics of the script, from Python."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

import sr_var
from sr_var import verify_results
from tests.pipeline import NUM_SAMPLES, Pipeline
from tests.sr_var.hand_made import MEAN_STEP, SIZE, VAR_STEP, Results, make_results
from tests.tiny import tree
from utils.process.errors import DataError


@pytest.fixture
def results(tmp_path: Path) -> Results:
    """Three images whose metrics are known."""
    return make_results(tmp_path)


def _folders(results: Results) -> tuple[str, str, str]:
    root = results.root
    return str(root / "nets"), str(root / "images"), str(root / "info.pkl")


def test_metrics_are_those_of_the_script(pipeline: Pipeline, tmp_path: Path) -> None:
    """Steps, side and samples are found in the folders."""
    flags = pipeline.verification_flags
    names = ("sr_model_output_dir", "data_dir", "data_info_dict_path")
    samples = {"ddpm_sr_output_dir": str(flags["ddpm_sr_output_dir"]), "num_samples": NUM_SAMPLES}
    log = tmp_path / "log"
    lines: list[str] = []
    found = verify_results(
        *(str(flags[name]) for name in names), **samples, log_dir=str(log), log=lines.append
    )
    script = json.loads((pipeline.log_dir("compare") / "results.json").read_text("utf-8"))
    written = json.loads((log / "results.json").read_text("utf-8"))
    for one in (script, written):
        assert one.pop("cost")["nets"]["evaluations_per_image"] == 2
    assert written == script and (log / "report.html").is_file()
    assert found["mean"]["mse"] == script["mean"]["mse"]
    assert any("squared error over variance" in line for line in lines)


def test_nothing_is_written_without_a_folder_for_it(results: Results) -> None:
    before = tree(results.root)
    found = verify_results(
        *_folders(results), ddpm_sr_output_dir=str(results.root / "samples"), num_samples=4
    )
    assert tree(results.root) == before
    assert found["mean"]["mse"] == pytest.approx(40 / 3)
    assert found["left_out"]["mean.psnr"] == 1 and found["var"]["num_negative"] == 192


def test_nets_are_judged_alone_without_samples(
    results: Results, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(results.root / "samples")
    found = verify_results(*_folders(results))
    assert found["num_samples"] == 0 and found["num_images"] == 3 and "mean" not in found
    # of grey level 100, on means of 25, 27 and 31
    errors = 10 * np.log10(255**2 / np.array([75.0, 73.0, 69.0]) ** 2)
    assert found["high_res"]["psnr_net"] == pytest.approx(errors.mean())
    said = capsys.readouterr()
    assert not said.out and not said.err


def test_signals_stay_what_they_are(results: Results) -> None:
    handlers: list[object] = []
    verify_results(*_folders(results), log=lambda line: handlers.append(signal.getsignal(2)))
    assert handlers and set(handlers) == {signal.getsignal(2)}


def test_one_step_of_several_must_be_named(results: Results) -> None:
    shutil.copy(
        results.root / "nets" / "a.png" / f"high_res_mean_{MEAN_STEP}.npy",
        results.root / "nets" / "a.png" / "high_res_mean_9.npy",
    )
    with pytest.raises(ValueError, match=r"steps \[9, 70\]; say which: mean_model_step=70"):
        verify_results(*_folders(results))
    assert verify_results(*_folders(results), mean_model_step=MEAN_STEP)["num_images"] == 3


def test_pictures_of_another_tool_need_the_size(results: Results) -> None:
    for path in results.root.glob("nets/**/*.npy"):
        path.unlink()
    found = verify_results(*_folders(results), large_size=SIZE, var_model_step=VAR_STEP)
    assert found["high_res"]["psnr_net"] > 0


def test_what_cannot_be_compared_is_an_error_with_its_remedy(results: Results) -> None:
    nets, images, info = _folders(results)
    with pytest.raises(ValueError, match="without ddpm_sr_output_dir"):
        verify_results(nets, images, info, num_samples=4)
    with pytest.raises(ValueError, match="has no --mean_step"):
        verify_results(nets, images, info, mean_step=4)
    with pytest.raises(ValueError, match="--margin 2 must be"):
        verify_results(nets, images, info, margin=2)
    with pytest.raises(DataError, match="holds no high_res_mean_"):
        verify_results(images, images, info)
    with pytest.raises(DataError, match=r"nothing\.pkl"):
        verify_results(nets, images, "nothing.pkl")
    with pytest.raises(DataError, match="nowhere"):
        verify_results(nets, images, info, ddpm_sr_output_dir="nowhere")


def test_package_offers_it() -> None:
    assert "verify_results" in dir(sr_var)
    assert verify_results.__module__ == "sr_var.verify.api"
