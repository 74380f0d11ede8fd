"""Trained networks for other programs: their weights and computations in files that others read.

`load_network` gives the network of a checkpoint, .pt or .safetensors, whichever task it is of. It
is imported when it is asked for, so that `import weights` needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weights.networks import load_network as load_network


def __getattr__(name: str) -> Any:
    """Import what is asked for (PEP 562)."""
    if name != "load_network":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from weights.networks import load_network

    return load_network


def __dir__() -> list[str]:
    return sorted([*globals(), "load_network"])
