"""safetensors files: the tensors that were written, of anybody's writer, and no other file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.utils.training_loops import ConvNet
from utils.process.errors import CheckpointError
from utils.untrusted.safe_tensors import (
    MAX_HEADER_BYTES,
    METADATA,
    TENSORS_KEY,
    read_metadata,
    read_safetensors,
    write_safetensors,
)
from utils.untrusted.state_dict import load_state_dict

_DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32]
_DTYPES += [torch.int16, torch.int8, torch.uint8, torch.bool, torch.uint16, torch.uint32]
_DTYPES += [torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2]


def _state() -> dict[str, torch.Tensor]:
    """A tensor of every dtype, an empty one, a single value, one that is not contiguous."""
    values = torch.arange(6).reshape(2, 3)
    state = {f"of {dtype}": values.to(dtype) for dtype in _DTYPES}
    return {
        **state,
        "none": torch.empty(0, 4),
        "one": torch.tensor(-2.5),
        "turned": torch.randn(3, 5).T,
        "ä.b": torch.tensor([float("inf"), -0.0]),
    }


def _same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(
        found[key].dtype == value.dtype
        and found[key].shape == value.shape
        and torch.equal(_bits(found[key]), _bits(value))
        for key, value in wanted.items()
    )


def _bits(value: torch.Tensor) -> torch.Tensor:
    return value.contiguous().reshape(-1).view(torch.uint8)


def test_what_is_written_is_read_bit_for_bit_with_its_metadata(tmp_path: Path) -> None:
    path, state = str(tmp_path / "net.safetensors"), _state()
    write_safetensors(path, state, {"a": "1", "λ": '{"b": [2]}'})
    assert _same(read_safetensors(path), state)
    metadata = read_metadata(path)
    assert (metadata.pop("a"), metadata.pop("λ")) == ("1", '{"b": [2]}')
    assert metadata.keys() == {TENSORS_KEY}


def test_the_library_reads_ours_and_we_read_the_librarys(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.torch", reason="an optional package")
    path, state = tmp_path / "net.safetensors", _state()
    write_safetensors(str(path), state, {"a": "1"})
    assert _same(library.load_file(path), state)
    state["turned"] = state["turned"].contiguous()
    library.save_file(state, path, metadata={"b": "2"})
    assert _same(read_safetensors(str(path)), state)
    assert read_metadata(str(path)) == {"b": "2"}


def test_larger_values_come_first_so_that_all_lie_at_multiples_of_their_size(
    tmp_path: Path,
) -> None:
    path = tmp_path / "net.safetensors"
    write_safetensors(str(path), _state(), {})
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    assert (8 + length) % 8 == 0
    header = json.loads(content[8 : 8 + length])
    sizes = {name: value.element_size() for name, value in _state().items()}
    assert all(
        entry["data_offsets"][0] % sizes[name] == 0
        for name, entry in header.items()
        if name != METADATA
    )


def test_sixteen_bits_load_into_a_network_as_fp32(tmp_path: Path) -> None:
    path = str(tmp_path / "net.safetensors")
    for dtype in (torch.float16, torch.bfloat16):
        state = {name: value.to(dtype) for name, value in ConvNet().state_dict().items()}
        write_safetensors(path, state, {})
        loaded = load_state_dict(ConvNet(), path)
        assert all(torch.equal(loaded[name], state[name].float()) for name in state)
        assert {value.dtype for value in loaded.values()} == {torch.float32}


def test_a_dtype_that_the_format_lacks_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    with pytest.raises(CheckpointError, match="complex64"):
        write_safetensors(str(path), {"a": torch.ones(2, dtype=torch.complex64)}, {})
    assert list(tmp_path.iterdir()) == []


# ---- files that are none

_W = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
_TWO = {"a": _W, "b": {**_W, "data_offsets": [24, 48]}}


def _file(header: Any, num_bytes: int = 48) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(num_bytes)


def _with(**change: Any) -> dict[str, Any]:
    return {"a": _W, "b": {**_TWO["b"], **change}}


_TWIN = json.dumps(_TWO).replace('"b"', '"a"').encode()
_TWIN_METADATA = b'{"__metadata__":{"x":"1","x":"2"}}'
_HUGE = (MAX_HEADER_BYTES + 8).to_bytes(8, "little") + b" " * (MAX_HEADER_BYTES + 8)
_BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "too early"),
    "no length": (b"\x02\0\0", "too early"),
    "no header": ((99).to_bytes(8, "little"), "header"),
    "a header of 2^63": (b"\xff" * 8 + b"{}", "header"),
    "a header over the limit": (_HUGE, "at most"),
    "no JSON": (_file(b"{nothing", 0), "JSON|Expecting|expecting"),
    "no UTF-8": (_file(b'{"\xff": 1}', 0), "UTF-8"),
    "nested": (_file(b"[" * 100_000, 0), "nested|Expecting"),
    "no object": (_file([1], 0), "object"),
    "two of one name": (_file(_TWIN), "two entries"),
    "two of one name in the metadata": (_file(_TWIN_METADATA, 0), "two entries"),
    "metadata of numbers": (_file({METADATA: {"a": 1}}, 0), "strings"),
    "metadata no object": (_file({METADATA: ["a"]}, 0), "strings"),
    "a dtype of nobody": (_file(_with(dtype="F12")), "F12"),
    "a dtype that is no word": (_file(_with(dtype=["F32"])), "dtype"),
    "a missing shape": (_file({"a": {"dtype": "F32", "data_offsets": [0, 24]}}, 24), "described"),
    "one key more": (_file(_with(more=1)), "described"),
    "a negative side": (_file(_with(shape=[-2, -3])), "shape"),
    "a side that is true": (_file(_with(shape=[True, 6])), "shape"),
    "a side with a point": (_file(_with(shape=[2.0, 3])), "shape"),
    "a shape too deep": (_file(_with(shape=[1] * 99 + [6])), "shape"),
    "no memory for it": (_file(_with(shape=[0, 2**62, 2**62], data_offsets=[24, 24]), 24), "large"),
    "fewer bytes than values": (_file(_with(shape=[2, 4])), "24 bytes instead of 32"),
    "overlapping": (_file(_with(data_offsets=[12, 36]), 36), "begin"),
    "the same place": (_file(_with(data_offsets=[0, 24]), 24), "begin"),
    "a gap": (_file(_with(data_offsets=[28, 52]), 52), "begin"),
    "not from the start": (_file({"a": {**_W, "data_offsets": [4, 28]}}, 28), "begin"),
    "backwards": (_file(_with(data_offsets=[48, 24])), "lies at"),
    "beyond the end": (_file(_TWO, 47), "by its header"),
    "bytes behind": (_file(_TWO, 49), "by its header"),
    "three offsets": (_file(_with(data_offsets=[24, 48, 48])), "lies at"),
    "an offset beyond 64 bits": (_file(_with(data_offsets=[24, 2**64])), "lies at"),
}


@pytest.mark.parametrize("what", _BAD)
def test_what_is_no_such_file_is_refused_by_name(tmp_path: Path, what: str) -> None:
    (data, reason), path = _BAD[what], tmp_path / "net.safetensors"
    path.write_bytes(data)
    for read in (read_safetensors, read_metadata):
        _assert_refused(read, str(path), reason)


def _assert_refused(read: Callable[[str], object], path: str, reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason) as caught:
        read(path)
    assert path in str(caught.value) and len(str(caught.value)) < 1000


def test_the_good_twin_of_these_is_read(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes(_file(_TWO))
    assert _same(read_safetensors(str(path)), {"a": torch.zeros(2, 3), "b": torch.zeros(2, 3)})


def test_a_changed_weight_is_noticed_where_the_digest_is_there(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    write_safetensors(str(path), {"a": torch.ones(3)}, {})
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    _assert_refused(read_safetensors, str(path), "sha256")


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    for read in (read_safetensors, read_metadata):
        _assert_refused(read, str(tmp_path / "none.safetensors"), "cannot read")
        (tmp_path / "folder.safetensors").mkdir(exist_ok=True)
        _assert_refused(read, str(tmp_path / "folder.safetensors"), "cannot read")
