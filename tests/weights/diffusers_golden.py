"""What diffusers' `UNet2DModel` is made of for three of our networks, kept for tests without it.

    .venv/bin/pip install diffusers && .venv/bin/python -m tests.weights.diffusers_golden

stores name, shape and a fingerprint of every weight, after it has compared the outputs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from models.unet import SuperResModel, TimeConditionedUNet
from tests.golden_recipe import GOLDENS_DIR
from tests.models.nets import fill, noise, small_config
from weights.diffusers_names import unet2d_config, unet2d_weights

PATH = GOLDENS_DIR / "diffusers_unet2d.json"
Denoiser = TimeConditionedUNet | SuperResModel


def _plain() -> Denoiser:
    return TimeConditionedUNet(small_config(attention_resolutions=(8,)))


def _guided() -> Denoiser:
    config = small_config(
        num_res_blocks=2,
        num_head_channels=16,
        resblock_updown=True,
        use_scale_shift_norm=True,
        use_new_attention_order=True,
        num_classes=3,
        out_channels=6,
    )
    return TimeConditionedUNet(config)


def _upsampler() -> Denoiser:
    config = small_config(
        channel_mult=(1, 2, 2),
        num_head_channels=32,
        resblock_updown=True,
        use_scale_shift_norm=True,
        attention_resolutions=(4,),
        out_channels=6,
    )
    return SuperResModel(config)


NETS: Mapping[str, Callable[[], Denoiser]] = {
    "plain": _plain,
    "guided": _guided,
    "upsampler": _upsampler,
}


def network(name: str) -> Denoiser:
    """One of them, with the golden weights of its names."""
    return fill(NETS[name]()).eval().requires_grad_(False)


def fingerprint(value: Tensor) -> float:
    """A number that another order of the values would change."""
    places = torch.arange(value.numel(), dtype=torch.float64)
    return float((value.flatten().double() * torch.cos(places)).sum())


def outputs(name: str, theirs: Callable[..., Tensor]) -> tuple[Tensor, Tensor]:
    """Of our network and of `theirs(sample, timestep, class_labels)`, for the same images."""
    own = network(name)
    x, timesteps = noise(3, 3, 16, 16), torch.tensor([0, 7, 900])
    labels = None if own.config.num_classes is None else torch.tensor([0, 1, 2])
    if isinstance(own, SuperResModel):
        low_res = noise(3, 3, 4, 4, seed=1)
        upsampled = torch.nn.functional.interpolate(low_res, (16, 16), mode="bilinear")
        found = theirs(torch.cat([x, upsampled], dim=1), timesteps, labels)
        return own(x, timesteps, low_res, labels), found
    return own(x, timesteps, labels), theirs(x, timesteps, labels)


def load_theirs(name: str) -> Any:
    """The `UNet2DModel` of our network; strict about names and shapes."""
    from diffusers import UNet2DModel  # type: ignore[import-not-found,unused-ignore]

    model = UNet2DModel.from_config(unet2d_config(network(name))).eval().requires_grad_(False)
    model.load_state_dict(unet2d_weights(network(name)), strict=True)
    return model


def main() -> None:
    """Store what diffusers has, if it computes the same."""
    kept: dict[str, Any] = {}
    for name in NETS:
        model = load_theirs(name)
        expected, found = outputs(name, lambda x, t, y, m=model: m(x, t, class_labels=y).sample)
        assert float((expected - found).abs().max()) < 1e-5 * float(expected.abs().max()), name
        kept[name] = {
            key: [list(value.shape), fingerprint(value)]
            for key, value in model.state_dict().items()
        }
    PATH.write_text(json.dumps(kept, indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
