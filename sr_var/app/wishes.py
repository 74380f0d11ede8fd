"""What may be drawn of which diffusion model, and the command that draws it.

A model is a file of a checkpoint that was named at the start, or another of its set: the weights
as they were trained, and each of their averages.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

from ddpm.flags import EACH, PICTURE_FORMATS, SAMPLER_NAMES
from ddpm.stored_flags import Start, start_of_file, trained_labels
from sr_var.app.results import Refused
from utils.files.records import made_with
from utils.files.storage import with_home
from utils.process.errors import CheckpointError
from utils.sizes import Size

RANDOM = "random"
DEFAULT_IMAGES, DEFAULT_STEPS = 4, 25
# samples of one network evaluation
_BATCH = 16
_LARGEST_SEED = (1 << 31) - 1
_UNFIT = 422
_KINDS: Mapping[type, tuple[str, tuple[type, ...]]] = MappingProxyType(
    {str: ("a text", (str,)), int: ("a whole number", (int,)), float: ("a number", (int, float))}
)


@dataclass(frozen=True)
class Wish:
    """What to draw.

    Attributes:
        model: a name of `read_models`; empty: the first.
        labels: a class by number, by name, or as `Model.labels` has it; several with commas
            between them, which come in turn; `each`: one of each; `random`, or empty: at random.
        num_samples: 0: one of each class, or `DEFAULT_IMAGES`.
        steps: of a sample; 0: `DEFAULT_STEPS`, or as many as the process has.
        guidance_scale: classifier-free; 1: none.
        classifier_scale: of the classifier's gradient; without effect where there is none.
        image_format: of the pictures.
    """

    model: str = ""
    labels: str = ""
    num_samples: int = 0
    sampler: str = "dpmpp_2m"
    steps: int = 0
    guidance_scale: float = 1.0
    classifier_scale: float = 1.0
    seed: int = 0
    image_format: str = PICTURE_FORMATS[0]

    @classmethod
    def from_json(cls, content: Any) -> Wish:
        """The wish of a JSON object with some of these keys.

        Raises:
            Refused: 422, another key, or a value of another type.
        """
        if not isinstance(content, dict):
            raise Refused(_UNFIT, 'send a JSON object, as {} or {"num_samples": 4}')
        known = {field.name: field for field in fields(cls)}
        for name, value in content.items():
            if name not in known:
                raise Refused(_UNFIT, f"{name!r} is unknown: give {', '.join(known)}")
            kind, types = _KINDS[type(known[name].default)]
            if isinstance(value, bool) or not isinstance(value, types):
                raise Refused(_UNFIT, f"{name} {value!r} must be {kind}")
        return cls(**content)


@dataclass(frozen=True)
class Model:
    """What a checkpoint of image_train.py says of itself.

    Attributes:
        labels: number and name of each class, as in `3 cat`; empty without classes.
        max_steps: of its process.
        has_guidance: whether it was trained for classifier-free guidance.
        facts: what else the page says of it.
    """

    path: str
    labels: tuple[str, ...]
    max_steps: int
    has_guidance: bool
    classifier_path: str = ""
    facts: str = ""

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
        facts = _facts(made, start, len(labels))
        return cls(path, labels, steps, has_guidance, classifier_path, facts)

    @property
    def usual_steps(self) -> int:
        """Steps of a sample where nobody asks for another number."""
        return min(DEFAULT_STEPS, self.max_steps)

    def number(self, label: str) -> str:
        """The number of a class that is named in any of the ways of `Wish.labels`.

        Raises:
            Refused: 422, there is no such class.
        """
        for known in self.labels:
            number, _, name = known.partition(" ")
            if label in (known, number, name or known):
                return number
        listed = ", ".join(self.labels[:5]) + (", …" if len(self.labels) > 5 else "")
        raise Refused(_UNFIT, f"class {label!r} is none of this model's: {listed or 'it has none'}")

    def chosen(self, labels: str) -> str:
        """What `--labels` is to be; empty: at random, or a model without classes."""
        text = labels.strip()
        if text in ("", RANDOM):
            return ""
        if text == EACH and self.labels:
            return EACH
        if text in self.labels:
            return self.number(text)
        return ",".join(self.number(part.strip()) for part in text.split(","))

    def command(self, wish: Wish, folder: str, max_samples: int) -> list[str]:
        """Return the words of `image_sample.py` for a wish.

        Raises:
            Refused: 422, for what is not among the choices.
        """
        labels = self.chosen(wish.labels)
        usual = len(self.labels) if labels == EACH else min(DEFAULT_IMAGES, max_samples)
        number, steps = wish.num_samples or usual, wish.steps or self.usual_steps
        in_range = {
            "num_samples": (number, 1, max_samples),
            "steps": (steps, 1, self.max_steps),
            "seed": (wish.seed, 0, _LARGEST_SEED),
            "guidance_scale": (wish.guidance_scale, 0, 20),
            "classifier_scale": (wish.classifier_scale, 0, 100),
        }
        for name, (value, low, high) in in_range.items():
            if not low <= value <= high:
                raise Refused(_UNFIT, f"{name} {value} must be from {low} to {high}")
        for name, choices in (("sampler", SAMPLER_NAMES), ("image_format", PICTURE_FORMATS)):
            if (value := getattr(wish, name)) not in choices:
                raise Refused(_UNFIT, f"{name} {value!r}: give {', '.join(choices)}")
        flags: dict[str, object] = {
            "model_path": self.path,
            "num_samples": number,
            "batch_size": min(number, _BATCH),
            "sampler": wish.sampler,
            "timestep_respacing": f"{spacing_of(wish.sampler)}{steps}",
            "seed": wish.seed,
            "png": True,
            "image_format": wish.image_format,
            "output_dir": folder,
            "log_dir": folder,
        }
        if labels:
            flags["labels"] = labels
        if self.has_guidance:
            flags["guidance_scale"] = f"{wish.guidance_scale:g}"
        if self.classifier_path:
            flags["classifier_path"] = self.classifier_path
            flags["classifier_scale"] = f"{wish.classifier_scale:g}"
        return ["image_sample.py", *(f"--{name}={value}" for name, value in flags.items())]


def spacing_of(sampler: str) -> str:
    """How the steps of a sampler lie best (docs/samplers.md): of higher order, even in log-SNR."""
    return "" if sampler in ("ancestral", "ddim") else "logsnr"


def read_models(paths: str, classifier_path: str = "") -> dict[str, Model]:
    """The models of checkpoints with commas between them, and of the others of their sets, by name.

    The name is that of the file, with as much of its folder as tells it from the others.

    Raises:
        CheckpointError: see `Model.read`.
    """
    found: dict[str, None] = {}
    for path in (with_home(part.strip()) for part in paths.split(",") if part.strip()):
        found[path] = None
        files = start_of_file(path).manifest.get("files", {})
        beside = (os.path.join(os.path.dirname(path), os.path.basename(name)) for name in files)
        roles = (entry["role"] for entry in files.values())
        found |= {
            one: None
            for one, role in zip(beside, roles, strict=True)
            if role != "opt" and os.path.isfile(one)
        }
    return {_name(path, list(found)): Model.read(path, classifier_path) for path in found}


def _name(path: str, others: list[str]) -> str:
    parts = path.split(os.sep)
    for count in range(1, len(parts)):
        name = os.sep.join(parts[-count:])
        if sum(other.endswith(os.sep + name) or other == name for other in others) == 1:
            return name
    return path


def _facts(made: Mapping[str, Any], start: Start, num_labels: int) -> str:
    """What a model is, in a few words."""
    kind = "grey" if made.get("in_channels") == 1 else "colour"
    parts = [f"{kind} images of {Size.of(made['image_size']).in_pixels()} pixels"]
    parts += [f"a process of {made['diffusion_steps']} steps"]
    parts += [f"{num_labels} classes"] if num_labels else []
    parts += [f"activation {made['act']}"] if "act" in made else []
    parts += [f"step {start.manifest['step']} of the training"] if start.manifest else []
    return ", ".join(parts)
