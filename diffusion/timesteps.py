"""Which timesteps to train on: uniform, or in proportion to how large their losses have been."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor


class ScheduleSampler(ABC):
    """A distribution over timesteps, and the weights that keep the loss unbiased under it.

    sum_t L_t / T = E_{t~p}[L_t / (T p_t)], so each drawn example's loss is to be multiplied by
    1 / (T p_t).
    """

    def __init__(self, num_timesteps: int) -> None:
        if num_timesteps < 1:
            raise ValueError(f"a process has at least 1 timestep, got {num_timesteps}")
        self.num_timesteps = num_timesteps

    @abstractmethod
    def weights(self) -> Tensor:
        """Return (T,) positive float64 weights on the CPU, proportional to the probabilities."""

    def sample(self, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Draw a timestep for each of B seeds, a function of that seed.

        Returns:
            (B,) int64 timesteps and the (B,) float32 weights of their losses, on the CPU.
        """
        weights = self.weights().numpy()
        probabilities = weights / weights.sum()
        uniform = np.array([np.random.default_rng(seed).random() for seed in seeds])
        # the last entry of the cumulated sum may fall short of 1 by rounding
        t = np.searchsorted(np.cumsum(probabilities)[:-1], uniform, side="right")
        loss_weights = 1 / (len(probabilities) * probabilities[t])
        return torch.from_numpy(t), torch.from_numpy(loss_weights).float()

    def state_dict(self) -> dict[str, Tensor]:
        """Return what has been learned about the losses, as tensors; here nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state_dict` returned.

        Raises:
            ValueError: when the state is that of another kind or size of sampler.
        """
        found = {name: tuple(value.shape) for name, value in state.items()}
        wanted = {name: tuple(value.shape) for name, value in self.state_dict().items()}
        if found != wanted:
            raise ValueError(
                f"the state of this schedule sampler has {wanted or 'nothing'}, got {found}: "
                "resume with the schedule sampler and number of timesteps that were trained with"
            )


class UniformSampler(ScheduleSampler):
    """Every timestep alike."""

    def weights(self) -> Tensor:
        """Return ones."""
        return torch.ones(self.num_timesteps, dtype=torch.float64)


class LossSecondMomentResampler(ScheduleSampler):
    """Probabilities in proportion to the root mean square of each timestep's latest losses.

    p_t ∝ √E[L_t²], which minimises the variance of the estimated bound (Nichol & Dhariwal 2021,
    arXiv 2102.09672, equation 18), mixed with a small uniform part so that no timestep is left
    out. Uniform until each timestep has a full history.

    Args:
        num_timesteps: number T of timesteps.
        history_per_term: how many losses of each timestep are remembered.
        uniform_prob: share of the uniform part, in [0, 1].
    """

    def __init__(
        self, num_timesteps: int, history_per_term: int = 10, uniform_prob: float = 0.001
    ) -> None:
        super().__init__(num_timesteps)
        if history_per_term < 1:
            raise ValueError(f"history_per_term must be at least 1, got {history_per_term}")
        if not 0.0 <= uniform_prob <= 1.0:
            raise ValueError(f"uniform_prob is a share in [0, 1], got {uniform_prob}")
        self.history_per_term = history_per_term
        self.uniform_prob = uniform_prob
        # A ring: loss number n of a timestep lies at n % history_per_term, as the weights depend
        # on which losses are remembered and not on their order.
        self._losses = torch.zeros(num_timesteps, history_per_term, dtype=torch.float64)
        self._counts = torch.zeros(num_timesteps, dtype=torch.int64)

    def weights(self) -> Tensor:
        """Return the root mean square losses, normalised and mixed with the uniform part."""
        if not bool((self._counts >= self.history_per_term).all()):
            return torch.ones(self.num_timesteps, dtype=torch.float64)
        root_mean_square = self._losses.square().mean(dim=1).sqrt()  # (T,)
        total = root_mean_square.sum()
        if total == 0.0:
            return torch.ones(self.num_timesteps, dtype=torch.float64)
        share = root_mean_square / total
        return (1.0 - self.uniform_prob) * share + self.uniform_prob / self.num_timesteps

    def update_with_all_losses(self, timesteps: Tensor, losses: Tensor) -> None:
        """Remember the losses of one step, gathered from all processes in the same order.

        Losses that are not finite are left out: one would make every weight undefined.

        Args:
            timesteps: (N,) int64 timesteps.
            losses: (N,) losses at these, before weighting.

        Raises:
            ValueError: when the shapes differ or a timestep does not exist.
        """
        if timesteps.ndim != 1 or timesteps.shape != losses.shape:
            raise ValueError(
                f"timesteps and losses must be (N,), got {tuple(timesteps.shape)} and "
                f"{tuple(losses.shape)}"
            )
        # The next draw needs the weights on the host, so the losses go there in one copy each.
        host_losses = losses.detach().double().cpu()
        host_timesteps = timesteps.cpu()
        if bool(((host_timesteps < 0) | (host_timesteps >= self.num_timesteps)).any()):
            raise ValueError(
                f"timesteps must lie in [0, {self.num_timesteps}), got {host_timesteps.tolist()}"
            )
        is_finite = host_losses.isfinite()
        for t, loss in zip(
            host_timesteps[is_finite].tolist(), host_losses[is_finite].tolist(), strict=True
        ):
            self._losses[t, int(self._counts[t]) % self.history_per_term] = loss
            self._counts[t] += 1

    def state_dict(self) -> dict[str, Tensor]:
        """Return the remembered losses (T, history_per_term) and their counts (T,)."""
        return {"losses": self._losses.clone(), "counts": self._counts.clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state_dict` returned, for the same T and history."""
        super().load_state_dict(state)
        self._losses = state["losses"].to(self._losses, copy=True)
        self._counts = state["counts"].to(self._counts, copy=True)


def create_named_schedule_sampler(name: str, num_timesteps: int) -> ScheduleSampler:
    """Return the sampler called `name`: "uniform" or "loss-second-moment"."""
    if name == "uniform":
        return UniformSampler(num_timesteps)
    if name == "loss-second-moment":
        return LossSecondMomentResampler(num_timesteps)
    raise ValueError(f"unknown schedule sampler {name!r}: choose 'uniform' or 'loss-second-moment'")
