"""Time to the truth: its data, errors, interpolation and tables; that it resumes. No times."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from benchmarks import time_to_truth
from benchmarks.time_to_truth import WhatFlags, main
from benchmarks.truth_data import (
    FreshDraws,
    cut,
    errors_of,
    errors_of_samples,
    judged_images,
    judged_law,
    load_photos,
    observation_of,
)
from benchmarks.truth_report import COUNTS, GOALS, curve, format_tables, time_to
from benchmarks.truth_routes import ROUTES, Bench, Trial
from oracle.law import BICUBIC, BILINEAR, oracle_law, smooth_base
from oracle.posterior import given_noisy, given_pixels
from sr_var.degradation import area_downsample
from utils.process.errors import DataError
from utils.process.stop import StopRequested

TINY = {
    "small_size": 8,
    "num_test_crops": 4,
    "width": 8,
    "num_res_blocks": 1,
    "unet_width": 8,
    "batch_size": 2,
    "unet_batch_size": 2,
    "threads": 1,
    "steps_per_second": 2,
}


@pytest.fixture
def photos() -> list[torch.Tensor]:
    """Two photographs of different sizes."""
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(3, *size, generator=generator) * 2 - 1 for size in ((20, 12), (9, 30))]


@pytest.fixture
def folder(tmp_path: Path, photos: list[torch.Tensor]) -> Path:
    """The same, as files of a folder inside."""
    (tmp_path / "photos").mkdir()
    for i, photo in enumerate(photos):
        pixels = ((photo + 1) * 127.5).byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
    return tmp_path


SEEN = pytest.mark.parametrize(
    ("degradation", "num_extra"), [("area & noise:25", 48), ("area & mask:0.5", 48 + 16)]
)


def run(folder: Path, *words: str) -> int:
    """The script with tiny networks on the folder's photographs."""
    tiny = [word for name, value in TINY.items() for word in (f"--{name}", str(value))]
    data = [word for name in ("data", "test") for word in (f"--{name}_dir", f"{folder}/photos")]
    place = ["--output_dir", str(folder / "out"), "--rows_dir", str(folder / "rows")]
    return main([*tiny, *data, *place, *words])


def results_of(folder: Path) -> dict[str, Any]:
    """The one JSON that was written."""
    (path,) = (folder / "out").glob("*.json")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def points(*of_budget: tuple[float, float, float]) -> list[dict[str, float]]:
    """Points of a curve from (seconds, error of the mean, error of the variance)."""
    return [dict(zip(("seconds", *GOALS), values, strict=True)) for values in of_budget]


def goal(mean: float, variance: float) -> Mapping[str, float]:
    """Errors to reach."""
    return dict(zip(GOALS, (mean, variance), strict=True))


# ---- data and errors


def test_a_batch_is_one_draw_of_the_law_of_fresh_pieces(photos: list[torch.Tensor]) -> None:
    for base in (BILINEAR, BICUBIC):
        data = FreshDraws(photos, 8, 3, base, seed=1)
        (x, y), (other, _) = (pair for pair, _ in zip(data, range(2), strict=False))
        assert x.shape == (3, 3, 8, 8) and y.shape == (3, 3, 32, 32)
        assert x.abs().max() <= 0.5 and not torch.equal(x, other)
        torch.testing.assert_close(area_downsample(y, 8), x, atol=1e-6, rtol=0)
        torch.testing.assert_close(next(iter(data)), (x, y))
    assert not torch.equal(next(iter(FreshDraws(photos, 8, 3, BILINEAR, seed=2)))[0], x)


def test_pieces_come_from_every_place_of_every_photograph(photos: list[torch.Tensor]) -> None:
    numbered = [torch.arange(9.0 * 12).reshape(1, 9, 12).expand(3, 9, 12)]
    pieces = cut(numbered, 400, 8, torch.Generator().manual_seed(0)) * 2
    assert (
        len({tuple(piece[0].flatten().tolist()) for piece in pieces}) == 2 * 2 * 5
    )  # places, and mirrored
    mixed = cut([photos[0] * 0 - 1, photos[1] * 0 + 1], 400, 8, torch.Generator().manual_seed(0))
    share = (mixed[:, 0, 0, 0] > 0).double().mean()
    assert share == pytest.approx(2 * 23 / (13 * 5 + 2 * 23), abs=0.1)


def test_test_images_are_always_the_same(photos: list[torch.Tensor]) -> None:
    assert torch.equal(judged_images(photos, 4, 8), judged_images(photos, 4, 8))


def test_a_photograph_smaller_than_a_piece_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match=r"1.*--small_size 10"):
        load_photos(str(folder / "photos"), 10, "--data_dir")


def test_errors_are_relative_to_the_law(photos: list[torch.Tensor]) -> None:
    law = oracle_law(judged_images(photos, 4, 8).double(), 4)
    exact = errors_of(law, law.mean, law.variance)
    assert max(map(abs, exact.values())) < 1e-12
    shifted = errors_of(law, law.mean + 0.1 * law.variance.sqrt(), 1.2 * law.variance)
    expected = {"relative_mse": 0.01, "var_bias": 0.2}
    expected |= {"relative_var_error": 0.2, "relative_rms_error": 0.2}
    assert shifted == pytest.approx(expected)


@SEEN
def test_networks_and_law_are_given_the_same_observation(
    photos: list[torch.Tensor], degradation: str, num_extra: int
) -> None:
    images = judged_images(photos, 4, 8)
    x, law = judged_law(images, BILINEAR, degradation)
    assert x.shape == (4, 3 + num_extra, 8, 8) and x.dtype == images.dtype
    torch.testing.assert_close(x[:, :3], images, rtol=0, atol=1e-6)
    prior = oracle_law(images.double(), 4)
    z = torch.nn.functional.pixel_shuffle(x[:, 3:51].double(), 4)
    if num_extra > 48:
        mask = torch.nn.functional.pixel_shuffle(x[:, 51:].double(), 4)
        expected = given_pixels(prior, z, mask)
    else:
        expected = given_noisy(prior, z, 25 / 127.5)
    torch.testing.assert_close(law.mean, expected.mean, rtol=0, atol=1e-4)
    torch.testing.assert_close(law.variance, expected.variance, rtol=0, atol=1e-4)
    assert law.variance.mean() < 0.7 * prior.variance.mean()
    # batches of a training have the same layout, and other noise in each
    batches = FreshDraws(photos, 8, 2, BILINEAR, 1, degradation=observation_of(degradation)[1])  # type: ignore[index]
    (one, y), (two, _) = (batch for batch, _ in zip(batches, range(2), strict=False))
    assert one.shape == (2, 3 + num_extra, 8, 8) and not torch.equal(one, two)
    torch.testing.assert_close(area_downsample(y, 8), one[:, :3], atol=1e-6, rtol=0)
    whole = torch.nn.functional.pixel_shuffle(one[:, 3:51], 4)
    assert (whole == y).double().mean() == pytest.approx(0.5 * (num_extra > 48), abs=0.05)


@pytest.mark.parametrize("count", [10, 100])
def test_expected_errors_are_those_of_drawn_samples(photos: list[torch.Tensor], count: int) -> None:
    law = oracle_law(judged_images(photos, 4, 8).double(), 4)
    generator = torch.Generator().manual_seed(0)
    samples = torch.stack([law.sample(generator) for _ in range(count)])
    found = errors_of(law, samples.mean(dim=0), samples.var(dim=0))
    expected = errors_of_samples(law, count)
    assert expected["relative_mse"] == pytest.approx(1 / count)
    # 12 288 values, those of a block by one polarity
    for name in ("relative_mse", "relative_var_error", "relative_rms_error"):
        assert found[name] == pytest.approx(expected[name], rel=0.1), name


# ---- interpolation and tables


def test_time_is_read_off_a_line_in_logarithms() -> None:
    # mean ~ 1/t, variance ~ 1/√t
    curve_ = points((10, 0.1, 0.4), (40, 0.025, 0.2), (160, 0.00625, 0.1))
    assert time_to(curve_, goal(0.05, 1.0)).seconds == pytest.approx(20)  # type: ignore[union-attr]
    assert time_to(curve_, goal(1.0, 0.1 * 2**0.5)).seconds == pytest.approx(80)  # type: ignore[union-attr]
    # the slower of the two counts, in any order of the points
    assert str(time_to(curve_[::-1], goal(0.05, 0.2))) == "40"


def test_what_lies_outside_of_the_budgets_is_a_bound() -> None:
    curve_ = points((10, 0.1, 0.4), (40, 0.025, 0.2))
    assert str(time_to(curve_, goal(0.2, 0.5))) == "≤ 10"
    assert str(time_to(curve_, goal(0.01, 0.5))) == "> 40"
    assert str(time_to(curve_, goal(0.2, 0.1))) == "> 40"
    assert time_to([], goal(1.0, 1.0)) is None


def test_both_must_be_as_good_at_one_time_and_the_first_counts() -> None:
    # the mean gets worse while the variance gets better: never both between the first two
    crossing = points((1, 0.5, 2.0), (4, 2.0, 0.5), (16, 0.5, 0.5))
    found = time_to(crossing, goal(0.9, 0.9))
    assert found is not None and 4 < found.seconds < 16
    # both at once, though at neither end
    meeting = points((1, 0.5, 4.0), (16, 2.0, 0.25))
    assert time_to(meeting, goal(1.2, 1.2)).seconds == pytest.approx(  # type: ignore[union-attr]
        16 ** (torch.tensor(4.0 / 1.2).log() / torch.tensor(16.0).log()).item(), rel=1e-5
    )


def test_curves_are_medians_over_seeds_and_tables_show_them() -> None:
    rows = [
        {
            "route": "subpixel_is",
            "base": BILINEAR,
            "budget": budget,
            "seed": seed,
            "seconds": budget + seed,
            "relative_mse": error,
            "relative_var_error": error,
            "relative_rms_error": error,
        }
        for budget, errors in ((10.0, (0.2, 0.4, 0.9)), (40.0, (0.1, 0.2, 0.05)))
        for seed, error in enumerate(errors)
    ]
    found = curve(rows, "subpixel_is", BILINEAR)
    assert [(p["seconds"], p["relative_mse"]) for p in found] == [(11.0, 0.4), (41.0, 0.1)]
    level = {"relative_mse": 0.2, "relative_var_error": 0.2, "relative_rms_error": 0.3}
    tables = format_tables(rows, {BILINEAR: {10: level}, BICUBIC: {10: level}})
    assert "| sub-pixel, Itakura–Saito | 21.2 |" in tables
    assert "| sub-pixel, Itakura–Saito | 41 | 10 | 10 | 10 |" in tables
    assert "| 10 exact samples | – | 20 | 20 | 30 |" in tables
    assert "| sub-pixel, Itakura–Saito | – |" in tables and "U-Net" not in tables  # no such row


# ---- the script


def test_every_route_is_trained_and_reported(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folder, "--budgets", "1", "--base", "bilinear") == 0
    record = results_of(folder)
    rows = {row["route"]: row for row in record["rows"]}
    assert list(rows) == [route.name for route in ROUTES]
    # half a net each of what one net gets; two routes share their mean net
    assert rows["subpixel_is"]["steps"] == [1, 1] and rows["subpixel_nll"]["steps"] == [2]
    assert rows["subpixel_is"]["relative_mse"] == rows["subpixel"]["relative_mse"]
    assert rows["subpixel_is"]["relative_var_error"] != rows["subpixel"]["relative_var_error"]
    means = ("subpixel", "subpixel_consistent", "subpixel_muon")
    assert len({rows[name]["relative_mse"] for name in means}) == 3
    assert all(row["seconds"] > 0 and row["relative_mse"] > 0 for row in record["rows"])
    assert list(record["exact_samples"]["bilinear"]) == [str(count) for count in COUNTS]
    out = capsys.readouterr().out
    assert "route 3 of 8" in out and "budget 1 s" in out
    (page,) = (folder / "out").glob("*.md")
    assert all(f"| {route.title} |" in page.read_text(encoding="utf-8") for route in ROUTES)
    assert page.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("degradation", ["area & noise:25", "area & mask:0.5"])
def test_every_route_learns_from_what_is_seen_beside_the_low_res_image(
    folder: Path, degradation: str
) -> None:
    words = ("--budgets", "1", "--base", "bilinear", "--degradation", degradation)
    assert run(folder, *words) == 0
    record = results_of(folder)
    assert [row["route"] for row in record["rows"]] == [route.name for route in ROUTES]
    assert record["settings"]["degradation"] == degradation
    assert all(row["relative_mse"] > 0 for row in record["rows"])
    # of n samples of the law given it
    assert record["exact_samples"]["bilinear"]["10"]["relative_mse"] == pytest.approx(0.1)
    with pytest.raises(DataError, match=r"rows.json.*degradation"):
        run(folder, "--budgets", "1", "--base", "bilinear")


def test_rows_from_before_there_were_degradations_are_of_block_means(folder: Path) -> None:
    words = ("--routes", "subpixel_nll", "--budgets", "1", "--base", "bilinear")
    assert run(folder, *words) == 0
    path = folder / "rows" / "time_to_truth_rows.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["settings"].pop("degradation") == "area"
    path.write_text(json.dumps(content), encoding="utf-8")
    assert run(folder, *words) == 0


def test_what_is_finished_is_not_done_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[Trial] = []
    train = Bench.run

    def counted(self: Bench, trial: Trial) -> dict[str, Any]:
        trained.append(trial)
        if len(trained) == 3:
            raise StopRequested("stopped")
        return train(self, trial)

    monkeypatch.setattr(Bench, "run", counted)
    words = ("--routes", "subpixel_nll", "--budgets", "1,2")
    with pytest.raises(StopRequested):
        run(folder, *words)
    assert not (folder / "out").exists()
    assert run(folder, *words) == 0
    keys = [(trial.budget, trial.base) for trial in trained]
    bilinear, bicubic = [(1.0, BILINEAR), (2.0, BILINEAR)], [(1.0, BICUBIC), (2.0, BICUBIC)]
    assert keys == [*bilinear, bicubic[0], *bicubic]
    assert run(folder, *words, "--seeds", "0,1", "--base", "bicubic") == 0
    assert [trial.seed for trial in trained[5:]] == [1, 1]
    assert {row["base"] for row in results_of(folder)["rows"]} == {BICUBIC}


def test_the_mean_net_has_its_share_of_the_budget(folder: Path) -> None:
    words = ("--routes", "subpixel_is", "--budgets", "4", "--base", "bilinear")
    assert run(folder, *words, "--mean_share", "0.25") == 0
    assert results_of(folder)["rows"][0]["steps"] == [2, 6]


def test_a_signal_ends_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("utils.train_util.TrainLoop.run_loop", lambda self: False)
    with pytest.raises(StopRequested, match="again"):
        run(folder, "--routes", "subpixel_nll", "--budgets", "1")


def test_rows_of_other_settings_are_refused(folder: Path) -> None:
    words = ("--routes", "subpixel_nll", "--budgets", "1", "--base", "bilinear")
    assert run(folder, *words) == 0
    with pytest.raises(DataError, match=r"time_to_truth_rows.json.*lr"):
        run(folder, *words, "--lr", "1e-3")
    assert run(folder, *words, "--lr", "1e-3", "--name", "other") == 0


def test_a_damaged_file_of_rows_is_named(folder: Path) -> None:
    (folder / "rows").mkdir()
    (folder / "rows" / "time_to_truth_rows.json").write_text('{"rows": []}')
    with pytest.raises(DataError, match=r"time_to_truth_rows.json.*settings.*delete it"):
        run(folder, "--budgets", "1")


def test_two_seeds_differ_and_one_does_not(folder: Path) -> None:
    words = ("--routes", "subpixel_consistent", "--budgets", "1", "--base", "bilinear")
    assert run(folder, *words, "--seeds", "0,1") == 0
    assert run(folder, *words, "--name", "again", "--output_dir", str(folder / "again")) == 0
    first, second = (row["relative_mse"] for row in results_of(folder)["rows"])
    (path,) = (folder / "again").glob("*.json")
    assert first != second
    assert first == json.loads(path.read_text(encoding="utf-8"))["rows"][0]["relative_mse"]


@pytest.mark.parametrize(
    "words",
    [
        "--routes best",
        "--base nearest",
        "--budgets 0,10",
        "--budgets ten",
        "--seeds -1",
        "--num_test_crops 0",
        "--lr 0",
        "--width 0",
        "--unet_batch_size 0",
        "--steps_per_second -1",
        "--mean_share 1",
        "--degradation area&blur:2",
        "--degradation noise:25",
    ],
)
def test_bad_flag_is_a_usage_error(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(words.split())  # before anything is read or trained
    assert stopped.value.code == 2
    assert words.split()[0].replace("unet_", "") in capsys.readouterr().err.replace("unet_", "")


def test_the_defaults_are_what_the_pages_say() -> None:
    what = WhatFlags()
    assert len(what.trials) == 8 * 5 * 2
    assert what.seconds == [15, 30, 60, 120, 240]
    assert time_to_truth.HowFlags().recipes.keys() == {"unet", "subpixel"}


def test_the_base_is_the_one_of_the_trial(photos: list[torch.Tensor]) -> None:
    bench = Bench({}, photos, photos, 4, 8)
    images = judged_images(photos, 4, 8).double()
    for base in (BILINEAR, BICUBIC):
        assert torch.equal(bench.law(base).base, smooth_base(images, 4, base))
