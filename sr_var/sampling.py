"""The samples of a data set: which are missing, what the network is told, and their files.

The noise of a sample is a function of (seed, image name, index). Images are claimed one by one
(`utils.files.lock`), so any number of processes may share an output folder. Layout:
`<output_dir>/<image name>/` with `low_res.png`, `moments.npz` and `high_res_samples/`
(docs/file_formats.md).
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import operator
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from ddpm.flags import DiffusionFlags
from ddpm.process import denoiser_identity
from ddpm.sampling import Sampler, require_same_law
from ddpm.stored_flags import check_labels, require_known_labels
from diffusion.samplers import SamplerOptions
from sr_var.data.low_res import LowResImages
from sr_var.degrade.view import NO_SHIFT, View
from sr_var.flags.scripts import SampleFlags, SRDiffusionModelFlags
from sr_var.results.folder import (
    LOW_RES_FILE,
    NUM_LOOKED_AT,
    SAMPLES_FOLDER,
    is_known_input,
    pictures_in,
    sample_path,
)
from sr_var.results.moments import MOMENTS_FILE, SampleMoments, counted_samples, load_moments
from sr_var.script_util import create_sr_model, denoiser_flags
from utils.files.atomic import remove_stale_temp_files
from utils.files.lock import Lock, each_free
from utils.files.storage import make_folder
from utils.flags.groups import Reading
from utils.images.files import BadImageError, safe_join
from utils.images.pixels import image_to_255, require_finite, save_image, to_hwc
from utils.loops.networks import load_checked
from utils.machine.threads import encoding_threads, ordered_map
from utils.process.errors import DataError
from utils.process.progress import Progress
from utils.seeds import stable_seed
from utils.sizes import Size, SizeLike

if TYPE_CHECKING:
    from diffusion.process import GaussianDiffusion
    from models.subpixel import SubpixelDenoiser
    from models.unet import SuperResModel


@dataclass(eq=False)
class ImageJob:
    """One image: what is missing, and what its samples have added up to.

    `low_res` is X, (C + extra, h, w). `moments` is None where the folder holds samples of another
    tool, which cannot be counted in float any more. `num_open` counts samples that are not written
    yet. `lock` keeps others from the image.
    """

    name: str
    y: int
    low_res: torch.Tensor
    missing: list[int]
    moments: SampleMoments | None
    num_wanted: int
    lock: Lock | None = None
    num_open: int = field(init=False)

    def __post_init__(self) -> None:
        self.num_open = len(self.missing)


# an image and the index of one of its samples
Row = tuple[ImageJob, int]


class SRSampler(Sampler[Row]):
    """Draws what is missing of `num_samples_per_image` samples of each image.

    `model` is on the device and in evaluation mode, `diffusion` respaced; `sizes` are (large,
    small); `class_names` are those of the model by label, as far as they are known.

    Raises:
        DataError: if the model does not know an image's label, or its class by another one.
        ValueError: for options that the sampler does not have.
    """

    def __init__(
        self,
        *,
        model: SuperResModel | SubpixelDenoiser,
        diffusion: GaussianDiffusion,
        images: LowResImages,
        sizes: tuple[SizeLike, SizeLike],
        flags: SampleFlags,
        device: torch.device,
        log: Callable[[str], None],
        class_names: Sequence[str] = (),
    ) -> None:
        entries = images.entries
        super().__init__(
            model=model,
            diffusion=diffusion,
            shape=(flags.in_channels, *Size.of(sizes[0])),
            num_samples=len(entries) * flags.num_samples_per_image,
            flags=flags,
            device=device,
            log=log,
        )
        self._model, self._flags, self._images, self._entries = model, flags, images, entries
        self._large_size, self._small_size = map(Size.of, sizes)
        self._num_skipped = self._num_looked_at = 0
        self._claimed: list[tuple[ImageJob, Lock]] = []
        check_labels(entries, model.config.num_classes)
        if model.config.num_classes is not None:
            require_known_labels(entries, class_names, images.path)

    # ---- which are missing

    @contextlib.contextmanager
    def _missing(self, rank: int, world_size: int, bar: Progress) -> Iterator[Iterator[Row]]:
        # processes begin at different places of the list, so that they seldom meet
        jobs = self._claim_jobs(rank * len(self._entries) // world_size, bar)
        try:
            yield ((job, index) for job in jobs for index in job.missing)
        finally:
            self._let_go(of_all=True)
        if self._num_skipped:
            self._log(f"warning: {self._num_skipped} damaged images were skipped")

    def _claim_jobs(self, offset: int, bar: Progress) -> Iterator[ImageJob]:
        """The images with missing samples that no other process is busy with."""
        positions = [*range(offset, len(self._entries)), *range(offset)]
        paths = ((place, self._lock_path(self._entries[place].name)) for place in positions)

        def wait(seconds: float) -> bool:
            bar.note("waiting for what other processes hold, or held")
            time.sleep(seconds)
            self._is_cut = bool(self._stop.reason)
            return not self._is_cut

        for position, lock in each_free(paths, wait):
            job = self._open_job(position)
            if job is not None:
                bar.skip(job.num_wanted - len(job.missing))
            if job is None or not job.missing:
                lock.close()
                continue
            job.lock = lock
            self._claimed.append((job, lock))
            yield job

    def _let_go(self, *, of_all: bool = False) -> None:
        """Close the locks of images whose samples are all written, or of all images."""
        for job, lock in self._claimed:
            if of_all or not job.num_open:
                lock.close()
        self._claimed = [(job, lock) for job, lock in self._claimed if not lock.closed]

    def _lock_path(self, name: str) -> str:
        digest = hashlib.sha256(name.encode()).hexdigest()[:20]
        return os.path.join(self._flags.output_dir, ".claims", f"{digest}.lock")

    def _open_job(self, position: int) -> ImageJob | None:
        """The image with its low-res picture beside the samples; None if it is damaged."""
        entry, num_wanted = self._entries[position], self._flags.num_samples_per_image
        folder = safe_join(self._flags.output_dir, entry.name)
        make_folder(os.path.join(folder, SAMPLES_FOLDER))
        remove_stale_temp_files(folder)
        remove_stale_temp_files(os.path.join(folder, SAMPLES_FOLDER))
        missing, moments = missing_in(folder, num_wanted, self._log)
        low_res, path = torch.empty(0), os.path.join(folder, LOW_RES_FILE)
        # samples that this sampler has counted, of which others must be
        has_own = moments is not None and bool(moments.indices)
        if missing or not os.path.exists(path):
            found = self._images.read(position)
            if found is None:
                self._num_skipped += 1
                return None
            low_res, shown = found.image, self._shown(found.image)
            if not (has_own and is_known_input(path, to_hwc(image_to_255(shown)))):
                save_image(path, shown)
        elif has_own and self._num_looked_at < NUM_LOOKED_AT:
            self._num_looked_at += 1
            with contextlib.suppress(BadImageError, FileNotFoundError):  # so nothing can be said
                if (found := self._images.read(position)) is not None:
                    is_known_input(path, to_hwc(image_to_255(self._shown(found.image))))
        return ImageJob(entry.name, entry.y, low_res, missing, moments, num_wanted)

    def _shown(self, low_res: torch.Tensor) -> torch.Tensor:
        """The image that X begins with, without masks."""
        return low_res[: self._model.config.shown_channels]

    # ---- what the network is told

    def _first_rows(self, size: int) -> Sequence[Row]:
        images = map(self._images.read, range(len(self._entries)))
        first = next(filter(None, images), None)
        if first is None:
            raise DataError(
                f"--on_bad_image skip leaves no image: all {len(self._entries)} are damaged"
            )
        return [(ImageJob("dry run", first.label, first.image, [0], None, 1), 0)] * size

    def _seed(self, row: Row) -> int:
        return stable_seed(self._flags.seed, row[0].name, row[1])

    def _options_for(self, rows: Sequence[Row]) -> SamplerOptions:
        low_res, y = torch.stack([job.low_res for job, _ in rows]), None
        if self._model.config.num_classes is not None:
            y = torch.tensor([job.y for job, _ in rows]).to(self._device)
        with torch.inference_mode():
            condition = self._model.condition(low_res, self._large_size, y)
        return dataclasses.replace(self._options, model_kwargs=condition)

    # ---- where they go

    def _store(self, rows: Sequence[Row], samples: torch.Tensor) -> None:
        samples = samples.cpu()
        for (job, index), sample in zip(rows, samples, strict=True):
            require_finite(sample, sample_path(self._folder(job), index))
        self._writer.submit(self._write, rows, samples)
        self._let_go()

    def _write(self, rows: Sequence[Row], samples: torch.Tensor) -> None:
        start = 0
        for job, own in itertools.groupby(rows, key=operator.itemgetter(0)):
            indices = [index for _, index in own]
            self._write_job(job, indices, samples[start : start + len(indices)])
            start += len(indices)

    def _write_job(self, job: ImageJob, indices: list[int], samples: torch.Tensor) -> None:
        folder = self._folder(job)
        if job.lock is not None and not job.lock.is_held():
            # what it has counted since would be lost with moments of before
            self._log(f"notice: {job.name}: left to the process that took it over meanwhile")
            job.num_open -= len(indices)
            return
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


def load_denoiser(
    flags: SRDiffusionModelFlags, process: DiffusionFlags, path: str, log: Callable[[str], None]
) -> SuperResModel | SubpixelDenoiser:
    """The network of a checkpoint, by its flags; CheckpointError if it is of another."""
    create = partial(create_sr_model, **denoiser_flags(flags, process))
    identity = denoiser_identity(flags.network_class, flags, process, is_training=False)
    return load_checked(create, path, flags.asked_precision, log, identity)


def require_same_samples(
    network: SRDiffusionModelFlags, process: DiffusionFlags, sample: SampleFlags, view: View
) -> None:
    """As `require_same_law`; of images read one way, and of one degradation, where it is another
    than the network's."""
    own = {**vars(Reading.of(sample)), **view.shift()}
    require_same_law(network, process, sample, own, NO_SHIFT)


def missing_indices(folder: str, num_wanted: int, moments: SampleMoments | None) -> list[int]:
    """Samples without a picture, and those that the float moments lack.

    Moments are written before pictures. So a picture that they do not count was drawn by another
    tool, and with such pictures around there are no moments to keep (`moments` is None).
    """
    counted = range(num_wanted) if moments is None else moments.indices
    known = pictures_in(folder).intersection(counted)
    return [i for i in range(num_wanted) if i not in known]


def missing_in(
    folder: str, num_wanted: int, log: Callable[[str], None]
) -> tuple[list[int], SampleMoments | None]:
    """The samples that are missing in a folder, and the moments so far (`stored_moments`).

    Where nothing is missing, of the moments only the indices: whole ones take ten times as long.
    """
    counted = counted_samples(os.path.join(folder, MOMENTS_FILE))
    if counted is not None:
        moments = SampleMoments(indices=counted)
        if not missing_indices(folder, num_wanted, moments):
            return [], moments
    stored = stored_moments(folder, num_wanted, log)
    return missing_indices(folder, num_wanted, stored), stored


def stored_moments(
    folder: str, num_wanted: int, log: Callable[[str], None]
) -> SampleMoments | None:
    """The moments so far (empty for a fresh folder); None where they cannot be kept."""
    stored = load_moments(os.path.join(folder, MOMENTS_FILE))
    if stored is not None:
        return stored
    if not pictures_in(folder).isdisjoint(range(num_wanted)):
        log(
            f"notice: {folder} holds samples without {MOMENTS_FILE}; missing ones are added as "
            "pictures only"
        )
        return None
    return SampleMoments()
