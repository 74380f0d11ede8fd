"""The flags of ``sr_plan.py``; no torch."""

from __future__ import annotations

from dataclasses import dataclass

from utils.flags.groups import AutoBatch, Logged, Seeded
from utils.script_util import flag, require_at_least


@dataclass(frozen=True)
class PlanFlags(AutoBatch, Logged, Seeded):
    """How large the experiment is to be."""

    num_images: int = flag(2000, "images to draw samples for and to test on")
    num_samples: str = flag("20,100", "samples an image, comma separated")
    sampling_steps: str = flag("25,250", "steps a sample, comma separated")
    num_devices: str = flag("1,8", "devices like this one, comma separated")
    net_channels: int = flag(128, "base width of the mean and the variance net")
    net_channel_mult: str = flag("1,1,2,2,4", "width of each of their resolutions")
    train_batch_size: int = flag(64, "images a step of their training, over all devices")
    mean_steps: int = flag(90000, "training steps of the mean net")
    var_steps: int = flag(50000, "training steps of the variance net")
    num_rounds: int = flag(3, "timed passes of each network; their median counts")
    log_dir: str = "logs/sr_plan"

    def __post_init__(self) -> None:
        """Refuses counts that are none."""
        counts = {"num_images": 1, "train_batch_size": 1, "num_rounds": 1}
        require_at_least(self, **counts, mean_steps=0, var_steps=0)
        require_at_least(self, -1, batch_size=1)
        for name, least in (("num_samples", 2), ("sampling_steps", 1), ("num_devices", 1)):
            if min(self.counts(name)) < least:
                raise ValueError(f"--{name} {getattr(self, name)} must be at least {least}")

    def counts(self, name: str) -> tuple[int, ...]:
        """A parsed list of counts."""
        text = getattr(self, name)
        try:
            return tuple(int(part) for part in text.split(","))
        except ValueError:
            raise ValueError(f"--{name} {text!r} must be whole numbers, as in 25,250") from None
