"""Made the files in ``data/``; run by hand, in an environment that has an older torch or numpy.

``python tests/reliability/make_old_files.py tests/reliability/data``, once each in environments
with torch 2.10.0, torch 2.11.0 and numpy 1.26.4 (Python 3.11). Imports nothing of the project, and
writes only what the version at hand is wanted for.
"""

from __future__ import annotations

import importlib.util
import pickle
import sys
from pathlib import Path

import numpy as np


def write_torch_files(folder: Path) -> None:
    """A network, its optimizer after a step, and the network in the format before zip."""
    import torch

    version = ".".join(torch.__version__.split(".")[:2])
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    with torch.no_grad():
        for i, parameter in enumerate(network.parameters()):
            parameter.copy_(torch.arange(parameter.numel()).reshape(parameter.shape) + 0.5 + i)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    state = network.state_dict()
    torch.save(state, folder / f"torch_{version}_model.pt")
    torch.save(state, folder / f"torch_{version}_older.pt", _use_new_zipfile_serialization=False)
    half = {name: value.bfloat16() for name, value in state.items() if value.is_floating_point()}
    torch.save(half, folder / f"torch_{version}_half.pt")
    network(torch.eye(3)).square().sum().backward()
    optimizer.step()
    torch.save(optimizer.state_dict(), folder / f"torch_{version}_opt.pt")


def write_numpy_files(folder: Path) -> None:
    """An array, an info dict with numpy labels and noisy labels, in every protocol."""
    content = {
        "array": np.arange(12, dtype=np.float32).reshape(2, 2, 3) / 8,
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "info": {"n01440764": {"y": np.int64(3), "file_names": ["n01440764_3", "n01440764_7"]}},
        "labels": [(np.int64(i), np.full(10, 0.1)) for i in range(3)],
    }
    for name, value in content.items():
        for protocol in range(6):
            path = folder / f"numpy_1.26_{name}_{protocol}.pkl"
            path.write_bytes(pickle.dumps(value, protocol))


def main() -> None:
    """Writes what the installed versions are wanted for."""
    folder = Path(sys.argv[1])
    folder.mkdir(exist_ok=True)
    if importlib.util.find_spec("torch"):
        write_torch_files(folder)
    if np.__version__.startswith("1.26."):
        write_numpy_files(folder)


if __name__ == "__main__":
    main()
