"""What ``--debug_mode`` prints, with and without a GPU, with and without its driver library."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest
import torch

from utils.debug_util import count_parameters, describe_memory, report_cost

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
GIB = 2**30


@pytest.fixture
def other_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPU is called "abc"; ``torch.cuda`` says that 3 of its 10 GiB are free."""
    properties = types.SimpleNamespace(uuid="abc")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3 * GIB, 10 * GIB))


def test_parameters_are_counted_with_those_that_are_frozen() -> None:
    model = torch.nn.Linear(3, 4)
    model.bias.requires_grad_(False)
    assert count_parameters(model) == 16


def test_machine_without_a_gpu_gets_one_line_and_no_exception() -> None:
    line = describe_memory(CPU)
    assert line.startswith("no GPU in use") and "\n" not in line


def test_cost_is_two_lines() -> None:
    lines: list[str] = []
    report_cost(torch.nn.Linear(1000, 1000), CPU, lines.append)
    assert lines[0] == "parameters: 1.00 M" and len(lines) == 2


@pytest.mark.usefixtures("other_source")
def test_driver_library_is_asked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", _driver(used=4 * GIB))
    assert describe_memory(GPU) == "GPU memory in use 4.00 of 8.00 GiB"


@pytest.mark.usefixtures("other_source")
def test_torch_answers_where_the_driver_library_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", _driver(used=None))
    assert describe_memory(GPU) == "GPU memory in use 7.00 of 10.00 GiB"


@pytest.mark.usefixtures("other_source")
def test_torch_answers_where_pynvml_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert describe_memory(GPU) == "GPU memory in use 7.00 of 10.00 GiB"


def _driver(used: int | None) -> Any:
    """A stand-in for ``pynvml``; without a driver library if ``used`` is None."""
    module: Any = types.ModuleType("pynvml")
    module.NVMLError = type("NVMLError", (Exception,), {})

    def start() -> None:
        if used is None:
            raise module.NVMLError("library not found")

    module.nvmlInit, module.nvmlShutdown = start, lambda: None
    module.nvmlDeviceGetHandleByUUID = {"GPU-abc": 5}.__getitem__
    module.nvmlDeviceGetMemoryInfo = lambda handle: types.SimpleNamespace(used=used, total=8 * GIB)
    return module
