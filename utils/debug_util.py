"""What `--debug_mode` and `--dry_run` print: parameter count and memory."""

from __future__ import annotations

import resource
from collections.abc import Callable

import torch


def count_parameters(model: torch.nn.Module) -> int:
    """Number of scalar parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def describe_memory(device: torch.device) -> str:
    """One line on the memory in use: of the GPU, by `pynvml` where its driver library is there,
    else by `torch.cuda`; on a CPU the peak of this process.
    """
    if device.type != "cuda":
        peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return f"no GPU in use; peak memory of the process {peak_mib:.0f} MiB"
    memory = _driver_memory(device)
    if memory is None:
        free, total = torch.cuda.mem_get_info(device)
        memory = total - free, total
    used, total = memory
    return f"GPU memory in use {used / 2**30:.2f} of {total / 2**30:.2f} GiB"


def _driver_memory(device: torch.device) -> tuple[int, int] | None:
    """Bytes used and in all, from the driver; None where `pynvml` or its library is missing."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        # by its name: CUDA_VISIBLE_DEVICES gives devices other numbers than the driver does
        name = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        info = pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByUUID(name))
        pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return None
    return int(info.used), int(info.total)


def report_cost(model: torch.nn.Module, device: torch.device, log: Callable[[str], None]) -> None:
    """Two lines: parameter count and memory in use."""
    log(f"parameters: {count_parameters(model) / 1e6:.2f} M")
    log(describe_memory(device))
