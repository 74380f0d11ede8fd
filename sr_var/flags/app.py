"""The flags of sr_app.py: where it listens, what it shows, what it refuses; no torch."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from sr_var.demo.commands import CPU, GPU, QUICK
from sr_var.flags.predict import NetPairFlags, PredictorFlags
from utils.flags.groups import ScriptFlags
from utils.process.errors import CheckpointError
from utils.script_util import flag, require_at_least

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class AppFlags(PredictorFlags, ScriptFlags):
    """Where the page is, and what it takes."""

    log_dir: str = "logs/sr_app"
    host: str = flag(
        "127.0.0.1", "address to listen at; others than this machine's own let anybody in reach in"
    )
    port: int = flag(7860, "port to listen at")
    level: float = flag(0.9, "of the intervals until somebody asks for another, 0 to 1")
    calibration: str = flag(
        "",
        "calibration.json of sr_calibrate.py for these networks: intervals of its level alone",
        is_path=True,
    )
    max_upload: int = flag(16, "MiB of an image; larger ones are refused (HTTP 413)")
    max_pixels: int = flag(1 << 20, "of an image; larger ones are refused (HTTP 413)")
    max_waiting: int = flag(8, "requests that may wait for a turn; further ones get HTTP 503")
    max_seconds: int = flag(600, "of one drawing of samples; what takes longer is ended")
    max_samples: int = flag(64, "images of one drawing")
    diffusion_model_path: str = flag(
        "",
        "checkpoints of image_train.py to draw samples from, comma separated; others of the same "
        "step, as its averages, can be chosen, too; empty: that tab says how to get one",
    )
    classifier_path: str = flag("", "checkpoint of classifier_train.py that guides it; may be left")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(
            self, max_upload=1, max_pixels=1, max_waiting=1, max_seconds=1, port=0, seed=0
        )
        require_at_least(self, max_samples=1)
        if self.port > 65535:
            raise ValueError(f"--port {self.port} must be at most 65535")
        if not self.host:
            raise ValueError("--host is empty; give an address, as 127.0.0.1")
        if self.classifier_path and not self.diffusion_model_path:
            raise ValueError(
                f"--classifier_path {self.classifier_path} guides a diffusion model; give "
                "--diffusion_model_path with it"
            )

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the page."""
        return self.host in LOOPBACK


def with_demo_nets(flags: NetPairFlags) -> NetPairFlags:
    """The flags, with the networks of `make demo` where none are given.

    Raises:
        CheckpointError: none are given, and the demo has not trained any here.
    """
    if flags.mean_model_path or flags.mean_module or flags.var_model_path:
        return flags
    for preset in (CPU, GPU, QUICK):
        mean, var = (
            f"checkpoints/{task}/{preset.name}/model{steps:06d}.pt"
            for task, steps in (("sr_mean", preset.mean_steps), ("sr_var", preset.var_steps))
        )
        if os.path.exists(mean) and os.path.exists(var):
            return replace(flags, mean_model_path=mean, var_model_path=var)
    raise CheckpointError(
        f"checkpoints/sr_mean/{CPU.name} has no networks of the demo; run `make demo` first, or "
        "give --mean_model_path and --var_model_path"
    )
