"""Training of the diffusion model that draws high-res images given a low-res one.

Drawing samples from it is the business of ``sampling``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from diffusion.timestep_sampler import LossSecondMomentResampler, ScheduleSampler
from sr_var.base_dataset import Entry, check_labels
from sr_var.degradation import area_downsample, bilinear_upsample, bytes_to_image
from sr_var.flags import DataFlags
from sr_var.results import PICTURES_IN_STRIP, strip
from sr_var.sr_data import load_train_crops
from utils import dist_util
from utils.data_util import TrainData
from utils.random_util import stable_seed
from utils.train_flags import TrainFlags
from utils.train_util import TrainLoop

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffusion.gaussian_diffusion import GaussianDiffusion


class SRDiffusionTrainLoop(TrainLoop):
    """The loss of the diffusion process, weighted by how its timesteps were drawn.

    Batch: a dict of ``low_res``, ``y``, ``t``, ``weight`` and ``noise``; label: the high-res image.

    Args:
        diffusion: the process, not respaced.
        schedule_sampler: the one that the data draws t from.
        is_class_cond: whether the network takes labels.
        rest: of :class:`TrainLoop`.
    """

    def __init__(
        self,
        *,
        diffusion: GaussianDiffusion,
        schedule_sampler: ScheduleSampler,
        is_class_cond: bool,
        **rest: Any,
    ) -> None:
        self.diffusion, self.schedule_sampler = diffusion, schedule_sampler
        self.is_class_cond = is_class_cond
        super().__init__(**rest)

    def compute_loss(self, micro_input: Any, micro_label: Any) -> tuple[torch.Tensor, Any]:
        """Mean over the slice of weight · loss(t); the output is None, it would be noise."""
        condition = {"low_res": micro_input["low_res"]}
        if self.is_class_cond:
            condition["y"] = micro_input["y"]
        t = micro_input["t"]
        terms = self.diffusion.training_losses(
            self.wrapped_model, micro_label, t, condition, noise=micro_input["noise"]
        )
        if isinstance(self.schedule_sampler, LossSecondMomentResampler):
            self.schedule_sampler.update_with_all_losses(
                torch.cat(dist_util.gather_tensors(t)),
                torch.cat(dist_util.gather_tensors(terms["loss"].detach())),
            )
        return (terms["loss"] * micro_input["weight"]).mean(), None

    def _post_process(self, micro_input: Any, micro_label: Any, micro_output: Any, i: int) -> None:
        if i == 0 and self.is_image_step:
            label = micro_label[:PICTURES_IN_STRIP]
            low_res = bilinear_upsample(micro_input["low_res"][:PICTURES_IN_STRIP], label.shape[-1])
            self.logger.image("low_res | target", strip(low_res, label), self.step)

    def extra_state(self) -> dict[str, Any]:
        """What the schedule sampler has learned about the losses."""
        state = self.schedule_sampler.state_dict()
        return {"schedule_sampler": {name: value.tolist() for name, value in state.items()}}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Takes back what :meth:`extra_state` gave."""
        stored = state.get("schedule_sampler", {})
        if stored:
            self.schedule_sampler.load_state_dict({k: torch.tensor(v) for k, v in stored.items()})


def load_diffusion_data(
    flags: DataFlags,
    sizes: tuple[int, int],
    train: TrainFlags,
    schedule_sampler: ScheduleSampler,
    device: torch.device,
    log: Callable[[str], None],
    num_classes: int | None = None,
) -> TrainData[Any]:
    """Training batches with their timesteps and noise; ``sizes`` is (large, small).

    ``num_classes`` is that of a class-conditional network: labels are checked at the start.

    t and noise of an image are functions of (seed, position in the stream): neither slices nor the
    number of processes change them.
    """
    large_size, small_size = sizes

    def prepare(batch: dict[str, Any]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        high_res = bytes_to_image(batch["high_res"].to(device, non_blocking=True))
        seeds = [stable_seed(train.seed, "noise", int(place)) for place in batch["position"]]
        t, weight = draw_timesteps(schedule_sampler, seeds)
        condition = {
            "low_res": area_downsample(high_res, small_size),
            "y": batch["y"].to(device),
            "t": t.to(device),
            "weight": weight.to(device),
            "noise": seeded_noise(seeds, tuple(high_res.shape[1:]), device),
        }
        return condition, high_res

    def checked(entries: list[Entry]) -> list[Entry]:
        check_labels(entries, num_classes)
        return entries

    return load_train_crops(flags, large_size, train.batch_size, train.seed, prepare, log, checked)


def draw_timesteps(
    schedule_sampler: ScheduleSampler, seeds: list[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """One timestep per seed from the sampler's distribution p, and the loss weights 1 / (T p_t)."""
    weights = schedule_sampler.weights().numpy()
    probabilities = weights / weights.sum()
    uniform = np.array([np.random.default_rng(seed).random() for seed in seeds])
    # the last entry of the cumulated sum may fall short of 1 by rounding
    t = np.searchsorted(np.cumsum(probabilities)[:-1], uniform, side="right")
    loss_weights = 1 / (len(probabilities) * probabilities[t])
    return torch.from_numpy(t), torch.from_numpy(loss_weights).float()


def seeded_noise(seeds: list[int], shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """(N, *shape) standard normal, each row from a generator with its own seed."""
    noise = torch.empty((len(seeds), *shape), device=device)
    for row, seed in zip(noise.unbind(0), seeds, strict=True):
        row.normal_(generator=torch.Generator(device).manual_seed(seed))
    return noise
