"""Pickles that a safe reader must refuse: calls by any opcode, wrong arguments, bombs, damage.

Tables only; `test_r11_pickles.py` says what refusing means.
"""

from __future__ import annotations

import builtins
import functools
import importlib
import operator
import pickle
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

if hasattr(np, "_core"):
    from numpy._core import multiarray, numeric
else:
    from numpy.core import multiarray, numeric

EXTENSION_CODE = 0xF0
HUGE = 10**15
_F8 = np.dtype("f8")
_EIGHT = b"01234567"


class Reduce:
    """Pickles as a call of any function with any arguments, optionally followed by BUILD."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def __reduce__(self) -> Any:
        return self.parts


def _array(*state: Any) -> Reduce:
    return Reduce(multiarray._reconstruct, (np.ndarray, (0,), b"b"), state)


def _dtype(*state: Any) -> Reduce:
    return Reduce(np.dtype, ("f8", False, True), state)


def _buffer(*args: Any) -> Reduce:
    return Reduce(numeric._frombuffer, args)


def _nested(wrap: Callable[[Any], Any], depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = wrap(value)
    return value


# To be pickled in every protocol.
VALUES: dict[str, Any] = {
    "eval": Reduce(eval, ("1",)),
    "getattr": Reduce(getattr, (1, "real")),
    "import_module": Reduce(importlib.import_module, ("antigravity",)),
    "import": Reduce(builtins.__import__, ("antigravity",)),
    "attrgetter": Reduce(operator.attrgetter, ("a.b",)),
    "partial": Reduce(functools.partial, (print, 1)),
    "popen": Reduce(subprocess.Popen, (["true"],)),
    "numpy_load": Reduce(np.load, ("x.npy",)),
    "bytes_of_size": Reduce(bytes, (HUGE,)),
    "bytearray_of_size": Reduce(bytearray, (HUGE,)),
    "ndarray_huge": Reduce(np.ndarray, ((HUGE,),)),
    "ndarray_strides": Reduce(np.ndarray, ((2,), _F8, _EIGHT, 0, (HUGE,))),
    "ndarray_no_args": Reduce(np.ndarray, ()),
    "reconstruct_huge": Reduce(multiarray._reconstruct, (np.ndarray, (HUGE,), b"b")),
    "reconstruct_type": Reduce(multiarray._reconstruct, (np.generic, (0,), b"b")),
    "reconstruct_code": Reduce(multiarray._reconstruct, (np.ndarray, (0,), b"O")),
    "reconstruct_unfilled": Reduce(multiarray._reconstruct, (np.ndarray, (0,), b"b")),
    "dtype_object": Reduce(np.dtype, ("O", False, True)),
    "dtype_void": Reduce(np.dtype, ("V8,(1000000000)f4", False, True)),
    "dtype_many": Reduce(np.dtype, ("f8," * 10_000, False, True)),
    "dtype_without_flags": Reduce(np.dtype, ("f8",)),
    "dtype_align": Reduce(np.dtype, ("f8", True, True)),
    "dtype_order_in_code": Reduce(np.dtype, ("<f8", False, True)),
    "dtype_metadata": Reduce(np.dtype, ("f8", False, True, {"a": 1})),
    "dtype_of_dtype": Reduce(np.dtype, (_F8, False, True)),
    "dtype_fields": _dtype(3, "<", None, ("a",), {"a": (_F8, 0)}, 8, 1, 0),
    "dtype_subarray": _dtype(3, "<", (_F8, (HUGE,)), None, None, -1, -1, 0),
    "dtype_flags": _dtype(3, "|", None, None, None, -1, -1, 63),
    "dtype_size": _dtype(3, "<", None, None, None, HUGE, 1, 0),
    "dtype_state_metadata": _dtype(4, "<", None, None, None, -1, -1, 0, {"a": 1}),
    "dtype_state_list": Reduce(np.dtype, ("f8", False, True), [3, "<", None]),
    "dtype_order_missing": [Reduce(np.dtype, ("f8", False, True))],
    "state_negative": _array(1, (-1,), _F8, False, b""),
    "state_two_negative": _array(1, (-1, -8), _F8, False, _EIGHT * 8),
    "state_huge": _array(1, (HUGE,), _F8, False, b""),
    "state_overflow": _array(1, (2**62, 4), _F8, False, b""),
    "state_empty_overflow": _array(1, (0, 2**62, 2**62), _F8, False, b""),
    "state_dims": _array(1, (1,) * 65, _F8, False, _EIGHT),
    "state_bool_shape": _array(1, (True,), _F8, False, _EIGHT),
    "state_float_shape": _array(1, (1.0,), _F8, False, _EIGHT),
    "state_list_shape": _array(1, [1], _F8, False, _EIGHT),
    "state_short_data": _array(1, (2,), _F8, False, _EIGHT),
    "state_long_data": _array(1, (1,), _F8, False, _EIGHT + b"8"),
    "state_list_data": _array(1, (1,), _F8, False, [1.0]),
    "state_text_data": _array(1, (1,), _F8, False, "01234567"),
    "state_order": _array(1, (1,), _F8, 7, _EIGHT),
    "state_version": _array(9, (1,), _F8, False, _EIGHT),
    "state_no_dtype": _array(1, (1,), "f8", False, _EIGHT),
    "state_dict": Reduce(multiarray._reconstruct, (np.ndarray, (0,), b"b"), {"a": 1}),
    "state_large": _array(*range(10_000)),
    "state_bool_values": _array(1, (2,), np.dtype("?"), False, b"\x02\xff"),
    "buffer_shape": _buffer(_EIGHT, _F8, (2,), "C"),
    "buffer_order": _buffer(_EIGHT, _F8, (1,), "X"),
    "buffer_axes": _buffer(_EIGHT, _F8, (1,), "K", (5,)),
    "buffer_axes_type": _buffer(_EIGHT, _F8, (1,), "K", 0),
    "buffer_integer": _buffer(8, _F8, (1,), "C"),
    "scalar_short": Reduce(multiarray.scalar, (_F8, b"0123")),
    "scalar_object": Reduce(multiarray.scalar, (np.dtype("O"), _EIGHT)),
    "scalar_without_data": Reduce(multiarray.scalar, (_F8,)),
    "object_array": np.array([1, "a"], dtype=object),
    "record_array": np.zeros(2, dtype=[("a", "f4"), ("b", "i8")]),
    "text_array": np.array(["ab", "c"]),
    "bytes_array": np.array([b"ab", b"c"]),
    "date_array": np.array(["2020-01-01"], dtype="M8[D]"),
    "complex_array": np.ones(2, dtype="c16"),
    "long_double_array": np.ones(2, dtype="g"),
    "masked_array": np.ma.array([1, 2], mask=[0, 1]),
    "array_class": np.ndarray,
    "dtype": _F8,
    "tuple_key": {(1, 2): 3},
    "set": {1, 2},
    "frozenset": frozenset((1,)),
    "complex": 1j,
    "slice": slice(1),
    "ellipsis": ...,
    "function": len,
    "instance": Path("x"),
    "exception": ValueError("x"),
    "wide_integer": 2**80,
    "negative_integer": -(2**200),
    "deep_list": _nested(lambda inner: [inner], 100),
    "deep_tuple": _nested(lambda inner: (inner,), 100),
    "deep_dict": _nested(lambda inner: {"a": inner}, 100),
}


def _stack_global(module: str, name: str) -> bytes:
    texts = (b"\x8c" + bytes((len(text),)) + text.encode() for text in (module, name))
    return b"".join(texts) + b"\x93"


def _laughs(close: bytes) -> bytes:
    """25 layers of ten references to the layer below: 10^25 items when expanded."""
    layers = (b"(" + b"h%c" % i * 10 + close + b"q%c" % (i + 1) for i in range(25))
    return b"((K\x01" + close + b"q\x00" + b"".join(layers) + b"l."


def _chain_beside_its_links() -> bytes:
    """A list of 60 lists, each of which holds the one before: deep, though every one is shallow."""
    links = (b"]" + (b"h%ca" % (i - 1) if i else b"") + b"q%c" % i for i in range(60))
    return b"](" + b"".join(links) + b"e."


def _buffer_of_many_arrays() -> bytes:
    """One megabyte of data that 2000 arrays claim, 2 GB together."""
    size = struct.pack("<i", 1_000_000)
    dtype = b"cnumpy\ndtype\n(X\x02\x00\x00\x00u1\x89\x88tR(K\x03X\x01\x00\x00\x00|NNN"
    dtype += b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    head = (
        b"(B" + size + bytes(1_000_000) + b"q\x00" + dtype + b"q\x01" + b"J" + size + b"\x85q\x02"
    )
    call = b"cnumpy.core.numeric\n_frombuffer\n(h\x00h\x01h\x02X\x01\x00\x00\x00CtR"
    return head + call * 2000 + b"l."


def _text_encoded_often() -> bytes:
    """100 kB of text that 5000 calls turn into bytes, 500 MB together."""
    head = b"(c_codecs\nencode\n(V" + b"a" * 100_000 + b"\nVlatin1\ntq\x00R"
    return head + b"c_codecs\nencode\nh\x00R" * 5000 + b"l."


# Small files that ask for much time, memory or depth, with the limit that stops each.
BOMBS: dict[str, tuple[bytes, str]] = {
    "many_marks": (b"(" * 1_000_000 + b".", "levels deep"),
    "empty_lists": (b"]" + b"]a" * 500_000 + b".", "200000 lists, tuples and dicts"),
    "empty_tuples": (b"]" + b")a" * 500_000 + b".", "200000 lists, tuples and dicts"),
    "empty_dicts": (b"]" + b"}a" * 500_000 + b".", "200000 lists, tuples and dicts"),
    "wide_stack": (b"N" * 1_000_000 + b".", "values wait on its stack"),
    "deep_tuples": (b")" + b"\x85" * 60_000 + b".", "levels deep"),
    "deep_lists": (b"]" * 60_000 + b"a" * 59_999 + b".", "levels deep"),
    "list_in_itself": (b"]q\x00h\x00a.", "levels deep"),
    "dict_in_itself": (b"}q\x00Nh\x00s.", "levels deep"),
    "list_in_its_tuple": (b"]q\x00h\x00\x85a.", "levels deep"),
    "billion_lists": (_laughs(b"l"), "shared ones counted"),
    "billion_tuples": (_laughs(b"t"), "shared ones counted"),
    "chain_beside_its_links": (_chain_beside_its_links(), "levels deep"),
    "buffer_of_many_arrays": (_buffer_of_many_arrays(), "more than the file holds"),
    "text_encoded_often": (_text_encoded_often(), "more than the file holds"),
    "memo_huge_binary": (b"Nr\xff\xff\xff\xff.", "out of turn"),
    "memo_huge_text": (b"Np99999999999\n.", "out of turn"),
    "memo_negative": (b"Np-1\n.", "out of turn"),
    "memo_twice": (b"Nq\x00q\x00.", "out of turn"),
}


# Opcode by opcode; each is tried bare and behind every protocol number.
STREAMS: dict[str, bytes] = {
    "nothing": b"",
    "stop": b".",
    "no_stop": b"N",
    "no_opcode": b"\xff.",
    "protocol_twice": b"\x80\x04\x80\x04N.",
    "two_values": b"NN.",
    "open_mark": b"(N.",
    "trailing": b"N.N.",
    "persistent_id": b"Pid\n.",
    "persistent_object": b"NQ.",
    "inst": b"(inumpy\nndarray\n.",
    "obj": b"(cnumpy\nndarray\no.",
    "newobj": b"cnumpy\nndarray\n)\x81.",
    "newobj_ex": b"cnumpy\nndarray\n)}\x92.",
    "extension_1": b"\x82\xf0.",
    "extension_2": b"\x83\xf0\x00.",
    "extension_4": b"\x84\xf0\x00\x00\x00.",
    "out_of_band": b"\x97.",
    "readonly_buffer": b"C\x01a\x98.",
    "empty_set": b"\x8f.",
    "pop": b"NN0.",
    "dup": b"N2\x86.",
    "dotted_constructor": _stack_global("numpy", "core.multiarray._reconstruct") + b".",
    "dotted_method": _stack_global("numpy", "ndarray.dumps") + b".",
    "dotted_module": _stack_global("numpy", "core.multiarray.os.system") + b".",
    "dotted_in_text": b"cnumpy\ndtype.type\n.",
    "dunder": b"cnumpy\n__builtins__\n.",
    "not_imported": b"cantigravity\nx\n.",
    "global_of_bytes": b"C\x05numpyC\x05dtype\x93.",
    "global_without_module": b"\x8c\x05dtype\x93.",
    "call_of_text": b"\x8c\x05numpy)R.",
    "call_with_list": b"cnumpy\ndtype\n]R.",
    "build_list": b"]}b.",
    "build_text": b"\x8c\x01a}b.",
    "build_symbol": b"cnumpy\ndtype\n}b.",
    "append_to_tuple": b")Na.",
    "append_to_symbol": b"cnumpy\nndarray\nNa.",
    "items_of_list": b"](NNu.",
    "odd_items": b"}(Nu.",
    "list_key": b"}]Ns.",
    "symbol_key": b"}cnumpy\ndtype\nNs.",
    "appends_without_mark": b"]Ne.",
    "memo_not_a_number": b"Npx\n.",
    "memo_many_digits": b"Np" + b"9" * 10_000 + b"\n.",
    "memo_of_nothing": b"\x94N.",
    "memo_unset": b"h\x07.",
    "memo_unset_text": b"g-1\n.",
    "text_4_gib": b"X\xff\xff\xff\xffab.",
    "text_16_eib": b"\x8d" + b"\xff" * 8 + b"ab.",
    "bytes_4_gib": b"B\xff\xff\xff\xffab.",
    "bytes_1_tib": b"\x8e" + struct.pack("<Q", 2**40) + b"ab.",
    "bytearray_1_tib": b"\x96" + struct.pack("<Q", 2**40) + b"ab.",
    "frame_beyond_end": b"\x95" + struct.pack("<Q", 2**62) + b"N.",
    "long_2_gib": b"\x8b\xff\xff\xff\x7fab.",
    "long_negative_size": b"\x8b\xff\xff\xff\xffab.",
    "long_255": b"\x8a\xff" + b"\x01" * 255 + b".",
    "int_many_digits": b"I" + b"9" * 100_000 + b"\n.",
    "int_hexadecimal": b"I0x10\n.",
    "int_with_underscore": b"I1_0\n.",
    "float_junk": b"Fabc\n.",
    "text_not_utf8": b"X\x02\x00\x00\x00\xff\xfe.",
    "text_bad_escape": b"V\\u12\n.",
    "python_2_string": b"S'abc'\n.",
    "line_without_end": b"I123",
    "encode_utf8": b"c_codecs\nencode\n(Vab\nVutf-8\ntR.",
    "encode_rot13": b"c_codecs\nencode\n(Vab\nVrot13\ntR.",
    "encode_beyond_latin1": b"c_codecs\nencode\n(V\\u20ac\nVlatin1\ntR.",
    "encode_alone": b"c_codecs\nencode\n.",
    "codecs_decode": b"c_codecs\ndecode\n(Vab\nVlatin1\ntR.",
}


def runners(command: str) -> dict[str, bytes]:
    """Pickles that run a shell command when Python's own reader loads them."""
    text = command.encode()
    short_text = b"\x8c" + bytes((len(text),)) + text
    streams = {
        "global": b"cos\nsystem\n(V" + text + b"\ntR.",
        "stack_global": b"\x80\x04" + _stack_global("os", "system") + short_text + b"\x85R.",
        "dotted": b"\x80\x04" + _stack_global("shutil", "os.system") + short_text + b"\x85R.",
        "inst": b"(V" + text + b"\nios\nsystem\n.",
        "obj": b"(cos\nsystem\nV" + text + b"\no.",
        "extension": b"\x80\x02\x82%c(V" % EXTENSION_CODE + text + b"\ntR.",
        "in_dict_key": b"}cos\nsystem\n(V" + text + b"\ntRNs.",
        "in_list": b"](cos\nsystem\n(V" + text + b"\ntRe.",
        "discarded": b"cos\nsystem\n(V" + text + b"\ntR0N.",
    }
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        value = {"y": [Reduce(eval, (f"__import__('os').system({command!r})",))]}
        streams[f"eval_{protocol}"] = pickle.dumps(value, protocol)
    return streams
