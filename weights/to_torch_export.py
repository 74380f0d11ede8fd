"""What a network computes as a program of torch.export, which needs nothing but torch."""

from __future__ import annotations

import io

import torch

from utils.files.atomic import write_bytes_atomic
from weights.flags import ExportFlags
from weights.graphs import Graph, quiet_exporter, require_same, told_of, trace
from weights.source import Log, Source
from weights.source_graphs import graph_of, used_as

_USAGE = """The file needs torch alone. Its batch, height and width are free.

{inputs}

```python
import torch

program = torch.export.load("{name}").module()
output = program(...)  # the inputs above in this order, as tensors
```
"""

# where in the source an operation stands
_OF_OUR_SOURCE = ("stack_trace", "source_fn_stack", "nn_module_stack", "torch_fn")


def write(source: Source, path: str, flags: ExportFlags, log: Log) -> None:
    """Write the program, unless what is read of it computes something else.

    Raises:
        CheckpointError: as `graph_of`.
        DataError: the outputs differ.
        StorageError: the file cannot be written.
    """
    graph = graph_of(source, log)
    log(f"tracing (seconds to minutes, by the number of layers): {told_of(graph)}")
    about = {
        **source.origin,
        "inputs": ", ".join(one.words() for one in graph.inputs),
        "output": graph.output,
    }
    data = to_program(graph, about)
    with quiet_exporter():
        program = torch.export.load(io.BytesIO(data)).module()
    require_same(graph, lambda inputs: program(*inputs), "torch.export", log)
    write_bytes_atomic(path, data)


def usage(source: Source, name: str) -> str:
    """How to use the file, for the model card."""
    return _USAGE.format(inputs=used_as(source), name=name)


def to_program(graph: Graph, about: dict[str, str]) -> bytes:
    """The program as a file has it, `about` among its extra files, each as a text of its own."""
    buffer = io.BytesIO()
    with quiet_exporter():
        program = trace(graph).run_decompositions({})  # nothing is overwritten any more
        for node in program.graph.nodes:
            for name in _OF_OUR_SOURCE:
                node.meta.pop(name, None)
        torch.export.save(program, buffer, extra_files=about)
    return buffer.getvalue()
