"""R18: what torch 2.10 and 2.11 and numpy 1.26 wrote loads (``make_old_files`` made the files)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ddpm.info_dict import load_info_dict
from noisy_label.files import load_labels
from utils.untrusted.pickles import load_array
from utils.untrusted.state_dict import load_model, read_torch_file

_DATA = Path(__file__).with_name("data")
_TORCH = ("2.10", "2.11")


def _network() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))


@pytest.mark.parametrize("version", _TORCH)
@pytest.mark.parametrize("kind", ["model", "older"])
def test_network_of_an_older_torch_loads(
    version: str, kind: str, figure: Callable[[str], None]
) -> None:
    network = _network()
    load_model(network, str(_DATA / f"torch_{version}_{kind}.pt"))
    for i, value in enumerate(network.parameters()):
        assert value.flatten().tolist() == [0.5 + i + k for k in range(value.numel())]
    figure(f"torch {version} {kind}")


@pytest.mark.parametrize("version", _TORCH)
def test_half_precision_of_an_older_torch_loads(version: str) -> None:
    state = read_torch_file(str(_DATA / f"torch_{version}_half.pt"))
    assert {value.dtype for value in state.values()} == {torch.bfloat16}
    assert state["0.bias"].tolist() == [1.5, 2.5]


@pytest.mark.parametrize("version", _TORCH)
def test_optimizer_of_an_older_torch_loads(version: str) -> None:
    content = read_torch_file(str(_DATA / f"torch_{version}_opt.pt"))
    optimizer = torch.optim.AdamW(_network().parameters(), lr=0.5)
    optimizer.load_state_dict(content)
    assert optimizer.param_groups[0]["lr"] == 1e-3
    steps = [float(entry["step"]) for entry in optimizer.state.values()]
    assert steps == [1.0] * 4


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_numpy_1_26_load_in_every_protocol(
    protocol: int, figure: Callable[[str], None]
) -> None:
    array, fortran, info, labels = (
        _DATA / f"numpy_1.26_{name}_{protocol}.pkl"
        for name in ("array", "fortran", "info", "labels")
    )
    assert b"numpy.core" in array.read_bytes()  # what numpy 2 calls numpy._core
    np.testing.assert_array_equal(
        load_array(array), np.arange(12, dtype=np.float32).reshape(2, 2, 3) / 8
    )
    np.testing.assert_array_equal(load_array(fortran), np.arange(6.0).reshape(2, 3))
    names = ["n01440764_3", "n01440764_7"]
    assert load_info_dict(info) == {"n01440764": {"y": 3, "file_names": names}}
    noisy = load_labels(str(labels), 3)
    assert noisy.labels.tolist() == [0, 1, 2] and (noisy.law == 0.1).all()
    figure(f"numpy 1.26 protocol {protocol}")
