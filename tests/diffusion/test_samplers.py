"""Sampling loops: the stated steps with the stated noise, and what is refused."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from diffusion.samplers import (
    SamplerOptions,
    gaussian_noise_fn,
    sample_loop,
    sample_loop_progressive,
)
from tests.diffusion.chains import Chain, standard_normal

ANCESTRAL = SamplerOptions(clip_denoised=False)
DDIM = SamplerOptions(sampler="ddim", clip_denoised=False)
DDIM_NOISY = SamplerOptions(sampler="ddim", eta=1.0, clip_denoised=False)
ALL_OPTIONS = [ANCESTRAL, DDIM, DDIM_NOISY]
OPTION_NAMES = ["ancestral", "ddim", "ddim_noisy"]
MULTISTEP = [
    SamplerOptions(sampler=name, clip_denoised=False)
    for name in ("plms", "dpmpp_2m", "dpmpp_2m_sde")
]

# -- The noise


@pytest.mark.parametrize("options", ALL_OPTIONS + MULTISTEP, ids=lambda o: f"{o.sampler}{o.eta}")
def test_row_of_a_batch_does_not_depend_on_the_batch(options: SamplerOptions) -> None:
    process = Chain(respacing="7").build()

    def samples_of(seeds: list[int]) -> dict[int, Tensor]:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        x_T, noise_fn = gaussian_noise_fn(generators, (len(seeds), 3, 4, 4), "cpu")
        samples = sample_loop(process, lambda x, t: 0.5 * x.tanh(), x_T, noise_fn, options)
        return dict(zip(seeds, samples, strict=True))

    together, reordered, single_process = samples_of([5, 6, 7]), samples_of([7, 5]), samples_of([6])
    assert torch.equal(together[5], reordered[5])
    assert torch.equal(together[7], reordered[7])
    assert torch.equal(together[6], single_process[6])
    assert not torch.equal(together[5], together[6])


def test_noise_of_a_generator_is_standard_normal_and_new_at_each_step() -> None:
    x_T, noise_fn = gaussian_noise_fn([torch.Generator().manual_seed(0)], (1, 3, 64, 64), "cpu")
    draws = torch.stack([x_T, noise_fn(0), noise_fn(1)])
    assert draws.std().item() == pytest.approx(1.0, abs=0.02)
    correlations = torch.corrcoef(draws.flatten(1)) - torch.eye(3)
    assert correlations.abs().max() < 0.05


def test_noise_out_of_order_or_without_its_generators_is_refused() -> None:
    generators = [torch.Generator()]
    _, noise_fn = gaussian_noise_fn(generators, (1, 2), "cpu")
    with pytest.raises(ValueError, match="step 0 is next, not 3"):
        noise_fn(3)
    with pytest.raises(ValueError, match="2 rows need as many generators, got 1"):
        gaussian_noise_fn(generators, (2, 2), "cpu")
    with pytest.raises(ValueError, match=r"cannot draw on meta.*torch\.Generator"):
        gaussian_noise_fn(generators, (1, 2), "meta")


def test_deterministic_sampler_asks_for_no_noise_and_a_stochastic_one_once_a_step() -> None:
    process = Chain(respacing="6").build()
    plms, dpmpp_2m, dpmpp_2m_sde = MULTISTEP
    for options, expected in (
        *((ANCESTRAL, 6), (DDIM, 0), (DDIM_NOISY, 6)),
        *((plms, 0), (dpmpp_2m, 0), (dpmpp_2m_sde, 6)),
    ):
        asked_for: list[int] = []

        def noise_fn(k: int, asked_for: list[int] = asked_for) -> Tensor:
            asked_for.append(k)
            return torch.zeros(1, 1, 2, 2)

        sample_loop(process, lambda x, t: x, torch.ones(1, 1, 2, 2), noise_fn, options)
        assert asked_for == list(range(expected))


# -- The loop


@pytest.mark.parametrize("options", ALL_OPTIONS, ids=OPTION_NAMES)
def test_loop_takes_the_steps_of_the_process_one_by_one(options: SamplerOptions) -> None:
    process = Chain(respacing="5").build()
    x_T = standard_normal(0, (2, 3, 4, 4))
    noises = [standard_normal(k + 1, (2, 3, 4, 4)) for k in range(5)]

    def model(x: Tensor, t: Tensor, low_res: Tensor) -> Tensor:
        return 0.3 * x + low_res + 1e-3 * t.view(-1, 1, 1, 1)

    low_res = standard_normal(9, (2, 3, 4, 4))
    step = {"ancestral": process.p_sample, "ddim": process.ddim_sample}[options.sampler]
    with_kwargs = dataclasses.replace(options, model_kwargs={"low_res": low_res})
    steps = list(sample_loop_progressive(process, model, x_T, noises.__getitem__, with_kwargs))
    assert len(steps) == 5
    x = x_T
    for k, out in enumerate(steps):
        expected = step(model, x, torch.full((2,), 4 - k), noises[k], with_kwargs)
        assert torch.equal(out["sample"], expected["sample"])
        assert torch.equal(out["pred_xstart"], expected["pred_xstart"])
        x = expected["sample"]
    sample = sample_loop(process, model, x_T, noises.__getitem__, with_kwargs)
    assert torch.equal(sample, x)


def test_gradients_are_not_recorded_and_the_consumer_keeps_its_own_mode() -> None:
    process = Chain(respacing="3").build()
    weight = torch.ones(1, requires_grad=True)
    x_T = torch.ones(1, 1, 2, 2)
    for cond_fn, is_inference in ((None, True), (lambda x, t: torch.zeros_like(x), False)):
        options = SamplerOptions(cond_fn=cond_fn)
        steps = sample_loop_progressive(
            process, lambda x, t: weight * x, x_T, lambda k: x_T, options
        )
        for out in steps:
            assert not out["sample"].requires_grad
            assert out["sample"].is_inference() is is_inference
            assert torch.is_grad_enabled()
            assert not torch.is_inference_mode_enabled()


def test_samples_of_a_finished_loop_may_be_changed_in_place() -> None:
    x_T = torch.ones(1, 1, 2, 2)
    sample = sample_loop(Chain(respacing="3").build(), lambda x, t: x, x_T, lambda k: x_T)
    sample.mul_(127.5)
    assert torch.equal(x_T, torch.ones(1, 1, 2, 2))


def test_options_that_no_sampler_can_follow_are_refused_before_the_first_step() -> None:
    with pytest.raises(ValueError, match=r"'dpm'.*ancestral, ddim, dpm_solver_2, dpmpp_2m"):
        SamplerOptions(sampler="dpm")
    with pytest.raises(ValueError, match=r"eta=0\.5 belongs to the ddim sampler"):
        SamplerOptions(sampler="ancestral", eta=0.5)
    with pytest.raises(ValueError, match=r"torch\.uint8"):
        x_T = torch.zeros(1, 1, 2, 2, dtype=torch.uint8)
        sample_loop_progressive(Chain().build(), lambda x, t: x, x_T, lambda k: x_T)
