"""The images that a classifier is judged on while it trains, each at several noise levels.

Noise and timesteps are functions of an image's name alone, so that every validation of every
training sees the same ones.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence

import torch

from ddpm.entries import load_entries
from ddpm.process import create_diffusion
from ddpm.stored_flags import class_names
from ddpm.train_loop import seeded_noise
from diffusion.process import GaussianDiffusion
from image_ddpm.classifier import NoiseLevels, NoisyImages
from image_ddpm.flags import (
    ClassifierImageFlags,
    ClassifierProcessFlags,
    ClassifierTrainFlags,
    ImageDataFlags,
)
from utils.files.atomic import is_remote
from utils.flags.groups import Reading
from utils.images.crops.held_out import load_held_out
from utils.images.files import with_extension
from utils.images.listing import Entry
from utils.images.pixels import bytes_to_image
from utils.loops.data import Pair
from utils.loops.validation import Validation
from utils.process.errors import DataError
from utils.seeds import stable_seed

Log = Callable[[str], None]
_QUARTERS = 4


def load_validation(
    trained: Sequence[Entry],
    flags: ImageDataFlags,
    image: ClassifierImageFlags,
    train: ClassifierTrainFlags,
    process: ClassifierProcessFlags,
    device: torch.device,
    log: Log,
) -> Validation | None:
    """What a classifier is judged on while it trains; None without `--val_data_dir`.

    Labels are those of the `trained` images. All processes call it.

    Raises:
        DataError: images are missing, damaged, trained on, or of a class that is not trained.
    """
    folder = train.val_data_dir
    if not folder:
        return None
    own = dataclasses.replace(flags, data_dir=folder, data_info_dict_path="")

    def told(line: str) -> None:
        log(f"validation: {line}")

    known = class_names(trained)
    entries = load_entries(own, image.num_classes, told, known, "--val_data_dir")
    _refuse_trained(entries, folder, trained, flags.data_dir)
    held_out = load_held_out(
        entries, image.image_size, train.val_images, own, told, image.in_channels
    )
    diffusion = create_diffusion(process)
    log(held_out.words(folder, train.val_interval))

    make = noise_levels if process.noised else _without_noise

    def pairs() -> Iterator[tuple[int, Pair]]:
        for place, item in held_out.crops.items():
            x = bytes_to_image(item.image[None].to(device))
            levels = make(diffusion, x, item.name)
            label = torch.full((len(levels.shares),), item.label, device=device)
            yield place, (levels, label)

    names = [with_extension(entry.name) for entry in held_out.entries]
    record = {"noised": process.noised, **dataclasses.asdict(Reading.of(flags))}
    return Validation(names, pairs, train.val_interval, record)


def noise_levels(diffusion: GaussianDiffusion, x: torch.Tensor, name: str) -> NoiseLevels:
    """One timestep of each quarter of the chain, uniform in it, and x (1, C, H, W) at each.

    Draws are functions of (name, quarter). A chain of T < 4 steps has T quarters that are not
    empty, and only these count.
    """
    total, device = diffusion.num_timesteps, x.device
    ends = [-(-quarter * total // _QUARTERS) for quarter in range(_QUARTERS + 1)]
    quarters = [quarter for quarter in range(_QUARTERS) if ends[quarter] < ends[quarter + 1]]
    seeds = [stable_seed("validation noise", name, quarter) for quarter in quarters]
    sizes = [ends[quarter + 1] - ends[quarter] for quarter in quarters]
    steps = [stable_seed("validation timestep", name, quarter) for quarter in quarters]
    starts = [ends[quarter] for quarter in quarters]
    drawn = [a + step % size for a, step, size in zip(starts, steps, sizes, strict=True)]
    t = torch.tensor(drawn, device=device)
    noise = seeded_noise(seeds, tuple(x.shape[1:]), device)
    noisy = diffusion.q_sample(x.expand_as(noise), t, noise=noise)
    shares = torch.tensor(sizes, dtype=torch.float64, device=device) / total
    return NoiseLevels(NoisyImages(noisy, diffusion.network_timesteps(t)), shares, quarters)


def _without_noise(diffusion: GaussianDiffusion, x: torch.Tensor, name: str) -> NoiseLevels:
    """The image as it is, for a classifier that sees no noise."""
    t = torch.zeros(1, dtype=torch.int64, device=x.device)
    shares = torch.ones(1, dtype=torch.float64, device=x.device)
    return NoiseLevels(NoisyImages(x, diffusion.network_timesteps(t)), shares, [])


def _refuse_trained(
    entries: Sequence[Entry], folder: str, trained: Sequence[Entry], data_dir: str
) -> None:
    """DataError for files that are trained on, whatever the paths of both folders are.

    Links are followed: of folders, and of the files to judge; of all files to train on that would
    take minutes.
    """
    real = functools.cache(_real)
    judged = {
        entry.name: _real(os.path.join(folder, with_extension(entry.name))) for entry in entries
    }
    files, there = {*judged.values()}, set()
    for entry in trained:
        place, name = os.path.split(os.path.join(data_dir, with_extension(entry.name)))
        path = os.path.join(real(place), name)
        if path in files:
            there.add(path)
    both = [name for name, path in judged.items() if path in there]
    if both:
        raise DataError(
            f"--val_data_dir {folder}: {len(both)} of {len(entries)} images are trained on, as "
            f"{both[0]}; give a folder of others, outside --data_dir {data_dir}"
        )


def _real(path: str) -> str:
    return path if is_remote(path) else os.path.realpath(path)
