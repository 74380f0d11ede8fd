"""The plain references compute what the project computes, so that their times may be compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import nets
from benchmarks.reference.sampling import PlainSampler
from benchmarks.reference.subpixel import PlainSubpixel, plain_subpixel
from benchmarks.reference.training import PlainTrainer
from benchmarks.reference.unet import PlainUNet, plain_twin
from benchmarks.reference.verification import mean_and_variance
from ddpm.flags import DiffusionFlags
from ddpm.process import create_diffusion
from diffusion.samplers import SamplerOptions, sample_loop
from models.config import SubpixelConfig, UNetConfig
from models.unet import SuperResModel, TimeConditionedUNet, UNetModel
from tests.utils.training_loops import QuietLoop
from utils.images.pictures import write_picture

TOLERANCE, WEIGHT_TOLERANCE = 1e-4, 1e-5


def _config(**changes: Any) -> UNetConfig:
    fields: dict[str, Any] = {
        "image_size": 16,
        "channel_mult": (1, 2),
        "model_channels": 32,
        "num_res_blocks": 1,
        "attention_resolutions": (8,),
        "num_heads": 2,
    }
    return UNetConfig(**{**fields, **changes})


def _difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"resblock_updown": True, "use_scale_shift_norm": True, "num_head_channels": 16},
        {"use_new_attention_order": True, "conv_resample": False, "num_classes": 3},
    ],
)
def test_plain_denoiser_returns_what_the_projects_returns(changes: dict[str, Any]) -> None:
    model = nets.fill(TimeConditionedUNet(_config(out_channels=6, **changes))).eval()
    x, t = nets.noise(2, 3, 16, 16), torch.tensor([0, 700])
    given = {"y": torch.tensor([2, 0])} if "num_classes" in changes else {}
    with torch.inference_mode():
        expected = model(x, t, **given)
        found = plain_twin(model)(x, t, **given)
    assert expected.std() > 0.1
    assert _difference(found, expected) < TOLERANCE


def test_plain_upsampler_returns_what_the_projects_returns() -> None:
    model = nets.upsampler("tiny")
    x, t = nets.noise(2, 3, 32, 32), torch.tensor([3, 999])
    low_res, y = nets.noise(2, 3, 8, 8, seed=1), torch.tensor([5, 7])
    twin = plain_twin(model)
    with torch.inference_mode():
        assert _difference(twin(x, t, low_res, y), model(x, t, low_res, y)) < TOLERANCE
    assert isinstance(model, SuperResModel) and twin.out[2].weight.data_ptr() == (
        model.out[2].weight.data_ptr()
    )


def test_plain_mean_net_returns_what_the_projects_returns() -> None:
    model = nets.fill(UNetModel(_config(predict_residual=True))).eval()
    x = nets.noise(2, 3, 16, 16)
    with torch.inference_mode():
        assert _difference(plain_twin(model)(x), model(x)) < TOLERANCE


@pytest.mark.parametrize("is_consistent", [True, False])
def test_plain_subpixel_net_returns_what_the_projects_returns(is_consistent: bool) -> None:
    model = nets.subpixel(2, 8, 2)
    model.config = replace(model.config, consistent=is_consistent)
    x = nets.noise(2, 3, 8, 6)
    with torch.inference_mode():
        expected = model(x)
        assert _difference(plain_subpixel(model)(x), expected) < TOLERANCE
    assert expected.std() > 0.1


def test_plain_nets_refuse_what_they_do_not_have() -> None:
    with pytest.raises(ValueError, match="no dropout"):
        PlainUNet(_config(dropout=0.1), 3, is_timed=False)
    with pytest.raises(ValueError, match="low-res images alone"):
        PlainSubpixel(SubpixelConfig(factor=2, num_classes=3))


@pytest.mark.parametrize(
    ("sampler", "eta", "learn_sigma", "sigma_small"),
    [
        ("ancestral", 0.0, True, False),
        ("ancestral", 0.0, False, True),
        ("ancestral", 0.0, False, False),
        ("ddim", 0.0, False, False),
        ("ddim", 0.7, True, False),
    ],
)
def test_plain_sampling_draws_the_same_samples_from_the_same_noise(
    sampler: str, eta: float, learn_sigma: bool, sigma_small: bool
) -> None:
    flags = DiffusionFlags(
        learn_sigma=learn_sigma, sigma_small=sigma_small, timestep_respacing="logsnr8"
    )
    process = create_diffusion(flags)
    model = nets.fill(TimeConditionedUNet(_config(out_channels=6 if learn_sigma else 3))).eval()
    x_T = nets.noise(2, 3, 16, 16)
    noises = [nets.noise(2, 3, 16, 16, seed=k + 1) for k in range(8)]
    options = SamplerOptions(sampler=sampler, eta=eta)
    expected = sample_loop(process, model, x_T, noises.__getitem__, options)
    plain = PlainSampler(
        process.coefficients.betas,
        process.timestep_map,
        is_variance_learned=learn_sigma,
        is_variance_small=sigma_small,
    )
    more = {"eta": eta} if sampler == "ddim" else {}
    found = getattr(plain, sampler)(plain_twin(model), x_T, noises.__getitem__, **more)
    assert expected.std() > 0.1
    assert _difference(found, expected) < TOLERANCE


def test_plain_training_step_ends_with_the_same_weights() -> None:
    model = nets.fill(UNetModel(_config()))
    trainer = PlainTrainer(plain_twin(model, is_copy=True), lr=1e-4, microbatch=2)
    start = [parameter.detach().clone() for parameter in model.parameters()]
    loop = QuietLoop(model=model, data=[], lr=1e-4, batch_size=5, microbatch=2)
    batch, label = nets.noise(5, 3, 16, 16), nets.noise(5, 3, 16, 16, seed=1)
    loop.run_step(batch, label)
    loss, norm = trainer.step(batch, label)
    keys, means = loop.logger.take_means()
    reported = dict(zip(keys, means.tolist(), strict=True))
    assert loss == pytest.approx(reported["loss"], rel=1e-5)
    assert norm == pytest.approx(reported["grad_norm"], rel=1e-4)
    # where the true gradient is 0 (biases before a norm, those of keys) AdamW's step is rounding
    told = [parameter.grad.abs() > 1e-6 for parameter in trainer.model.parameters()]
    pairs = zip(model.parameters(), trainer.model.parameters(), start, told, strict=True)
    differences, moves = [], []
    for own, plain, before, is_told in pairs:
        differences.append((own.detach() - plain.detach())[is_told].abs())
        moves.append((own.detach() - before)[is_told].abs())
    assert torch.cat(moves).numel() > 0.95 * sum(value.numel() for value in start)
    assert torch.cat(moves).min() > 0.5 * trainer.optimizer.param_groups[0]["lr"]
    assert torch.cat(differences).max() < WEIGHT_TOLERANCE


def test_plain_mean_and_variance_are_those_of_the_bytes(tmp_path: Path) -> None:
    """Levels 10, 12 and 20 everywhere: mean 14, variance (16 + 4 + 36) / 2."""
    paths = [str(tmp_path / f"{level}.png") for level in (10, 12, 20)]
    for path, level in zip(paths, (10, 12, 20), strict=True):
        write_picture(path, np.full((4, 4, 3), level, np.uint8))
    mean, variance = mean_and_variance(paths)
    assert mean.shape == (4, 4, 3) and np.all(mean == 14) and np.all(variance == 28)
