"""The stack machine that pickles are written for, with every operand checked; it imports nothing.

`numpy.ndarray` and `numpy.dtype` called with arguments out of a file can crash the process. So the
names that pickles of arrays mention are symbols here, whose arguments are checked one by one, and
an array comes from `numpy.frombuffer` alone, on bytes whose number was compared with shape and
dtype. Every function raises UnsafePickleError where a pickle does something that plain values and
numeric arrays do not need, crosses a limit, or is damaged.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import IO, Any, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray

from utils.process.errors import DataError

MAX_PROTOCOL = 5
MAX_OPCODES = 10_000_000
MAX_STACK = 100_000
MAX_MARKS = 100
# two for each of a hundred thousand classes; each costs ten times what a plain value does
MAX_CONTAINERS = 200_000
MAX_DIMS = 32
MAX_ELEMENTS = 1 << 40
_MAX_REASON = 200

PLAIN_TYPES = frozenset((str, bytes, int, float, bool, type(None)))
AnyArray: TypeAlias = NDArray[Any]
# The type codes ? b h i l q B H I L Q e f d by kind and size, as numpy writes them.
_CODES = frozenset(["b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"])
# What follows version and byte order in the state of a dtype without fields, metadata or alignment.
_PLAIN_DTYPE_STATE = (None, None, None, -1, -1, 0)
_LATIN1 = ("latin1", "latin-1")
_BOOLEANS = MappingProxyType({b"00\n": False, b"01\n": True})
_DECIMAL = re.compile(rb"([+-]?[0-9]{1,20})L?\n")


class UnsafePickleError(DataError):
    """A pickle holds something other than plain values and numeric arrays, or is damaged."""


class Symbol(Enum):
    """The names (module, name) that a pickle of arrays may mention; none is ever imported."""

    RECONSTRUCT = ("numpy.core.multiarray", "_reconstruct")
    SCALAR = ("numpy.core.multiarray", "scalar")
    FROM_BUFFER = ("numpy.core.numeric", "_frombuffer")
    NDARRAY = ("numpy", "ndarray")
    DTYPE = ("numpy", "dtype")
    # Protocols 0-2 have no form for bytes and write calls of these two instead.
    ENCODE = ("_codecs", "encode")
    BYTES = ("__builtin__", "bytes")


_SYMBOLS = MappingProxyType({symbol.value: symbol for symbol in Symbol})


@dataclass(eq=False)
class DtypeNode:
    """A dtype under construction: its code, then (by BUILD, once) its byte order."""

    code: str
    order: str | None = None


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
        """The result of calling `symbol` with `args`: a node, an array, a numpy scalar or bytes."""
        if symbol is Symbol.RECONSTRUCT:
            _require(_is_same(args, (Symbol.NDARRAY, (0,), b"b")), symbol, args)
            return ArrayNode()
        if symbol is Symbol.DTYPE:
            return _dtype_node(args)
        if symbol is Symbol.SCALAR:
            _require(len(args) == 2, symbol, args)
            return self._array(args[1], args[0], (), "C")[()]
        if symbol is Symbol.FROM_BUFFER:
            return self._from_buffer(args)
        if symbol is Symbol.ENCODE:
            return self._encode(args)
        _require(symbol is Symbol.BYTES and args == (), symbol, args)
        return b""

    def complete(self, node: object, state: object) -> object:
        """What a node becomes by the state that numpy wrote for it: a dtype, or the array."""
        if type(node) is DtypeNode and node.order is None:
            node.order = _byte_order(node.code, state)
            return node
        if type(node) is ArrayNode and node.array is None:
            node.array = self._array_of_state(state)
            return node.array
        raise UnsafePickleError(f"BUILD on {short_repr(node)}: only new arrays and dtypes take it")

    def _array_of_state(self, state: object) -> AnyArray:
        if type(state) is not tuple or len(state) != 5 or not _is_same(state[0], 1):
            raise UnsafePickleError("an array's state is not (1, shape, dtype, order, bytes)")
        _, shape, dtype, is_fortran, raw = state
        if not isinstance(is_fortran, int) or is_fortran not in (0, 1):
            raise UnsafePickleError(f"array order flag {short_repr(is_fortran)}")
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
            raise UnsafePickleError(f"axis order {short_repr(axes)} of a {array.ndim}-d array")
        return np.transpose(array, axes)

    def _array(self, raw: object, dtype: object, shape: object, order: Any) -> AnyArray:
        if type(dtype) is not DtypeNode or type(raw) is not bytes:
            raise UnsafePickleError(f"an array of {short_repr(dtype)} made from {short_repr(raw)}")
        if not _is_int_tuple(shape) or len(shape) > MAX_DIMS or min(shape, default=0) < 0:
            raise UnsafePickleError(f"array shape {short_repr(shape)}")
        if dtype.order is None:
            raise UnsafePickleError(f"dtype {dtype.code!r} has no byte order")
        file_dtype = np.dtype(dtype.order + dtype.code)
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


def short_repr(value: object) -> str:
    """`value` for an error message: short, in ASCII, never recursing into containers."""
    if isinstance(value, (str, bytes)):
        text = ascii(value[:60])
        return text if len(value) <= 60 else f"{text}… ({len(value)} long)"
    if isinstance(value, DtypeNode):
        return f"dtype {value.code}"
    return "an unfinished array" if isinstance(value, ArrayNode) else f"a {type(value).__name__}"


def _dtype_node(args: tuple[Any, ...]) -> DtypeNode:
    flags_ok = len(args) == 3 and all(isinstance(flag, int) for flag in args[1:])
    _require(flags_ok and args[1:] == (0, 1), Symbol.DTYPE, args)
    code = _ascii_text(args[0])
    if type(code) is not str or code not in _CODES:
        raise UnsafePickleError(
            f"dtype {short_repr(args[0])}: only booleans, integers and floats of up to 64 bits are "
            "read"
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
        shown = ", ".join(short_repr(arg) for arg in args[:6])
        name = ".".join(symbol.value)
        raise UnsafePickleError(f"a call {name}({shown}) that numpy would not write")


class PickleMachine:
    """The state of one pickle while it is read.

    Args:
        data: the whole pickle. Twice its length bounds the bytes of all arrays together.

    Attributes:
        max_long_bytes: of an integer.
        more: operations, by opcode, that this kind of machine has beside those of plain values.
    """

    max_long_bytes = 9
    more: Mapping[bytes, Operation] = MappingProxyType({})

    def __init__(self, data: bytes) -> None:
        self._file, self._num_bytes = io.BytesIO(data), len(data)
        self._stack: list[Any] = []
        self._outer_stacks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._num_containers = 0
        self._arrays = ArrayBuilder(2 * len(data))

    @property
    def position(self) -> int:
        """How many bytes have been read."""
        return self._file.tell()

    def run(self, *, is_last: bool = True) -> Any:
        """What the pickle describes.

        With `is_last` bytes behind it are refused. An UnsafePickleError says what, and where.
        """
        try:
            value = self._run()
            if is_last and self.position != self._num_bytes:
                raise UnsafePickleError(f"{self._num_bytes - self.position} bytes follow its end")
            return value
        except UnsafePickleError as error:
            raise UnsafePickleError(f"{error} (at byte {self.position})") from None
        except ValueError as error:  # text or numbers that end early or do not decode
            reason = str(error)[:_MAX_REASON]
            raise UnsafePickleError(f"damaged: {reason} (at byte {self.position})") from None

    def _run(self) -> Any:
        for _ in range(MAX_OPCODES):
            code = self._file.read(1)
            if code == pickle.STOP:
                value = self.pop()
                if self._stack or self._outer_stacks:
                    raise UnsafePickleError("damaged: values are left over at the end")
                return value
            operation = _OPERATIONS.get(code) or self.more.get(code)
            if operation is None:
                raise UnsafePickleError(
                    f"opcode {_opcode_name(code)} is not allowed" if code else "damaged: no end"
                )
            reader = _READERS[code]
            operation(self, reader(self._file) if reader else None)
        raise UnsafePickleError(f"more than {MAX_OPCODES} opcodes")

    def check_protocol(self, protocol: int) -> None:
        """Refuse a newer protocol, or its number elsewhere than at the beginning."""
        if self.position != 2 or protocol > MAX_PROTOCOL:
            raise UnsafePickleError(f"protocol {protocol}, or not at the beginning")

    def check_frame(self, length: int) -> None:
        """Refuse a frame beyond the end; frames only help readers of streams."""
        if length > self._num_bytes - self.position:
            raise UnsafePickleError("damaged: the file ends early")

    def push(self, value: Any) -> None:
        """Put a value onto the stack."""
        if len(self._stack) >= MAX_STACK:
            raise UnsafePickleError(f"more than {MAX_STACK} values wait on its stack")
        self._stack.append(value)

    def push_integer(self, value: int) -> None:
        """Put an integer of up to 64 bits onto the stack."""
        num_bytes = value.bit_length() // 8 + 1
        if num_bytes > self.max_long_bytes:
            raise UnsafePickleError(f"an integer of {num_bytes} bytes")
        self.push(value)

    def push_container(self, value: list[Any] | tuple[Any, ...] | dict[Any, Any]) -> None:
        """Put a list, tuple or dict onto the stack."""
        self._num_containers += 1
        if self._num_containers > MAX_CONTAINERS:
            raise UnsafePickleError(f"more than {MAX_CONTAINERS} lists, tuples and dicts")
        self.push(value)

    def push_symbol(self, module: object, name: object) -> None:
        """Look a name up among the symbols."""
        symbol = None
        if type(module) is str and type(name) is str:
            symbol = _SYMBOLS.get((module.replace("numpy._core.", "numpy.core."), name))
        if symbol is None:
            raise UnsafePickleError(
                f"it names {short_repr(module)} {short_repr(name)}, which is not a numpy "
                "array constructor"
            )
        self.push(symbol)

    def pop(self) -> Any:
        """Take the last value off the stack."""
        if not self._stack:
            raise UnsafePickleError("damaged: a value is missing")
        return self._stack.pop()

    def pop_last(self, count: int) -> list[Any]:
        """Take the last values off the stack, in their order."""
        return [self.pop() for _ in range(count)][::-1]

    def pop_items(self) -> list[Any]:
        """Take everything since the last mark off the stack."""
        if not self._outer_stacks:
            raise UnsafePickleError("damaged: a mark is missing")
        items, self._stack = self._stack, self._outer_stacks.pop()
        return items

    def top(self, kind: type | None = None) -> Any:
        """Return the last value on the stack, which must be exactly a `kind` if one is given."""
        value = self._stack[-1] if self._stack else self.pop()
        if kind is not None and type(value) is not kind:
            raise UnsafePickleError(f"{short_repr(value)} is used as a {kind.__name__}")
        return value

    def mark(self) -> None:
        """Start a new stretch of the stack."""
        if len(self._outer_stacks) >= MAX_MARKS:
            raise UnsafePickleError(f"nested more than {MAX_MARKS} levels deep")
        self._outer_stacks.append(self._stack)
        self._stack = []

    def put(self, index: int | None) -> None:
        """Remember the last value, under the next index if none is given: each counts up once."""
        memo = self._memo
        index = len(memo) if index is None else index
        if index in memo or not 0 <= index <= len(memo) + 1:
            raise UnsafePickleError(f"memo index {index} out of turn")
        memo[index] = self.top()

    def get(self, index: int) -> None:
        """Push a remembered value; where that is an array, what has become of it."""
        if index not in self._memo:
            raise UnsafePickleError(f"damaged: memo index {index} was never set")
        value = self._memo[index]
        is_filled = type(value) is ArrayNode and value.array is not None
        self.push(value.array if is_filled else value)

    def extend_list(self, items: list[Any]) -> None:
        """Append to the list on top of the stack."""
        self.top(list).extend(items)

    def update_dict(self, items: list[Any]) -> None:
        """Put alternating keys and values into the dict on top of the stack."""
        target = self.top(dict)
        if len(items) % 2:
            raise UnsafePickleError("damaged: a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in PLAIN_TYPES:
                raise UnsafePickleError(f"{short_repr(key)} is a key; keys are plain values")
            target[key] = value

    def reduce(self) -> None:
        """Call a symbol."""
        symbol, args = self.pop_last(2)
        if type(symbol) is not Symbol or type(args) is not tuple:
            raise UnsafePickleError(f"a call of {short_repr(symbol)} with {short_repr(args)}")
        self.push(self._arrays.call(symbol, args))

    def build(self) -> None:
        """Complete a node."""
        node, state = self.pop_last(2)
        self.push(self._arrays.complete(node, state))


Operation: TypeAlias = Callable[[PickleMachine, Any], None]


def _opcode_name(code: bytes) -> str:
    names = (name for name, value in vars(pickle).items() if value == code)
    return next(names, f"0x{code.hex()}")


def _decimal(file: IO[bytes]) -> int:
    """Read up to 20 digits; 00 and 01 are booleans, and protocol 0 may put an L behind others."""
    line = file.readline()
    match = _DECIMAL.fullmatch(line)
    if match is None:
        raise UnsafePickleError(f"integer {short_repr(line)}")
    return _BOOLEANS[line] if line in _BOOLEANS else int(match[1])


def _two_lines(file: IO[bytes]) -> list[str]:
    lines = [file.readline(), file.readline()]
    if not all(line.endswith(b"\n") for line in lines):
        raise UnsafePickleError("damaged: the file ends early")
    return [line[:-1].decode() for line in lines]


# What reads the operand behind an opcode, where there is one.
_READERS: Mapping[bytes, Callable[[IO[bytes]], Any] | None] = MappingProxyType(
    {one.code.encode("latin-1"): one.arg.reader if one.arg else None for one in pickletools.opcodes}
    | dict.fromkeys((pickle.INT, pickle.LONG, pickle.PUT, pickle.GET), _decimal)
    | {pickle.GLOBAL: _two_lines}
)


def _new_dict(m: PickleMachine, _: None) -> None:
    items = m.pop_items()
    m.push_container({})
    m.update_dict(items)


_BYTES = (pickle.SHORT_BINBYTES, pickle.BINBYTES, pickle.BINBYTES8, pickle.BYTEARRAY8)
_TEXTS = (pickle.UNICODE, pickle.SHORT_BINUNICODE, pickle.BINUNICODE, pickle.BINUNICODE8)
_INTEGERS = (pickle.INT, pickle.LONG, pickle.LONG1, pickle.LONG4)
_NUMBERS = (pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.FLOAT, pickle.BINFLOAT)
# Strings of Python 2 are bytes, which their reader gives as Latin-1.
_STRINGS = (pickle.SHORT_BINSTRING, pickle.BINSTRING)
_PUTS = (pickle.PUT, pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE)
_GETS = (pickle.GET, pickle.BINGET, pickle.LONG_BINGET)

_OPERATIONS: Mapping[bytes, Operation] = MappingProxyType(
    {
        pickle.PROTO: PickleMachine.check_protocol,
        pickle.FRAME: PickleMachine.check_frame,
        pickle.MARK: lambda m, _: m.mark(),
        **dict.fromkeys(_INTEGERS, PickleMachine.push_integer),
        **dict.fromkeys((pickle.NONE, *_NUMBERS, *_TEXTS), PickleMachine.push),
        **dict.fromkeys(_BYTES, lambda m, value: m.push(bytes(value))),
        **dict.fromkeys(_STRINGS, lambda m, text: m.push(text.encode("latin-1"))),
        pickle.NEWTRUE: lambda m, _: m.push(True),
        pickle.NEWFALSE: lambda m, _: m.push(False),
        pickle.EMPTY_TUPLE: lambda m, _: m.push_container(()),
        pickle.TUPLE1: lambda m, _: m.push_container(tuple(m.pop_last(1))),
        pickle.TUPLE2: lambda m, _: m.push_container(tuple(m.pop_last(2))),
        pickle.TUPLE3: lambda m, _: m.push_container(tuple(m.pop_last(3))),
        pickle.TUPLE: lambda m, _: m.push_container(tuple(m.pop_items())),
        pickle.EMPTY_LIST: lambda m, _: m.push_container([]),
        pickle.LIST: lambda m, _: m.push_container(m.pop_items()),
        pickle.APPEND: lambda m, _: m.extend_list(m.pop_last(1)),
        pickle.APPENDS: lambda m, _: m.extend_list(m.pop_items()),
        pickle.EMPTY_DICT: lambda m, _: m.push_container({}),
        pickle.DICT: _new_dict,
        pickle.SETITEM: lambda m, _: m.update_dict(m.pop_last(2)),
        pickle.SETITEMS: lambda m, _: m.update_dict(m.pop_items()),
        **dict.fromkeys(_PUTS, PickleMachine.put),
        **dict.fromkeys(_GETS, PickleMachine.get),
        pickle.GLOBAL: lambda m, names: m.push_symbol(*names),
        pickle.STACK_GLOBAL: lambda m, _: m.push_symbol(*m.pop_last(2)),
        pickle.REDUCE: lambda m, _: m.reduce(),
        pickle.BUILD: lambda m, _: m.build(),
    }
)
