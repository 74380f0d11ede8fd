"""The small classifier of the noisy-label task: LeNet-5's shape with rectifiers and max pooling.

Source: LeCun et al., "Gradient-based learning applied to document recognition", 1998, section II.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

# a 28×28 image leaves two 5×5 convolutions, each halved, as 4×4 places
_NUM_PLACES = 16
_FIRST_CHANNELS = 6


class SmallCNN(nn.Module):
    """Logits of 28×28 grey images.

    Positions in the two `nn.Sequential` are the names in a state_dict.

    Args:
        input_dim: features that the convolutions hand on, a multiple of 16: 16 places of
            `input_dim / 16` channels.
        hidden_dims: widths of the hidden layers behind them.
        num_classes: logits.
    """

    def __init__(
        self,
        input_dim: int = 256,
        hidden_dims: Sequence[int] = (128, 64),
        num_classes: int = 10,
    ) -> None:
        super().__init__()
        if input_dim < _NUM_PLACES or input_dim % _NUM_PLACES:
            raise ValueError(f"--input_dim {input_dim} must be a positive multiple of 16")
        if not hidden_dims or min(hidden_dims) < 1:
            raise ValueError(f"--hidden_dims {list(hidden_dims)} must be positive numbers")
        self.features = nn.Sequential(
            nn.Conv2d(1, _FIRST_CHANNELS, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(_FIRST_CHANNELS, input_dim // _NUM_PLACES, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
        )
        layers: list[nn.Module] = []
        width = input_dim
        for hidden in hidden_dims:
            layers += [nn.Linear(width, hidden), nn.ReLU()]
            width = hidden
        self.classifier = nn.Sequential(*layers, nn.Linear(width, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, num_classes) of x, (N, 1, 28, 28) in [0, 1]."""
        logits: Tensor = self.classifier(self.features(x))
        return logits
