"""Bits per dimension of images under a diffusion model, and the terms that they consist of.

The bound is ``diffusion.bound``'s; the noise of an image is a function of (seed, its name).
"""

from __future__ import annotations

import contextlib
import math
import os
import zlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from diffusion.bound import calc_bpd_loop
from diffusion.types import StepOptions
from image_ddpm.flags import ImageModelFlags, NLLFlags
from image_ddpm.parts import PartStore, read_part
from utils.files.atomic import atomic_write, write_json_atomic
from utils.images.dataset import Entry, TestCrops
from utils.images.pixels import bytes_to_image
from utils.process.errors import DataError
from utils.process.progress import Progress
from utils.process.stop import StopFlag
from utils.seeds import stable_seed

if TYPE_CHECKING:
    from diffusion.reverse import ReverseProcess

RESULT_FILE, TERMS_FILE, SETTINGS_FILE = "results.json", "nll.npz", ".nll.json"
_TERMS = ("vb", "xstart_mse", "mse")
# of an image's grey levels, in the parts
_CHECKSUM = "crc32"


class _Stopped(Exception):
    """A signal came between two terms of the bound."""


class LikelihoodMeasure:
    """The bound of each image of a list.

    Args:
        model: the denoiser, on the device, frozen.
        diffusion: the process, respaced or not.
        listed: the images of the data set.
        entries: those that are measured.
        crops: the images, cut.
        network: the flags of the model.
        flags: how.
        device: where to compute.
    """

    def __init__(
        self,
        *,
        model: torch.nn.Module,
        diffusion: ReverseProcess,
        listed: Sequence[Entry],
        entries: Sequence[Entry],
        crops: TestCrops,
        network: ImageModelFlags,
        flags: NLLFlags,
        device: torch.device,
    ) -> None:
        self.model, self._diffusion, self.device = model, diffusion, device
        self.listed, self.entries, self._crops = listed, entries, crops
        self._network, self._flags = network, flags

    @property
    def num_images(self) -> int:
        """Images that are measured."""
        return len(self.entries)

    @property
    def num_terms(self) -> int:
        """Network evaluations an image."""
        return self._diffusion.num_timesteps

    def measure_first_term(self) -> int:
        """One network evaluation of a batch; returns its size."""
        indices = range(min(self._flags.batch_size, self.num_images))
        answers = iter((False, True))
        with contextlib.suppress(_Stopped):
            self.measure(indices, lambda: next(answers))
        return len(indices)

    def run(self, store: PartStore, rank: int = 0, world_size: int = 1) -> bool:
        """Measures what is missing of this process's share.

        Returns:
            True when done; False when a signal asked to stop (finished images stay).

        Raises:
            DataError: for a damaged image, or one of this share that was another one when it was
                measured.
        """
        stop, size = StopFlag(), self._flags.batch_size
        with store.share(rank, world_size) as missing, stop.listening():
            share = range(rank, self.num_images, world_size)
            self._require_same_images(store, share, stop)
            total = len(share)
            done = total - len(missing)
            with Progress(total, "likelihood", unit="image", done=done, is_shown=rank == 0) as bar:
                for start in range(0, len(missing), size):
                    indices = missing[start : start + size]
                    try:
                        found = self.measure(indices, lambda: bool(stop.reason))
                    except _Stopped:
                        return False
                    store.save(indices, found)
                    bar.update(len(indices), f"{found['total_bpd'].mean():.3f} bits/dim")
        return True

    def _require_same_images(self, store: PartStore, share: range, stop: StopFlag) -> None:
        """Refuses to add to results of other images of these names; older parts do not tell."""
        kept = {i: place for i, place in store.places().items() if i in share}
        sums = {
            path: read_part(path).get(_CHECKSUM) for path in {path for path, _ in kept.values()}
        }
        for i, (path, row) in kept.items():
            stored, item = sums[path], self._crops[i]
            if stored is not None and item is not None and int(stored[row]) != _checksum(item):
                raise DataError(
                    f"{path}: {self.entries[i].name} is another image than the one that was "
                    "measured; give the --data_dir it was in, or another --output_dir"
                )

    def measure(
        self, indices: Sequence[int], is_stopped: Callable[[], bool] = lambda: False
    ) -> dict[str, NDArray[np.float64]]:
        """``total_bpd``, ``prior_bpd`` (n,) and the terms ``vb``, ``xstart_mse``, ``mse`` (n, T).

        Terms are in the order of the timesteps, from t = 0 on; ``crc32`` (n,) is of the images.
        """
        items = [item for index in indices if (item := self._crops[index]) is not None]
        pixels = torch.stack([item["high_res"] for item in items])
        images = bytes_to_image(pixels.to(self.device))
        generators = [
            torch.Generator(self.device).manual_seed(
                stable_seed(self._flags.seed, "likelihood", self.entries[index].name)
            )
            for index in indices
        ]

        def noise_fn(k: int) -> torch.Tensor:
            if is_stopped():
                raise _Stopped
            noise = torch.empty_like(images)
            for row, generator in zip(noise.unbind(0), generators, strict=True):
                row.normal_(generator=generator)
            return noise

        condition: dict[str, Any] = {}
        if self._network.class_cond:
            labels = [self.entries[index].y for index in indices]
            condition["y"] = torch.tensor(labels, device=self.device)
        options = StepOptions(clip_denoised=self._flags.clip_denoised, model_kwargs=condition)
        found = calc_bpd_loop(self._diffusion, self.model, images, options, noise_fn)
        arrays = {name: value.double().cpu().numpy() for name, value in found.items()}
        ordered = {
            name: value[:, ::-1].copy() if name in _TERMS else value
            for name, value in arrays.items()
        }
        return {**ordered, _CHECKSUM: np.array([_checksum(item) for item in items], np.float64)}


def _checksum(item: dict[str, Any]) -> int:
    return zlib.crc32(item["high_res"].numpy().tobytes())


def write_results(store: PartStore, output_dir: str, num_images: int) -> dict[str, Any]:
    """``results.json`` and ``nll.npz`` of all images; returns the former's content.

    Raises:
        DataError: for a part that cannot be read, or images without a finite bound.
    """
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
    result = {
        "num_images": num_images,
        **{name: _mean_and_error(values) for name, values in per_image.items()},
        "xstart_mse": float(means["mean_xstart_mse"].mean()),
        "mse": float(means["mean_mse"].mean()),
    }
    write_json_atomic(os.path.join(output_dir, RESULT_FILE), result)
    return result


def _mean_and_error(values: NDArray[np.float64]) -> dict[str, float | None]:
    """Mean over images and its standard error."""
    count = len(values)
    error = float(values.std(ddof=1)) / math.sqrt(count) if count > 1 else None
    return {"mean": float(values.mean()), "standard_error": error}
