"""Sampling of timesteps: unbiased, reproducible, resumable."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffusion.timesteps import (
    LossSecondMomentResampler,
    ScheduleSampler,
    UniformSampler,
    create_named_schedule_sampler,
)

NUM_TIMESTEPS = 6


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def warm_sampler() -> LossSecondMomentResampler:
    """Return a sampler that has seen a loss of (t + 1)² at each timestep, ten times."""
    sampler = LossSecondMomentResampler(NUM_TIMESTEPS, uniform_prob=0.1)
    timesteps = torch.arange(NUM_TIMESTEPS)
    for _ in range(10):
        sampler.update_with_all_losses(timesteps, (timesteps + 1.0) ** 2)
    return sampler


@pytest.mark.parametrize("sampler", [UniformSampler(NUM_TIMESTEPS), warm_sampler()])
def test_weighted_loss_is_unbiased(sampler: ScheduleSampler) -> None:
    timesteps, loss_weights = sampler.sample(range(20_000))
    losses = torch.tensor([3.0, 1.0, 4.0, 1.0, 5.0, 9.0])
    weight_of = {int(t): float(w) for t, w in zip(timesteps, loss_weights, strict=True)}
    assert sorted(weight_of) == list(range(NUM_TIMESTEPS))
    probabilities = sampler.weights() / sampler.weights().sum()
    expectation = sum(float(probabilities[t]) * w * losses[t] for t, w in weight_of.items())
    assert expectation == pytest.approx(losses.mean().item(), rel=1e-6)
    # And the timesteps do come with these probabilities: 5 standard errors of a share.
    shares = torch.bincount(timesteps, minlength=NUM_TIMESTEPS) / 20_000
    np.testing.assert_allclose(shares, probabilities, atol=5 * np.sqrt(0.25 / 20_000))


def test_probabilities_follow_the_root_mean_square_loss() -> None:
    rms = np.arange(1, NUM_TIMESTEPS + 1) ** 2
    expected = 0.9 * rms / rms.sum() + 0.1 / NUM_TIMESTEPS
    np.testing.assert_allclose(warm_sampler().weights(), expected)


def test_weights_are_uniform_until_every_timestep_has_a_full_history() -> None:
    sampler = LossSecondMomentResampler(2, history_per_term=3)
    for timesteps in ([0, 0, 0, 0], [1, 1]):
        sampler.update_with_all_losses(torch.tensor(timesteps), torch.ones(len(timesteps)) * 7)
        assert sampler.weights().tolist() == [1.0, 1.0]
    sampler.update_with_all_losses(torch.tensor([1]), torch.tensor([70.0]))
    assert sampler.weights()[1] > sampler.weights()[0]


def test_only_the_latest_losses_are_remembered() -> None:
    sampler = LossSecondMomentResampler(2, history_per_term=3, uniform_prob=0.0)
    sampler.update_with_all_losses(torch.zeros(5).long(), torch.tensor([1e6, 1e6, 3.0, 4.0, 0.0]))
    sampler.update_with_all_losses(torch.ones(3).long(), torch.full((3,), 5.0))
    rms = np.array([np.sqrt(25 / 3), 5.0])
    np.testing.assert_allclose(sampler.weights(), rms / rms.sum())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_loss_that_is_not_finite_is_left_out(bad: float) -> None:
    sampler = warm_sampler()
    before = sampler.weights()
    sampler.update_with_all_losses(torch.tensor([2]), torch.tensor([bad]))
    assert torch.equal(sampler.weights(), before)


def test_losses_of_nothing_but_zeros_leave_the_weights_uniform() -> None:
    sampler = LossSecondMomentResampler(2, history_per_term=1)
    sampler.update_with_all_losses(torch.tensor([0, 1]), torch.zeros(2))
    assert sampler.weights().tolist() == [1.0, 1.0]


@pytest.mark.parametrize("name", ["uniform", "loss-second-moment"])
def test_same_seeds_draw_the_same_timesteps(name: str) -> None:
    sampler = create_named_schedule_sampler(name, 100)
    draws = [sampler.sample(range(start, start + 50))[0] for start in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_uniform_weights_are_exactly_one() -> None:
    timesteps, weights = UniformSampler(1000).sample(range(64))
    assert timesteps.dtype == torch.int64
    assert weights.dtype == torch.float32
    assert (weights == 1).all()


def test_resumed_sampler_goes_on_as_if_it_had_not_stopped() -> None:
    whole, first = warm_sampler(), warm_sampler()
    resumed = LossSecondMomentResampler(NUM_TIMESTEPS, uniform_prob=0.1)
    resumed.load_state_dict(first.state_dict())
    for step in range(15):
        losses = torch.rand(4, generator=generator(step))
        for sampler in (whole, resumed):
            timesteps, _ = sampler.sample(range(4 * step, 4 * step + 4))
            sampler.update_with_all_losses(timesteps, losses)
    assert torch.equal(whole.weights(), resumed.weights())
    # The state that was handed over is a copy.
    assert torch.equal(first.weights(), warm_sampler().weights())


def test_state_of_another_sampler_is_refused() -> None:
    state = warm_sampler().state_dict()
    with pytest.raises(ValueError, match="losses"):
        UniformSampler(NUM_TIMESTEPS).load_state_dict(state)
    with pytest.raises(ValueError, match=r"\(7, 10\).*\(6, 10\)"):
        LossSecondMomentResampler(7).load_state_dict(state)
    with pytest.raises(ValueError, match="number of timesteps"):
        warm_sampler().load_state_dict({})


@pytest.mark.parametrize(
    ("timesteps", "losses"),
    [([0, 1], [1.0]), ([6], [1.0]), ([-1], [1.0]), ([[0]], [[1.0]])],
    ids=str,
)
def test_losses_that_belong_to_no_timestep_are_refused(timesteps: list, losses: list) -> None:
    with pytest.raises(ValueError, match="timesteps"):
        warm_sampler().update_with_all_losses(torch.tensor(timesteps), torch.tensor(losses))


def test_unknown_or_impossible_samplers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'loss'.*loss-second-moment"):
        create_named_schedule_sampler("loss", 10)
    with pytest.raises(ValueError, match="got 0"):
        create_named_schedule_sampler("uniform", 0)
    with pytest.raises(ValueError, match=r"history_per_term.*0"):
        LossSecondMomentResampler(3, history_per_term=0)
    with pytest.raises(ValueError, match=r"uniform_prob.*1\.5"):
        LossSecondMomentResampler(3, uniform_prob=1.5)
