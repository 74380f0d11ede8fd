"""The weights of a network as a safetensors file, with all that its manifest tells of it."""

from __future__ import annotations

import torch

from sr_var import __version__
from utils.loops.portable import metadata_of
from utils.untrusted.safe_tensors import write_safetensors
from utils.untrusted.state_dict import check_state_dict
from weights.flags import ExportFlags
from weights.networks import kind_of
from weights.source import Log, Source
from weights.words import words_of

_USAGE = """Every script of the toolkit takes the file where it takes a checkpoint:

```bash
{command}
```

```python
from weights import load_network

network = load_network("{name}")  # torch.nn.Module, made of the file alone; frozen, fp32
```

The weights alone, without the toolkit: `safetensors.torch.load_file("{name}")`.
"""


def write(source: Source, path: str, flags: ExportFlags, log: Log) -> None:
    """Write the tensors as they are stored, atomically.

    Raises:
        CheckpointError: they are not those of the network that the manifest tells of.
        StorageError: the file cannot be written.
    """
    state = source.weights()
    with torch.device("meta"):  # its shapes are enough
        network = kind_of(source).create(source)
    check_state_dict(network, state, source.path, log)
    metadata = metadata_of(source.manifest, source.sha256)
    write_safetensors(path, state, {**metadata, "toolkit_version": __version__})


def usage(source: Source, name: str) -> str:
    """How to use the file, for the model card."""
    return _USAGE.format(command=words_of(source).command.format(name), name=name)
