"""Guidance: a sampler pulled towards a class, by the network itself or by a classifier.

Pure functions on callables; what they return is what a process takes for its network or for the
`cond_fn` of a step (`diffusion.process` says how a gradient enters one).

References: CFG is Ho & Salimans 2022 (arXiv 2207.12598), ADM Dhariwal & Nichol 2021 (arXiv
2105.05233).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from diffusion.types import Condition, Model

CondFn = Callable[..., Tensor]


def classifier_free(model: Model, scale: float, null_label: int | Tensor) -> Model:
    """Return a network guided by the difference between knowing and not knowing the class.

    eps = eps_null + scale·(eps_y - eps_null), CFG equation 6 with scale = 1 + w: 0 leaves the
    class out, 1 is the conditional network, more exaggerates the class. What the network predicts
    may as well be x_start or the mean of x_{t-1}: both are affine in eps with coefficients that
    the two branches share. The channels of a learned variance are those of the conditional branch.

    Both branches are one call with twice the batch, rows of y first; with scale 1 the conditional
    branch is called alone.

    Args:
        model: the network, `model(x, t, y=..., **conditions)`, whose output has the channels of x,
            or twice as many with a learned variance.
        scale: strength of the guidance.
        null_label: what stands for no class in the place of a label: its number, or its embedding
            (E,) where labels are handed over embedded.

    Returns:
        `guided(x, t, y, **conditions)`, x (B, C, ...), t (B,), y (B,) labels or (B, E) embeddings;
        every tensor among the conditions has one row per example. It raises ValueError where y is
        missing or does not go with `null_label`, or where shapes do not fit.

    Raises:
        ValueError: for a scale that is not finite.
    """
    _check_scale("guidance", scale)

    def guided(x: Tensor, t: Tensor, y: Tensor | None = None, **conditions: Any) -> Tensor:
        if y is None:
            raise ValueError(
                "y is missing: guidance needs a label per example, pass model_kwargs={'y': ...}"
            )
        null = _null_rows(y, null_label)
        if scale == 1.0:
            return model(x, t, y=y, **conditions)
        twice = _doubled(conditions, x.shape[0])
        output = model(torch.cat([x, x]), torch.cat([t, t]), y=torch.cat([y, null]), **twice)
        return _extrapolated(output, x, scale)

    return guided


def classifier_gradient(
    classifier: Callable[[Tensor, Tensor], Tensor], scale: float, labels: Tensor | None = None
) -> CondFn:
    """Return the gradient of a classifier's log-probability, for `StepOptions.cond_fn`.

    scale·∇_x log p(y | x_t), p = softmax of the logits (ADM equation 10): algorithm 1 adds it,
    times the variance, to the mean of a step, algorithm 2 takes it, times √(1 - alpha_bar_t), from
    the noise. A scale above 1 samples p(x)·p(y | x)^scale, up to a constant and only approximately.

    Args:
        classifier: `classifier(x, t)`, logits (B, K) of x (B, C, ...) at timesteps t (B,). A
            process hands over the same t as to its network, so that a chain may be shorter in
            sampling than in training. No row may depend on another.
        scale: strength of the guidance.
        labels: (B,) the class of each example; None to take y of the network's conditions. Needed
            where the network gets no labels, or gets them embedded.

    Returns:
        `cond_fn(x, t, y=None, **conditions)`, the gradient in shape and dtype of x, also where
        gradients are off. The other conditions are the network's and not passed on. It raises
        ValueError where there are no labels, or they are not (B,) integers in range.

    Raises:
        ValueError: for a scale that is not finite.
    """
    _check_scale("classifier", scale)

    def cond_fn(x: Tensor, t: Tensor, y: Tensor | None = None, **conditions: Any) -> Tensor:
        wanted = y if labels is None else labels
        # Inference tensors, which a caller's loop may hold, take part in no graph; their copies do.
        with torch.inference_mode(False), torch.enable_grad():
            x_in = x.detach().clone().requires_grad_()
            logits = classifier(x_in, t.clone())  # (B, K)
            chosen = _checked_labels(wanted, logits).clone().unsqueeze(1)  # (B, 1)
            # Half precision would round most log-probabilities of many classes to the same few.
            logits = logits.float() if logits.dtype.itemsize < 4 else logits
            log_probs = torch.log_softmax(logits, dim=1).gather(1, chosen)  # (B, 1)
            # Rows do not depend on each other, so the gradient of the sum has that of each.
            gradient = torch.autograd.grad(log_probs.sum(), x_in)[0]
        return scale * gradient

    return cond_fn


def _check_scale(name: str, scale: float) -> None:
    if not math.isfinite(scale):
        raise ValueError(f"--{name}_scale {scale}: give a finite number")


def _extrapolated(output: Tensor, x: Tensor, scale: float) -> Tensor:
    """Return the guided output (B, C or 2C, ...) for that of both branches (2B, C or 2C, ...)."""
    num_rows, num_channels = 2 * x.shape[0], x.shape[1]
    if output.shape[0] != num_rows or output.shape[1] not in (num_channels, 2 * num_channels):
        raise ValueError(
            f"the network returned shape {tuple(output.shape)} for {num_rows} examples of "
            f"{num_channels} channels: guidance needs as many or, with a learned variance, twice "
            "as many"
        )
    known, unknown = output.chunk(2)  # (B, C or 2C, ...) each
    eps_y, variance_values = known[:, :num_channels], known[:, num_channels:]
    eps_null = unknown[:, :num_channels]
    return torch.cat([eps_null + scale * (eps_y - eps_null), variance_values], dim=1)


def _null_rows(y: Tensor, null_label: int | Tensor) -> Tensor:
    """Return what stands for no class in the shape of `y`."""
    is_embedded = y.is_floating_point()
    if not isinstance(null_label, Tensor):
        if is_embedded:
            raise ValueError(
                f"y {tuple(y.shape)} of {y.dtype} is embedded, null_label {null_label} a number: "
                "give the embedding of no class, (E,)"
            )
        return torch.full_like(y, null_label)
    if not is_embedded or null_label.shape != y.shape[1:]:
        raise ValueError(
            f"null_label is an embedding of shape {tuple(null_label.shape)}, y {tuple(y.shape)} of "
            f"{y.dtype}: give both as embeddings, (E,) and (B, E), or both as labels"
        )
    return null_label.to(y).expand_as(y)


def _doubled(conditions: Condition, num_rows: int) -> dict[str, object]:
    """Return the conditions of both branches; what is no tensor is the same for all rows."""
    twice = dict(conditions)
    for name, value in conditions.items():
        if not isinstance(value, Tensor):
            continue
        if value.ndim == 0 or value.shape[0] != num_rows:
            raise ValueError(
                f"{name} of shape {tuple(value.shape)}: guidance doubles the batch, so give one "
                f"row per example, {num_rows}"
            )
        twice[name] = torch.cat([value, value])
    return twice


def _checked_labels(y: Tensor | None, logits: Tensor) -> Tensor:
    """Return the labels, in range where they lie on the CPU: elsewhere a look would wait."""
    if y is None:
        raise ValueError(
            "there are no labels: pass model_kwargs={'y': ...}, or labels=... where the network "
            "takes none"
        )
    if y.is_floating_point() or y.shape != logits.shape[:1]:
        raise ValueError(
            f"labels {tuple(y.shape)} of {y.dtype}: a classifier needs ({logits.shape[0]},) "
            "integers; where the network gets them embedded, pass the integers as labels=..."
        )
    if y.device.type == "cpu":
        wrong = y[(y < 0) | (y >= logits.shape[1])]
        if wrong.numel() > 0:
            raise ValueError(
                f"label {int(wrong[0])}: the classifier knows 0 to {logits.shape[1] - 1}"
            )
    return y
