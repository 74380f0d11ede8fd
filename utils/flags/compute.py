"""The flags of how a network is computed, the same for every script; no torch."""

from __future__ import annotations

from dataclasses import dataclass

from utils.script_util import flag


@dataclass(frozen=True)
class ComputeFlags:
    """How to compute; no effect on results but rounding."""

    compile: str = flag(
        "auto", "torch.compile the network: minutes once; auto: on GPUs", ("auto", "on", "off")
    )
