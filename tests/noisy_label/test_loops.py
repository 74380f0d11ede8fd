"""Training converges to the law of its labels; the order of the data is resumable."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch

from models.cnn import SmallCNN
from noisy_label.loops import LabelTrainLoop, TensorBatches, network_input, predict

CPU = torch.device("cpu")
# three states of x and the law of the label in each
LAW = np.array(
    [
        [0.50, 0.30, 0.20, 0, 0, 0, 0, 0, 0, 0],
        [0.05, 0.05, 0.90, 0, 0, 0, 0, 0, 0, 0],
        [0.10, 0.10, 0.10, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1],
    ]
)
COPIES = 20


def _table() -> tuple[torch.Tensor, torch.Tensor]:
    """Twenty copies of each state, whose labels have exactly the frequencies of the law."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randint(0, 256, (3, 28, 28), generator=generator, dtype=torch.uint8)
    counts = np.rint(LAW * COPIES).astype(int)
    labels = [np.repeat(np.arange(10), row) for row in counts]
    images = states.repeat_interleave(COPIES, dim=0)
    return network_input(images, CPU), torch.from_numpy(np.concatenate(labels))


def test_softmax_of_a_table_of_three_states_is_the_law() -> None:
    """Each state is one image: the minimiser of the cross entropy is known in closed form."""
    inputs, labels = _table()
    torch.manual_seed(0)
    model = SmallCNN(input_dim=64, hidden_dims=(32,))
    steps = 250
    data = TensorBatches(inputs, labels, len(labels), seed=0)
    flags: dict[str, Any] = {"lr": 1e-2, "lr_anneal_steps": steps, "max_step": steps}
    assert LabelTrainLoop(model=model, data=data, batch_size=len(labels), **flags).run_loop()
    softmax = np.exp(predict(model, inputs[::COPIES]))
    np.testing.assert_allclose(softmax, LAW, atol=1e-2)


def test_order_goes_on_where_it_was() -> None:
    labels = torch.arange(10)
    data = TensorBatches(labels[:, None].float(), labels, 4, seed=3)
    whole = [label.tolist() for _, label in itertools.islice(data.batches(0), 6)]
    rest = [label.tolist() for _, label in itertools.islice(data.batches(12), 3)]
    assert whole[3:] == rest
    assert sorted(itertools.chain(*whole))[:4] == [0, 0, 1, 1]  # 24 of the stream: two epochs
    for batch, label in itertools.islice(data.batches(0), 3):
        assert torch.equal(batch[:, 0].long(), label)


def test_predictions_are_in_order_and_sum_to_one() -> None:
    inputs, _ = _table()
    model = SmallCNN()
    found = predict(model, inputs, batch_size=7)
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1)
    with torch.no_grad():
        expected = torch.log_softmax(model(inputs).double(), dim=1)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
