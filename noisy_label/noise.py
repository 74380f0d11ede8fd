"""The laws q(k | x) of noisy labels, draws from them, and a net's predictions against them.

The cross entropy against labels drawn from q is minimised by softmax = q (docs/noisy_labels.md). So
its floor is the entropy of q, and the right class is predicted where q is largest there. Float64; a
law is (N, K), rows sum to 1. Knows no file, network or device.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from noisy_label.flags import BIASED, UNIFORM
from utils.seeds import stable_seed

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

# MNIST's; other sets of its format may have more
NUM_CLASSES = 10
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


@dataclass(frozen=True)
class NoisyLabels:
    """Labels (N,) drawn from the law (N, K) of each image."""

    labels: Labels
    law: Array


def count_classes(labels: Labels) -> int:
    """K of a training set: ten, or more where labels run further."""
    return max(NUM_CLASSES, int(labels.max()) + 1)


def uniform_law(labels: Labels, alpha: float, num_classes: int = NUM_CLASSES) -> Array:
    """α on the right class, (1 − α)/(K − 1) on each other one; ValueError for α outside [0, 1]."""
    _check(alpha)
    law = np.full((len(labels), num_classes), (1.0 - alpha) / (num_classes - 1))
    law[np.arange(len(labels)), labels] = alpha
    return law


def biased_law(labels: Labels, alpha: float, num_classes: int = NUM_CLASSES) -> Array:
    """α on the right class, 1 − α on the next one (the first after the last); errors as above."""
    _check(alpha)
    law = np.zeros((len(labels), num_classes))
    rows = np.arange(len(labels))
    law[rows, labels] = alpha
    law[rows, (labels + 1) % num_classes] = 1.0 - alpha
    return law


def generated_law(log_probabilities: Array, labels: Labels, alpha: float) -> Array:
    """A clean net's law with its right-class probability p scaled by α, the rest scaled to fit.

    q(y) = αp and q(k) = (1 − αp) p(k)/Σ_{j≠y} p(j). The shares of the rest are taken in logarithms,
    so they are right also where p rounds to 1. `log_probabilities` (N, K) are the clean net's
    log-softmax; errors as above.
    """
    _check(alpha)
    right, rest = _right_and_rest(log_probabilities, labels)
    law = (1.0 - alpha * right)[:, None] * rest
    law[np.arange(len(labels)), labels] = alpha * right
    return law


def flip_points(log_probabilities: Array, labels: Labels) -> Array:
    """The α below which `generated_law` has a larger class than the right one, (N,).

    With r the largest share of the rest, αp = (1 − αp) r at α = r / (p (1 + r)); above 1 where the
    clean net itself is wrong.
    """
    right, rest = _right_and_rest(log_probabilities, labels)
    largest = rest.max(axis=1)
    return np.asarray(largest / (np.maximum(right, 1e-300) * (1.0 + largest)), np.float64)


def draw_labels(law: Array, seed: int) -> Labels:
    """One label for each row of a law, (N,), by inversion of its distribution function."""
    uniform = np.random.default_rng(seed).random(len(law))
    # the last sum may fall short of 1 by rounding
    below = np.cumsum(law, axis=1)[:, :-1] <= uniform[:, None]
    return np.asarray(below.sum(axis=1), np.int64)


def entropy(law: Array) -> Array:
    """H(q) of each row, (N,), nats: the floor of the cross entropy."""
    terms = np.where(law > 0.0, law * np.log(np.where(law > 0.0, law, 1.0)), 0.0)
    return np.asarray(-terms.sum(axis=1), np.float64)


def expected_cross_entropy(law: Array, log_probabilities: Array) -> Array:
    """−Σ q log p of each row, (N,), nats: H(q) + KL(q ‖ p)."""
    terms = np.where(law > 0.0, law * log_probabilities, 0.0)
    return np.asarray(-terms.sum(axis=1), np.float64)


def kl_divergence(law: Array, log_probabilities: Array) -> Array:
    """KL(q ‖ p) of each row, (N,), nats; 0 only where the net says q."""
    return expected_cross_entropy(law, log_probabilities) - entropy(law)


def predicted_accuracy(law: Array, labels: Labels) -> float:
    """Share of images whose right class has the largest q; of k equal largest ones each gets 1/k.

    What a net that has learned q gets right.
    """
    is_largest = law >= law.max(axis=1, keepdims=True) * (1.0 - 1e-12)
    right = is_largest[np.arange(len(labels)), labels]
    return float(np.mean(right / is_largest.sum(axis=1)))


def share_of_wrong_largest(law: Array, labels: Labels) -> float:
    """Share of images for which another class has a larger q than the right one."""
    right = law[np.arange(len(labels)), labels]
    return float(np.mean(law.max(axis=1) > right * (1.0 + 1e-12)))


def _right_and_rest(log_probabilities: Array, labels: Labels) -> tuple[Array, Array]:
    """p of the right class, (N,), and each other class's share of the rest, (N, K), 0 at y."""
    rows = np.arange(len(labels))
    others = log_probabilities.astype(np.float64).copy()
    right = np.exp(others[rows, labels])
    others[rows, labels] = -np.inf
    others -= others.max(axis=1, keepdims=True)
    rest = np.exp(others)
    return right, rest / rest.sum(axis=1, keepdims=True)


def _check(alpha: float) -> None:
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"--alpha {alpha:g} must be between 0 and 1: the share of right labels")


def make_noise(
    noise_type: str,
    alpha: float,
    labels: Labels,
    log_probabilities: Array | None,
    seed: int,
    split: str,
    num_classes: int = NUM_CLASSES,
) -> NoisyLabels:
    """The law of a noise type for every image, and a label drawn from each.

    `log_probabilities` are those of a clean net, for generated noise alone, whose right class α
    scales. Each split, training or test, has draws of its own.
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


def rounded_to_one(log_probabilities: Array, labels: Labels) -> tuple[float, float]:
    """What probabilities near 1 would do to a formula that divides by 1 − p + 10⁻⁶ in fp32.

    The share of images whose right class has p = 1 in fp32, and the probability that such a formula
    loses on average.
    """
    p = log_probabilities[np.arange(len(labels)), labels]
    rest = -np.expm1(p)  # 1 − p without cancellation
    return float(np.mean(rest < _ROUNDS_TO_ONE)), float(np.mean(1e-6 / (rest + 1e-6)))


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
