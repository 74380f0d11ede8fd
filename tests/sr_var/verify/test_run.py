"""The verification from end to end on hand-made results: table, files, panels."""

from __future__ import annotations

import copy
import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import sr_var.verify.run
from sr_var.verify.read.images import ImageData
from sr_var.verify.run import verify_all
from sr_var.verify.show.pictures import mean_panel, uncertainty_panel
from tests.sr_var.hand_made import SHAPE, SIZE, Results, flat, make_results, stack
from tests.tiny import tree
from utils.logger import RunLogger
from utils.metrics import Moments


@pytest.fixture
def results(tmp_path: Path) -> Results:
    """Three images whose metrics are known."""
    return make_results(tmp_path)


def _verify(results: Results, **changes: Any) -> str:
    return "\n".join(results.verify(**{"num_samples": 4, **changes}))


def test_results_json_holds_the_averages_nested_by_the_dots(results: Results) -> None:
    _verify(results)
    found = json.loads((results.root / "log" / "results.json").read_text(encoding="utf-8"))
    k2 = 500 / 3
    assert found["num_images"] == 3 and found["num_samples"] == 4
    assert found["num_images_with_float_moments"] == 2
    assert found["mean"]["mse"] == pytest.approx(40 / 3)
    assert found["mean"]["nmse"] == pytest.approx(40 / 3 / 625)
    # infinite for the first image
    expected = np.mean([10 * math.log10(255**2 / error) for error in (4, 36)])
    assert found["mean"]["psnr"] == pytest.approx(expected) and found["left_out"]["mean.psnr"] == 1
    assert found["var"]["var_error"] == pytest.approx((2 * k2 - 64) / 3, rel=1e-6)
    assert found["var"]["std_error"] == pytest.approx((2 * math.sqrt(k2) - 8) / 3, rel=1e-6)
    assert found["var"]["num_negative"] == 192 and found["var"]["num_values"] == 3 * 192


def test_the_table_goes_to_the_log_alone_on_request(results: Results) -> None:
    log = results.root / "log" / "logs.txt"
    rows = ("mean squared error (mse)", "mean squared z-score")
    said = _verify(results, print_table=False)
    assert not any(row in said for row in rows) and "No verdict: it takes " in said
    assert all(row in log.read_text(encoding="utf-8") for row in rows)
    assert all(row in _verify(results, full_table=True) for row in rows)


def test_results_csv_has_a_row_an_image(results: Results) -> None:
    _verify(results)
    with open(results.root / "log" / "results.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["a.png", "folder/b.png", "c.png"]
    assert [float(row["mean.mse"]) for row in rows] == pytest.approx([0, 4, 36], abs=1e-9)
    assert float(rows[2]["mean.psnr"]) == pytest.approx(10 * math.log10(255**2 / 36))
    assert float(rows[0]["mean.psnr"]) == math.inf


def test_table_shows_every_metric_of_the_contract(results: Results) -> None:
    said = _verify(results, full_table=True)
    for part in ("3 images, 4 samples", "mse", "psnr", "nmse", "var error", "std error", "192"):
        assert part in said.lower()
    assert "13.33" in said  # the mean squared error


def test_what_averages_leave_out_and_counts_are_of_is_said(results: Results) -> None:
    said = " ".join(_verify(results).split())
    assert "notice: 1 of 3 images have no finite value and are left out of: PSNR, dB." in said
    assert "variances below 0, set to 0, of 576 192" in said
    page = (results.root / "log" / "report.html").read_text("utf-8")
    assert (
        "1 of 3 images have no finite value" in page
        and "negative variances of 576" in page.replace("\u202f", "")
    )


def test_fewer_samples_than_the_moments_count_are_taken_from_the_pictures_aloud(
    results: Results,
) -> None:
    """Two of the three images have a moments file, of four samples each."""
    assert "moments.npz" not in _verify(results)
    said = " ".join(_verify(results, num_samples=3).split())
    assert "notice: moments.npz of 2 images counts 4 samples, not the first 3" in said
    assert "8-bit" in said and "--num_samples 4" in said


def test_panels_are_pictures_and_as_many_as_asked_for(results: Results) -> None:
    _verify(results, num_panels=2)
    panels = sorted(path.name for path in (results.root / "log" / "panels").iterdir())
    assert panels == ["a.png.png", "folder__b.png.png"]
    picture = Image.open(results.root / "log" / "panels" / "a.png.png")
    side = -(-144 // SIZE) * SIZE  # enlarged, so that there is room for the titles
    assert picture.size[0] > 3 * side and picture.size[1] == 2 * (side + 28)


def test_report_is_one_page_and_its_place_is_said(results: Results) -> None:
    said = _verify(results, num_panels=2)
    path = results.root / "log" / "report.html"
    assert f"report: {path}" in said
    text = path.read_text("utf-8")
    assert "3 images, 4 samples" in text and "folder/b.png" in text
    assert '"name":"c.png"' not in text  # beyond the panels
    _verify(results, num_panels=0)
    assert "gallery-data" not in path.read_text("utf-8")


def test_all_panels_or_none(results: Results, tmp_path: Path) -> None:
    _verify(results, num_panels=0)
    assert not (results.root / "log" / "panels").exists()
    _verify(results, num_panels=-1)
    assert len(list((results.root / "log" / "panels").iterdir())) == 3


def test_tensorboard_gets_both_panels_and_only_finite_metrics(
    results: Results, capfd: pytest.CaptureFixture[str]
) -> None:
    class Recorder(RunLogger):
        def __init__(self) -> None:
            super().__init__(is_quiet=True)
            self.tags: list[str] = []
            self.values: dict[str, float] = {}

        def image(self, tag: str, image_uint8: Any, step: int) -> None:
            self.tags.append(tag)
            assert image_uint8.shape == (SIZE, 3 * SIZE, 3)

        def scalars(self, values: Any, step: int) -> None:
            self.values |= dict(values)

    recorder = Recorder()
    verify_all(results.flags(num_samples=2, num_panels=1), recorder)
    assert recorder.tags == [
        "high_res | low_res | mean/a.png",
        "abs_error | std_samples | std_net/a.png",
    ]
    assert {"mean.mse", "var.var_error", "var.std_error"} <= recorder.values.keys()
    assert "var.floor_var_error" not in recorder.values  # two samples have no floor
    assert all(math.isfinite(value) for value in recorder.values.values())


def test_running_again_gives_the_same_metrics(results: Results) -> None:
    _verify(results)
    first = tree(results.root / "log")
    _verify(results)
    second = tree(results.root / "log")
    for name in ("results.json", "results.csv", "panels/a.png.png", "report.html"):
        assert first[name] == second[name]


def test_result_does_not_depend_on_the_number_of_threads(results: Results) -> None:
    contents = []
    for num_threads in (1, 3):
        _verify(results, num_threads=num_threads)
        contents.append((results.root / "log" / "results.csv").read_bytes())
    assert contents[0] == contents[1]


def test_dry_run_reads_one_image_and_writes_nothing(results: Results) -> None:
    before = tree(results.root)
    said = _verify(results, dry_run=True)
    assert "1 images" in said
    assert tree(results.root) == before


def _image_data(high_res: float, mean: float, variance: float, samples: list[float]) -> ImageData:
    moments = Moments.from_samples(stack(*samples))
    return ImageData(flat(mean), flat(variance), moments, flat(high_res), flat(7.0))


def test_mean_panel_is_high_res_low_res_and_mean_side_by_side() -> None:
    panel = mean_panel(_image_data(10.4, 300.0, 1.0, [1.0, 2.0]))
    assert panel.shape == (SIZE, 3 * SIZE, 3) and panel.dtype == np.uint8
    assert [int(panel[0, i * SIZE, 0]) for i in range(3)] == [10, 7, 255]


def test_error_panel_does_not_wrap_around() -> None:
    """|10 − 30| is 20 on either side, and lies on the scale of the std maps."""
    panels = [
        # √k₂ of two samples is √(2/π) of the std on average
        uncertainty_panel(_image_data(high_res, mean, 400.0, [0.0, 40 / math.sqrt(math.pi)]))
        for high_res, mean in ((10.0, 30.0), (30.0, 10.0))
    ]
    np.testing.assert_array_equal(panels[0], panels[1])
    # error, std of samples and std of nets are all 20, the top of the scale
    assert len(np.unique(panels[0].reshape(-1, 3), axis=0)) == 1


@pytest.mark.parametrize("samples", [[4.0, 4.0], [4.0, 5.0, 9.0]])
@pytest.mark.parametrize("variance", [0.0, -3.0, 9.0])
def test_uncertainty_panel_of_flat_maps_has_no_nan_and_leaves_its_arguments(
    variance: float, samples: list[float], recwarn: pytest.WarningsRecorder
) -> None:
    data = _image_data(5.0, 5.0, variance, samples)
    before = copy.deepcopy(data)
    panel = uncertainty_panel(data)
    assert panel.shape == (SIZE, 3 * SIZE, 3) and panel.dtype == np.uint8
    black = panel[:, :SIZE].astype(int)  # no error: the dark end of the colour map
    assert black.max() <= 5
    np.testing.assert_array_equal(data.variance, np.full(SHAPE, variance))
    for name in ("mean", "m2", "m3", "m4"):
        np.testing.assert_array_equal(getattr(data.samples, name), getattr(before.samples, name))
    np.testing.assert_array_equal(data.high_res, before.high_res)
    assert not [str(w.message) for w in recwarn if "invalid value" in str(w.message)]


def test_free_memory_is_returned_every_few_images(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[bool] = []
    monkeypatch.setattr(sr_var.verify.run, "_IMAGES_BETWEEN_TRIMS", 2)
    monkeypatch.setattr(sr_var.verify.run, "return_free_memory", lambda: calls.append(True))
    _verify(results, num_threads=1)
    assert len(calls) == 2  # before the first and the third of three
