"""The stack machine that pickles are written for, with every operand checked.

Not for saying which opcodes exist (`pickle_opcodes`) nor for what numpy's constructors accept
(`pickle_arrays`). Any method raises UnsafePickleError where the pickle does something that plain
values and numeric arrays do not need, crosses a limit, or is damaged.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import Any

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
