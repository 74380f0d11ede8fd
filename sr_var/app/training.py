"""A training of images as the command that does it: what may be chosen, and its words.

The flags, their helps, choices and defaults are those of the parser of `image_train.py`, and that
parser judges every command before it is shown. Nothing is run, and no path is looked at.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from sr_var.app.results import Refused
from utils.script_util import FlagParser

SCRIPT = "image_train.py"
# headings, and the flags below each, in the order of the form
SECTIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "Images": (
            "data_dir",
            "image_size",
            "in_channels",
            "crop",
            "class_cond",
            "num_classes",
            "class_dropout",
            "random_flip",
            "random_crop",
        ),
        "Network": (
            "num_channels",
            "num_res_blocks",
            "channel_mult",
            "attention_resolutions",
            "num_head_channels",
            "act",
            "dropout",
            "use_checkpoint",
        ),
        "Noise and loss": (
            "noise_schedule",
            "diffusion_steps",
            "loss_type",
            "learn_sigma",
            "predict_xstart",
            "schedule_sampler",
        ),
        "Steps": (
            "max_step",
            "batch_size",
            "microbatch",
            "optimizer",
            "lr",
            "lr_schedule",
            "lr_anneal_steps",
            "lr_warmup_steps",
            "weight_decay",
            "ema_rate",
        ),
        "The run": (
            "log_dir",
            "resume_checkpoint",
            "init_from",
            "save_interval",
            "keep_last_k",
            "sample_interval",
            "num_workers",
            "seed",
        ),
    }
)
# what the form begins with, where that is not the flag's default
_BEGIN: Mapping[str, Any] = MappingProxyType(
    {
        "data_dir": "data/mine",
        "log_dir": "logs/image_ddpm/mine",
        "resume_checkpoint": "auto",
        "max_step": 100000,
        "batch_size": 16,
    }
)
PRECISIONS: Mapping[str, str] = MappingProxyType(
    {"fp32": "", "fp16": "use_fp16", "bf16": "use_bf16"}
)
MOST_PROCESSES = 1024
_UNFIT = 422
_LONGEST = 4096


class Form:
    """The flags of a training, each with what a form shows of it.

    Args:
        make_parser: of image_train.py.
    """

    def __init__(self, make_parser: Callable[[], FlagParser]) -> None:
        self._make_parser = make_parser
        declared = make_parser().declared
        self.flags = {name: declared[name] for names in SECTIONS.values() for name in names}

    def begin(self, name: str) -> Any:
        """What a flag's widget shows first."""
        return _BEGIN.get(name, self.flags[name].default)

    def command(
        self, values: Mapping[str, Any], precision: str = "fp32", num_processes: int = 1
    ) -> str:
        """Return the line that trains as the form says, flags of their default value left out.

        `values` are by flag; an empty one (None) is the default.

        Raises:
            Refused: 422, the parser would not take it.
        """
        words = [
            word
            for name, field in self.flags.items()
            for word in _words(name, values.get(name), field)
        ]
        if precision not in PRECISIONS:
            raise Refused(_UNFIT, f"precision {precision!r}: give {', '.join(PRECISIONS)}")
        words += [f"--{PRECISIONS[precision]}", "True"] if PRECISIONS[precision] else []
        if not 1 <= num_processes <= MOST_PROCESSES:
            raise Refused(_UNFIT, f"processes {num_processes}: give 1 to {MOST_PROCESSES}")
        # a parser of its own: it is changed while it judges
        if problem := self._make_parser().problem_with(words):
            raise Refused(_UNFIT, " ".join(problem.split()))
        start = ["python"]
        if num_processes > 1:
            start = ["torchrun", "--nproc_per_node", str(num_processes)]
        return shlex.join([*start, SCRIPT, *words])


def _words(name: str, value: Any, field: dataclasses.Field[Any]) -> list[str]:
    """The words of one flag; none where it has its default."""
    kind = type(field.default)
    if value is None:
        return []
    if kind is int and isinstance(value, float) and value == int(value):
        value = int(value)
    text = str(value).strip()
    if "\0" in text or len(text) > _LONGEST:
        raise Refused(_UNFIT, f"{name}: a text of up to {_LONGEST} characters, without NUL")
    if text == str(field.default) or (kind is float and value == field.default):
        return []
    # a word of its own that begins so would be a flag
    return [f"--{name}={text}"] if text.startswith("-") else [f"--{name}", text]
