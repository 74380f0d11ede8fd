"""The theorem's other examples on the oracle, in short: labels with noise, the score."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks import label_noise, score
from benchmarks.truth_data import FreshDraws, errors_of, load_photos
from diffusion.process import GaussianDiffusion
from diffusion.schedules import get_named_beta_schedule
from diffusion.types import LossType, ModelMeanType, ModelVarType
from oracle.denoiser import ExactDenoiser
from oracle.law import BILINEAR, oracle_law
from tests.oracle.photos import low_res_images
from tests.tiny import ROOT, photo
from utils.metrics import HALF_RANGE_255


def _photos() -> list[Tensor]:
    pixels = torch.from_numpy(photo(0).copy()).permute(2, 0, 1)
    return [pixels / HALF_RANGE_255 - 1]


def test_fresh_draws_have_noise_only_where_it_is_asked_for() -> None:
    draws = {
        std: next(iter(FreshDraws(_photos(), 8, 64, BILINEAR, 0, label_noise=std)))
        for std in (0.0, 25.0)
    }
    clean = next(iter(FreshDraws(_photos(), 8, 64, BILINEAR, 0)))
    assert all(torch.equal(a, b) for a, b in zip(clean, draws[0.0], strict=True))
    assert torch.equal(clean[0], draws[25.0][0])
    noise = (draws[25.0][1] - clean[1]) * HALF_RANGE_255
    assert abs(noise.std() - 25) < 4 * 25 / np.sqrt(2 * noise.numel())


def test_a_variance_that_rose_by_the_noise_is_judged_as_exact() -> None:
    law = oracle_law(low_res_images(2, 4), 4)
    exact = errors_of(law, law.mean, law.variance + 0.01, 0.01)
    assert max(map(abs, exact.values())) < 1e-6
    assert errors_of(law, law.mean, law.variance + 0.01)["var_bias"] > 0.01


def test_label_noise_writes_its_table(tmp_path: Path) -> None:
    words = ["--label_noise", "0,25", "--steps", "2", "--seeds", "0", "--num_test_crops", "2"]
    words += ["--width", "8", "--num_res_blocks", "1", "--batch_size", "2"]
    assert label_noise.main([*words, "--output_dir", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("label_noise_*.json")
    rows = json.loads(path.read_text(encoding="utf-8"))["results"]
    assert [row["added"] for row in rows] == [0, 625]
    # variance nets of two steps are where they start; so is the rise, of which 625 is judged
    assert all(np.isfinite(row["rise"]) and row["relative_mse"] > 0 for row in rows)
    assert path.with_suffix(".md").read_text(encoding="utf-8").count("\n") == 4


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        ({"label_noise": "-1"}, "--label_noise -1"),
        ({"label_noise": "much"}, "--label_noise 'much'"),
        ({"seeds": ""}, "--seeds ''"),
    ],
)
def test_impossible_flags_are_named(flags: dict[str, str], part: str) -> None:
    with pytest.raises(ValueError, match=part):
        label_noise.NoiseFlags(**flags)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="--timesteps '1,x'"):
        score.ScoreFlags(timesteps="1,x")


class _OffBy(nn.Module):
    """The exact denoiser, plus a constant."""

    def __init__(self, table: Tensor, value: float) -> None:
        super().__init__()
        self._exact, self._value = ExactDenoiser(table, 4), value

    def forward(self, x_t: Tensor, t: Tensor, low_res: Tensor) -> Tensor:
        return self._exact(x_t, t, low_res=low_res) + self._value


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_a_denoiser_that_is_off_has_the_score_error_of_tweedies_formula(value: float) -> None:
    """s_θ − s = √ᾱ (D_θ − D) / (1 − ᾱ); here D_θ − D is one value, in float32 to 10⁻⁶."""
    betas = get_named_beta_schedule("cosine", 100)
    process = GaussianDiffusion(
        betas=betas,
        use_timesteps=range(100),
        model_mean_type=ModelMeanType.START_X,
        model_var_type=ModelVarType.FIXED_LARGE,
        loss_type=LossType.MSE,
    )
    model = _OffBy(torch.from_numpy(np.cumprod(1 - betas)), value)
    low_res = low_res_images(2, 4).float()
    row = score.score_row(process, model, low_res, 4, 50, 0)
    variance = float(oracle_law(low_res.double(), 4).variance.mean())
    assert row["denoised_mse"] == pytest.approx(value**2 / variance, rel=1e-3, abs=1e-8)
    if value:
        alpha_bar = float(np.cumprod(1 - betas)[50])
        square = alpha_bar * value**2 / (1 - alpha_bar) ** 2
        assert row["sigma"] == pytest.approx((1 / alpha_bar - 1) ** 0.5 * HALF_RANGE_255)
        mean_score_square = square / row["relative_mse"]
        # E s² is 1/(1 − ᾱ) at most (Y without spread given x_t), and near it at this level
        assert 0.2 < mean_score_square * (1 - alpha_bar) < 1.2
    assert row["normal_relative_mse"] > 1e-3  # the law is not normal


def test_photographs_of_the_default_folder_are_there() -> None:
    assert len(load_photos(str(ROOT / "data/demo/test"), 8, "--test_dir")) == 12
