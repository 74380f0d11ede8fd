"""A plain training step: slices, waiting checks of every gradient, AdamW tensor by tensor.

Squared error against the label, as for the mean net.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn


class PlainTrainer:
    """Trains a network in the precision that it has, by the book.

    Args:
        model: in float32.
        lr: learning rate of AdamW.
        microbatch: images of a forward pass; gradients accumulate.
        forward: what calls the network in another way, as compiled; None: it is called itself.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        lr: float,
        microbatch: int,
        forward: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.model, self.microbatch = model.train(), microbatch
        self.forward = forward or self.model
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=lr, weight_decay=0.0, foreach=False, fused=False
        )

    def step(self, batch: Tensor, label: Tensor) -> tuple[float, float]:
        """One update; returns loss and norm of the gradient, as numbers.

        A gradient that is not finite changes nothing.
        """
        self.optimizer.zero_grad()
        total = 0.0
        for start in range(0, len(batch), self.microbatch):
            images = batch[start : start + self.microbatch]
            targets = label[start : start + self.microbatch]
            loss = ((self.forward(images).float() - targets) ** 2).mean() * (
                len(images) / len(batch)
            )
            loss.backward()
            total += loss.item()
        squared, is_finite = 0.0, True
        for parameter in self.model.parameters():
            assert parameter.grad is not None
            squared += parameter.grad.norm().item() ** 2
            is_finite = is_finite and bool(torch.isfinite(parameter.grad).all().item())
        if is_finite:
            self.optimizer.step()
        return total, math.sqrt(squared)
