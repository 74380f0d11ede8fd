"""Chains with fewer steps: what they keep of the longer chain and what the network is told."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion.process import GaussianDiffusion
from diffusion.schedules import get_named_beta_schedule
from diffusion.spacing import space_timesteps
from diffusion.types import LossType, ModelMeanType, ModelVarType
from tests.diffusion.chains import Chain


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("respacing", ["250", "ddim25", "10,15,20", "1", "1000"])
def test_noise_at_the_kept_timesteps_is_that_of_the_longer_chain(
    schedule: str, respacing: str
) -> None:
    process = Chain(schedule, respacing=respacing).build()
    base = np.cumprod(1 - get_named_beta_schedule(schedule, 1000))
    kept = sorted(space_timesteps(1000, respacing))
    assert process.timestep_map.tolist() == kept
    np.testing.assert_allclose(process.coefficients.alphas_cumprod, base[kept], rtol=1e-10)


def handed_timesteps(process: GaussianDiffusion, t: list[int]) -> Tensor:
    """Return what a network is called with."""
    calls: list[Tensor] = []

    def model(x: Tensor, t: Tensor) -> Tensor:
        calls.append(t)
        return x

    process.p_mean_variance(model, torch.zeros(len(t), 1, 2, 2), torch.tensor(t))
    return calls[0]


def test_network_is_told_the_timesteps_of_the_longer_chain() -> None:
    t = handed_timesteps(Chain(num_steps=300, respacing="10,15,20").build(), [0, 9, 10, 44])
    assert t.dtype == torch.int64
    assert t.tolist() == [0, 99, 100, 299]


def test_rescaled_timesteps_are_those_of_a_chain_of_1000_steps() -> None:
    process = Chain(num_steps=4000, respacing="ddim8", rescale_timesteps=True).build()
    t = handed_timesteps(process, [0, 1, 7])
    assert t.dtype == torch.float32
    assert t.tolist() == [0.0, 125.0, 875.0]


@pytest.mark.parametrize("rescale_timesteps", [False, True])
def test_process_that_keeps_all_timesteps_is_the_longer_chain(rescale_timesteps: bool) -> None:
    base = GaussianDiffusion(
        betas=get_named_beta_schedule("cosine", 50),
        model_mean_type=ModelMeanType.START_X,
        model_var_type=ModelVarType.FIXED_SMALL,
        loss_type=LossType.MSE,
        rescale_timesteps=rescale_timesteps,
    )
    spaced = Chain("cosine", 50, "50", rescale_timesteps=rescale_timesteps).build()
    np.testing.assert_allclose(spaced.coefficients.betas, base.coefficients.betas, rtol=1e-11)
    t = [0, 20, 49]
    assert handed_timesteps(spaced, t).tolist() == handed_timesteps(base, t).tolist()
    assert handed_timesteps(base, t).tolist() == [s * (20 if rescale_timesteps else 1) for s in t]


@pytest.mark.parametrize("num_timesteps", [7, 100, 999])
@pytest.mark.parametrize("count", [2, 5, 7])
def test_even_spacing_keeps_both_ends_and_the_wanted_number(num_timesteps: int, count: int) -> None:
    kept = sorted(space_timesteps(num_timesteps, [count]))
    assert (len(kept), kept[0], kept[-1]) == (count, 0, num_timesteps - 1)
    assert np.ptp(np.diff(kept)) <= 1


def test_impossible_ddim_spacing_is_refused_by_the_wanted_number() -> None:
    with pytest.raises(ValueError, match="exactly 300 of 1000 steps"):
        space_timesteps(1000, "ddim300")


@pytest.mark.parametrize("text", ["", "ddim", "abc", "10,,10", "2.5"])
def test_unreadable_spacing_is_refused_as_a_whole(text: str) -> None:
    with pytest.raises(ValueError, match=f"cannot read the timestep respacing {text!r}"):
        space_timesteps(1000, text)


def test_spacing_without_counts_or_with_negative_ones_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        space_timesteps(1000, [])
    with pytest.raises(ValueError, match="-1"):
        space_timesteps(1000, [-1])


def test_one_number_that_is_not_a_string_is_refused_by_its_type() -> None:
    with pytest.raises(TypeError, match="250 of type int"):
        space_timesteps(1000, 250)  # type: ignore[arg-type]


@pytest.mark.parametrize(("kept", "message"), [([], "at least one"), ([3, 100], "3 to 100")])
def test_process_refuses_timesteps_that_its_chain_does_not_have(
    kept: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        GaussianDiffusion(
            use_timesteps=kept,
            betas=get_named_beta_schedule("linear", 100),
            model_mean_type=ModelMeanType.START_X,
            model_var_type=ModelVarType.FIXED_SMALL,
            loss_type=LossType.MSE,
        )


# -- Evenly in log-SNR


def log_snr(schedule: str, num_timesteps: int) -> np.ndarray:
    alphas_cumprod = np.cumprod(1 - get_named_beta_schedule(schedule, num_timesteps))
    return 0.5 * np.log(alphas_cumprod / (1 - alphas_cumprod))


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("num_timesteps", [40, 1000])
@pytest.mark.parametrize("count", [2, 3, 10, 25, 40])
def test_log_snr_spacing_keeps_both_ends_and_exactly_the_wanted_number(
    schedule: str, num_timesteps: int, count: int
) -> None:
    betas = get_named_beta_schedule(schedule, num_timesteps)
    kept = sorted(space_timesteps(num_timesteps, f"logsnr{count}", betas))
    assert (len(kept), kept[0], kept[-1]) == (count, 0, num_timesteps - 1)


def test_log_snr_spacing_takes_the_timesteps_nearest_to_even_steps() -> None:
    betas = get_named_beta_schedule("linear", 1000)
    kept = sorted(space_timesteps(1000, "logsnr12", betas))
    values = log_snr("linear", 1000)
    for step, target in zip(kept, np.linspace(values[0], values[-1], 12), strict=True):
        assert abs(values[step] - target) == np.abs(values - target).min()


def test_targets_between_two_timesteps_take_the_next_free_ones() -> None:
    """From t = 0 to 1 the log-SNR falls further than 250 even steps; then they catch up."""
    betas = get_named_beta_schedule("linear", 1000)
    kept = sorted(space_timesteps(1000, "logsnr250", betas))
    values = log_snr("linear", 1000)
    step = (values[0] - values[-1]) / 249
    assert values[0] - values[1] > 5 * step
    assert kept[:30] == list(range(30))
    assert np.abs(np.diff(values[kept][150:]) + step).max() < 0.5 * step


def test_log_snr_spacing_of_all_timesteps_is_the_chain() -> None:
    betas = get_named_beta_schedule("cosine", 50)
    assert space_timesteps(50, "logsnr50", betas) == set(range(50))


@pytest.mark.parametrize(
    ("text", "betas", "message"),
    [
        ("logsnr10", None, "pass the betas of all 100 steps"),
        ("logsnr10", np.full(99, 0.01), "pass the betas of all 100 steps"),
        ("logsnr1", np.full(100, 0.01), "takes N from 2 to 100"),
        ("logsnr101", np.full(100, 0.01), "takes N from 2 to 100"),
        ("logsnr", np.full(100, 0.01), "cannot read the timestep respacing 'logsnr'"),
        ("logsnr9", np.append(np.full(99, 0.01), 1.0), "ends without signal"),
    ],
)
def test_impossible_log_snr_spacing_is_refused(
    text: str, betas: np.ndarray | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        space_timesteps(100, text, betas)
