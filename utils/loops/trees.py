"""Batches may be tensors, or dicts and tuples of tensors: slicing, moving and counting them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def tree_map(function: Callable[[torch.Tensor], Any], tree: Any) -> Any:
    """The same structure with ``function`` applied to every tensor; anything else is kept."""
    if isinstance(tree, torch.Tensor):
        return function(tree)
    if isinstance(tree, dict):
        return {key: tree_map(function, value) for key, value in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):  # named: one argument a field
        return type(tree)(*(tree_map(function, value) for value in tree))
    if isinstance(tree, (list, tuple)):
        return type(tree)(tree_map(function, value) for value in tree)
    return tree


def first_tensor(tree: Any) -> torch.Tensor:
    """Any tensor of the batch.

    Raises:
        TypeError: if there is none.
    """
    found: list[torch.Tensor] = []
    tree_map(found.append, tree)
    if not found:
        raise TypeError(f"a batch of type {type(tree).__name__} holds no tensor")
    return found[0]


def num_bytes(tree: Any) -> int:
    """Size of all tensors together."""
    sizes: list[int] = []
    tree_map(lambda tensor: sizes.append(tensor.nbytes), tree)
    return sum(sizes)


def batch_length(tree: Any) -> int:
    """Number of items: the first dimension of the batch's tensors."""
    return int(first_tensor(tree).shape[0])


def batch_slice(tree: Any, start: int, stop: int) -> Any:
    """Items ``start`` to ``stop`` of every tensor of the batch."""
    return tree_map(lambda tensor: tensor[start:stop], tree)


def to_device(tree: Any, device: torch.device, *, is_copy: bool = False) -> Any:
    """Every tensor of the batch on the device; copies from pinned memory do not wait.

    Args:
        tree: the batch.
        device: where to.
        is_copy: copy also what is there already, so that the result shares no memory.
    """
    return tree_map(lambda tensor: tensor.to(device, non_blocking=True, copy=is_copy), tree)
