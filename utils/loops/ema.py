"""Exponential moving averages of weights, one per decay rate; who uses them is a task's choice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch

from utils.fp16_util import MixedPrecisionTrainer
from utils.untrusted.state_dict import load_state_dict


class WeightAverages:
    """avg ← rate · avg + (1 − rate) · weights after every step, in fp32.

    Args:
        rates: decay rates in [0, 1); empty for none.
        masters: the fp32 parameters to follow.
    """

    def __init__(self, rates: Sequence[float], masters: Sequence[torch.Tensor]) -> None:
        self._averages = {str(rate): [m.detach().clone() for m in masters] for rate in rates}

    @torch.no_grad()
    def update(self, masters: Sequence[torch.Tensor]) -> None:
        """Moves every average towards the current weights."""
        for rate, average in self._averages.items():
            torch._foreach_lerp_(average, list(masters), 1.0 - float(rate))

    def items(self) -> Iterator[tuple[str, list[torch.Tensor]]]:
        """(rate as written in file names, averaged parameters)."""
        yield from self._averages.items()

    @torch.no_grad()
    def resume(
        self,
        paths: Mapping[str, str],
        trainer: MixedPrecisionTrainer,
        warn: Callable[[str], None],
    ) -> None:
        """Takes the averages from files; one that has no file starts at the current weights."""
        for rate, average in self._averages.items():
            source: Sequence[torch.Tensor] = trainer.masters
            if rate in paths:
                state = load_state_dict(trainer.model, paths[rate], warn)
                source = [state[name] for name in trainer.names]
            else:
                warn(f"warning: the checkpoint has no average with rate {rate}; it starts anew")
            for target, value in zip(average, source, strict=True):
                target.copy_(value)
