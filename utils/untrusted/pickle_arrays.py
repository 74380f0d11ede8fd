"""Validating stand-ins for the numpy array constructors that occur in pickles.

Not for reading a pickle (`pickle_machine`) nor for files (`safe_pickle`). The real constructors are
no safe target: `numpy.ndarray` and `numpy.dtype` called with arguments out of a file can crash the
process. Here a constructor is a `Symbol`; its arguments are checked one by one; and an array comes
from `numpy.frombuffer` alone, on bytes whose number was compared with shape and dtype.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray

from utils.process.errors import DataError

AnyArray: TypeAlias = NDArray[Any]

PLAIN_TYPES = frozenset((str, bytes, int, float, bool, type(None)))
MAX_DIMS = 32
MAX_ELEMENTS = 1 << 40
# The type codes ? b h i l q B H I L Q e f d by kind and size, as numpy writes them.
_CODES = frozenset(
    ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"),
)
# What follows version and byte order in the state of a dtype without fields, metadata or alignment.
_PLAIN_DTYPE_STATE = (None, None, None, -1, -1, 0)
_LATIN1 = ("latin1", "latin-1")


class UnsafePickleError(DataError):
    """A pickle holds something other than plain values and numeric arrays, or is damaged."""


class Symbol(Enum):
    """The names a pickle of arrays may mention. None of them is ever imported."""

    RECONSTRUCT = "numpy.core.multiarray._reconstruct"
    SCALAR = "numpy.core.multiarray.scalar"
    FROM_BUFFER = "numpy.core.numeric._frombuffer"
    NDARRAY = "numpy.ndarray"
    DTYPE = "numpy.dtype"
    ENCODE = "_codecs.encode"
    BYTES = "bytes"


SYMBOLS: Mapping[tuple[str, str], Symbol] = MappingProxyType(
    {
        ("numpy.core.multiarray", "_reconstruct"): Symbol.RECONSTRUCT,
        ("numpy._core.multiarray", "_reconstruct"): Symbol.RECONSTRUCT,
        ("numpy.core.multiarray", "scalar"): Symbol.SCALAR,
        ("numpy._core.multiarray", "scalar"): Symbol.SCALAR,
        ("numpy.core.numeric", "_frombuffer"): Symbol.FROM_BUFFER,
        ("numpy._core.numeric", "_frombuffer"): Symbol.FROM_BUFFER,
        ("numpy", "ndarray"): Symbol.NDARRAY,
        ("numpy", "dtype"): Symbol.DTYPE,
        # Protocols 0-2 have no form for bytes and write calls of these two instead.
        ("_codecs", "encode"): Symbol.ENCODE,
        ("__builtin__", "bytes"): Symbol.BYTES,
    }
)


@dataclass(eq=False)
class DtypeNode:
    """A dtype under construction: its code, then (by BUILD, once) its byte order."""

    code: str
    order: str | None = None

    def resolve(self) -> np.dtype[Any]:
        """The dtype of the bytes in the file.

        Raises:
            UnsafePickleError: no byte order has been set.
        """
        if self.order is None:
            raise UnsafePickleError(f"dtype {self.code!r} has no byte order")
        return np.dtype(self.order + self.code)


@dataclass(eq=False)
class ArrayNode:
    """An array under construction: empty, then (by BUILD, once) filled."""

    array: AnyArray | None = None


@dataclass
class ArrayBuilder:
    """Does what REDUCE and BUILD ask of the symbols, within a budget of bytes.

    Attributes:
        bytes_left: how many bytes may still be made. The content of every array lies in the file,
            and protocols 0 to 2 make bytes of it first, so twice its size is enough for honest
            files; it stops those that use one buffer many times.
    """

    bytes_left: int

    def call(self, symbol: Symbol, args: tuple[Any, ...]) -> object:
        """The result of calling `symbol` with `args`: a node, an array, a numpy scalar or bytes.

        Raises:
            UnsafePickleError: the symbol is not callable here, or an argument is not what numpy
                writes.
        """
        if symbol is Symbol.RECONSTRUCT:
            _require(_is_same(args, (Symbol.NDARRAY, (0,), b"b")), symbol, args)
            return ArrayNode()
        if symbol is Symbol.DTYPE:
            return _dtype_node(args)
        if symbol is Symbol.SCALAR:
            return self._scalar(args)
        if symbol is Symbol.FROM_BUFFER:
            return self._from_buffer(args)
        if symbol is Symbol.ENCODE:
            return self._encode(args)
        _require(symbol is Symbol.BYTES and args == (), symbol, args)
        return b""

    def set_state(self, node: object, state: object) -> None:
        """Completes a node by the state that numpy wrote for it.

        Raises:
            UnsafePickleError: `node` takes no state or has one, or the state is not numpy's.
        """
        if type(node) is DtypeNode and node.order is None:
            node.order = _byte_order(node.code, state)
        elif type(node) is ArrayNode and node.array is None:
            node.array = self._array_of_state(state)
        else:
            raise UnsafePickleError(f"BUILD on {brief(node)}: only new arrays and dtypes take it")

    def _array_of_state(self, state: object) -> AnyArray:
        if type(state) is not tuple or len(state) != 5 or not _is_same(state[0], 1):
            raise UnsafePickleError("an array's state is not (1, shape, dtype, order, bytes)")
        _, shape, dtype, is_fortran, raw = state
        if not isinstance(is_fortran, int) or is_fortran not in (0, 1):
            raise UnsafePickleError(f"array order flag {brief(is_fortran)}")
        return self._array(raw, dtype, shape, "F" if is_fortran else "C")

    def _from_buffer(self, args: tuple[Any, ...]) -> AnyArray:
        _require(len(args) in (4, 5), Symbol.FROM_BUFFER, args)
        raw, dtype, shape, order = args[:4]
        if len(args) == 4:
            _require(_is_same(order, "C") or _is_same(order, "F"), Symbol.FROM_BUFFER, args)
            return self._array(raw, dtype, shape, order)
        _require(_is_same(order, "K"), Symbol.FROM_BUFFER, args)
        array, axes = self._array(raw, dtype, shape, "C"), args[4]
        if not _is_int_tuple(axes) or sorted(axes) != list(range(array.ndim)):
            raise UnsafePickleError(f"axis order {brief(axes)} of a {array.ndim}-d array")
        return np.transpose(array, axes)

    def _array(self, raw: object, dtype: object, shape: object, order: Any) -> AnyArray:
        if type(dtype) is not DtypeNode or type(raw) is not bytes:
            raise UnsafePickleError(f"an array of {brief(dtype)} made from {brief(raw)}")
        if not _is_int_tuple(shape) or len(shape) > MAX_DIMS or min(shape, default=0) < 0:
            raise UnsafePickleError(f"array shape {brief(shape)}")
        file_dtype = dtype.resolve()
        # Zero dimensions count as one: numpy overflows on (0, 2**62, 2**62).
        if math.prod(max(size, 1) for size in shape) > MAX_ELEMENTS:
            raise UnsafePickleError("an array shape with too many elements")
        if math.prod(shape) * file_dtype.itemsize != len(raw):
            raise UnsafePickleError(
                f"array of shape {shape} and dtype {dtype.code} with {len(raw)} bytes of data"
            )
        if dtype.code == "b1" and max(raw, default=0) > 1:
            raise UnsafePickleError("a boolean array with bytes other than 0 and 1")
        self._spend(len(raw))
        flat = np.frombuffer(raw, file_dtype)
        # A copy in native order: writable, and fit for torch.from_numpy.
        return flat.reshape(shape, order=order).astype(file_dtype.newbyteorder("="), copy=True)

    def _scalar(self, args: tuple[Any, ...]) -> object:
        _require(len(args) == 2, Symbol.SCALAR, args)
        return self._array(args[1], args[0], (), "C")[()]

    def _encode(self, args: tuple[Any, ...]) -> bytes:
        is_latin1 = len(args) == 2 and type(args[1]) is str and args[1] in _LATIN1
        _require(is_latin1 and type(args[0]) is str, Symbol.ENCODE, args)
        self._spend(len(args[0]))
        try:
            data: bytes = args[0].encode("latin-1")
        except UnicodeEncodeError:
            raise UnsafePickleError("bytes written as text beyond Latin-1") from None
        return data

    def _spend(self, num_bytes: int) -> None:
        self.bytes_left -= num_bytes
        if self.bytes_left < 0:
            raise UnsafePickleError("its arrays and bytes add up to more than the file holds")


def brief(value: object) -> str:
    """`value` for an error message: short, in ASCII, never recursing into containers."""
    if isinstance(value, (str, bytes)):
        text = ascii(value[:60])
        return text if len(value) <= 60 else f"{text}… ({len(value)} long)"
    if value is None or isinstance(value, (bool, float)):
        return repr(value)
    if isinstance(value, int):
        is_short = value.bit_length() <= 80
        return str(value) if is_short else f"an integer of {value.bit_length()} bits"
    if _is_int_tuple(value) and len(value) <= 8:
        return "(" + ", ".join(brief(item) for item in value) + ")"
    if isinstance(value, Symbol):
        return value.value
    if isinstance(value, DtypeNode):
        return f"dtype {value.code}"
    if isinstance(value, ArrayNode):
        return "an unfinished array" if value.array is None else "an array"
    return f"a {type(value).__name__}"


def _dtype_node(args: tuple[Any, ...]) -> DtypeNode:
    flags_ok = len(args) == 3 and all(isinstance(flag, int) for flag in args[1:])
    _require(flags_ok and args[1:] == (0, 1), Symbol.DTYPE, args)
    code = _ascii_text(args[0])
    if type(code) is not str or code not in _CODES:
        raise UnsafePickleError(
            f"dtype {brief(args[0])}: only booleans, integers and floats of up to 64 bits are read"
        )
    return DtypeNode(code)


def _byte_order(code: str, state: object) -> str:
    if type(state) is tuple and len(state) > 1:
        state = (state[0], _ascii_text(state[1]), *state[2:])
    orders = ("|",) if code.endswith("1") else ("<", ">")
    for order in orders:
        if _is_same(state, (3, order, *_PLAIN_DTYPE_STATE)):
            return order
    raise UnsafePickleError(f"state of dtype {code!r} is not that of a plain number")


def _ascii_text(value: object) -> object:
    """The short byte string that Python 2 wrote as a string; everything else as it is."""
    if type(value) is bytes and len(value) <= 2 and value.isascii():
        return value.decode("ascii")
    return value


def _is_same(value: object, expected: object) -> bool:
    """Equality of values and of types, without calling a comparison that a value brings along."""
    if isinstance(expected, tuple):
        return (
            isinstance(value, tuple)
            and len(value) == len(expected)
            and all(_is_same(*pair) for pair in zip(value, expected, strict=True))
        )
    return type(value) is type(expected) and value == expected


def _is_int_tuple(value: object) -> TypeGuard[tuple[int, ...]]:
    return type(value) is tuple and all(type(item) is int for item in value)


def _require(is_valid: bool, symbol: Symbol, args: tuple[Any, ...]) -> None:
    if not is_valid:
        shown = ", ".join(brief(arg) for arg in args[:6])
        raise UnsafePickleError(f"a call {symbol.value}({shown}) that numpy would not write")
