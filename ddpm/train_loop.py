"""Training of a denoising network: the loss of a process at random timesteps; names of classes."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ddpm.stored_flags import CLASSES_KEY, differing_classes, known_classes
from diffusion.losses import training_losses
from diffusion.timesteps import LossSecondMomentResampler, ScheduleSampler
from utils import dist_util
from utils.files.atomic import JsonObject
from utils.process.errors import CheckpointError
from utils.seeds import stable_seed
from utils.train_util import TrainLoop

if TYPE_CHECKING:
    from diffusion.process import GaussianDiffusion


class NamesClasses(TrainLoop):
    """A training whose checkpoints keep the names of its classes, by label.

    A resumed run may have fewer, and no other ones.
    """

    def __init__(self, *, class_names: Sequence[str] = (), **rest: Any) -> None:
        self.class_names = list(class_names)
        super().__init__(**rest)

    def extra_state(self) -> JsonObject:
        """The names beside what the loop keeps."""
        return {**super().extra_state(), CLASSES_KEY: self.class_names}

    def load_extra_state(self, state: JsonObject) -> None:
        """Take back what `extra_state` gave.

        Raises:
            CheckpointError: if the classes are others now.
        """
        super().load_extra_state(state)
        stored = known_classes(state, "the run that is resumed") or self.class_names
        # images of a class may be missing: of an older checkpoint no list tells that
        here = [
            name or there
            for name, there in itertools.zip_longest(self.class_names, stored, fillvalue="")
        ]
        differing = differing_classes(here, stored)
        if differing:
            raise CheckpointError(
                f"the run that is resumed had other classes (label {differing}); give the same "
                "images, or start a new run with --init_from and another --model_save_dir"
            )
        self.class_names = stored


class Noising(NamedTuple):
    """What a batch of a denoiser holds beside its clean images."""

    t: torch.Tensor  # (N,) timesteps
    weight: torch.Tensor  # (N,) of their losses
    noise: torch.Tensor  # (N, C, H, W) standard normal
    condition: dict[str, torch.Tensor]  # keywords of the network, (N, ...) each


class LearnsTimesteps(TrainLoop):
    """A training whose data draws t from a `schedule_sampler`, which learns from the losses."""

    def __init__(self, *, schedule_sampler: ScheduleSampler, **rest: Any) -> None:
        self.schedule_sampler = schedule_sampler
        super().__init__(**rest)

    def learn_losses(self, t: torch.Tensor, losses: torch.Tensor) -> None:
        """Tell the sampler the losses (N,) of these timesteps (N,), of all processes."""
        if isinstance(self.schedule_sampler, LossSecondMomentResampler):
            self.schedule_sampler.update_with_all_losses(
                torch.cat(dist_util.gather_tensors(t)),
                torch.cat(dist_util.gather_tensors(losses.detach())),
            )

    def extra_state(self) -> JsonObject:
        """What the schedule sampler has learned about the losses."""
        state = self.schedule_sampler.state_dict()
        learned = {name: value.tolist() for name, value in state.items()}
        return {**super().extra_state(), "schedule_sampler": learned}

    def load_extra_state(self, state: JsonObject) -> None:
        """Take back what `extra_state` gave."""
        super().load_extra_state(state)
        stored = state.get("schedule_sampler", {})
        if stored:
            self.schedule_sampler.load_state_dict({k: torch.tensor(v) for k, v in stored.items()})


class DiffusionTrainLoop(LearnsTimesteps):
    """The loss of the diffusion process, not respaced, weighted by how its timesteps were drawn.

    Batch: a `Noising`; label: the clean image. The data draws t from the `schedule_sampler`.
    """

    def __init__(self, *, diffusion: GaussianDiffusion, **rest: Any) -> None:
        self.diffusion = diffusion
        super().__init__(**rest)

    def compute_loss(
        self, micro_input: Noising, micro_label: torch.Tensor
    ) -> tuple[torch.Tensor, None]:
        """Mean over the slice of weight · loss(t); the output is None, it would be noise."""
        t, weight, noise, condition = micro_input
        terms = training_losses(
            self.diffusion, self.wrapped_model, micro_label, t, condition, noise=noise
        )
        self.learn_losses(t, terms["loss"])
        return (terms["loss"] * weight).mean(), None

    @abstractmethod
    def _post_process(self, micro_input: Any, micro_label: Any, micro_output: Any, i: int) -> None:
        """As in `TrainLoop`."""


def noising(
    schedule_sampler: ScheduleSampler,
    seed: int,
    positions: torch.Tensor,
    images: torch.Tensor,
    **condition: torch.Tensor,
) -> Noising:
    """Timesteps and noise for a batch of images, functions of (seed, position in the stream).

    So neither slices nor the number of processes change them. Positions are (N,), images
    (N, C, H, W) on the device that the result, like the condition, is to lie on.
    """
    seeds = [stable_seed(seed, "noise", int(place)) for place in positions]
    t, weight = schedule_sampler.sample(seeds)
    device = images.device
    noise = seeded_noise(seeds, tuple(images.shape[1:]), device)
    return Noising(t.to(device), weight.to(device), noise, condition)


def seeded_noise(seeds: list[int], shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """(N, *shape) standard normal, each row from a generator with its own seed."""
    noise = torch.empty((len(seeds), *shape), device=device)
    for row, seed in zip(noise.unbind(0), seeds, strict=True):
        row.normal_(generator=torch.Generator(device).manual_seed(seed))
    return noise
