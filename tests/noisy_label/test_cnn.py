"""The classifier: shapes, names, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from models.cnn import SmallCNN


def test_default_net_is_lenets_shape() -> None:
    model = SmallCNN()
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert shapes["features.0.weight"] == (6, 1, 5, 5)
    assert shapes["features.3.weight"] == (16, 6, 5, 5)
    dense = [
        shape for name, shape in shapes.items() if name.startswith("classifier") and len(shape) == 2
    ]
    assert dense == [(128, 256), (64, 128), (10, 64)]
    assert model(torch.zeros(3, 1, 28, 28)).shape == (3, 10)


def test_widths_are_the_flags() -> None:
    model = SmallCNN(input_dim=64, hidden_dims=(20,))
    assert model.classifier[0].in_features == 64 and model.classifier[0].out_features == 20
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


@pytest.mark.parametrize(("input_dim", "hidden"), [(250, (8,)), (0, (8,)), (64, ()), (64, (8, 0))])
def test_impossible_widths_are_refused(input_dim: int, hidden: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"--input_dim|--hidden_dims"):
        SmallCNN(input_dim, hidden)
