"""Computations as ONNX models, and what onnxruntime makes of them.

torch.onnx.export needs the packages onnx and onnxscript, a run needs onnxruntime
(requirements-export.txt).
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from weights.graphs import Graph, quiet_exporter, trace

OPSET = 20
# of a protocol buffer, which an ONNX model is: 2 GiB, less what the graph takes beside the weights
_MOST_BYTES = 2**31 - 2**24
_REMEDY = "./setup.sh export, or pip install onnx onnxscript onnxruntime"


def require_onnx() -> None:
    """Refuse to go on without the packages that write ONNX models.

    Raises:
        ValueError: one is missing.
    """
    missing = [name for name in ("onnx", "onnxscript") if not importlib.util.find_spec(name)]
    if missing:
        raise ValueError(f"--format onnx needs the package {' and '.join(missing)}: {_REMEDY}")


def has_onnxruntime() -> bool:
    """Whether ONNX models can be run here."""
    return importlib.util.find_spec("onnxruntime") is not None


def to_onnx(graph: Graph, metadata: Mapping[str, str]) -> bytes:
    """The model as a file has it; its inputs and its output are called as those of `graph`.

    Axes that are free have names: batch, height and width, and multiples of them as `4*height`.

    Raises:
        ValueError: a package is missing, or the weights are too large for one file.
    """
    require_onnx()
    num_bytes = sum(value.nbytes for value in graph.module.state_dict().values())
    if num_bytes > _MOST_BYTES:
        raise ValueError(
            f"the weights take {num_bytes / 2**30:.1f} GiB, and an ONNX file holds 2 GiB: give "
            "--format torch_export"
        )
    program = trace(graph)
    with quiet_exporter():
        exported = torch.onnx.export(
            program, dynamo=True, opset_version=OPSET, external_data=False, verbose=False
        )
    assert exported is not None  # only where a file was asked for
    model: Any = exported.model
    _name_sides(model, graph)
    for one in (model, model.graph, *model.graph.all_nodes()):
        one.metadata_props.clear()  # where in the source it stands
        one.doc_string = None
    model.metadata_props.update(metadata)
    return bytes(importlib.import_module("onnx_ir").to_proto(model).SerializeToString())


def open_onnx(model: bytes | str, *, num_threads: int = 0) -> Any:
    """A session of onnxruntime on the CPU, for a model or the path of its file."""
    onnxruntime = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads  # 0: as many as cores
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run_onnx(model: bytes | str, inputs: Mapping[str, Tensor]) -> Tensor:
    """The output of onnxruntime on the CPU, for a model or the path of its file."""
    given = {name: value.numpy() for name, value in inputs.items()}
    return torch.from_numpy(open_onnx(model).run(None, given)[0])


def _name_sides(model: Any, graph: Graph) -> None:
    """Call inputs, output and their free axes by their names."""
    shape_class = importlib.import_module("onnx_ir").Shape
    names: dict[str, str] = {}
    for value, one, axes in zip(model.graph.inputs, graph.inputs, graph.free_axes(), strict=True):
        value.name = one.name
        for axis in axes:
            names[str(value.shape[axis])] = _axis_name(axis, one.unit)
        value.shape = shape_class(_renamed(value.shape, names))
    (output,) = model.graph.outputs
    output.name = graph.output
    output.shape = shape_class(_renamed(output.shape, names))


def _renamed(shape: Sequence[Any], names: Mapping[str, str]) -> list[int | str]:
    return [side if isinstance(side, int) else names.get(str(side), str(side)) for side in shape]


def _axis_name(axis: int, unit: int) -> str:
    name = ("batch", "", "height", "width")[axis]
    return name if axis == 0 or unit == 1 else f"{unit}*{name}"
