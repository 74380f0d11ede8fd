"""Labels with added noise: what the nets learn of labels that are not clean (Noise2Noise).

With Y′ = Y + e, e independent of (X, Y) and E e = 0, E[Y′ | X] = E[Y | X] and
Var[Y′ | X] = Var[Y | X] + Var e (docs/theory.md, eq. 67; Lehtinen et al. 2018, arXiv 1803.04189).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from ddpm.train_loop import seeded_noise
from sr_var.flags.scripts import NoisyTrainFlags
from sr_var.flags.validation import NetTrainFlags
from utils.files.atomic import JsonObject
from utils.metrics import HALF_RANGE_255
from utils.seeds import stable_seed

# of the std in a checkpoint's state
LABEL_NOISE_KEY = "label_noise"


@dataclass(frozen=True)
class LabelNoise:
    """Normal noise of one std for every value of a label, a function of (seed, net, item).

    Attributes:
        std: in grey levels.
        seed: of the training.
        net: which net is trained; the mean and the variance net meet other draws, so that no
            residual holds noise that the mean net may have learned.
    """

    std: float
    seed: int
    net: str

    @classmethod
    def of(cls, train: NetTrainFlags) -> LabelNoise | None:
        """The noise that the flags of a training ask for; None where they ask for none."""
        if not isinstance(train, NoisyTrainFlags) or not train.label_noise:
            return None
        return cls(train.label_noise, train.seed, train.net)

    def added_to(self, label: Tensor, items: Sequence[int | str]) -> Tensor:
        """Y + e, not clipped, for labels (N, C, H, W) in [-1, 1].

        An item is a position in the stream of the training data, or the name of an image that is
        judged; N of them.
        """
        seeds = [stable_seed(self.seed, "label noise", self.net, item) for item in items]
        noise = seeded_noise(seeds, tuple(label.shape[1:]), label.device)
        return label + (self.std / HALF_RANGE_255) * noise


def with_label_noise(noise: LabelNoise | None, label: Tensor, items: Sequence[int | str]) -> Tensor:
    """`LabelNoise.added_to`; the label itself without noise."""
    return label if noise is None else noise.added_to(label, items)


def label_noise_state(std: float) -> JsonObject:
    """What a checkpoint remembers of the noise; nothing of none, as before there was any."""
    return {LABEL_NOISE_KEY: std} if std else {}


def say_label_noise(state: JsonObject, path: str, log: Callable[[str], None]) -> None:
    """Say so where the variances of the net at `path` hold the noise of its labels.

    `state` is stored with the checkpoint, empty for one of another tool.
    """
    std = state.get(LABEL_NOISE_KEY)
    if isinstance(std, (int, float)) and std:
        log(
            f"notice: {path} was trained with --label_noise {std:g}: its variances hold the "
            f"{std**2:g} grey levels² of that noise"
        )
