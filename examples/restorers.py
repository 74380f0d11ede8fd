"""Restorers for `--mean_module`: functions that take the place of a mean net (docs/restorers.md).

    python sr_var_train.py --mean_module examples.restorers:bicubic …

Each takes images (N, C, h, w) in [-1, 1] and the size (H, W) that is wanted, and returns
(N, C, H, W). What is behind it is free: a formula, a library, a published network with its weights.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def bicubic(low_res: Tensor, size: tuple[int, int]) -> Tensor:
    """Pillow's bicubic interpolation (a = -0.5) of each channel, in floats."""
    height, width = size
    planes = low_res.flatten(0, 1).cpu().numpy()
    large = [
        np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.BICUBIC))
        for plane in planes
    ]
    return torch.from_numpy(np.stack(large)).reshape(*low_res.shape[:2], height, width)


def nl_means(noisy: Tensor, size: tuple[int, int]) -> Tensor:
    """Non-local means (scikit-image) of noisy images, as strong as their own noise asks for.

    The noise of an image is estimated from its second differences (Immerkær 1996).
    """
    from skimage.restoration import denoise_nl_means

    if tuple(noisy.shape[2:]) != tuple(size):
        raise ValueError("non-local means enlarge nothing; train with --degradation noise:…")
    images = noisy.permute(0, 2, 3, 1).cpu().double().numpy()
    found = []
    for image in images:
        second = image[2:] - 2 * image[1:-1] + image[:-2]
        second = second[:, 2:] - 2 * second[:, 1:-1] + second[:, :-2]
        sigma = float(np.sqrt(np.pi / 2) * np.abs(second).mean() / 6)
        how = {"patch_size": 5, "patch_distance": 6, "h": 0.8 * sigma, "sigma": sigma}
        found.append(denoise_nl_means(image, fast_mode=True, channel_axis=2, **how))
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).float()
