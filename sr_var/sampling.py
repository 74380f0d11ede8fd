"""Draws the samples of a data set: batches over images and indices, stoppable anywhere.

The noise of a sample is a function of (seed, image name, index), so a run that was stopped, split
over processes or batched otherwise draws the same samples. Images are claimed one by one by file
locks, so any number of processes may share an output folder. The mathematics is in ``diffusion``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import IO, TYPE_CHECKING

import numpy as np
import torch

from ddpm.sampling import draw_samples
from ddpm.stored_flags import check_labels, require_known_labels
from diffusion.samplers import SamplerOptions, gaussian_noise_fn
from sr_var.degradation import area_downsample
from sr_var.flags.scripts import SampleFlags
from sr_var.results.folder import NUM_LOOKED_AT, is_known_input
from sr_var.results.jobs import (
    LOW_RES_FILE,
    SAMPLES_FOLDER,
    SECONDS_FILE,
    ImageJob,
    job_batches,
    missing_indices,
    sample_path,
    stored_moments,
)
from sr_var.results.moments import MOMENTS_FILE
from utils.debug_util import report_cost
from utils.files.atomic import remove_stale_temp_files
from utils.files.lock import try_lock
from utils.files.storage import make_folder
from utils.images.dataset import Entry, TestCrops
from utils.images.decode import BadImageError
from utils.images.files import safe_join
from utils.images.pixels import bytes_to_image, image_to_255, require_finite, save_image, to_hwc
from utils.loops.networks import compiled_for
from utils.machine.cost import Stopwatch, find_batch_size
from utils.machine.threads import BackgroundWriter, encoding_threads, ordered_map
from utils.process.progress import Progress
from utils.process.stop import StopFlag
from utils.script_util import AUTO
from utils.seeds import stable_seed

if TYPE_CHECKING:
    from diffusion.process import GaussianDiffusion
    from models.unet import SuperResModel


class SRSampler:
    """Draws what is missing of ``num_samples_per_image`` samples of each image.

    Args:
        model: the denoiser, on the device and in evaluation mode.
        diffusion: the respaced process.
        entries: the images.
        sizes: (large, small) sides.
        flags: how many, how, where to.
        log: receives notices.
        class_names: of the model by label, as far as they are known.

    Raises:
        DataError: if the model does not know an image's label, or its class by another one.
        ValueError: for options that the sampler does not have.
    """

    def __init__(
        self,
        *,
        model: SuperResModel,
        diffusion: GaussianDiffusion,
        entries: Sequence[Entry],
        sizes: tuple[int, int],
        flags: SampleFlags,
        device: torch.device,
        log: Callable[[str], None],
        class_names: Sequence[str] = (),
    ) -> None:
        self._model, self._diffusion, self._flags = model, diffusion, flags
        self._denoiser = compiled_for(model, flags.compile, device, log, is_trained=False)
        self._large_size, self._small_size = sizes
        self._entries, self._device, self._log = entries, device, log
        self._crops = TestCrops(
            entries,
            sizes[0],
            flags.data_dir,
            flags.on_bad_image,
            apply_orientation=flags.apply_orientation,
        )
        self._num_skipped = self._num_looked_at = 0
        self._claimed: list[ImageJob] = []
        self._options = SamplerOptions(
            sampler=flags.chosen_sampler,
            clip_denoised=flags.clip_denoised,
            eta=flags.eta,
        )
        self._stopwatch, self._writer = Stopwatch(device), BackgroundWriter()
        check_labels(entries, model.config.num_classes)
        if model.config.num_classes is not None:
            require_known_labels(entries, class_names, flags.to_sample_images_dict_path)
        if flags.batch_size == AUTO:
            found = find_batch_size(self._evaluate_once, device, log)
            self._flags = dataclasses.replace(flags, batch_size=found)

    def run_loop(self, rank: int = 0, world_size: int = 1) -> bool:
        """Works until no image is left that another process is not busy with.

        Args:
            rank: where in the list to begin, so that processes seldom meet.
            world_size: number of processes.

        Returns:
            True when done; False when a signal asked to stop (finished samples stay).
        """
        stop, is_stopped = StopFlag(), False
        # the first process stands for all: each does about as much
        total = len(self._entries) * self._flags.num_samples_per_image // world_size
        progress = Progress(total, "sampling", unit="sample", is_shown=rank == 0)
        with contextlib.ExitStack() as end, stop.listening(), progress as bar, self._writer:
            end.callback(self._let_go, of_all=True)  # when the writer is done
            jobs = self._claim_jobs(rank * len(self._entries) // world_size, bar)
            for rows in job_batches(jobs, self._flags.batch_size):
                self._stopwatch.start()
                samples = self._draw(rows, stop)
                if samples is None:
                    is_stopped = True
                    break
                self._stopwatch.stop(len(rows))
                self._store(rows, samples)
                self._let_go()
                bar.update(len(rows))
        # image by image the others were cleared where they were
        remove_stale_temp_files(self._flags.output_dir)
        self._stopwatch.save(os.path.join(self._flags.output_dir, SECONDS_FILE))
        if is_stopped:
            self._log(f"stopped ({stop.reason}); run again to go on")
            return False
        if self._num_skipped:
            self._log(f"warning: {self._num_skipped} damaged images were skipped")
        return True

    def report_cost(self) -> None:
        """Logs parameter count and memory in use."""
        report_cost(self._model, self._device, self._log)

    def dry_run(self) -> None:
        """One network evaluation of a full batch and what the whole run would take."""
        size = self._flags.batch_size
        started = time.monotonic()
        self._evaluate_once(size).sum().item()  # waits for the device
        seconds = (time.monotonic() - started) / size
        self.report_cost()
        num_samples = len(self._entries) * self._flags.num_samples_per_image
        num_evaluations = num_samples * self._diffusion.num_timesteps
        self._log(f"one network evaluation, with warm-up: {seconds:.3f} s a sample")
        self._log(
            f"{num_samples} samples of {self._diffusion.num_timesteps} steps on one device: about "
            f"{seconds * num_evaluations / 3600:.2f} h"
        )
        self._log("dry run: nothing was written")

    def _evaluate_once(self, size: int) -> torch.Tensor:
        """Predicted x_0 of the first usable image at the first step, ``size`` times."""
        crop = next(item for i in range(len(self._entries)) if (item := self._crops[i]) is not None)
        low_res = self._low_res(crop.image)
        x, _ = gaussian_noise_fn(
            [self._generator("dry run", 0)] * size, self._shape(size), self._device
        )
        condition = self._condition(low_res[None].expand(size, -1, -1, -1), [crop.label] * size)
        t = next(iter(self._diffusion.descending_timesteps(x)))
        with torch.inference_mode():
            return self._diffusion.denoise(
                self._denoiser, x, t, SamplerOptions(model_kwargs=condition)
            )

    # ---- claiming

    def _let_go(self, *, of_all: bool = False) -> None:
        """Close the locks of images whose samples are all written, or of all images."""
        for job in self._claimed:
            if of_all or not job.num_open:
                job.lock.close()
        self._claimed = [job for job in self._claimed if not job.lock.closed]

    def _claim_jobs(self, offset: int, bar: Progress) -> Iterator[ImageJob]:
        order = [*range(offset, len(self._entries)), *range(offset)]
        for position in order:
            entry = self._entries[position]
            lock = try_lock(self._lock_path(entry.name))
            if lock is None:
                continue  # another process is at it
            job = self._open_job(position, lock)
            if job is None or not job.missing:
                lock.close()
            if job is not None:
                bar.update(self._flags.num_samples_per_image - len(job.missing))
                if job.missing:
                    self._claimed.append(job)
                    yield job

    def _open_job(self, position: int, lock: IO[str]) -> ImageJob | None:
        entry, num_wanted = self._entries[position], self._flags.num_samples_per_image
        folder = safe_join(self._flags.output_dir, entry.name)
        make_folder(os.path.join(folder, SAMPLES_FOLDER))
        remove_stale_temp_files(folder)
        remove_stale_temp_files(os.path.join(folder, SAMPLES_FOLDER))
        moments = stored_moments(folder, num_wanted, self._log)
        missing = missing_indices(folder, num_wanted, moments)
        low_res, path = torch.empty(0), os.path.join(folder, LOW_RES_FILE)
        # samples that this sampler has counted, of which others must be
        has_own = moments is not None and bool(moments.indices)
        if missing or not os.path.exists(path):
            crop = self._crops[position]
            if crop is None:
                self._num_skipped += 1
                return None
            low_res = self._low_res(crop.image)
            if not (has_own and is_known_input(path, to_hwc(image_to_255(low_res)))):
                save_image(path, low_res)
        elif has_own and self._num_looked_at < NUM_LOOKED_AT:
            self._look_at_finished(position, path)
        return ImageJob(entry.name, entry.y, low_res, missing, moments, lock, num_wanted)

    def _look_at_finished(self, position: int, path: str) -> None:
        self._num_looked_at += 1
        with contextlib.suppress(BadImageError, FileNotFoundError):  # so nothing can be said
            if (crop := self._crops[position]) is not None:
                is_known_input(path, to_hwc(image_to_255(self._low_res(crop.image))))

    def _lock_path(self, name: str) -> str:
        digest = hashlib.sha256(name.encode()).hexdigest()[:20]
        return os.path.join(self._flags.output_dir, ".claims", f"{digest}.lock")

    # ---- drawing

    def _draw(self, rows: Sequence[tuple[ImageJob, int]], stop: StopFlag) -> torch.Tensor | None:
        """Samples (B, 3, H, H) in [-1, 1] of the rows; None if a signal came.

        Short batches are filled up: kernels round by batch size, so only full batches make a
        sample the same in whichever run it is drawn.
        """
        num_rows = len(rows)
        rows = [*rows, *[rows[-1]] * (self._flags.batch_size - num_rows)]
        generators = [self._generator(job.name, index) for job, index in rows]
        low_res = torch.stack([job.low_res for job, _ in rows])
        condition = self._condition(low_res, [job.y for job, _ in rows])
        options = dataclasses.replace(self._options, model_kwargs=condition)
        shape = self._shape(len(rows))[1:]
        samples = draw_samples(
            self._diffusion, self._denoiser, generators, shape, options, lambda: bool(stop.reason)
        )
        return None if samples is None else samples[:num_rows]

    def _condition(self, low_res: torch.Tensor, labels: list[int]) -> dict[str, torch.Tensor]:
        y = None
        if self._model.config.num_classes is not None:
            y = torch.tensor(labels)
        with torch.inference_mode():
            size = (self._large_size, self._large_size)
            return self._model.condition(low_res, size, None if y is None else y.to(self._device))

    def _generator(self, name: str, index: int) -> torch.Generator:
        seed = stable_seed(self._flags.seed, name, index)
        return torch.Generator(self._device).manual_seed(seed)

    def _shape(self, batch_size: int) -> tuple[int, ...]:
        return (batch_size, 3, self._large_size, self._large_size)

    def _low_res(self, high_res_uint8: torch.Tensor) -> torch.Tensor:
        image = bytes_to_image(high_res_uint8.to(self._device))[None]
        return area_downsample(image, self._small_size)[0]  # (3, h, h)

    # ---- storing

    def _store(self, rows: Sequence[tuple[ImageJob, int]], samples: torch.Tensor) -> None:
        """Has the samples of a batch written while the next one is drawn."""
        samples = samples.cpu()
        by_job: dict[str, list[int]] = {}
        for place, (job, index) in enumerate(rows):
            require_finite(samples[place], sample_path(self._folder(job), index))
            by_job.setdefault(job.name, []).append(place)
        self._writer.submit(self._store_jobs, rows, samples, list(by_job.values()))

    def _store_jobs(
        self,
        rows: Sequence[tuple[ImageJob, int]],
        samples: torch.Tensor,
        groups: Sequence[list[int]],
    ) -> None:
        for places in groups:
            job = rows[places[0]][0]
            self._store_job(job, [rows[place][1] for place in places], samples[places])

    def _store_job(self, job: ImageJob, indices: list[int], samples: torch.Tensor) -> None:
        folder = self._folder(job)
        if job.moments is not None:
            grey = np.stack([to_hwc(image_to_255(sample.double())) for sample in samples])
            job.moments = job.moments.add(grey, indices, self._small_size)
            is_final = len(job.moments.indices) >= job.num_wanted
            job.moments.save(os.path.join(folder, MOMENTS_FILE), is_final=is_final)

        def save(place: int) -> None:
            save_image(sample_path(folder, indices[place]), samples[place])

        for _ in ordered_map(save, range(len(indices)), encoding_threads(self._device)):
            pass
        job.num_open -= len(indices)  # now the loop may let go of the image

    def _folder(self, job: ImageJob) -> str:
        return safe_join(self._flags.output_dir, job.name)
