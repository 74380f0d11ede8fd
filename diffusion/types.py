"""What a caller chooses about a process: its callables, its types, the options of a step.

IDDPM is Nichol & Dhariwal 2021 (arXiv 2102.09672).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

# model(x, t, **model_kwargs) -> output; x (B, C, ...), t (B,) as the process maps it.
Model = Callable[..., Tensor]
# noise_fn(k) -> standard normal noise in the shape of x, for the k-th step of a loop.
NoiseFn = Callable[[int], Tensor]
# what a network is given beside x and t, by keyword: tensors of B rows, or what is of all rows
Condition = Mapping[str, object]


class ModelMeanType(enum.Enum):
    """What the network predicts."""

    START_X = enum.auto()  # x_start
    EPSILON = enum.auto()  # the noise in x_t


class ModelVarType(enum.Enum):
    """Where the variance of p(x_{t-1} | x_t) comes from."""

    LEARNED = enum.auto()  # the network predicts its logarithm
    FIXED_SMALL = enum.auto()  # the posterior variance
    FIXED_LARGE = enum.auto()  # beta_t
    LEARNED_RANGE = enum.auto()  # the network interpolates between the two, IDDPM equation 15

    def is_learned(self) -> bool:
        """Return whether the network's output holds values of the variance."""
        return self in (ModelVarType.LEARNED, ModelVarType.LEARNED_RANGE)


class LossType(enum.Enum):
    """What `losses.training_losses` minimises."""

    MSE = enum.auto()  # error of the prediction, plus the bound for a learned variance
    RESCALED_MSE = enum.auto()  # the same with the bound weighted by T/1000, IDDPM equation 16
    KL = enum.auto()  # the bound
    RESCALED_KL = enum.auto()  # the bound times T, an estimate of the sum over timesteps


class PredictionLoss(enum.Enum):
    """How an error e of the prediction counts, where it is not the bound that is minimised.

    Only the squared error has the conditional mean as its minimiser, which the reverse process
    asks for (docs/theory.md, section 1); the others are robust to large errors instead.
    """

    MSE = "mse"  # e²
    L1 = "l1"  # |e|: the conditional median
    HUBER = "huber"  # ½e² below 1, |e| − ½ above (Huber 1964)
    SMOOTH_L1 = "smooth_l1"  # the same, as its threshold is 1 too (Girshick 2015)


@dataclass(frozen=True)
class StepOptions:
    """How one step of the reverse process is taken.

    Attributes:
        clip_denoised: clamp the predicted x_start to [-1, 1].
        denoised_fn: applied to the predicted x_start before the clamp.
        cond_fn: `cond_fn(x, t, **model_kwargs)`, the gradient of log p(y | x_t) with respect to
            x_t, which guides the step (Dhariwal & Nichol 2021, algorithms 1 and 2).
        model_kwargs: conditioning, passed on to the network and to `cond_fn` at every step as it
            is: what does not depend on x and t is computed once, by the caller.
        eta: noise of a DDIM step, from 0 (deterministic) to 1 (as ancestral); other steps have
            no such choice and refuse any other value than 0.
    """

    clip_denoised: bool = True
    denoised_fn: Callable[[Tensor], Tensor] | None = None
    cond_fn: Callable[..., Tensor] | None = None
    model_kwargs: Condition | None = None
    eta: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.eta <= 1.0:
            raise ValueError(f"eta is a share of the ancestral noise in [0, 1], got {self.eta}")
