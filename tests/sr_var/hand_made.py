"""Result folders made by hand, whose metrics are known: no network and no sampler is involved."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sr_var.flags.verify import VerificationFlags
from sr_var.results.moments import SampleMoments
from sr_var.verify.run import verify_all
from utils.logger import RunLogger
from utils.untrusted.pickles import dump_pickle

Array = NDArray[np.float64]
SIZE = 8
SHAPE = (SIZE, SIZE, 3)
MEAN_STEP, VAR_STEP = 70, 50


@dataclass(frozen=True)
class Results:
    """Folders of images, samples and nets' results under one root."""

    root: Path

    def flags(self, **changes: Any) -> VerificationFlags:
        """Flags that compare everything that is here."""
        flags: dict[str, Any] = {
            "data_dir": str(self.root / "images"),
            "data_info_dict_path": str(self.root / "info.pkl"),
            "large_size": SIZE,
            "ddpm_sr_output_dir": str(self.root / "samples"),
            "sr_model_output_dir": str(self.root / "nets"),
            "mean_model_step": MEAN_STEP,
            "var_model_step": VAR_STEP,
            "log_dir": str(self.root / "log"),
            "num_threads": 2,
        }
        return VerificationFlags(**{**flags, **changes})

    def verify(self, **changes: Any) -> list[str]:
        """Compare what is here by `flags` with these changes; return the lines that are said."""
        flags, said = self.flags(**changes), list[str]()
        logger = RunLogger(None if flags.dry_run else flags.log_dir)
        logger.info = said.append  # type: ignore[method-assign]
        try:
            verify_all(flags, logger)
        finally:
            logger.close()
        return said

    def add_image(self, name: str, high_res_255: float = 100.0) -> None:
        """A flat photograph and its entry in the info dict."""
        path = self.root / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full(SHAPE, high_res_255, np.uint8)).save(path, format="PNG")
        info_path = self.root / "info.pkl"
        info = pickle.loads(info_path.read_bytes()) if info_path.exists() else {}
        info.setdefault("class", {"y": 0, "file_names": []})["file_names"].append(name)
        dump_pickle(info, info_path)

    def add_samples(self, name: str, samples_255: Array, *, has_moments: bool) -> Path:
        """Pictures of the (n, H, W, 3) samples, rounded, and their float moments if wanted."""
        folder = self.root / "samples" / name
        (folder / "high_res_samples").mkdir(parents=True, exist_ok=True)
        for index, sample in enumerate(samples_255):
            picture = np.clip(np.rint(sample), 0, 255).astype(np.uint8)
            Image.fromarray(picture).save(folder / "high_res_samples" / f"sample_{index}.png")
        Image.fromarray(np.zeros((SIZE // 4, SIZE // 4, 3), np.uint8)).save(folder / "low_res.png")
        if has_moments:
            counted = SampleMoments().add(samples_255, range(len(samples_255)))
            counted.save(str(folder / "moments.npz"), is_final=True)
        return folder

    def add_nets(self, name: str, mean_255: Array, variance: Array) -> Path:
        """What the two test scripts write."""
        folder = self.root / "nets" / name
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"high_res_mean_{MEAN_STEP}.npy", mean_255.astype(np.float32))
        picture = np.clip(np.rint(mean_255), 0, 255).astype(np.uint8)
        Image.fromarray(picture).save(folder / f"high_res_mean_{MEAN_STEP}.png")
        dump_pickle(variance.astype(np.float32), folder / f"high_res_var_{VAR_STEP}.pkl")
        return folder


def flat(value: float) -> Array:
    """An image of one grey level."""
    return np.full(SHAPE, value)


def stack(*values: float) -> Array:
    """Flat samples, (n, H, W, 3)."""
    return np.stack([flat(value) for value in values])


def make_results(root: Path) -> Results:
    """Three images. Samples 10, 20, 30, 40 each (k2 = 500/3), in float on the first two.

    Net means 25, 27, 31 (squared errors 0, 4, 36), net variances 64, -1 and 500/3.
    """
    results = Results(root)
    nets = {"a.png": (25.0, 64.0), "folder/b.png": (27.0, -1.0), "c.png": (31.0, 500 / 3)}
    for name, (mean, variance) in nets.items():
        results.add_image(name)
        results.add_samples(name, stack(10, 20, 30, 40), has_moments=name != "c.png")
        results.add_nets(name, flat(mean), flat(variance))
    return results
