"""The loops of the task, and data that is in memory as a whole.

The loss is the cross entropy against the given labels: its minimiser is their law q(k | x).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from noisy_label.noise import Array
from utils.data_util import EpochOrder, ShardSampler, rank_batches
from utils.test_util import TestLoop
from utils.train_util import TrainLoop


class TensorBatches:
    """Endless shuffled batches of tensors that are where the network is; resumable.

    Args:
        inputs: (N, ...), on the device.
        labels: (N,), on the device.
        batch_size: items per process.
        seed: of the order.
    """

    def __init__(
        self, inputs: torch.Tensor, labels: torch.Tensor, batch_size: int, seed: int
    ) -> None:
        self._inputs, self._labels, self._batch_size = inputs, labels, batch_size
        self._order = EpochOrder(len(inputs), seed)
        self._sampler(0)  # a batch larger than the data is an error now, not at the first step

    def batches(self, position: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """This rank's batches from the ``position``-th item on."""
        for keys in self._sampler(position):
            index = torch.tensor([index for _, _, index in keys], device=self._inputs.device)
            yield self._inputs[index], self._labels[index]

    def _sampler(self, position: int) -> ShardSampler:
        return rank_batches(self._order, self._batch_size, position)


def network_input(images_uint8: torch.Tensor, device: torch.device) -> torch.Tensor:
    """(N, 28, 28) grey levels → (N, 1, 28, 28) in [0, 1], on the device."""
    return images_uint8.to(device)[:, None].float() / 255.0


class LabelTrainLoop(TrainLoop):
    """Cross entropy against the given labels."""

    def compute_loss(self, micro_input: Any, micro_label: Any) -> tuple[torch.Tensor, Any]:
        """Mean of −log softmax(f(x))_y over the slice."""
        logits = self.wrapped_model(micro_input)
        return torch.nn.functional.cross_entropy(logits.float(), micro_label), logits

    def _post_process(self, micro_input: Any, micro_label: Any, micro_output: Any, i: int) -> None:
        is_same = micro_output.argmax(dim=1) == micro_label
        self.logger.add("agreement_with_labels", is_same.float().mean())


class PredictionLoop(TestLoop):
    """Collects the log-softmax of every image, in order."""

    def __init__(self, **rest: Any) -> None:
        super().__init__(**rest)
        self._parts: list[torch.Tensor] = []

    def _post_process(self, batch: Any, output: Any, batch_kwargs: Any) -> None:
        self._parts.append(torch.log_softmax(output.double(), dim=1).cpu())

    def log_probabilities(self) -> Array:
        """(N, 10), float64, of what has passed."""
        return np.asarray(torch.cat(self._parts).numpy(), np.float64)


class Stopped(Exception):
    """A signal came while a net was predicting; nothing was written."""


def predict(model: torch.nn.Module, inputs: torch.Tensor, batch_size: int = 1000) -> Array:
    """The log-softmax of every input, (N, 10), float64.

    Raises:
        Stopped: if a signal asked to stop.
    """
    starts = range(0, len(inputs), batch_size)
    batches: list[tuple[torch.Tensor, dict[str, Any]]] = [
        (inputs[start : start + batch_size], {}) for start in starts
    ]
    loop = PredictionLoop(model=model, data=batches, is_shown=False)
    if not loop.run_loop():
        raise Stopped
    return loop.log_probabilities()
