"""What a network computes as an ONNX file, which is tried before it is there."""

from __future__ import annotations

from utils.files.atomic import write_bytes_atomic
from weights.flags import ExportFlags
from weights.graphs import require_same, told_of
from weights.onnx_graph import has_onnxruntime, require_onnx, run_onnx, to_onnx
from weights.source import Log, Source
from weights.source_graphs import graph_of, used_as

_USAGE = """The file needs onnxruntime alone; images are float32, whole numbers int64.
Its axes `batch`, `height` and `width` are free.

{inputs}

```python
import onnxruntime

session = onnxruntime.InferenceSession("{name}")
(output,) = session.run(None, {{name: array, ...}})  # of the inputs above, numpy arrays
```
"""


def write(source: Source, path: str, flags: ExportFlags, log: Log) -> None:
    """Write the model, unless onnxruntime computes something else from it.

    Raises:
        CheckpointError: as `graph_of`.
        DataError: the outputs differ.
        ValueError: a package is missing, or the network is too large for a file.
        StorageError: the file cannot be written.
    """
    require_onnx()
    graph = graph_of(source, log)
    log(f"tracing (seconds to minutes, by the number of layers): {told_of(graph)}")
    model = to_onnx(graph, source.origin)
    if has_onnxruntime():
        names = [one.name for one in graph.inputs]
        require_same(
            graph,
            lambda inputs: run_onnx(model, dict(zip(names, inputs, strict=True))),
            "onnxruntime",
            log,
        )
    else:
        log("not checked: onnxruntime is not installed (./setup.sh export)")
    write_bytes_atomic(path, model)


def usage(source: Source, name: str) -> str:
    """How to use the file, for the model card."""
    return _USAGE.format(inputs=used_as(source), name=name)
