"""Denoisers as diffusers' `UNet2DModel`: what it is made of, what it computes, what it has not."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import pytest
import torch

from ddpm.flags import DiffusionFlags
from ddpm.process import create_diffusion
from image_ddpm.flags import PRESETS as IMAGE_PRESETS
from image_ddpm.flags import ImageModelFlags
from image_ddpm.networks import create_image_model
from models.blocks import AttentionBlock
from models.subpixel import SubpixelDenoiser
from models.unet import TimeConditionedUNet
from sr_var.flags.nets import PRESETS as SR_PRESETS
from sr_var.flags.scripts import SRDiffusionModelFlags
from sr_var.script_util import create_sr_model
from tests.models.nets import fill, noise, small_config
from tests.tiny import ROOT
from tests.weights.diffusers_golden import NETS, PATH, fingerprint, load_theirs, network, outputs
from weights.diffusers_names import unet2d_config, unet2d_weights
from weights.to_diffusers import scheduler_config


@pytest.mark.parametrize("name", NETS)
def test_each_weight_of_theirs_is_one_of_ours_in_the_right_order(name: str) -> None:
    stored = json.loads(PATH.read_text(encoding="utf-8"))[name]
    own = network(name)
    weights = unet2d_weights(own)
    assert weights.keys() == stored.keys()
    for key, (shape, number) in stored.items():
        assert list(weights[key].shape) == shape, key
        assert fingerprint(weights[key]) == pytest.approx(number, rel=1e-6, abs=1e-6), key
    # nothing is left out, nothing twice: queries, keys and values are cut out of one
    assert sum(one.numel() for one in weights.values()) == sum(
        one.numel() for one in own.state_dict().values()
    )


@pytest.mark.parametrize("use_new_order", [False, True])
def test_queries_keys_and_values_attend_as_ours_do(use_new_order: bool) -> None:
    config = small_config(num_heads=4, use_new_attention_order=use_new_order)
    own = fill(TimeConditionedUNet(config)).eval().requires_grad_(False)
    block = own.middle_block[1]
    assert isinstance(block, AttentionBlock)
    theirs = {
        key.removeprefix("mid_block.attentions.0."): value
        for key, value in unet2d_weights(own).items()
    }
    x = noise(2, 64, 3, 5)
    norm = theirs["group_norm.weight"], theirs["group_norm.bias"]
    tokens = torch.nn.functional.group_norm(x, 32, *norm).flatten(2).transpose(1, 2)
    heads = [
        (tokens @ theirs[f"{part}.weight"].T + theirs[f"{part}.bias"]).unflatten(-1, (4, 16))
        for part in ("to_q", "to_k", "to_v")
    ]
    query, key, value = (one.transpose(1, 2) for one in heads)
    mixed = torch.softmax(query @ key.transpose(2, 3) / 4.0, dim=-1) @ value
    rows = mixed.transpose(1, 2).flatten(2) @ theirs["to_out.0.weight"].T + theirs["to_out.0.bias"]
    torch.testing.assert_close(x + rows.transpose(1, 2).reshape(x.shape), block(x))


@pytest.mark.parametrize("name", NETS)
def test_diffusers_computes_what_the_network_does(name: str) -> None:
    pytest.importorskip("diffusers", reason="diffusers is not installed (requirements-bench.txt)")
    model = load_theirs(name)
    expected, found = outputs(name, lambda x, t, y: model(x, t, class_labels=y).sample)
    assert float(expected.abs().max()) > 0.1
    torch.testing.assert_close(found, expected, rtol=0.0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("flag", "changes"),
    [
        ("--act", {"act": "gelu"}),
        ("--channel_mult", {"channel_mult": (2, 2)}),
        ("--channel_mult", {"model_channels": 24}),
        ("--conv_resample", {"conv_resample": False}),
        ("--num_heads 2", {}),  # heads of 16 and of 32 channels
        ("--num_heads_upsample", {"attention_resolutions": (8,), "num_heads_upsample": 4}),
        ("--dims", {"dims": 1, "num_heads": 1}),
    ],
)
def test_the_flag_that_diffusers_has_not_is_named(flag: str, changes: dict[str, Any]) -> None:
    own = TimeConditionedUNet(small_config(**changes))
    with pytest.raises(ValueError, match=flag):
        unet2d_config(own)


def test_most_published_models_fit_and_the_page_names_the_others() -> None:
    others = set()
    with torch.device("meta"):
        for name, preset in {**IMAGE_PRESETS, **SR_PRESETS}.items():
            is_image = name in IMAGE_PRESETS
            known = ImageModelFlags if is_image else SRDiffusionModelFlags
            kept = {one.name for one in dataclasses.fields(known)} | {"learn_sigma"}
            flags = {key: value for key, value in preset.flags.items() if key in kept}
            create = create_image_model if is_image else create_sr_model
            own = create(**{"learn_sigma": False, **flags})
            assert not isinstance(own, SubpixelDenoiser)
            try:
                unet2d_weights(own), unet2d_config(own)
            except ValueError:
                others.add(name)
    page = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    told = page.partition("Of the published models")[2].partition("\n\n")[0]
    assert others == set(re.findall(r"`(\w*\d_?\w+)`", told))
    assert (len(IMAGE_PRESETS), len(SR_PRESETS), len(others)) == (16, 3, 6)


def test_one_head_everywhere_is_told_as_such() -> None:
    assert (
        unet2d_config(TimeConditionedUNet(small_config(num_heads=1)))["attention_head_dim"] is None
    )


@pytest.mark.parametrize("schedule", ["linear", "cosine", "sqrt"])
@pytest.mark.parametrize("is_small", [False, True])
def test_the_scheduler_has_the_betas_and_variances_of_the_process(
    schedule: str, is_small: bool
) -> None:
    flags = DiffusionFlags(diffusion_steps=50, noise_schedule=schedule, sigma_small=is_small)
    config = scheduler_config(flags)
    betas = torch.tensor(
        config["trained_betas"] or _line(config["beta_start"], config["beta_end"], 50)
    )
    process = create_diffusion(flags)
    torch.testing.assert_close(
        betas.double(), torch.from_numpy(process.coefficients.betas).double()
    )
    assert (config["trained_betas"] is None) == (schedule == "linear")
    assert config["variance_type"] == ("fixed_small" if is_small else "fixed_large")
    learned = DiffusionFlags(learn_sigma=True, predict_xstart=True)
    assert scheduler_config(learned)["variance_type"] == "learned_range"
    assert scheduler_config(learned)["prediction_type"] == "sample"


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_between_the_timesteps_of_a_rescaled_chain_lie_others(schedule: str) -> None:
    """alpha_bar is ours at every step, and falls evenly between them."""
    flags = DiffusionFlags(diffusion_steps=50, noise_schedule=schedule, rescale_timesteps=True)
    config = scheduler_config(flags)
    betas = torch.tensor(config["trained_betas"], dtype=torch.float64)
    assert config["num_train_timesteps"] == len(betas) == 1000
    alpha_bars = torch.cumprod(1 - betas, dim=0)
    own = torch.as_tensor(create_diffusion(flags).coefficients.alphas_cumprod)
    torch.testing.assert_close(alpha_bars[::20], own)
    assert bool((alpha_bars.diff() < 0).all())
    assert alpha_bars[10] ** 2 == pytest.approx(float(own[0] * own[1]))


def _line(start: float, end: float, number: int) -> list[float]:
    return [start + (end - start) * place / (number - 1) for place in range(number)]


@pytest.mark.parametrize(
    "flags", [{}, {"learn_sigma": True}, {"sigma_small": True}, {"rescale_timesteps": True}]
)
def test_a_step_of_their_scheduler_is_an_ancestral_one(flags: dict[str, Any]) -> None:
    diffusers = pytest.importorskip(
        "diffusers", reason="diffusers is not installed (requirements-bench.txt)"
    )
    process = DiffusionFlags(diffusion_steps=50, noise_schedule="cosine", **flags)
    scheduler = diffusers.DDPMScheduler.from_config(scheduler_config(process))
    scheduler.set_timesteps(50)
    diffusion = create_diffusion(process)
    channels = 6 if process.learn_sigma else 3
    output, x = noise(2, channels, 4, 4), noise(2, 3, 4, 4, seed=1)
    for t in (49, 20, 1, 0):
        step = diffusion.p_mean_variance(lambda *_, **__: output, x, torch.full((2,), t))
        generator = torch.Generator().manual_seed(t)
        told = t * 20 if process.rescale_timesteps else t
        assert told in scheduler.timesteps
        found = scheduler.step(output, told, x, generator=generator).prev_sample
        expected = step["mean"]
        if t:
            drawn = torch.randn(x.shape, generator=torch.Generator().manual_seed(t))
            expected = expected + step["variance"].sqrt() * drawn
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
