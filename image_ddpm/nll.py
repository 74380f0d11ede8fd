"""Bits per dimension of images under a diffusion model, and the terms that they consist of.

The bound is `diffusion.bound`'s; the noise of an image is a function of (seed, its name).
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray

from ddpm.entries import load_entries
from ddpm.process import create_diffusion, model_settings, setting_defaults
from ddpm.stored_flags import start_of_file
from diffusion.bound import calc_bpd_loop
from diffusion.types import StepOptions
from image_ddpm.flags import ImageDiffusionFlags, ImageModelFlags, LabelFlags, NLLFlags
from image_ddpm.networks import load_denoiser
from image_ddpm.parts import PartStore, read_part
from utils.debug_util import report_cost
from utils.files.atomic import atomic_write, write_json_atomic
from utils.files.records import find_record, require_same_settings
from utils.flags.groups import ENLARGE, ERROR, SKIP, Reading
from utils.images.crops.dataset import CropItem, TestCrops, look_at, say_sizes, without_small
from utils.images.crops.patches import crop_recipe
from utils.images.crops.recipes import CropSource
from utils.images.files import (
    BadImageError,
    ImageFacts,
    read_image,
    resolve_image_path,
)
from utils.images.listing import Entry
from utils.images.pixels import bytes_to_image
from utils.metrics import standard_error
from utils.process.errors import DataError
from utils.process.stop import StopRequested, go_on_with
from utils.runs.job import working
from utils.seeds import stable_seed
from utils.sizes import SizeLike

if TYPE_CHECKING:
    from diffusion.reverse import ReverseProcess

RESULT_FILE, TERMS_FILE, SETTINGS_FILE = "results.json", "nll.npz", ".nll.json"
_TERMS = ("vb", "xstart_mse", "mse")
# of an image's grey levels, in the parts
_CHECKSUM = "crc32"


Log = Callable[[str], None]
Flags = tuple[ImageModelFlags, ImageDiffusionFlags, LabelFlags, NLLFlags]


class MeanAndError(TypedDict):
    """The mean over images and its standard error; none of a single image."""

    mean: float
    standard_error: float | None


class _Told(TypedDict, total=False):
    models: dict[str, list[str]]  # role → sha256 of checkpoints


class Results(_Told):
    """The content of `results.json`."""

    num_images: int
    total_bpd: MeanAndError
    prior_bpd: MeanAndError
    vb_bpd: MeanAndError
    xstart_mse: float
    mse: float


@dataclass(frozen=True)
class LikelihoodMeasure:
    """The bound of each of `entries`, the first usable ones of all `listed` images of a data set.

    The model is a denoiser, on the device and frozen; the process may be respaced.
    """

    model: torch.nn.Module
    diffusion: ReverseProcess
    listed: Sequence[Entry]
    entries: Sequence[Entry]
    crops: TestCrops
    network: ImageModelFlags
    flags: NLLFlags
    device: torch.device

    @property
    def num_images(self) -> int:
        """Images that are measured."""
        return len(self.entries)

    def run(self, store: PartStore, rank: int = 0, world_size: int = 1) -> None:
        """Measure what is missing of this process's share.

        Raises:
            DataError: for a damaged image, or one of this share that was another one when it was
                measured.
            StopRequested: if a signal came (finished images stay).
        """
        size, share = self.flags.batch_size, range(rank, self.num_images, world_size)
        remedy = go_on_with(f"--output_dir {self.flags.output_dir}")
        with (
            store.share(rank, world_size) as missing,
            working(len(share), "likelihood", "image", is_shown=rank == 0, remedy=remedy) as job,
        ):
            self._require_same_images(store, share)
            job.bar.skip(len(share) - len(missing))
            for start in range(0, len(missing), size):
                indices = missing[start : start + size]
                found = self.measure(indices, job.check)
                store.save(indices, found)
                job.bar.update(len(indices), f"{found['total_bpd'].mean():.3f} bits/dim")

    def _require_same_images(self, store: PartStore, share: range) -> None:
        """Refuse to add to results of other images of these names; older parts do not tell."""
        kept = {i: place for i, place in store.places().items() if i in share}
        sums = {
            path: read_part(path).get(_CHECKSUM) for path in {path for path, _ in kept.values()}
        }
        for i, (path, row) in kept.items():
            stored, item = sums[path], self.crops[i]
            if stored is not None and item is not None and int(stored[row]) != _checksum(item):
                raise DataError(
                    f"{path}: {self.entries[i].name} is another image than the one that was "
                    "measured; give the --data_dir it was in, or another --output_dir"
                )

    def measure(
        self, indices: Sequence[int], tick: Callable[[], None] = lambda: None
    ) -> dict[str, NDArray[np.float64]]:
        """`total_bpd`, `prior_bpd` (n,) and the terms `vb`, `xstart_mse`, `mse` (n, T).

        Terms are in the order of the timesteps, from t = 0 on; `crc32` (n,) is of the images.
        """
        items = [item for index in indices if (item := self.crops[index]) is not None]
        pixels = torch.stack([item.image for item in items])
        images = bytes_to_image(pixels.to(self.device))
        generators = [
            torch.Generator(self.device).manual_seed(
                stable_seed(self.flags.seed, "likelihood", self.entries[index].name)
            )
            for index in indices
        ]

        def noise_fn(k: int) -> torch.Tensor:
            tick()
            noise = torch.empty_like(images)
            for row, generator in zip(noise.unbind(0), generators, strict=True):
                row.normal_(generator=generator)
            return noise

        condition: dict[str, torch.Tensor] = {}
        if self.network.class_cond:
            labels = [self.entries[index].y for index in indices]
            condition["y"] = torch.tensor(labels, device=self.device)
        options = StepOptions(clip_denoised=self.flags.clip_denoised, model_kwargs=condition)
        found = calc_bpd_loop(self.diffusion, self.model, images, options, noise_fn)
        arrays = {name: value.double().cpu().numpy() for name, value in found.items()}
        ordered = {
            name: value[:, ::-1].copy() if name in _TERMS else value
            for name, value in arrays.items()
        }
        return {**ordered, _CHECKSUM: np.array([_checksum(item) for item in items], np.float64)}


def _checksum(item: CropItem) -> int:
    return zlib.crc32(item.image.numpy().tobytes())


def write_results(store: PartStore, output_dir: str, num_images: int) -> Results:
    """Write `results.json` and `nll.npz` ; return the former. DataError for an infinite bound."""
    rows_of: dict[str, list[tuple[int, int]]] = {}
    for i, (path, row) in store.places().items():
        rows_of.setdefault(path, []).append((i, row))
    per_image = {name: np.zeros(num_images) for name in ("total_bpd", "prior_bpd", "vb_bpd")}
    sums: dict[str, NDArray[np.float64]] = {}
    for path, rows in rows_of.items():
        arrays = read_part(path)
        for i, row in rows:
            for name in ("total_bpd", "prior_bpd"):
                per_image[name][i] = arrays[name][row]
            per_image["vb_bpd"][i] = arrays["vb"][row].sum()
            for name in _TERMS:
                sums[name] = sums.get(name, np.zeros(arrays[name].shape[1])) + arrays[name][row]
    num_bad = int((~np.isfinite(per_image["total_bpd"])).sum())
    if num_bad:
        raise DataError(
            f"the bound of {num_bad} images is not finite; does --model_path fit the flags?"
        )
    means = {f"mean_{name}": value / num_images for name, value in sums.items()}
    with atomic_write(os.path.join(output_dir, TERMS_FILE)) as file:
        np.savez(file, allow_pickle=False, **per_image, **means)
    result: Results = {
        "num_images": num_images,
        "total_bpd": _mean_and_error(per_image["total_bpd"]),
        "prior_bpd": _mean_and_error(per_image["prior_bpd"]),
        "vb_bpd": _mean_and_error(per_image["vb_bpd"]),
        "xstart_mse": float(means["mean_xstart_mse"].mean()),
        "mse": float(means["mean_mse"].mean()),
    }
    settings = find_record(os.path.join(output_dir, SETTINGS_FILE), dict) or {}
    if digest := settings.get("model_sha256"):
        result["models"] = {"denoiser": [digest]}
    write_json_atomic(os.path.join(output_dir, RESULT_FILE), result)
    return result


def _mean_and_error(values: NDArray[np.float64]) -> MeanAndError:
    return {"mean": float(values.mean()), "standard_error": standard_error(values)}


def load_measure(flags: Flags, device: torch.device, log: Log) -> LikelihoodMeasure:
    """The network, the process and the images of the flags."""
    network, process, data, nll = flags
    model = load_denoiser(network, process, nll.model_path, log)
    known = start_of_file(nll.model_path).class_names
    num_classes = network.num_classes if network.class_cond else None
    listed = load_entries(data, num_classes, log, known)
    side, channels = network.image_size, network.in_channels
    num_wanted = len(listed) if nll.num_samples == -1 else nll.num_samples
    entries = first_usable(listed, num_wanted, side, data, log)
    source = CropSource([entry.name for entry in entries], crop_recipe(data, side, channels))
    return LikelihoodMeasure(
        model=model.to(device),
        diffusion=create_diffusion(process),
        listed=listed,
        entries=entries,
        crops=TestCrops(entries, side, data.data_dir, ERROR, channels, source),
        network=network,
        flags=nll,
        device=device,
    )


def first_usable(
    listed: Sequence[Entry], num_wanted: int, size: SizeLike, flags: LabelFlags, log: Log
) -> list[Entry]:
    """The first images that the flags do not leave out; says how large they are.

    Which is the i-th depends on no number, so that later runs may measure more.

    Raises:
        DataError: for small images that are to be an error, or if none is left.
    """
    facts: dict[str, ImageFacts] = {}
    kept: list[Entry] = []
    position, is_skipping = 0, flags.on_bad_image == SKIP
    while len(kept) < num_wanted and position < len(listed):
        chunk = listed[position : position + num_wanted - len(kept)]
        position += len(chunk)
        names = [entry.name for entry in chunk]
        found = look_at(names, flags.data_dir, flags, is_decoding=is_skipping)
        facts |= found
        for entry in chunk:
            one = found.get(entry.name)
            if one is None and is_skipping:
                log(f"warning: skipped {_problem(entry.name, flags.data_dir)}")
            elif one is None or one.covers(size) or flags.small_images != SKIP:
                kept.append(entry)
    if facts:
        say_sizes(facts.values(), size, len(facts), log, flags.crop)
        without_small(facts, size, flags, log)
    if not kept:
        raise DataError(f"--data_dir {flags.data_dir}: all {len(listed)} images are left out")
    return kept


def _problem(name: str, data_dir: str) -> str:
    try:
        read_image(resolve_image_path(data_dir, name))
    except BadImageError as error:
        return str(error)
    return name  # it was mended meanwhile


def require_settings(flags: Flags, entries: Sequence[Entry]) -> None:
    """Remember what results of the output folder depend on; refuse (DataError) anything else."""
    network, process, data, nll = flags
    names = "\n".join(f"{entry.name} {entry.y}" for entry in entries)
    settings = {
        **model_settings(nll.model_path, network, process),
        "clip_denoised": nll.clip_denoised,
        "seed": nll.seed,
        "data_dir": data.data_dir,
        "on_bad_image": data.on_bad_image,
        "small_images": SKIP if data.small_images == SKIP else ENLARGE,
        **vars(Reading.of(data)),
        "images": hashlib.sha256(names.encode()).hexdigest(),
    }
    found = setting_defaults(type(network), type(process), LabelFlags, NLLFlags)
    require_same_settings(os.path.join(nll.output_dir, SETTINGS_FILE), settings, defaults=found)


def dry_run(measure: LikelihoodMeasure, log: Log) -> None:
    """The first term of a batch and what the whole run would take."""
    indices = range(min(measure.flags.batch_size, measure.num_images))
    num_terms_begun, started = itertools.count(), time.monotonic()

    def stop_at_second() -> None:
        if next(num_terms_begun):
            raise StopRequested

    with contextlib.suppress(StopRequested):
        measure.measure(indices, stop_at_second)
    seconds = (time.monotonic() - started) / len(indices)
    report_cost(measure.model, measure.device, log)
    num_terms = measure.diffusion.num_timesteps  # evaluations of the network
    hours = seconds * measure.num_images * num_terms / 3600
    log(f"one network evaluation, with warm-up: {seconds:.3f} s an image")
    log(f"{measure.num_images} images of {num_terms} terms on one device: about {hours:.2f} h")


def finish_measure(store: PartStore, output_dir: str, num_images: int, log: Log) -> None:
    """Write the results if all parts are there; the parts stay, so that more images may join."""
    with store.finishing() as is_ours:
        if not is_ours:
            log("this process is done; the last one of the others writes the results")
            return
        found = write_results(store, output_dir, num_images)
    total, error = found["total_bpd"]["mean"], found["total_bpd"]["standard_error"]
    spread = "" if error is None else f" ± {error:.4f}"
    log(
        f"{num_images} images: {total:.4f}{spread} bits per dimension (prior "
        f"{found['prior_bpd']['mean']:.4f}, vb {found['vb_bpd']['mean']:.4f}); mse of the noise "
        f"{found['mse']:.4f}, of x_0 {found['xstart_mse']:.4f}; {output_dir}"
    )
