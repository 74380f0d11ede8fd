"""Draws samples of a diffusion process: in batches, stoppable anywhere, by any number of processes.

The noise of a sample is a function of its name, so neither stops, batches nor processes change it.
Which samples are missing, what the network is told of each and where it goes is a task's.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch

from ddpm.flags import DiffusionFlags, SamplerFlags
from ddpm.process import model_settings, setting_defaults
from diffusion.samplers import SamplerOptions, gaussian_noise_fn, sample_loop_progressive
from diffusion.types import Model
from models.cpu import rules
from utils.debug_util import report_cost
from utils.files.atomic import remove_stale_temp_files
from utils.files.lock import lock_notice
from utils.files.records import find_record, require_same_settings
from utils.loops.networks import ready_for
from utils.machine.cost import Stopwatch, find_batch_size
from utils.machine.threads import BackgroundWriter
from utils.process.progress import Progress
from utils.process.stop import StopFlag, go_on_with, stop_line
from utils.script_util import AUTO

if TYPE_CHECKING:
    from diffusion.process import GaussianDiffusion

Row = TypeVar("Row")
SETTINGS_FILE, SECONDS_FILE = ".sampling.json", ".seconds.json"


class Sampler(ABC, Generic[Row]):
    """Draws the missing samples of a task, each of them named by a row.

    Args:
        model: the denoiser, on the device and in evaluation mode.
        diffusion: the respaced process.
        shape: (C, H, W) of a sample.
        num_samples: of all processes together, finished ones included.
        flags: how, and where to.

    Raises:
        ValueError: for options that the sampler does not have.
    """

    def __init__(
        self,
        *,
        model: torch.nn.Module,
        diffusion: GaussianDiffusion,
        shape: tuple[int, int, int],
        num_samples: int,
        flags: SamplerFlags,
        device: torch.device,
        log: Callable[[str], None],
    ) -> None:
        self._network, self._diffusion, self._shape = model, diffusion, shape
        self._num_samples, self._how, self._device, self._log = num_samples, flags, device, log
        how = dataclasses.replace(flags, kernels=kernels_of(flags))
        self._denoiser: Model = ready_for(model, how, device, log)
        self._options = SamplerOptions(
            sampler=flags.chosen_sampler, clip_denoised=flags.clip_denoised, eta=flags.eta
        )
        self._writer, self._stop = BackgroundWriter(), StopFlag()
        self._is_cut = False  # a stop has ended what `_missing` waits for

    @abstractmethod
    def _missing(
        self, rank: int, world_size: int, bar: Progress
    ) -> AbstractContextManager[Iterator[Row]]:
        """What this process is to draw; nobody else takes it before the block ends.

        Finished samples are told to the bar.
        """

    @abstractmethod
    def _first_rows(self, size: int) -> Sequence[Row]:
        """Rows for a try, drawn or not."""

    @abstractmethod
    def _seed(self, row: Row) -> int:
        """Of the sample's noise."""

    @abstractmethod
    def _options_for(self, rows: Sequence[Row]) -> SamplerOptions:
        """The options with what network and guide are told of these samples."""

    @abstractmethod
    def _store(self, rows: Sequence[Row], samples: torch.Tensor) -> None:
        """Hands samples (n, C, H, W) in [-1, 1] to the writer; CheckpointError if not finite."""

    @functools.cached_property
    def batch_size(self) -> int:
        """`--batch_size`, or the one that timing finds."""
        if self._how.batch_size == AUTO:
            return find_batch_size(self._first_step, self._device, self._log)
        return self._how.batch_size

    def run_loop(self, rank: int = 0, world_size: int = 1) -> bool:
        """Draw until nothing is missing that this process is to draw.

        Returns:
            True when done; False when a signal asked to stop (finished samples stay).

        Raises:
            CheckpointError: if the network's output is not finite.
        """
        size, folder = self.batch_size, self._how.output_dir
        self._stop = stop = StopFlag()
        watch, is_stopped = Stopwatch(self._device), False
        if notice := lock_notice(folder):
            self._log(notice)
        # the first process stands for all: each does about as much
        total = len(range(rank, self._num_samples, world_size))
        bar = Progress(total, "sampling", unit="sample", is_shown=rank == 0)
        with stop.listening(), bar, self._missing(rank, world_size, bar) as missing, self._writer:
            while rows := list(itertools.islice(missing, size)):
                watch.start()
                samples = self._draw(rows, stop, bar)
                if samples is None:
                    is_stopped = True
                    break
                watch.stop(len(rows))
                self._store(rows, samples)
                bar.update(len(rows))
        remove_stale_temp_files(folder)
        watch.save(os.path.join(folder, SECONDS_FILE))
        is_stopped |= self._is_cut
        if is_stopped:
            self._log(stop_line(stop.reason, go_on_with(f"--output_dir {folder}")))
        return not is_stopped

    def report_cost(self) -> None:
        """Log parameter count and memory in use."""
        report_cost(self._network, self._device, self._log)

    def dry_run(self) -> None:
        """One step of a full batch, guidance included, and what the whole run would take."""
        size, num_steps = self.batch_size, self._diffusion.num_timesteps
        started = time.monotonic()
        self._first_step(size).sum().item()  # waits for the device
        seconds = (time.monotonic() - started) / size
        self.report_cost()
        hours = seconds * num_steps * self._num_samples / 3600
        self._log(f"one step, with warm-up: {seconds:.3f} s a sample")
        self._log(
            f"{self._num_samples} samples of {num_steps} steps on one device: about {hours:.2f} h"
        )

    def _first_step(self, size: int) -> torch.Tensor:
        return next(self._steps(self._first_rows(size)))

    def _draw(self, rows: Sequence[Row], stop: StopFlag, bar: Progress) -> torch.Tensor | None:
        """The samples (n, C, H, W) in [-1, 1]; None as soon as a signal came.

        Short batches are filled up: kernels round by batch size, so only full batches make a
        sample the same in whichever run it is drawn.
        """
        num_steps = self._diffusion.num_timesteps
        whole = [*rows, *[rows[-1]] * (self.batch_size - len(rows))]
        for step, sample in enumerate(self._steps(whole), 1):
            drawn = sample[: len(rows)]
            bar.note(f"step {step} of {num_steps}", len(rows) * step / num_steps)
            if stop.reason:
                return None
        return drawn

    def _steps(self, rows: Sequence[Row]) -> Iterator[torch.Tensor]:
        """The batch after each step."""
        seeds = [self._seed(row) for row in rows]
        generators = [torch.Generator(self._device).manual_seed(seed) for seed in seeds]
        x_T, noise_fn = gaussian_noise_fn(generators, (len(rows), *self._shape), self._device)
        options = self._options_for(rows)
        for out in sample_loop_progressive(self._diffusion, self._denoiser, x_T, noise_fn, options):
            yield out["sample"]


def kernels_of(sampler: SamplerFlags) -> str:
    """Which convolutions the samples have: of the flag, else as those that are there began."""
    if sampler.kernels != rules.AUTO:
        return sampler.kernels
    return _begun_with(sampler) or rules.AUTO


def _begun_with(sampler: SamplerFlags) -> str:
    """The kernels that the record of the output folder names; empty if it names none."""
    record = find_record(os.path.join(sampler.output_dir, SETTINGS_FILE), dict) or {}
    kernels = record.get("kernels")
    return str(kernels) if kernels in (rules.DIRECT, rules.WINOGRAD) else ""


def require_same_law(
    network: Any,
    process: DiffusionFlags,
    sampler: SamplerFlags,
    own: Mapping[str, object],
    own_defaults: Mapping[str, object],
) -> None:
    """Remember what samples of the output folder are drawn with; refuse (DataError) anything else.

    `network` is a dataclass of its flags. `own` is what else the law and the noise of a task's
    samples depend on, of JSON types; those that are no flags have `own_defaults`
    (`require_same_settings`).
    """
    # followed, not compared: they change the rounding alone
    kernels = _begun_with(sampler) or rules.chosen_kernels(sampler.kernels)[0]
    defaults = setting_defaults(type(network), type(process), type(sampler))
    require_same_settings(
        os.path.join(sampler.output_dir, SETTINGS_FILE),
        {
            **model_settings(sampler.model_path, network, process),
            "sampler": sampler.chosen_sampler,
            "eta": sampler.eta,
            "clip_denoised": sampler.clip_denoised,
            "seed": sampler.seed,
            "kernels": kernels,
            **own,
        },
        defaults={**defaults, **own_defaults, "kernels": kernels},
    )
