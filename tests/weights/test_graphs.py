"""The exported computations are those of the networks, at any batch and size."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models.layers import smooth_base
from tests.weights.graphs import GRAPHS
from utils.process.errors import DataError
from weights import onnx_graph
from weights.graphs import Graph, largest_difference, require_same
from weights.to_torch_export import to_program

Run = Callable[[Sequence[Tensor]], Tensor]


@pytest.fixture(scope="module", params=GRAPHS)
def graph(request: pytest.FixtureRequest) -> Graph:
    """One of each kind."""
    return GRAPHS[request.param]()


def difference(graph: Graph, run: Run) -> float:
    """The largest one over two batches and, where the size is free, two sizes of two shapes."""
    sizes = graph.check_sizes()
    if graph.has_free_size:
        sizes.append((2, 9, 8))  # more than a thousand pixels, where fast convolutions begin
    assert len({batch for batch, _, _ in sizes}) >= 2
    worst = 0.0
    with torch.no_grad():
        for size in sizes:
            inputs = graph.example(*size)
            expected = graph.module(*inputs)
            assert float(expected.abs().max()) > 0.01
            assert float((expected[0] - expected[-1]).abs().max()) > 0 or len(expected) == 1
            worst = max(worst, largest_difference([expected], [run(inputs)]))
    return worst


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mean_subpixel", "upsampler"])
def test_a_program_of_torch_export_computes_what_the_network_does(name: str) -> None:
    """All of them are traced likewise for ONNX, below."""
    graph = GRAPHS[name]()
    data = to_program(graph, {"step": "7"})
    about = {"step": ""}
    program = torch.export.load(io.BytesIO(data), extra_files=about).module()
    assert about == {"step": "7"}
    assert difference(graph, lambda inputs: program(*inputs)) < 1e-5
    assert os.fsencode(os.getcwd()) not in data  # nothing of the machine goes along
    if name == "upsampler":  # whose levels halve the sides
        x, *rest = graph.example(2, 4, 4)
        with pytest.raises((AssertionError, RuntimeError)):
            program(x[..., :7, :], *rest)


@pytest.mark.slow
def test_onnxruntime_computes_what_the_network_does(graph: Graph) -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason=f"{name} is not installed (requirements-export.txt)")
    import onnx

    data = onnx_graph.to_onnx(graph, {"step": "7"})
    names = [one.name for one in graph.inputs]
    assert (
        difference(graph, lambda x: onnx_graph.run_onnx(data, dict(zip(names, x, strict=True))))
        < 1e-5
    )
    model = onnx.load_model_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    assert [one.name for one in model.graph.input] == names
    assert [one.name for one in model.graph.output] == [graph.output]
    assert {one.key: one.value for one in model.metadata_props} == {"step": "7"}
    first = [axis.dim_param for axis in model.graph.input[0].type.tensor_type.shape.dim]
    unit = graph.inputs[0].unit
    assert first[0] == "batch"
    sides = ["height", "width"] if unit == 1 else [f"{unit}*height", f"{unit}*width"]
    assert first[2:] == (sides if unit else ["", ""])
    # plain operators of the standard, none of our own or of anybody else
    assert {one.domain for one in model.graph.node} == {""} and not model.functions
    assert os.fsencode(os.getcwd()) not in data


_LOAD = """
import sys, numpy, torch
sys.path = [path for path in sys.path if path != {root!r}]
program = torch.export.load("net.pt2").module()
given = numpy.load("given.npz")
found = program(*[torch.from_numpy(given[name]) for name in given.files])
assert not {{"models", "utils", "weights"}} & set(sys.modules)
try:
    import models
except ImportError:
    numpy.save("found.npy", found.numpy())
"""


def test_a_program_needs_torch_and_no_file_of_the_toolkit(tmp_path: Path) -> None:
    graph = GRAPHS["upsampler_subpixel"]()
    (tmp_path / "net.pt2").write_bytes(to_program(graph, {}))
    inputs = graph.example(3, 5, 4)
    names = [one.name for one in graph.inputs]
    np.savez(tmp_path / "given.npz", **dict(zip(names, map(Tensor.numpy, inputs), strict=True)))
    root = str(Path(__file__).resolve().parents[2])
    code = _LOAD.format(root=root)
    command = [sys.executable, "-W", "ignore", "-c", code]
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(command, cwd=tmp_path, env=environ, check=True, timeout=300)
    found = torch.from_numpy(np.load(tmp_path / "found.npy"))
    with torch.no_grad():
        assert largest_difference([graph.module(*inputs)], [found]) < 1e-5


def test_a_baseline_is_exported_with_what_makes_its_outputs_a_law() -> None:
    graph, gaussian = GRAPHS["baseline"](), GRAPHS["gaussian"]()
    (low_res,) = graph.example(2, 3, 4)
    with torch.no_grad():
        quantiles = graph.module(low_res).unflatten(1, (3, 3))  # (N, Q, C, H, W)
        raw = graph.module.raw(low_res).unflatten(1, (3, 3))  # type: ignore[operator]
        base = smooth_base(low_res, 4)
        torch.testing.assert_close(quantiles, raw + base[:, None])
        (low_res,) = gaussian.example(2, 3, 4)
        mean, variance = gaussian.module(low_res).chunk(2, dim=1)
    factor = mean.shape[-1] // low_res.shape[-1]
    torch.testing.assert_close(torch.nn.functional.avg_pool2d(mean, factor), low_res)
    assert bool((variance > 0).all())


def test_weights_that_no_file_holds_are_refused_before_any_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    graph = GRAPHS["variance_subpixel"]()
    monkeypatch.setattr(onnx_graph, "_MOST_BYTES", 4 * 100)
    monkeypatch.setattr(onnx_graph, "trace", None)
    with pytest.raises(ValueError, match="torch_export"):
        onnx_graph.to_onnx(graph, {})


def test_an_output_that_differs_too_much_is_refused_and_told() -> None:
    graph = GRAPHS["variance_subpixel"]()
    said: list[str] = []
    require_same(graph, lambda inputs: graph.module(*inputs) * (1 + 5e-5), "copy", said.append)
    assert "copy" in said[0] and "5e-05" in said[0]
    for wrong in (1 + 2e-4, float("nan")):
        with pytest.raises(DataError, match="copy"):
            require_same(
                graph, lambda x, wrong=wrong: graph.module(*x) * wrong, "copy", said.append
            )
    with pytest.raises(DataError, match="inf"):
        require_same(graph, lambda inputs: graph.module(*inputs)[:, :, 1:], "copy", said.append)


def test_a_difference_is_a_share_of_the_largest_value() -> None:
    one, other = torch.tensor([10.0, 0.0]), torch.tensor([10.0, 1e-3])
    assert largest_difference([one], [other]) == pytest.approx(1e-4)
    assert largest_difference([one, one], [one, other]) == pytest.approx(1e-4)
    assert largest_difference([torch.zeros(2)], [torch.zeros(2)]) == 0.0
