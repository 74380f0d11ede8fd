"""Figures of one trained net against the law of its labels: what ``predict_analysis`` says."""

from __future__ import annotations

from typing import Any

import numpy as np

from noisy_label.flags import BIASED, UNIFORM
from noisy_label.labels import NoisyLabels
from noisy_label.noise import (
    NUM_CLASSES,
    Array,
    Labels,
    biased_law,
    draw_labels,
    entropy,
    expected_cross_entropy,
    generated_law,
    kl_divergence,
    predicted_accuracy,
    share_of_wrong_largest,
    uniform_law,
)
from utils.seeds import stable_seed

# probabilities of the right class that fp32 cannot tell from 1
_ROUNDS_TO_ONE = 2.0**-25
NOISE_FIGURES = ("ratio_of_correct_labels", "expected_ratio", "largest_is_wrong", "entropy")
NET_FIGURES = (
    "accuracy",
    "predicted_accuracy",
    "cross_entropy",
    "floor",
    "kl",
    "cross_entropy_of_drawn",
)


def make_noise(
    noise_type: str,
    alpha: float,
    labels: Labels,
    log_probabilities: Array | None,
    seed: int,
    split: str,
    num_classes: int = NUM_CLASSES,
) -> NoisyLabels:
    """The law of one noise type for every image, and a label drawn from each.

    Args:
        noise_type: ``uniform``, ``fix`` or ``model``.
        alpha: share of right labels, or scale of the clean net's right class.
        labels: the right ones.
        log_probabilities: of a clean net; for ``model`` only.
        seed: of the draws.
        split: training or test: their draws differ.
        num_classes: K; for ``model`` those of the clean net.
    """
    if noise_type == UNIFORM:
        law = uniform_law(labels, alpha, num_classes)
    elif noise_type == BIASED:
        law = biased_law(labels, alpha, num_classes)
    else:
        assert log_probabilities is not None
        law = generated_law(log_probabilities, labels, alpha)
    return NoisyLabels(draw_labels(law, stable_seed(seed, noise_type, f"{alpha:g}", split)), law)


def noise_figures(noisy: NoisyLabels, labels: Labels) -> dict[str, float]:
    """What the labels are like: how many are right, drawn and expected; how often q misleads."""
    rows = np.arange(len(labels))
    figures = (
        float(np.mean(noisy.labels == labels)),
        float(np.mean(noisy.law[rows, labels])),
        share_of_wrong_largest(noisy.law, labels),
        float(np.mean(entropy(noisy.law))),
    )
    return dict(zip(NOISE_FIGURES, figures, strict=True))


def rounded_to_one(log_probabilities: Array, labels: Labels) -> dict[str, float]:
    """What probabilities near 1 would do to a formula that divides by 1 − p + 10⁻⁶ in fp32.

    Returns:
        share of images whose right class has p = 1 in fp32, and the probability that such a
        formula loses, mean and largest over the images.
    """
    p = log_probabilities[np.arange(len(labels)), labels]
    rest = -np.expm1(p)  # 1 − p without cancellation
    lost = 1e-6 / (rest + 1e-6)
    return {
        "share_rounding_to_one": float(np.mean(rest < _ROUNDS_TO_ONE)),
        "mean_mass_lost_by_1e-6": float(lost.mean()),
        "largest_mass_lost_by_1e-6": float(lost.max()),
    }


def accuracy(log_probabilities: Array, labels: Labels) -> float:
    """Share of images whose most probable class is the right one."""
    return float(np.mean(log_probabilities.argmax(axis=1) == labels))


def net_figures(log_probabilities: Array, labels: Labels, noisy: NoisyLabels) -> dict[str, float]:
    """A net on one set of images against the law of their labels; nats."""
    drawn = log_probabilities[np.arange(len(labels)), noisy.labels]
    figures = (
        accuracy(log_probabilities, labels),
        predicted_accuracy(noisy.law, labels),
        float(np.mean(expected_cross_entropy(noisy.law, log_probabilities))),
        float(np.mean(entropy(noisy.law))),
        float(np.mean(kl_divergence(noisy.law, log_probabilities))),
        float(-np.mean(drawn)),
    )
    return dict(zip(NET_FIGURES, figures, strict=True))


def class_means(log_probabilities: Array, labels: Labels, law: Array) -> dict[str, Any]:
    """Mean softmax and mean law of the images of each right class, (K, K) lists."""
    kinds = range(law.shape[1])
    members = [labels == kind for kind in kinds]
    return {
        "softmax": [np.exp(log_probabilities[m]).mean(axis=0).tolist() for m in members if m.any()],
        "law": [law[m].mean(axis=0).tolist() for m in members if m.any()],
        "classes": [kind for kind, m in zip(kinds, members, strict=True) if m.any()],
    }
