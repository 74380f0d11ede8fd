"""Tiny data, tiny networks and in-process runs of the scripts, for the super-resolution tests.

Not for assertions, and not for arrays that follow from a name (``golden_recipe`` has those).
"""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from utils.process.errors import run_main
from utils.untrusted.pickles import dump_pickle

ROOT = Path(__file__).resolve().parents[1]
LARGE, SMALL = 32, 8

# the smallest U-Net that still has two levels, a residual block on each and an attention block
NET: dict[str, Any] = {
    "large_size": LARGE,
    "small_size": SMALL,
    "num_res_blocks": 1,
    "attention_resolutions": "16",
    "channel_mult": "1,2",
    "num_heads": 2,
}
REGRESSION_NET = {**NET, "model_channels": 8}
DENOISER = {**NET, "num_channels": 8, "learn_sigma": True, "class_cond": True, "num_classes": 5}
PROCESS = {"diffusion_steps": 100, "timestep_respacing": "4"}

# class → (label, names); two images of the data set are PNGs and keep their extension
CLASSES: dict[str, tuple[int, list[str]]] = {
    "n01440764": (0, [f"n01440764_{i}" for i in (3, 18, 36, 7)]),
    "n01443537": (1, [f"n01443537_{i}" for i in (2, 16)] + ["n01443537_21.png"]),
    "n01484850": (4, ["n01484850_1.png", "n01484850_17", "n01484850_29"]),
}
TEST_NAMES = ["n01440764_7", "n01443537_21.png", "n01484850_17"]


def photo(seed: int, size: tuple[int, int] = (40, 52)) -> NDArray[np.uint8]:
    """An RGB image (H, W, 3) with slopes, an edge and some grain."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]] / 10.0
    waves = [np.sin(x * a + b) * np.cos(y * c) for a, b, c in rng.uniform(0.3, 1.5, (3, 3))]
    image = 128 + 60 * np.stack(waves, axis=-1) + 40 * (x > y + rng.normal())[..., None]
    return np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)


def write_photos(folder: Path, names: Sequence[str]) -> None:
    """One photo per name; a name without extension becomes a ``.JPEG``."""
    for seed, name in enumerate(names):
        path = folder / (name if name.endswith(".png") else f"{name}.JPEG")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(seed)).save(path, quality=95)


def write_info(path: Path, names: Sequence[str] | None = None) -> Path:
    """The info dict of the data set, or of some of its images."""
    info = {
        key: {"y": y, "file_names": [name for name in members if names is None or name in names]}
        for key, (y, members) in CLASSES.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    dump_pickle({key: entry for key, entry in info.items() if entry["file_names"]}, path)
    return path


@dataclass(frozen=True)
class TinyData:
    """Ten images on disk and the info dicts of all but three, and of these three."""

    data_dir: Path
    train_info: Path
    test_info: Path

    @classmethod
    def write(cls, data_dir: Path, info_dir: Path) -> TinyData:
        """Makes the files; both folders may exist."""
        all_names = [name for _, names in CLASSES.values() for name in names]
        write_photos(data_dir, all_names)
        train_names = [name for name in all_names if name not in TEST_NAMES]
        return cls(
            data_dir,
            write_info(info_dir / "train_data_info.pkl", train_names),
            write_info(info_dir / "to_sample_data_info.pkl", TEST_NAMES),
        )

    @property
    def train_flags(self) -> dict[str, Any]:
        """Where the training images are."""
        return {"data_dir": self.data_dir, "data_info_dict_path": self.train_info}

    @property
    def tested_flags(self) -> dict[str, Any]:
        """Where the test images are."""
        return {"data_dir": self.data_dir, "data_info_dict_path": self.test_info}

    @property
    def sample_flags(self) -> dict[str, Any]:
        """Where the images to sample for are."""
        return {"data_dir": self.data_dir, "to_sample_images_dict_path": self.test_info}


@dataclass(frozen=True)
class Outcome:
    """How a script ended and what it said."""

    code: int
    out: str
    err: str


def words(*groups: Mapping[str, Any], **flags: Any) -> list[str]:
    """Flags as a command line; later ones come last and so win."""
    merged = [item for group in (*groups, flags) for item in group.items()]
    return [word for name, value in merged for word in (f"--{name}", str(value))]


def run(script: str, argv: Sequence[str]) -> Outcome:
    """Runs a script as the shell would, in this process: exit code, standard output and error."""
    module = importlib.import_module(script)
    out, err = io.StringIO(), io.StringIO()
    code: int = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            run_main(lambda: module.main(list(argv)))
        except SystemExit as stop:
            code = int(stop.code or 0)
    return Outcome(code, out.getvalue(), err.getvalue())


def done(script: str, argv: Sequence[str]) -> Outcome:
    """Runs a script that must end with exit code 0."""
    outcome = run(script, argv)
    assert outcome.code == 0, f"{script} ended with {outcome.code}\n{outcome.out}\n{outcome.err}"
    return outcome


def tree(folder: Path) -> dict[str, bytes]:
    """Relative path → content of every file below a folder; empty if there is none."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def shake(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Sets every parameter in place from a seed: fresh networks are zero in their last layers."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim >= 2:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
            else:
                parameter.copy_(0.1 * noise + name.endswith("weight"))
    return model


def save_weights(model: torch.nn.Module, path: Path) -> Path:
    """Writes a bare state_dict, as other tools do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), path)
    return path
