"""Training converges to the law of its labels; the order of the data is resumable."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch

from models.cnn import SmallCNN
from noisy_label.tasks import LabelTrainLoop, TensorBatches, network_input, predict, shifted

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


def test_shift_moves_an_image_and_fills_with_black() -> None:
    images = torch.arange(1.0, 10.0).reshape(1, 1, 3, 3).repeat(3, 1, 1, 1)
    found = shifted(images, torch.tensor([[1, 1], [0, 1], [1, 2]]), max_shift=1)
    assert torch.equal(found[0], images[0])
    assert found[1, 0].tolist() == [[0, 0, 0], [1, 2, 3], [4, 5, 6]]  # down
    assert found[2, 0].tolist() == [[2, 3, 0], [5, 6, 0], [8, 9, 0]]  # to the left


def test_shifts_change_with_the_epoch_and_go_on_where_they_were() -> None:
    images = torch.rand(6, 1, 28, 28)
    data = TensorBatches(images, torch.arange(6), 3, seed=1, max_shift=2)
    whole = list(itertools.islice(data.batches(0), 4))
    rest = list(itertools.islice(data.batches(6), 2))
    for (batch, _), (again, _) in zip(whole[2:], rest, strict=True):
        assert torch.equal(batch, again)
    seen = [torch.cat([whole[i][0], whole[i + 1][0]]) for i in (0, 2)]
    order = [torch.cat([whole[i][1], whole[i + 1][1]]).argsort() for i in (0, 2)]
    assert not torch.equal(seen[0][order[0]], seen[1][order[1]])
