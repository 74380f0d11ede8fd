"""Reading ``.pt`` files of anybody: nothing in them runs, and only what fits is taken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.utils.training_loops import ConvNet
from utils.process.errors import CheckpointError
from utils.untrusted.safe_tensors import write_safetensors
from utils.untrusted.state_dict import (
    check_state_dict,
    load_model,
    load_state_dict,
    read_state_dict,
    read_torch_file,
)

# torch finds the files of these tests strange, and says so
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")


class _Explaining(ConvNet):
    """Guesses which flag is wrong."""

    def explain_mismatch(self, shapes: dict[str, tuple[int, ...]]) -> str:
        return f"flag? {shapes['last.bias']}"


def _saved(path: Path, **changes: Any) -> str:
    """A state_dict of the network with some entries changed, or (None) left out."""
    state = {**ConvNet().state_dict(), **changes}
    torch.save({key: value for key, value in state.items() if value is not None}, path)
    return str(path)


@pytest.mark.parametrize("value", ["1", "yes", "true"])
def test_environment_that_would_switch_the_safe_reader_off_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", value)
    with pytest.raises(CheckpointError, match="LOAD is set"):
        read_torch_file(_saved(tmp_path / "model.pt"))


def _huge_stride() -> torch.Tensor:
    return torch.zeros(1).expand(10**12)


@pytest.mark.parametrize(
    "make",
    [
        _huge_stride,
        lambda: torch.eye(4).to_sparse(),
        lambda: torch.zeros(4, device="meta"),
        lambda: torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.quint8),
        lambda: torch.zeros(4, dtype=torch.complex64),
        lambda: torch.zeros(4, dtype=torch.int64),
        lambda: torch.zeros(4, dtype=torch.bool),
    ],
    ids=["stride 0", "sparse", "meta", "quantized", "complex", "integer", "bool"],
)
def test_odd_tensor_is_refused(tmp_path: Path, make: Callable[[], torch.Tensor]) -> None:
    path = _saved(tmp_path / "model.pt", **{"first.bias": make()})
    with pytest.raises(CheckpointError, match=r"model\.pt"):
        load_state_dict(ConvNet(), path)


# ---- damage


def test_missing_and_empty_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone\.pt"):
        read_torch_file(str(tmp_path / "gone.pt"))
    (tmp_path / "empty.pt").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"empty\.pt is empty"):
        read_torch_file(str(tmp_path / "empty.pt"))


@pytest.mark.parametrize("is_zip", [True, False])
def test_flipped_byte_is_refused_or_means_nothing(tmp_path: Path, is_zip: bool) -> None:
    path = tmp_path / "model.pt"
    truth = {"weight": torch.arange(5.0)}
    torch.save(truth, path, _use_new_zipfile_serialization=is_zip)
    content = path.read_bytes()
    num_refused = 0
    for place in range(0, len(content), 3):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        try:
            found = read_torch_file(str(path))
        except CheckpointError:
            num_refused += 1
            continue
        if is_zip:
            assert list(found) == ["weight"] and torch.equal(found["weight"], truth["weight"])
    assert num_refused > 20


@pytest.mark.parametrize("is_zip", [True, False])
def test_truncated_file_is_refused(tmp_path: Path, is_zip: bool) -> None:
    path = tmp_path / "model.pt"
    torch.save({"weight": torch.arange(5.0)}, path, _use_new_zipfile_serialization=is_zip)
    content = path.read_bytes()
    for length in range(1, len(content), 11):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError):
            read_torch_file(str(path))


# ---- what fits


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    model = ConvNet()
    path = str(tmp_path / "model.pt")
    torch.save({key: value + 1 for key, value in model.state_dict().items()}, path)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = load_state_dict(model, path)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), "reading must not touch the model"
        assert torch.equal(state[key], value + 1)
    load_model(model, path)
    assert all(torch.equal(value, before[key] + 1) for key, value in model.state_dict().items())


def test_older_format_of_torch_loads(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(ConvNet().state_dict(), path, _use_new_zipfile_serialization=False)
    assert list(load_state_dict(ConvNet(), str(path))) == list(ConvNet().state_dict())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_state_of_another_precision_loads_as_fp32(tmp_path: Path, dtype: torch.dtype) -> None:
    path = str(tmp_path / "model.pt")
    torch.save(ConvNet(dtype=dtype).state_dict(), path)
    state = load_state_dict(ConvNet(), path)
    assert {value.dtype for value in state.values()} == {torch.float32}
    for key, value in ConvNet(dtype=dtype).state_dict().items():
        assert torch.equal(state[key], value.float())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    path = _saved(tmp_path / "model.pt", **{"last.bias": torch.full((1,), value)})
    with pytest.raises(CheckpointError, match=r"last\.bias .*finite"):
        load_state_dict(ConvNet(), path)


def test_weights_too_large_for_fp32_are_refused(tmp_path: Path) -> None:
    bias = torch.full((1,), 1e300, dtype=torch.float64)
    with pytest.raises(CheckpointError, match=r"last\.bias .*finite"):
        load_state_dict(ConvNet(), _saved(tmp_path / "model.pt", **{"last.bias": bias}))


def test_error_lists_what_is_missing_unexpected_and_misshaped(tmp_path: Path) -> None:
    changes = {"first.weight": None, "extra.weight": torch.ones(1), "last.bias": torch.ones(7)}
    path = _saved(tmp_path / "model.pt", **changes)
    with pytest.raises(CheckpointError) as caught:
        load_state_dict(_Explaining(), path)
    lines = str(caught.value).splitlines()
    assert "model.pt" in lines[0]
    assert [line.strip() for line in lines[1:]] == [
        "missing (1): first.weight",
        "unexpected (1): extra.weight",
        "shape (1): last.bias (7,) instead of (1,)",
        "flag? (7,)",
    ]


def test_long_lists_of_keys_are_cut(tmp_path: Path) -> None:
    path = _saved(tmp_path / "model.pt", **{f"extra{i}": torch.ones(1) for i in range(50)})
    with pytest.raises(CheckpointError, match=r"\(50\).* 44 more") as caught:
        load_state_dict(ConvNet(), path)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("content", [[1, 2], {"weight": "text"}, {1: torch.ones(1)}, 5])
def test_anything_but_a_state_dict_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="state_dict"):
        load_state_dict(ConvNet(), str(tmp_path / "model.pt"))


# ---- safetensors


def test_safetensors_file_loads_as_the_same_state_dict_and_a_damaged_one_is_refused(
    tmp_path: Path,
) -> None:
    path, state = tmp_path / "net.safetensors", ConvNet().state_dict()
    write_safetensors(str(path), state, {})
    loaded = load_state_dict(ConvNet(), str(path))
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[key], state[key]) for key in state)
    for data in (path.read_bytes()[:-3], b"", b"PK\x03\x04 no such file"):
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match=r"net\.safetensors"):
            read_state_dict(str(path))


def test_a_network_without_values_is_checked_and_not_filled(tmp_path: Path) -> None:
    path = _saved(tmp_path / "model000001.pt")
    with torch.device("meta"):
        network = ConvNet()
    state = check_state_dict(network, read_state_dict(path), path)
    assert all(value.device.type == "cpu" for value in state.values())
    assert all(value.is_meta for value in network.parameters())
