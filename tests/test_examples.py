"""The examples that are no notebooks: readers and networks of what others have published."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from examples import dncnn


def _packed(value: Any) -> bytes:
    """Write msgpack, as flax does: arrays are extensions of type 1."""
    if isinstance(value, np.ndarray):
        inner = _packed([list(value.shape), value.dtype.name, value.tobytes()])
        return b"\xc9" + struct.pack(">Ib", len(inner), 1) + inner
    if isinstance(value, dict):
        parts = b"".join(_packed(key) + _packed(part) for key, part in value.items())
        return b"\xde" + struct.pack(">H", len(value)) + parts
    if isinstance(value, list):
        return bytes([0x90 + len(value)]) + b"".join(map(_packed, value))
    if isinstance(value, str):
        return bytes([0xA0 + len(value)]) + value.encode()
    if isinstance(value, bytes):
        return b"\xc6" + struct.pack(">I", len(value)) + value
    return bytes([value])


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"\x07", 7),
        (b"\xff", -1),
        (b"\xc0", None),
        (b"\xc3", True),
        (b"\xcb" + struct.pack(">d", 0.5), 0.5),
        (b"\xd1" + struct.pack(">h", -300), -300),
        (b"\xcf" + struct.pack(">Q", 2**40), 2**40),
        (b"\x82\xa1a\x01\xa1b\x92\x02\x03", {"a": 1, "b": [2, 3]}),
        (b"\xd9\x02\xc3\xa9", "é"),
        (b"\xc4\x02xy", b"xy"),
        (b"\xdc\x00\x01\x05", [5]),
        (b"\xdf\x00\x00\x00\x01\x01\x02", {1: 2}),
    ],
)
def test_msgpack_is_read(data: bytes, value: object) -> None:
    assert dncnn.read_msgpack(data) == value
    with pytest.raises(ValueError, match="follow"):
        dncnn.read_msgpack(data + b"\x00")
    with pytest.raises(ValueError, match="early"):
        dncnn.read_msgpack(data[:-1])


@pytest.mark.parametrize("data", [b"\xc1", b"\xd4\x02x", b"\xd4\x05x"])
def test_what_is_no_array_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"msgpack|extension"):
        dncnn.read_msgpack(data)


def _tree() -> dict[str, Any]:
    rng = np.random.default_rng(0)

    def kernel(*channels: int) -> Any:
        return rng.normal(0, 0.2, (3, 3, *channels)).astype(np.float32)

    def four(low: float = -1) -> Any:
        return rng.uniform(low, 2, 4).astype(np.float32)

    block = {"Conv_0": {"kernel": kernel(4, 4)}, "BatchNorm_0": {"bias": four(), "scale": four()}}
    params = {"conv_start": {"kernel": kernel(1, 4)}, "ConvBNBlock_0": block}
    moments = {"ConvBNBlock_0": {"BatchNorm_0": {"mean": four(), "var": four(0.1)}}}
    params["conv_end"] = {"kernel": kernel(4, 1)}
    return {"params": params, "batch_stats": moments}


def _convolved(x: Any, kernel: Any) -> Any:
    """(H, W, in) by (3, 3, in, out) around the borders, one product after the other."""
    found = 0
    for i in range(3):
        for j in range(3):
            found = found + np.roll(x, (1 - i, 1 - j), (0, 1)) @ kernel[i, j]
    return found


def test_network_is_the_published_formula() -> None:
    tree, x = _tree(), np.random.default_rng(1).random((6, 7, 1)).astype(np.float32)
    params, stored = tree["params"], tree["batch_stats"]["ConvBNBlock_0"]["BatchNorm_0"]
    block, norm = params["ConvBNBlock_0"], params["ConvBNBlock_0"]["BatchNorm_0"]
    y = np.maximum(_convolved(x, params["conv_start"]["kernel"]), 0)
    y = (_convolved(y, block["Conv_0"]["kernel"]) - stored["mean"]) / np.sqrt(stored["var"] + 1e-5)
    y = np.maximum(y * norm["scale"] + norm["bias"], 0)
    expected = x - _convolved(y, params["conv_end"]["kernel"])
    weights = dncnn.tensors(dncnn.read_msgpack(_packed(tree)))
    found = dncnn.dncnn(torch.from_numpy(x).permute(2, 0, 1)[None], weights)
    np.testing.assert_allclose(found[0].permute(1, 2, 0), expected, rtol=0, atol=1e-4)


def test_other_weights_and_no_weights_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noisy = torch.zeros(1, 3, 8, 8)
    monkeypatch.delenv(dncnn.WHEEL, raising=False)
    with pytest.raises(ValueError, match=dncnn.WHEEL):
        dncnn.dncnn6(noisy, (8, 8))
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as wheel:
        wheel.writestr("scico/data/flax/dncnn17M.mpk", _packed(_tree()))
    monkeypatch.setenv(dncnn.WHEEL, str(tmp_path / "x.whl"))
    with pytest.raises(ValueError, match="sha256"):
        dncnn.dncnn17(noisy, (8, 8))
    with pytest.raises(ValueError, match="enlarges"):
        dncnn.dncnn6(noisy, (16, 16))
