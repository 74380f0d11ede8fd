"""Training data and loss of the sampler: timesteps and noise belong to a place in the stream."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddpm.train_loop import seeded_noise
from diffusion.timesteps import LossSecondMomentResampler, UniformSampler
from sr_var.ddpm_sr_utils import SRDiffusionTrainLoop, load_diffusion_data
from sr_var.degradation import area_downsample
from sr_var.flags.scripts import DataFlags, DDPMTrainFlags
from sr_var.script_util import sr_create_model_and_diffusion
from tests.tiny import DENOISER, LARGE, SMALL, TinyData, shake
from utils.loops.data import batch_slice
from utils.process.errors import DataError

CPU = torch.device("cpu")
NUM_STEPS = 100


def _batch(data: TinyData, batch_size: int, position: int, **train: Any) -> tuple[Any, Any]:
    loaded = load_diffusion_data(
        DataFlags(data_dir=str(data.data_dir), data_info_dict_path=str(data.train_info)),
        (LARGE, SMALL),
        dataclasses.replace(DDPMTrainFlags(batch_size=batch_size), **train),
        UniformSampler(NUM_STEPS),
        CPU,
        lambda line: None,
        num_classes=DENOISER["num_classes"],
    )
    return next(loaded.batches(position))


def test_batch_holds_the_condition_and_the_high_res_image(tiny_data: TinyData) -> None:
    batch, high_res = _batch(tiny_data, 4, 0)
    assert high_res.shape == (4, 3, LARGE, LARGE) and high_res.dtype == torch.float32
    torch.testing.assert_close(batch.condition["low_res"], area_downsample(high_res, SMALL))
    assert batch.noise.shape == high_res.shape
    assert set(batch.condition["y"].tolist()) <= {0, 1, 4}
    assert bool(((batch.t >= 0) & (batch.t < NUM_STEPS)).all())
    assert torch.equal(batch.weight, torch.ones(4))


def test_timesteps_and_noise_are_a_function_of_seed_and_place_in_the_stream(
    tiny_data: TinyData,
) -> None:
    """However batches are cut, and where a run was resumed; another seed gives others."""
    whole, image = _batch(tiny_data, 6, 0)
    for start in (0, 2, 4):
        part, part_image = _batch(tiny_data, 2, start)
        assert torch.equal(part_image, image[start : start + 2])
        same = batch_slice(whole, start, start + 2)
        assert torch.equal(part.t, same.t) and torch.equal(part.noise, same.noise)
        assert all(torch.equal(part.condition[key], same.condition[key]) for key in same.condition)
    other, _ = _batch(tiny_data, 6, 0, seed=1)
    assert not torch.equal(other.noise, whole.noise)
    # the second epoch shows the same images with other noise
    later, _ = _batch(tiny_data, 6, 7)
    assert not torch.equal(later.noise, whole.noise)


def test_noise_is_standard_normal_and_rows_are_independent() -> None:
    noise = seeded_noise(list(range(50)), (3, 16, 16), CPU).double()
    n = noise.numel()
    assert abs(float(noise.mean())) < 4 / n**0.5
    assert abs(float(noise.var()) - 1) < 4 * (2 / n) ** 0.5
    correlation = np.corrcoef(noise.reshape(50, -1).numpy()) - np.eye(50)
    assert np.abs(correlation).max() < 5 / 768**0.5


def test_timesteps_follow_the_law_of_the_schedule_sampler_and_weights_undo_it() -> None:
    sampler = LossSecondMomentResampler(4, history_per_term=1, uniform_prob=0.0)
    losses = torch.tensor([1.0, 2.0, 3.0, 4.0])
    sampler.update_with_all_losses(torch.arange(4), losses)
    t, weight = sampler.sample(range(20_000))
    expected = losses.numpy() / 10
    found = np.bincount(t.numpy(), minlength=4) / 20_000
    np.testing.assert_allclose(found, expected, atol=4 * 0.5 / 20_000**0.5)
    torch.testing.assert_close(weight, 1 / (4 * losses[t] / 10))
    # E[weight · loss] is the plain mean over timesteps, here 2.5, with no variance at all
    torch.testing.assert_close(weight * losses[t], torch.full((20_000,), 2.5))


def test_largest_uniform_number_still_gives_a_timestep(monkeypatch: pytest.MonkeyPatch) -> None:
    class Generator:
        def random(self) -> float:
            return float(np.nextafter(1, 0))

    monkeypatch.setattr(np.random, "default_rng", lambda seed: Generator())
    t, _ = UniformSampler(1000).sample([0])
    assert t.tolist() == [999]


def _loop(batch: Any, label: Any, microbatch: int, **changes: Any) -> SRDiffusionTrainLoop:
    model, diffusion = sr_create_model_and_diffusion(
        **{**DENOISER, "diffusion_steps": NUM_STEPS, "timestep_respacing": ""}
    )
    shake(model)
    return SRDiffusionTrainLoop(
        model=model,
        diffusion=diffusion,
        schedule_sampler=changes.pop("schedule_sampler", UniformSampler(NUM_STEPS)),
        data=iter(lambda: (batch, label), None),
        batch_size=len(label),
        microbatch=microbatch,
        **changes,
    )


def test_gradient_does_not_depend_on_microbatch(tiny_data: TinyData) -> None:
    batch, label = _batch(tiny_data, 5, 0)
    batch = batch._replace(weight=torch.tensor([0.5, 2.0, 1.0, 0.25, 3.0]))
    gradients = []
    for microbatch in (-1, 2, 1):
        loop = _loop(batch, label, microbatch)
        loop._forward_backward(batch, label)
        gradients.append(torch.cat([p.grad.reshape(-1) for p in loop.model.parameters()]))
    scale = float(gradients[0].abs().max())
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0], rtol=0, atol=2e-6 * scale)


def test_label_and_low_res_image_reach_the_network(tiny_data: TinyData) -> None:
    batch, label = _batch(tiny_data, 3, 0)
    loop = _loop(batch, label, -1)
    with torch.no_grad():
        loss, _ = loop.compute_loss(batch, label)
        given = batch.condition
        for changed in ({"y": (given["y"] + 1) % 5}, {"low_res": -given["low_res"]}):
            other, _ = loop.compute_loss(batch._replace(condition={**given, **changed}), label)
            assert not torch.isclose(loss, other, rtol=1e-4)


def test_schedule_sampler_learns_and_goes_on_after_a_stop(
    tmp_path: Path, tiny_data: TinyData
) -> None:
    batch, label = _batch(tiny_data, 4, 0)
    samplers = [LossSecondMomentResampler(NUM_STEPS, history_per_term=2) for _ in range(2)]
    for sampler, steps in ((samplers[0], (3,)), (samplers[1], (2, 3))):
        for max_step in steps:
            loop = _loop(
                batch,
                label,
                2,
                schedule_sampler=sampler,
                max_step=max_step,
                model_save_dir=str(tmp_path / str(len(steps))),
                resume_checkpoint="auto",
            )
            loop.run_loop()
            sampler = LossSecondMomentResampler(NUM_STEPS, history_per_term=2)
        state = loop.schedule_sampler.state_dict()
        if len(steps) == 1:
            expected = state
    assert state.keys() == expected.keys()
    for key, value in state.items():
        assert torch.equal(value, expected[key])
    assert any(float(value.abs().sum()) > 0 for value in state.values())


def test_label_that_the_network_does_not_know_stops_before_the_first_step(
    tiny_data: TinyData,
) -> None:
    flags = DataFlags(
        data_dir=str(tiny_data.data_dir), data_info_dict_path=str(tiny_data.test_info)
    )
    arguments = (flags, (LARGE, SMALL), DDPMTrainFlags(), UniformSampler(9), CPU, lambda line: None)
    with pytest.raises(DataError, match=r"n01484850_17 .* 4.* 0 to 3"):
        load_diffusion_data(*arguments, num_classes=4)
    load_diffusion_data(*arguments, num_classes=5)
    load_diffusion_data(*arguments, num_classes=None)
