"""Samples of an image diffusion model: what may be chosen, and `image_sample.py` that draws them.

The script runs as a process of its own, as a user would start it: with its readers, its checks and
its words, and it can be ended at any time.
"""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from ddpm.flags import SAMPLER_NAMES
from ddpm.stored_flags import start_of_file, trained_labels
from sr_var.app.results import Refused, Turns
from utils.files.records import made_with
from utils.process.errors import CheckpointError

RANDOM = "random"
MOST_IMAGES = 16
# folders of drawings that are kept
KEPT = 8
_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# the solvers work best with steps that are even in the log-SNR (docs/samplers.md)
_SPACING: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(("plms", "dpm_solver_2", "dpmpp_2m", "dpmpp_3m", "dpmpp_2m_sde"), "logsnr")
)
_UNFIT, _STOPPED, _FAILED = 422, 409, 500


@dataclass(frozen=True)
class Wish:
    """What to draw.

    Attributes:
        label: a class of `Model.labels`; empty: at random, or a model without classes.
        num_images: 1 to `MOST_IMAGES`.
        steps: network evaluations of a sample.
        guidance: classifier-free; 1: none.
        classifier_scale: of the classifier's gradient; without effect where there is none.
    """

    label: str = ""
    num_images: int = 4
    sampler: str = "ancestral"
    steps: int = 25
    guidance: float = 1.0
    classifier_scale: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Model:
    """What a checkpoint of image_train.py says of itself.

    Attributes:
        labels: number and name of each class, as in `3 cat`; empty without classes.
        max_steps: of its process.
        has_guidance: whether it was trained for classifier-free guidance.
    """

    path: str
    labels: tuple[str, ...]
    max_steps: int
    has_guidance: bool
    classifier_path: str = ""

    @classmethod
    def read(cls, path: str, classifier_path: str = "") -> Model:
        """Read it off the manifest.

        Raises:
            CheckpointError: a file is missing, or there is no manifest beside the denoiser.
        """
        for one in filter(None, (path, classifier_path)):
            if not os.path.isfile(one):
                raise CheckpointError(f"{one} does not exist; name a checkpoint of its training")
        start = start_of_file(path)
        made = made_with(start.manifest)
        if not {"diffusion_steps", "image_size"} <= made.keys():
            raise CheckpointError(
                f"{path} has no manifest of image_train.py beside it, so its flags are not known; "
                "name a checkpoint in the folder of its training"
            )
        start_guide = start_of_file(classifier_path)
        names = start.class_names or start_guide.class_names
        labels: tuple[str, ...] = ()
        if made.get("class_cond") or classifier_path:
            made_guide = made_with(start_guide.manifest)
            num = int((made if made.get("class_cond") else made_guide).get("num_classes", 1))
            known = [*names, *[""] * num]
            labels = tuple(f"{y} {known[y]}".strip() for y in trained_labels(names, num))
        has_guidance = bool(made.get("class_cond") and made.get("class_dropout"))
        steps = int(made["diffusion_steps"])
        return cls(path, labels, steps, has_guidance, classifier_path)

    def command(self, wish: Wish, folder: str) -> list[str]:
        """Return the words of `image_sample.py` for a wish.

        Raises:
            Refused: 422, for what is not among the choices.
        """
        in_range = {
            "images": (wish.num_images, 1, MOST_IMAGES),
            "steps": (wish.steps, 1, self.max_steps),
            "seed": (wish.seed, 0, 2**31 - 1),
            "guidance": (wish.guidance, 0, 20),
            "classifier_scale": (wish.classifier_scale, 0, 100),
        }
        for name, (value, low, high) in in_range.items():
            if not low <= value <= high:
                raise Refused(_UNFIT, f"{name} {value} must be from {low} to {high}")
        if wish.sampler not in SAMPLER_NAMES:
            raise Refused(_UNFIT, f"sampler {wish.sampler!r}: give {', '.join(SAMPLER_NAMES)}")
        if wish.label and wish.label not in self.labels:
            raise Refused(_UNFIT, f"class {wish.label!r} is none of this model's")
        flags: dict[str, object] = {
            "model_path": self.path,
            "num_samples": wish.num_images,
            "batch_size": wish.num_images,
            "sampler": wish.sampler,
            "timestep_respacing": f"{_SPACING.get(wish.sampler, '')}{wish.steps}",
            "seed": wish.seed,
            "png": True,
            "output_dir": folder,
            "log_dir": folder,
        }
        if wish.label:
            flags["labels"] = wish.label.partition(" ")[0]
        if self.has_guidance:
            flags["guidance_scale"] = f"{wish.guidance:g}"
        if self.classifier_path:
            flags["classifier_path"] = self.classifier_path
            flags["classifier_scale"] = f"{wish.classifier_scale:g}"
        return ["image_sample.py", *(f"--{name}={value}" for name, value in flags.items())]


@dataclass(frozen=True)
class Drawing:
    """Pictures with their captions, an archive of all files, and the command that made them."""

    pictures: tuple[tuple[str, str], ...]
    archive: str
    command: str


class Sampling:
    """Draws samples, one drawing at a time, each in a folder below `folder`."""

    def __init__(self, model: Model, folder: str, turns: Turns, max_seconds: int) -> None:
        self.model, self._folder, self._turns = model, folder, turns
        self._max_seconds, self._folders = max_seconds, list[str]()
        self._process: subprocess.Popen[str] | None = None
        self._guard = threading.Lock()

    def draw(self, wish: Wish) -> Drawing:
        """Draw, when the turn comes.

        Raises:
            Refused: 422, what cannot be drawn; 409, stopped or too slow; 503, too many wait.
        """
        folder = os.path.join(self._folder, secrets.token_hex(16))
        words = self.model.command(wish, folder)
        try:
            with self._turns.take():
                self._run(words)
        except Refused:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        pictures = _pictures(os.path.join(folder, "png"))
        archive = os.path.join(folder, "samples.zip")
        with zipfile.ZipFile(archive, "w") as file:
            for name in sorted(os.listdir(folder)):
                if name.startswith("samples_") or name == "classes.json":
                    file.write(os.path.join(folder, name), name)
            for path, _ in pictures:
                file.write(path, f"png/{os.path.basename(path)}")
        with self._guard:
            self._folders.append(folder)
            old, self._folders = self._folders[:-KEPT], self._folders[-KEPT:]
        for one in old:
            shutil.rmtree(one, ignore_errors=True)
        shown = [word for word in words if not word.startswith(("--output_dir", "--log_dir"))]
        return Drawing(pictures, archive, shlex.join(["python", *shown, "--log_dir=DIR"]))

    def stop(self) -> None:
        """End the drawing that is under way, if one is."""
        with self._guard:
            if self._process is not None:
                self._process.terminate()

    def _run(self, words: Sequence[str]) -> None:
        process = subprocess.Popen(
            [sys.executable, os.path.join(_ROOT, words[0]), *words[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        with self._guard:
            self._process = process
        try:
            said, _ = process.communicate(timeout=self._max_seconds)
        except subprocess.TimeoutExpired:
            raise Refused(
                _STOPPED,
                f"ended after {self._max_seconds} s (--max_seconds); take fewer steps or images",
            ) from None
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()
            with self._guard:
                self._process = None
        if process.returncode:
            lines = [line for line in said.splitlines() if line.startswith("error: ")]
            if lines:
                raise Refused(_UNFIT, lines[-1].removeprefix("error: "))
            is_stop = process.returncode in (75, -15)
            raise Refused(
                _STOPPED if is_stop else _FAILED,
                "stopped" if is_stop else f"image_sample.py ended with {process.returncode}",
            )


def _pictures(folder: str) -> tuple[tuple[str, str], ...]:
    """Path and class of each picture `<label>_<name>_<index>.png`, by index."""
    found = []
    for name in os.listdir(folder):
        before, _, index = os.path.splitext(name)[0].rpartition("_")
        found.append((index, os.path.join(folder, name), before.replace("_", " ", 1)))
    return tuple((path, caption) for _, path, caption in sorted(found))
