"""The flags of every training script; read by the parser (no torch) and by `TrainLoop`."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from utils.flags.groups import Batch, Compute, PrecisionFlags, ScriptFlags, Strict
from utils.script_util import FlagValues, flag, require_at_least

UNLIMITED_STEPS = int(1e8)
ADAMW, MUON, ADAM, SGD = "adamw", "muon", "adam", "sgd"


@dataclass(frozen=True)
class OptimizerFlags(Batch):
    """How far each step goes, and how many there are."""

    lr: float = flag(1e-4, "learning rate; muon takes AdamW's, or up to three times as much")
    weight_decay: float = flag(0.0, "weight decay, decoupled of adamw and muon")
    optimizer: str = flag(
        ADAMW,
        "what moves the weights; muon: Muon for convolutions and linear layers, AdamW for the "
        "rest; adam, and sgd with a momentum of 0.9: weight decay adds to their gradient",
        (ADAMW, MUON, ADAM, SGD),
    )
    lr_anneal_steps: int = flag(
        0,
        "steps over which lr falls to 0, where a training without max_step ends; 0: constant",
    )
    max_step: int = flag(UNLIMITED_STEPS, "stop a training after this many steps in total")

    def __post_init__(self) -> None:
        """Refuse values no run could use."""
        require_at_least(self, batch_size=1, weight_decay=0, lr_anneal_steps=0, max_step=0)
        if not 0 < self.lr < math.inf:
            raise ValueError(f"--lr {self.lr} must be positive and finite")


@dataclass(frozen=True)
class TrainFlags(OptimizerFlags, ScriptFlags, Compute, PrecisionFlags, Strict):
    """How long, how fast and where to. Counts are optimizer steps unless a name says otherwise."""

    lr_schedule: str = flag("linear", "how lr falls over lr_anneal_steps", ("linear", "cosine"))
    lr_warmup_steps: int = flag(0, "first steps, over which lr rises linearly from 0")
    microbatch: int = flag(-1, "images per forward pass; gradients accumulate; -1 means all")
    fp16_scale_growth: float = flag(1e-3, "growth of the binary logarithm of the loss scale a step")
    ema_rate: str = flag("", "decay rates of averaged weights, comma separated; empty: none")
    run_time: float = flag(-1.0, "stop and save after this many hours; -1: no limit")
    log_interval: int = flag(10, "steps between lines of the log")
    save_interval: int = flag(10000, "steps between checkpoints")
    model_save_dir: str = flag("", "folder of the checkpoints")
    resume_checkpoint: str = flag(
        "", "what to go on from: modelNNNNNN.pt, a step, a path, or auto (newest or a fresh start)"
    )
    init_from: str = flag(
        "",
        "checkpoint whose weights a new run starts from; with --resume_checkpoint auto, where it "
        "finds none to go on from",
        is_path=True,
    )
    keep_last_k: int = flag(-1, "keep only the newest k checkpoints; -1 keeps all")
    max_bad_steps: int = flag(20, "steps in a row with a non-finite gradient that end the run")

    def __post_init__(self) -> None:
        """Refuse values no run could use."""
        super().__post_init__()
        require_at_least(self, log_interval=1, save_interval=1, max_bad_steps=1)
        require_at_least(self, fp16_scale_growth=0, lr_warmup_steps=0, seed=0)
        require_at_least(self, -1, microbatch=1, keep_last_k=1)
        _ = self.asked_precision  # refuses two of them
        if self.init_from and self.resume_checkpoint not in ("", "auto"):
            raise ValueError(
                f"--init_from {self.init_from} starts a new run, --resume_checkpoint "
                f"{self.resume_checkpoint} goes on with one; leave out one of them, or give "
                "--resume_checkpoint auto"
            )
        if self.lr_schedule != "linear" and not self.lr_anneal_steps:
            raise ValueError(f"--lr_schedule {self.lr_schedule} needs --lr_anneal_steps")
        if not self.run_time > 0 and self.run_time != -1:
            raise ValueError(f"--run_time {self.run_time} must be -1 or a positive number of hours")
        for rate in self.ema_rates:
            if not 0 <= rate < 1:
                raise ValueError(f"--ema_rate {rate} must be in [0, 1)")

    def common(self) -> FlagValues:
        """The flags that every training has, as keywords for `TrainLoop`."""
        return {field.name: getattr(self, field.name) for field in fields(TrainFlags)}

    @property
    def ema_rates(self) -> list[float]:
        """The parsed `ema_rate`."""
        try:
            return [float(part) for part in self.ema_rate.split(",") if part.strip()]
        except ValueError:
            raise ValueError(
                f"--ema_rate {self.ema_rate!r} must be numbers separated by commas"
            ) from None

    @property
    def last_step(self) -> int:
        """Where the run ends: `max_step`; if that is not limited, where lr has fallen to 0."""
        is_annealed = self.max_step >= UNLIMITED_STEPS and self.lr_anneal_steps > 0
        return self.lr_anneal_steps if is_annealed else self.max_step

    @property
    def is_endless(self) -> bool:
        """Whether only a signal or `run_time` ends the run."""
        return self.last_step >= UNLIMITED_STEPS

    def lr_at(self, step: int) -> float:
        """Learning rate of the update that follows `step` finished ones.

        It rises as (step + 1) / lr_warmup_steps, and falls with s = step / lr_anneal_steps as
        1 − s, or as (1 + cos πs) / 2.
        """
        rise = min(1.0, (step + 1) / self.lr_warmup_steps) if self.lr_warmup_steps else 1.0
        if not self.lr_anneal_steps:
            return self.lr * rise
        share = min(1.0, step / self.lr_anneal_steps)
        fall = 1 - share if self.lr_schedule == "linear" else (1 + math.cos(math.pi * share)) / 2
        return self.lr * rise * fall


@dataclass(frozen=True)
class ValidationExtent:
    """On how many images a network is judged while it trains, and how often."""

    val_images: int = flag(32, "how many of them are judged, drawn by name; 0: all")
    val_interval: int = flag(
        0,
        "steps between two validations; 0: only where a checkpoint is saved, which always has one",
    )

    def __post_init__(self) -> None:
        """Refuse values no run could use."""
        require_at_least(self, val_images=0, val_interval=0)
