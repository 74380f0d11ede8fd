"""Commands for every root script, one after the other in a process whose streams are maimed.

    python -m tests.scripts.streams COMMANDS CODES

COMMANDS is JSON, a list of [script, words]; CODES gets the list of their exit codes.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

from utils.process.errors import run_main

Commands = list[tuple[str, list[str]]]
SIDE = 16
STEPS: dict[str, Any] = {"diffusion_steps": 4, "noise_schedule": "cosine"}
NET: dict[str, Any] = {
    "image_size": SIDE,
    "num_channels": 8,
    "num_res_blocks": 1,
    "channel_mult": "1,2",
    "attention_resolutions": "8",
    "num_heads": 2,
    "learn_sigma": True,
    **STEPS,
}
CLASSIFIER: dict[str, Any] = {
    "image_size": SIDE,
    "num_classes": 3,
    **STEPS,
    "classifier_width": 8,
    "classifier_depth": 1,
    "classifier_channel_mult": "1,2",
    "classifier_attention_resolutions": "8",
    "classifier_num_head_channels": 8,
}
TRAINING: dict[str, Any] = {"batch_size": 2, "max_step": 1, "log_interval": 1}


def _words(**flags: Any) -> list[str]:
    return [word for name, value in flags.items() for word in (f"--{name}", str(value))]


def image_commands(root: Path, images: Path) -> Commands:
    """Plain diffusion, from images to figures of quality."""
    log, digits = {"log_dir": root / "image"}, root / "digits"
    model = {"model_path": root / "image" / "model000001.pt"}
    few = {"num_samples": 2, "batch_size": 2}
    return [
        ("image_data", _words(output_dir=digits, max_per_class=1, log_dir=root / "image_data")),
        ("image_train", _words(**NET, **TRAINING, **log, data_dir=images)),
        ("image_sample", _words(**NET, **model, **log, **few)),
        ("image_nll", _words(**NET, **model, **few, data_dir=images, log_dir=root / "nll")),
        ("image_eval", _words(reference=images, samples=images, log_dir=root / "eval")),
        (
            "classifier_train",
            _words(**CLASSIFIER, **TRAINING, data_dir=images, log_dir=root / "classifier"),
        ),
    ]


def label_commands(root: Path, data_dir: Path) -> Commands:
    """Noisy labels: the data, and a net."""
    folders = {"data_dir": data_dir, "log_dir": root / "labels", "model_save_dir": root / "labels"}
    return [
        ("mnist_data", _words(output_dir=root / "mnist")),
        ("mnist_classification", _words(**TRAINING, **folders)),
    ]


def main() -> None:
    """Runs the commands; each ends as it would in a process of its own."""
    codes = []
    for script, words in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        module = importlib.import_module(script)
        try:
            run_main(lambda: module.main(words))  # noqa: B023 - called at once
        except SystemExit as stop:
            codes.append(int(stop.code or 0))
    Path(sys.argv[2]).write_text(json.dumps(codes), encoding="utf-8")


if __name__ == "__main__":
    main()
