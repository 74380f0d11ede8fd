"""Batches of any structure are sliced, counted and moved as one."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch

from utils.loops.data import batch_length, batch_slice, first_tensor, to_device, tree_map


class _Pair(NamedTuple):
    x: torch.Tensor
    y: torch.Tensor


def _trees() -> list[Any]:
    x = torch.arange(10.0).reshape(5, 2)
    return [x, {"x": x, "n": [x, (x, "text")]}, (x, None), _Pair(x, x + 1)]


@pytest.mark.parametrize("tree", _trees(), ids=["tensor", "dict", "tuple", "named tuple"])
def test_structure_is_kept_and_every_tensor_sliced(tree: Any) -> None:
    part = batch_slice(tree, 1, 4)
    assert type(part) is type(tree)
    assert (batch_length(tree), batch_length(part)) == (5, 3)
    assert torch.equal(first_tensor(part), first_tensor(tree)[1:4])


def test_anything_but_tensors_is_kept() -> None:
    assert tree_map(torch.sum, {"a": "text", "b": 3, "c": None}) == {"a": "text", "b": 3, "c": None}


def test_copy_shares_no_memory() -> None:
    x = torch.ones(2)
    cpu = torch.device("cpu")
    assert to_device({"x": x}, cpu)["x"] is x
    copied = to_device({"x": x}, cpu, is_copy=True)["x"]
    copied.zero_()
    assert torch.equal(x, torch.ones(2))


def test_batch_without_a_tensor_is_refused() -> None:
    with pytest.raises(TypeError, match="no tensor"):
        batch_length({"names": ["a", "b"]})
