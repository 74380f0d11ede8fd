"""Draws a batch of samples that a signal may interrupt; which ones, and where to, is a task's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from diffusion.samplers import SamplerOptions, gaussian_noise_fn, sample_loop_progressive
from diffusion.types import Model

if TYPE_CHECKING:
    from diffusion.process import GaussianDiffusion


def draw_samples(
    diffusion: GaussianDiffusion,
    model: Model,
    generators: Sequence[torch.Generator],
    shape: Sequence[int],
    options: SamplerOptions,
    is_stopped: Callable[[], bool],
) -> torch.Tensor | None:
    """One sample per generator, (N, *shape) in [-1, 1]; None as soon as ``is_stopped`` says so.

    Args:
        diffusion: the respaced process.
        model: the denoiser.
        generators: of the noise of each sample, on the device to draw on.
        shape: (C, H, W).
        options: how to integrate.
        is_stopped: asked after every step.
    """
    size = (len(generators), *shape)
    x_T, noise_fn = gaussian_noise_fn(generators, size, generators[0].device)
    sample = x_T
    for out in sample_loop_progressive(diffusion, model, x_T, noise_fn, options):
        sample = out["sample"]
        if is_stopped():
            return None
    return sample
