"""Where a network that estimates a positive variance starts: at a spread that images have.

The last convolution of a fresh network is zero, so exp starts at a variance of 1 and softplus at
0.69, a hundred times that of images in [-1, 1]; its bias would need thousands of steps to come
down. Not for what the last layer is: that is ``models.unet``.
"""

from __future__ import annotations

import math

import torch

from utils.metrics import HALF_RANGE_255

# between flat ground and edges of photographs, grey levels
START_STD_255 = 10.0


def start_at_usual_spread(out: torch.nn.Module, last_layer_type: str, num_channels: int) -> None:
    """Sets, in place, the bias of the last ``num_channels`` outputs so that they are the variance
    of ``START_STD_255``.

    Args:
        out: the head of a network; its last module is the convolution.
        last_layer_type: exp, sigmoid or softplus; with none nothing is done.
        num_channels: the outputs that become a variance.
    """
    variance = (START_STD_255 / HALF_RANGE_255) ** 2
    inverse = {
        "exp": math.log(variance),
        "sigmoid": math.log(variance / (1.0 - variance)),
        "softplus": math.log(math.expm1(variance)),
    }
    if last_layer_type not in inverse:
        return
    bias = list(out.children())[-1].bias
    assert isinstance(bias, torch.Tensor)
    with torch.no_grad():
        bias[-num_channels:] = inverse[last_layer_type]
