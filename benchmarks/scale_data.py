"""Samples of noise, their moments, the nets' results and the images: folders to verify."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sr_var.results.folder import LOW_RES_FILE, SAMPLES_FOLDER, sample_path
from sr_var.results.moments import MOMENTS_FILE, SampleMoments
from utils.images.pictures import write_picture
from utils.process.stop import ANEW
from utils.runs.job import working
from utils.seeds import stable_seed
from utils.untrusted.pickles import dump_pickle

SIDE, FACTOR = 256, 4


def write_verification(root: Path, names: Sequence[str], num_samples: int) -> None:
    """Write `samples` (pictures), `stored` (moments), `nets`, `images` and `info.pkl` into `root`.

    Grey levels of normal laws whose mean and std are those of the nets.
    """
    root.mkdir(parents=True)
    (root / "images").mkdir()
    dump_pickle({"class": {"y": 0, "file_names": list(names)}}, root / "info.pkl")
    with working(len(names), "writing samples", "image", remedy=ANEW) as job:
        for name in names:
            _write(root, name, num_samples)
            job.done()


def _write(root: Path, name: str, num_samples: int) -> None:
    rng = np.random.default_rng(stable_seed(name))
    shape = (SIDE, SIDE, 3)
    mean, std = rng.uniform(80, 180, shape), rng.uniform(3, 12, shape)
    pictures, stored, nets = (root / kind / name for kind in ("samples", "stored", "nets"))
    for folder in (pictures, stored):
        (folder / SAMPLES_FOLDER).mkdir(parents=True)
        write_picture(str(folder / LOW_RES_FILE), _grey(mean[::FACTOR, ::FACTOR]))
    moments = SampleMoments()
    for index in range(num_samples):
        sample = _grey(mean + std * rng.standard_normal(shape))
        write_picture(sample_path(str(pictures), index), sample)
        moments = moments.add(sample[None].astype(float), [index], SIDE // FACTOR)
    moments.save(str(stored / MOMENTS_FILE), is_final=True)
    write_picture(str(root / "images" / name), _grey(mean + std * rng.standard_normal(shape)))
    nets.mkdir(parents=True)
    np.save(nets / "high_res_mean_1.npy", mean.astype(np.float32))
    dump_pickle((std**2).astype(np.float32), nets / "high_res_var_1.pkl")


def write_links(source: Path, root: Path, names: Sequence[str], known: Sequence[str]) -> None:
    """The same of more images, with both samples and moments in `samples`: links, in turn."""
    (root / "images").mkdir(parents=True)
    dump_pickle({"class": {"y": 0, "file_names": list(names)}}, root / "info.pkl")
    for number, name in enumerate(names):
        of = known[number % len(known)]
        os.link(source / "images" / of, root / "images" / name)
        for kind, where in (("nets", "nets"), ("samples", "samples"), ("stored", "samples")):
            for path in (source / kind / of).rglob("*.*"):
                link = root / where / name / path.relative_to(source / kind / of)
                link.parent.mkdir(parents=True, exist_ok=True)
                if not link.exists():
                    os.link(path, link)


def _grey(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
