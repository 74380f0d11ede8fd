"""The last step of reading a pickle: from containers of stand-ins to plain values and arrays.

Not for opcodes (`pickle_machine`). Shared parts stay shared, so a small file cannot fill the
memory; depth and expanded size are bounded, so that whoever walks over the result comes to an end.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from utils.untrusted.pickle_arrays import PLAIN_TYPES, ArrayNode, UnsafePickleError, brief

MAX_DEPTH = 32
MAX_ITEMS = 10_000_000


class _Tree(NamedTuple):
    """A finished value with its number of items, shared ones counted each time, and its height."""

    value: Any
    size: int
    height: int


class ValueFinisher:
    """Replaces the stand-ins in one result."""

    def __init__(self) -> None:
        # By identity: the nodes outlive this object, since the caller holds their root.
        self._finished: dict[int, _Tree] = {}

    def finish(self, node: Any) -> Any:
        """A copy of `node` made of dict, list, tuple, plain values, arrays and numpy scalars.

        Raises:
            UnsafePickleError: a constructor or an unfinished array stands where a value should;
                nesting beyond `MAX_DEPTH`, in particular a container within itself; more than
                `MAX_ITEMS` items, shared ones counted each time.
        """
        return self._tree(node, 0).value

    def _tree(self, node: Any, depth: int) -> _Tree:
        if depth > MAX_DEPTH:
            raise UnsafePickleError(f"nested more than {MAX_DEPTH} levels deep, or within itself")
        kind = type(node)
        if kind in PLAIN_TYPES or isinstance(node, (np.ndarray, np.generic)):
            return _Tree(node, 1, 0)
        if kind is ArrayNode and node.array is not None:
            return _Tree(node.array, 1, 0)
        if kind not in (list, tuple, dict):
            raise UnsafePickleError(f"{brief(node)} stands where a value should")
        if not node:
            return _Tree(node, 1, 1)
        tree = self._finished.get(id(node))
        if tree is None:
            tree = self._finished[id(node)] = self._container(node, depth)
        if depth + tree.height > MAX_DEPTH:
            raise UnsafePickleError(f"nested more than {MAX_DEPTH} levels deep")
        return tree

    def _container(self, node: Any, depth: int) -> _Tree:
        values: list[Any] = []
        size, height = 1 + len(node), 1
        for child in node.values() if type(node) is dict else node:
            if type(child) in PLAIN_TYPES:
                values.append(child)
                continue
            tree = self._tree(child, depth + 1)
            values.append(tree.value)
            size += tree.size
            height = max(height, 1 + tree.height)
            if size > MAX_ITEMS:
                raise UnsafePickleError(
                    f"more than {MAX_ITEMS} items, shared ones counted each time"
                )
        if type(node) is dict:
            return _Tree(dict(zip(node, values, strict=True)), size, height)
        return _Tree(tuple(values) if type(node) is tuple else values, size, height)
