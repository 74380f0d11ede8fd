"""The loops of the task, and data that is in memory as a whole.

The loss is the cross entropy against the given labels: its minimiser is their law q(k | x).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from noisy_label.noise import Array
from utils.files.atomic import JsonObject
from utils.loops.data import EpochOrder, ItemKey, ShardSampler, rank_batches
from utils.metrics import WHITE
from utils.seeds import stable_seed
from utils.test_util import TestLoop
from utils.train_util import TrainLoop


class TensorBatches:
    """Endless shuffled batches of tensors that are where the network is; resumable.

    Args:
        inputs: (N, ...), on the device.
        labels: (N,), on the device.
        batch_size: items per process.
        seed: of the order and of the shifts.
        max_shift: images are moved by up to this many pixels each way, anew in each epoch.
    """

    def __init__(
        self,
        inputs: torch.Tensor,
        labels: torch.Tensor,
        batch_size: int,
        seed: int,
        max_shift: int = 0,
    ) -> None:
        self._inputs, self._labels, self._batch_size = inputs, labels, batch_size
        self._order, self._seed, self._max_shift = EpochOrder(len(inputs), seed), seed, max_shift
        self._sampler(0)  # a batch larger than the data is an error now, not at the first step

    def listing(self) -> JsonObject:
        """What tells these images and labels from others."""
        digest = hashlib.sha256()
        for part in (self._inputs, self._labels):
            digest.update(part.cpu().contiguous().numpy().tobytes())
        return {"digest": digest.hexdigest(), "num_images": len(self._inputs)}

    def batches(self, position: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """This rank's batches from the ``position``-th item on."""
        for keys in self._sampler(position):
            index = torch.tensor([index for _, _, index in keys], device=self._inputs.device)
            images = self._inputs[index]
            if self._max_shift:
                images = shifted(images, self._shifts(keys), self._max_shift)
            yield images, self._labels[index]

    def _shifts(self, keys: Sequence[ItemKey]) -> torch.Tensor:
        """(N, 2) in [0, 2·max_shift], a function of (seed, epoch, index)."""
        side = 2 * self._max_shift + 1
        drawn = [
            stable_seed(self._seed, "shift", epoch, index) % side**2 for _, epoch, index in keys
        ]
        return torch.tensor([divmod(place, side) for place in drawn], device=self._inputs.device)

    def _sampler(self, position: int) -> ShardSampler:
        return rank_batches(self._order, self._batch_size, position)


def shifted(images: torch.Tensor, offsets: torch.Tensor, max_shift: int) -> torch.Tensor:
    """Each image cut from itself in a black frame of ``max_shift`` pixels, at its offset.

    Args:
        images: (N, 1, H, W).
        offsets: (N, 2), row and column of the cut, 0 to 2·max_shift; max_shift leaves it in place.
        max_shift: width of the frame.
    """
    framed = torch.nn.functional.pad(images[:, 0], (max_shift,) * 4)  # (N, H + 2m, W + 2m)
    rows, columns = (
        offsets[:, axis, None] + torch.arange(images.shape[2 + axis], device=images.device)
        for axis in (0, 1)
    )
    number = torch.arange(len(images), device=images.device)[:, None, None]
    return framed[number, rows[:, :, None], columns[:, None, :]][:, None]


def network_input(images_uint8: torch.Tensor, device: torch.device) -> torch.Tensor:
    """(N, 28, 28) grey levels → (N, 1, 28, 28) in [0, 1], on the device."""
    return images_uint8.to(device)[:, None].float() / WHITE


class LabelTrainLoop(TrainLoop):
    """Cross entropy against the given labels."""

    def compute_loss(
        self, micro_input: torch.Tensor, micro_label: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean of −log softmax(f(x))_y over the slice."""
        logits: torch.Tensor = self.wrapped_model(micro_input)
        return torch.nn.functional.cross_entropy(logits.float(), micro_label), logits

    def _post_process(
        self,
        micro_input: torch.Tensor,
        micro_label: torch.Tensor,
        micro_output: torch.Tensor,
        i: int,
    ) -> None:
        is_same = micro_output.argmax(dim=1) == micro_label
        self.logger.add("agreement_with_labels", is_same.float().mean())


class PredictionLoop(TestLoop):
    """Collects the log-softmax of every image, in order: ``found``, (n, K) float64 a batch."""

    def __init__(self, **rest: Any) -> None:
        super().__init__(**rest)
        self.found: list[torch.Tensor] = []

    def _post_process(
        self, batch: torch.Tensor, output: torch.Tensor, batch_kwargs: object
    ) -> None:
        self.found.append(torch.log_softmax(output.double(), dim=1).cpu())


class Stopped(Exception):
    """A signal came while a net was predicting; nothing was written."""


def predict(model: torch.nn.Module, inputs: torch.Tensor, batch_size: int = 1000) -> Array:
    """The log-softmax of every input, (N, K), float64.

    Raises:
        Stopped: if a signal asked to stop.
    """
    batches = [(part, None) for part in torch.split(inputs, batch_size)]
    loop = PredictionLoop(model=model, data=batches, is_shown=False)
    if not loop.run_loop():
        raise Stopped
    return torch.cat(loop.found).numpy()
