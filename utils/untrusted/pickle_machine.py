"""The stack machine that pickles are written for, with every operand checked.

Not for saying which opcodes exist (`utils.untrusted.pickle_machine`) nor for what numpy's
constructors accept
(`pickle_arrays`). Any method raises UnsafePickleError where the pickle does something that plain
values and numeric arrays do not need, crosses a limit, or is damaged.
"""

from __future__ import annotations

import pickle
import re
import struct
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

from utils.untrusted.pickle_arrays import (
    PLAIN_TYPES,
    SYMBOLS,
    ArrayBuilder,
    Symbol,
    UnsafePickleError,
    brief,
)

MAX_STACK = 100_000
MAX_MARKS = 100
# two for each of a hundred thousand classes; each costs ten times what a plain value does
MAX_CONTAINERS = 200_000
MAX_PROTOCOL = 5

_BOOLEANS = MappingProxyType({b"00": False, b"01": True})
_DECIMAL = re.compile(rb"([+-]?[0-9]{1,20})L?")


def parse_decimal(text: bytes) -> int:
    """An integer of up to 20 decimal digits, with the L that protocol 0 may put behind it."""
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise UnsafePickleError(f"integer {brief(text)}")
    return int(match[1])


class PickleMachine:
    """The state of one pickle while it is read.

    Args:
        data: the whole pickle. Twice its length bounds the bytes of all arrays together.

    Attributes:
        max_long_bytes: of an integer.
    """

    max_long_bytes = 9

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._pos = 0
        self._stack: list[Any] = []
        self._outer_stacks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._num_containers = 0
        self._arrays = ArrayBuilder(2 * len(data))

    @property
    def position(self) -> int:
        """How many bytes have been read."""
        return self._pos

    def result(self) -> Any:
        """The one value that is left when the pickle says that it ends."""
        value = self.pop()
        if self._stack or self._outer_stacks:
            raise UnsafePickleError("damaged: values are left over at the end")
        self.expect_end()
        return value

    def expect_end(self) -> None:
        """Refuses bytes behind the pickle."""
        if self._pos != len(self._data):
            raise UnsafePickleError(f"{len(self._data) - self._pos} bytes follow its end")

    # ---- operands

    def take_byte(self) -> int:
        """The next byte of the file."""
        pos = self._pos
        if pos >= len(self._data):
            raise UnsafePickleError("damaged: the file ends early")
        self._pos = pos + 1
        return self._data[pos]

    def take(self, num_bytes: int) -> bytes:
        """The next bytes of the file."""
        start = self._pos
        end = start + num_bytes
        if end > len(self._data):
            raise UnsafePickleError("damaged: the file ends early")
        self._pos = end
        return self._data[start:end]

    def line(self) -> bytes:
        """The bytes up to the next newline, without it."""
        end = self._data.find(b"\n", self._pos)
        if end < 0:
            raise UnsafePickleError("damaged: the file ends early")
        return self.take(end + 1 - self._pos)[:-1]

    def number(self, width: int, *, is_signed: bool = False) -> int:
        """The next little-endian integer of `width` bytes."""
        if width == 1 and not is_signed:
            return self.take_byte()
        return int.from_bytes(self.take(width), "little", signed=is_signed)

    def push(self, value: Any) -> None:
        """Puts a value onto the stack."""
        if len(self._stack) >= MAX_STACK:
            raise UnsafePickleError(f"more than {MAX_STACK} values wait on its stack")
        self._stack.append(value)

    def push_container(self, value: list[Any] | tuple[Any, ...] | dict[Any, Any]) -> None:
        """Puts a list, tuple or dict onto the stack."""
        self._num_containers += 1
        if self._num_containers > MAX_CONTAINERS:
            raise UnsafePickleError(f"more than {MAX_CONTAINERS} lists, tuples and dicts")
        self.push(value)

    def pop(self) -> Any:
        """Takes the last value off the stack."""
        if not self._stack:
            raise UnsafePickleError("damaged: a value is missing")
        return self._stack.pop()

    def pop_items(self) -> list[Any]:
        """Takes everything since the last mark off the stack."""
        if not self._outer_stacks:
            raise UnsafePickleError("damaged: a mark is missing")
        items, self._stack = self._stack, self._outer_stacks.pop()
        return items

    def top(self, kind: type | None = None) -> Any:
        """The last value on the stack, which must be exactly a `kind` if one is given."""
        value = self._stack[-1] if self._stack else self.pop()
        if kind is not None and type(value) is not kind:
            raise UnsafePickleError(f"{brief(value)} is used as a {kind.__name__}")
        return value

    # ---- operations with more than one step

    def mark(self) -> None:
        """Starts a new stretch of the stack."""
        if len(self._outer_stacks) >= MAX_MARKS:
            raise UnsafePickleError(f"nested more than {MAX_MARKS} levels deep")
        self._outer_stacks.append(self._stack)
        self._stack = []

    def check_protocol(self) -> None:
        """Reads the protocol number, which stands at the beginning only."""
        is_first, protocol = self._pos == 1, self.take_byte()
        if not is_first or protocol > MAX_PROTOCOL:
            raise UnsafePickleError(f"protocol {protocol}, or not at the beginning")

    def check_frame(self) -> None:
        """Reads a frame's length; frames only help readers of streams."""
        if self.number(8) > len(self._data) - self._pos:
            raise UnsafePickleError("damaged: the file ends early")

    def push_decimal(self) -> None:
        """Reads an integer in decimal digits; 00 and 01 are the booleans of protocols 0 and 1."""
        text = self.line()
        self.push(_BOOLEANS[text] if text in _BOOLEANS else parse_decimal(text))

    def push_long(self, width: int) -> None:
        """Reads an integer of up to 64 bits that is preceded by its length."""
        length = self.number(width)
        if length > self.max_long_bytes:
            raise UnsafePickleError(f"an integer of {length} bytes")
        self.push(self.number(length, is_signed=True))

    def push_symbol(self, module: object, name: object) -> None:
        """Looks a name up in the table of stand-ins."""
        symbol = None
        if type(module) is str and type(name) is str:
            symbol = SYMBOLS.get((module, name))
        if symbol is None:
            raise UnsafePickleError(
                f"it names {brief(module)} {brief(name)}, which is not a numpy array constructor"
            )
        self.push(symbol)

    def push_stacked_symbol(self) -> None:
        """STACK_GLOBAL: module and name are on the stack."""
        name = self.pop()
        self.push_symbol(self.pop(), name)

    def put(self, index: int) -> None:
        """Remembers the last value. Indices count up from 0 or 1, once each."""
        memo = self._memo
        if index in memo or not 0 <= index <= len(memo) + 1:
            raise UnsafePickleError(f"memo index {index} out of turn")
        memo[index] = self._stack[-1] if self._stack else self.top()

    def memoize(self) -> None:
        """Remembers the last value under the next index."""
        self.put(len(self._memo))

    def get(self, index: int) -> None:
        """Pushes a remembered value."""
        if index not in self._memo:
            raise UnsafePickleError(f"damaged: memo index {index} was never set")
        self.push(self._memo[index])

    def extend_list(self, items: list[Any]) -> None:
        """Appends to the list on top of the stack."""
        self.top(list).extend(items)

    def update_dict(self, items: list[Any]) -> None:
        """Puts alternating keys and values into the dict on top of the stack."""
        target = self.top(dict)
        if len(items) % 2:
            raise UnsafePickleError("damaged: a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in PLAIN_TYPES:
                raise UnsafePickleError(f"{brief(key)} is a key; keys are plain values")
            target[key] = value

    def reduce(self) -> None:
        """Calls a symbol."""
        args, symbol = self.pop(), self.pop()
        if type(symbol) is not Symbol or type(args) is not tuple:
            raise UnsafePickleError(f"a call of {brief(symbol)} with {brief(args)}")
        self.push(self._arrays.call(symbol, args))

    def build(self) -> None:
        """Completes a stand-in."""
        state = self.pop()
        self._arrays.set_state(self.top(), state)


MAX_OPCODES = 10_000_000
_MAX_REASON = 200
Operation: TypeAlias = Callable[[PickleMachine], None]
_NO_MORE: Mapping[int, Operation] = MappingProxyType({})


def interpret_pickle(data: bytes) -> Any:
    """What the pickle `data` describes, with `ArrayNode`s in the place of some arrays.

    Raises:
        UnsafePickleError: an opcode, a name or an argument that plain values and numeric arrays do
            not need; a limit; a damaged file. Says what, and where in the file.
    """
    return run_pickle(PickleMachine(data))


def run_pickle(machine: PickleMachine, more: Mapping[int, Operation] = _NO_MORE) -> Any:
    """What is left on the machine when its pickle says that it ends.

    Args:
        machine: at the beginning of its pickle.
        more: opcodes that this kind of machine has beside those of values and arrays.

    Raises:
        UnsafePickleError: as :func:`interpret_pickle`.
    """
    try:
        return _run(machine, more)
    except UnsafePickleError as error:
        raise UnsafePickleError(f"{error} (at byte {machine.position})") from None
    except ValueError as error:  # text or numbers that do not decode
        reason = str(error)[:_MAX_REASON]
        raise UnsafePickleError(f"damaged: {reason} (at byte {machine.position})") from None


def _run(machine: PickleMachine, more: Mapping[int, Operation]) -> Any:
    for _ in range(MAX_OPCODES):
        code = machine.take_byte()
        if code == pickle.STOP[0]:
            return machine.result()
        operation = _OPERATIONS.get(code) or more.get(code)
        if operation is None:
            raise UnsafePickleError(f"opcode {_opcode_name(code)} is not allowed")
        operation(machine)
    raise UnsafePickleError(f"more than {MAX_OPCODES} opcodes")


def _opcode_name(code: int) -> str:
    names = (name for name, value in vars(pickle).items() if value == bytes((code,)))
    return next(names, f"0x{code:02x}")


def _constant(value: bool | None) -> Operation:
    return lambda m: m.push(value)


def _integer(width: int, *, is_signed: bool = False) -> Operation:
    return lambda m: m.push(m.number(width, is_signed=is_signed))


def _text(width: int) -> Operation:
    # "surrogatepass" as in the library: file names may hold undecodable bytes in this form.
    return lambda m: m.push(m.take(m.number(width)).decode("utf-8", "surrogatepass"))


def _bytes(width: int) -> Operation:
    return lambda m: m.push(m.take(m.number(width)))


def _tuple(length: int) -> Operation:
    return lambda m: m.push_container(tuple([m.pop() for _ in range(length)][::-1]))


def _put(width: int) -> Operation:
    return lambda m: m.put(m.number(width))


def _get(width: int) -> Operation:
    return lambda m: m.get(m.number(width))


def _new_dict(m: PickleMachine) -> None:
    items = m.pop_items()
    m.push_container({})
    m.update_dict(items)


def _set_item(m: PickleMachine) -> None:
    value, key = m.pop(), m.pop()
    m.update_dict([key, value])


_OPERATIONS: Mapping[int, Operation] = MappingProxyType(
    {
        opcode[0]: operation
        for opcode, operation in (
            (pickle.PROTO, PickleMachine.check_protocol),
            (pickle.FRAME, PickleMachine.check_frame),
            (pickle.MARK, PickleMachine.mark),
            (pickle.NONE, _constant(None)),
            (pickle.NEWTRUE, _constant(True)),
            (pickle.NEWFALSE, _constant(False)),
            (pickle.INT, PickleMachine.push_decimal),
            (pickle.LONG, PickleMachine.push_decimal),
            (pickle.BININT, _integer(4, is_signed=True)),
            (pickle.BININT1, _integer(1)),
            (pickle.BININT2, _integer(2)),
            (pickle.LONG1, lambda m: m.push_long(1)),
            (pickle.LONG4, lambda m: m.push_long(4)),
            (pickle.FLOAT, lambda m: m.push(float(m.line()))),
            (pickle.BINFLOAT, lambda m: m.push(struct.unpack(">d", m.take(8))[0])),
            (pickle.UNICODE, lambda m: m.push(m.line().decode("raw-unicode-escape"))),
            (pickle.SHORT_BINUNICODE, _text(1)),
            (pickle.BINUNICODE, _text(4)),
            (pickle.BINUNICODE8, _text(8)),
            (pickle.SHORT_BINSTRING, _bytes(1)),
            (pickle.BINSTRING, _bytes(4)),
            (pickle.SHORT_BINBYTES, _bytes(1)),
            (pickle.BINBYTES, _bytes(4)),
            (pickle.BINBYTES8, _bytes(8)),
            (pickle.BYTEARRAY8, _bytes(8)),
            (pickle.EMPTY_TUPLE, _tuple(0)),
            (pickle.TUPLE1, _tuple(1)),
            (pickle.TUPLE2, _tuple(2)),
            (pickle.TUPLE3, _tuple(3)),
            (pickle.TUPLE, lambda m: m.push_container(tuple(m.pop_items()))),
            (pickle.EMPTY_LIST, lambda m: m.push_container([])),
            (pickle.LIST, lambda m: m.push_container(m.pop_items())),
            (pickle.APPEND, lambda m: m.extend_list([m.pop()])),
            (pickle.APPENDS, lambda m: m.extend_list(m.pop_items())),
            (pickle.EMPTY_DICT, lambda m: m.push_container({})),
            (pickle.DICT, _new_dict),
            (pickle.SETITEM, _set_item),
            (pickle.SETITEMS, lambda m: m.update_dict(m.pop_items())),
            (pickle.PUT, lambda m: m.put(parse_decimal(m.line()))),
            (pickle.BINPUT, _put(1)),
            (pickle.LONG_BINPUT, _put(4)),
            (pickle.MEMOIZE, PickleMachine.memoize),
            (pickle.GET, lambda m: m.get(parse_decimal(m.line()))),
            (pickle.BINGET, _get(1)),
            (pickle.LONG_BINGET, _get(4)),
            (pickle.GLOBAL, lambda m: m.push_symbol(m.line().decode(), m.line().decode())),
            (pickle.STACK_GLOBAL, lambda m: m.push_stacked_symbol()),
            (pickle.REDUCE, lambda m: m.reduce()),
            (pickle.BUILD, lambda m: m.build()),
        )
    }
)
