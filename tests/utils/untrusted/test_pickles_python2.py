"""Pickles of Python 2 (protocol 2, strings that are bytes) are read; hostile ones stay refused."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from utils.untrusted.pickles import UnsafePickleError, loads_pickle


def text(value: bytes) -> bytes:
    """A string as Python 2 writes it."""
    short = len(value) < 256
    head = b"U" + bytes([len(value)]) if short else b"T" + struct.pack("<i", len(value))
    return head + value


def array(shape: tuple[int, ...], raw: bytes, code: bytes = b"u1", order: bytes = b"|") -> bytes:
    """An array as Python 2 and numpy 1 write it: the shape as one- or two-byte integers."""
    sizes = b"".join(b"M" + struct.pack("<H", size) for size in shape)
    dtype = b"cnumpy\ndtype\n" + text(code) + b"K\x00K\x01\x87R"
    minus = b"J\xff\xff\xff\xff"
    dtype += b"(K\x03" + text(order) + b"NNN" + minus + minus + b"K\x00tb"
    new = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85"
    return (
        new
        + text(b"b")
        + b"\x87R"
        + b"(K\x01("
        + sizes
        + b"t"
        + dtype
        + b"\x89"
        + text(raw)
        + b"tb"
    )


def test_strings_and_arrays_of_python_2_are_read_as_bytes_and_arrays() -> None:
    raw = bytes(range(200)) + bytes(112)
    items = text(b"data") + array((2, 156), raw) + text(b"names") + b"](" + text(b"caf\xe9") + b"e"
    loaded = loads_pickle(b"\x80\x02}(" + items + b"u.")
    assert loaded.keys() == {b"data", b"names"}
    np.testing.assert_array_equal(loaded[b"data"], np.frombuffer(raw, np.uint8).reshape(2, 156))
    assert loaded[b"names"] == [b"caf\xe9"]


def test_byte_order_of_a_python_2_array_is_kept() -> None:
    values = np.array([1, 2, 70_000], ">i4")
    loaded = loads_pickle(b"\x80\x02" + array((3,), values.tobytes(), b"i4", b">") + b".")
    assert loaded.tolist() == [1, 2, 70_000] and loaded.dtype.isnative


HOSTILE = {
    "call": b"cos\nsystem\n" + text(b"true") + b"\x85R.",
    "call_from_strings": text(b"os") + text(b"system") + b"\x93" + text(b"true") + b"\x85R.",
    "constructor_from_strings": text(b"numpy") + text(b"dtype") + b"\x93.",
    "inst": b"(" + text(b"true") + b"ios\nsystem\n.",
    "encode": b"c_codecs\nencode\n(" + text(b"ab") + text(b"latin1") + b"tR.",
    "object_array": array((1,), bytes(8), b"O8", b"|") + b".",
    "object_code": array((1,), bytes(8), b"O", b"|") + b".",
    "text_array": array((1,), bytes(8), b"S8", b"|") + b".",
    "record_code": array((1,), bytes(8), b"f4,f4", b"<") + b".",
    "code_beyond_ascii": array((1,), b"a", b"\xff1", b"|") + b".",
    "order_that_is_none": array((1,), bytes(8), b"f8", b"|") + b".",
    "order_of_two": array((1,), bytes(8), b"f8", b"<<") + b".",
    "short_data": array((2, 2), b"abc") + b".",
    "long_data": array((2, 2), b"abcde") + b".",
    "short_string_beyond_end": b"U\xffabc.",
    "string_of_negative_size": b"T\xff\xff\xff\xffabc.",
    "string_of_2_gib": b"T\xff\xff\xff\x7fabc.",
    "string_with_state": text(b"a") + b"}b.",
    "string_as_list": text(b"a") + b"Na.",
    "quoted_string": b"S'abc'\n.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_python_2_pickle_is_refused(name: str) -> None:
    for head in (b"", b"\x80\x02"):
        with pytest.raises(UnsafePickleError, match=r"some\.pkl: refused"):
            loads_pickle(head + HOSTILE[name], name="some.pkl")


def test_one_buffer_for_many_arrays_is_stopped() -> None:
    raw = text(bytes(100_000)) + b"q\x00"
    one = array((500, 200), b"").replace(text(b"") + b"tb", b"h\x00tb")
    with pytest.raises(UnsafePickleError, match="file holds"):
        loads_pickle(b"\x80\x02](" + raw + one * 50 + b"e.")


def test_every_truncation_of_a_python_2_array_is_refused() -> None:
    data = b"\x80\x02}(" + text(b"data") + array((2, 3), b"abcdef") + b"u."
    loads_pickle(data)
    for length in range(len(data)):
        with pytest.raises(UnsafePickleError):
            loads_pickle(data[:length])
