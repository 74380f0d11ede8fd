"""Accuracies on MNIST's test images, published with the theorem (arXiv 2202.03674), by noise type
and ratio of right labels: LeNet-like net, Adam at 1e-4, batches of 128, 20 000 steps.
"""

from __future__ import annotations

from types import MappingProxyType

from noisy_label.flags import BIASED, GENERATED, UNIFORM

RATIOS = (0.89, 0.80, 0.71, 0.62, 0.53, 0.43, 0.33, 0.23)
ACCURACY = MappingProxyType(
    {
        UNIFORM: (0.9835, 0.9814, 0.9814, 0.9826, 0.9765, 0.9737, 0.9651, 0.9557),
        BIASED: (0.9837, 0.9795, 0.9695, 0.9098, 0.5707, 0.1887, 0.0397, 0.0066),
        GENERATED: (0.9820, 0.9756, 0.9707, 0.9401, 0.8551, 0.6685, 0.4392, 0.2237),
    }
)


def published_accuracy(noise_type: str, alpha: float) -> float | None:
    """The published figure of a run; None for a ratio that was not published."""
    if alpha not in RATIOS:
        return None
    return ACCURACY[noise_type][RATIOS.index(alpha)]
