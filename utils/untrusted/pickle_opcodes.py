"""An interpreter of the pickle opcodes that plain values and numpy arrays need, and of no others.

Not for files, nor for what a value means (`safe_pickle`). It is an interpreter of its own and not a
subclass of the standard library's pure-Python unpickler, because that is the smaller and the safer
one: of 68 opcodes only those in the table exist here, where a subclass must undo the rest; every
operand has an exact type that is checked, where the library calls `append`, `__setstate__` or
`__new__` on whatever lies on the stack; and nothing hangs on a private class that differs between
Python versions. No name is ever imported: a name is looked up in a table of stand-ins.

The strings of Python 2 (BINSTRING, as in CIFAR-10) may be text or bytes, so they arrive as `bytes`.

Sets, persistent ids, the extension registry, INST, OBJ and NEWOBJ are refused. Byte arrays arrive
as `bytes`.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

from utils.untrusted.pickle_arrays import UnsafePickleError
from utils.untrusted.pickle_machine import PickleMachine, parse_decimal

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
