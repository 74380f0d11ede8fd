"""``torch.compile`` behind a flag: when it is used, and batches of one size for it.

A compiled network is made for one batch size; another one would compile it again, a minute or two
in the middle of a run. So smaller batches, such as the last one, are filled up.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import torch

Log = Callable[[str], None]


def is_to_be_compiled(choice: str, device: torch.device) -> bool:
    """Whether a network for this device is compiled.

    On a CPU ``auto`` is off: the convolutions of ``models.cpu.winograd`` are faster than compiled
    ones.
    """
    if choice == "auto":
        return device.type == "cuda" and importlib.util.find_spec("triton") is not None
    return choice == "on"


class CompiledNetwork(torch.nn.Module):
    """Calls ``network``, compiled, with batches of the largest size seen so far.

    Weights are the network's own, so what is trained or loaded there counts here.

    Args:
        network: any module whose tensor arguments share their first dimension.
        has_graphs: replay the kernels as one CUDA graph; for calls without gradients.
    """

    def __init__(self, network: torch.nn.Module, *, has_graphs: bool = False) -> None:
        super().__init__()
        self.network = network
        self._has_graphs = has_graphs
        mode = "reduce-overhead" if has_graphs else None
        self._compiled = torch.compile(network, dynamic=False, mode=mode)
        self._batch_size = 0

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The network's output for the rows that were given."""
        num_rows = len(next(v for v in (*args, *kwargs.values()) if isinstance(v, torch.Tensor)))
        self._batch_size = max(self._batch_size, num_rows)
        num_missing = self._batch_size - num_rows
        if num_missing:
            args = tuple(_filled(value, num_missing) for value in args)
            kwargs = {name: _filled(value, num_missing) for name, value in kwargs.items()}
        if self._has_graphs:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        output: torch.Tensor = self._compiled(*args, **kwargs)
        # the next replay writes over what a graph returned
        output = output.clone() if self._has_graphs else output
        return output[:num_rows] if num_missing else output


def compiled_for(
    network: torch.nn.Module, choice: str, device: torch.device, log: Log, *, is_trained: bool
) -> torch.nn.Module:
    """The network as the flag wants it: compiled, with CUDA graphs where it only runs forward."""
    if not is_to_be_compiled(choice, device):
        return network
    log("compiling the network: the first batch takes minutes (--compile off switches this off)")
    return CompiledNetwork(network, has_graphs=device.type == "cuda" and not is_trained)


def _filled(value: Any, num_missing: int) -> Any:
    """A tensor with its last row repeated; anything else as it is."""
    if not isinstance(value, torch.Tensor):
        return value
    return torch.cat([value, value[-1:].expand(num_missing, *value.shape[1:])])
