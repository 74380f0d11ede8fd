"""``.pt`` files that a safe reader must refuse, byte by byte; which refusals there are, see R12."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib

import torch

_STORAGE = (
    b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x06tQ"
)


def saved(content: object, **options: bool) -> bytes:
    """What torch.save writes."""
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def members(data: bytes) -> dict[str, bytes]:
    """Name → content."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def archived(
    content: dict[str, bytes] | list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED
) -> bytes:
    """A zip archive of these members."""
    buffer = io.BytesIO()
    pairs = content.items() if isinstance(content, dict) else content
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in pairs:
            archive.writestr(name, data)
    return buffer.getvalue()


def with_pickle(pickled: bytes) -> bytes:
    """A ``.pt`` archive of six floats whose pickle is another one."""
    plain = members(saved({"w": torch.ones(2, 3)}))
    return archived({n: pickled if n.endswith("data.pkl") else d for n, d in plain.items()})


def tensor_pickle(offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    """A tensor of any shape on a storage of six floats."""

    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(b"\x8a\x08" + struct.pack("<q", value) for value in values) + b"t"

    place = b"\x8a\x08" + struct.pack("<q", offset) + numbers(size) + numbers(stride)
    call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + _STORAGE + place
    return b"\x80\x02" + call + b"\x89ccollections\nOrderedDict\n)RtR."


def _laughs(before: bytes, after: bytes, layers: int = 60) -> bytes:
    """2^60 ones, when tuples within tuples are walked through."""
    parts = [b"h%c\x86q%c" % (i, i + 1) for i in range(layers)]
    return b"\x80\x02" + before + b"K\x01K\x01\x86q\x00" + b"".join(parts) + after + b"."


def _often(call: bytes, argument: bytes) -> bytes:
    """One argument for five thousand calls."""
    return b"\x80\x02(" + argument + b"q\x00" + (call + b"h\x00\x85R") * 5000 + b"l."


_TEXT = b"X\x40\x42\x0f\x00" + b"a" * 1_000_000
_MANY = b"](" + b"".join(b"J" + struct.pack("<i", i) for i in range(90_000)) + b"e"
# with what the refusal says
PICKLES: dict[str, tuple[bytes, str]] = {
    "key of tuples": (_laughs(b"}", b"K\x01s"), "a tuple is a key"),
    "function of tuples": (_laughs(b"", b")R"), "a call of"),
    "storage of tuples": (_laughs(b"(X\x07\x00\x00\x00storage", b"tQ"), "a storage described"),
    "layout of tuples": (
        _laughs(b"ctorch._utils\n_rebuild_sparse_tensor\n(", b"NtR"),
        "a call of torch._utils._rebuild_sparse_tensor",
    ),
    "long name": (b"\x80\x02ctorch\n" + b"x" * 50_000 + b"\n.", "it names"),
    "long key": (b"\x80\x02(X\x50\xc3\x00\x00" + b"x" * 50_000 + b"tQ.", "a storage described"),
    "gigabytes": (b"\x80\x02c__builtin__\nbytearray\nJ\x00\xca\x9a\x3b\x85R.", "bytearray"),
    "texts": (_often(b"c_codecs\nencode\n", _TEXT), "encode"),
    "sets": (_often(b"c__builtin__\nset\n", _MANY), "set"),
    "counters": (_often(b"ccollections\nCounter\n", _MANY), "Counter"),
    "ordered dicts": (_often(b"ccollections\nOrderedDict\n", _MANY), "OrderedDict"),
    "sizes": (_often(b"ctorch\nSize\n", _MANY), "Size"),
    "deep": (b"\x80\x02" + b"(" * 200 + b"t" * 200 + b".", "levels deep"),
    "os.system": (b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.", "os.system"),
    "new object": (b"\x80\x02ctorch\nTensor\n)\x81.", "opcode NEWOBJ"),
    "state": (b"\x80\x02" + _STORAGE + b"}b.", "BUILD"),
    "2^40 items": (tensor_pickle(0, (2**40,), (0,)), "not a plain one"),
    "2^62 apart": (tensor_pickle(0, (2, 3), (2**61, 1)), "overflow"),
    "before": (tensor_pickle(-5, (2,), (1,)), "offset"),
    "beyond": (tensor_pickle(5, (2,), (1,)), "resize"),
    "far beyond": (tensor_pickle(2**62, (2,), (1,)), "overflow"),
    "fewer than none": (tensor_pickle(0, (-1,), (1,)), "overflow"),
    "70 dimensions": (tensor_pickle(0, (3,) * 70, (0,) * 70), "overflow"),
}


def overlapping(count: int) -> bytes:
    """A megabyte that ``count`` members share: hours of checksums."""
    body, name = bytes(1 << 20), b"archive/data/0"
    sizes = struct.pack("<3I", zlib.crc32(body), len(body), len(body))
    local = b"PK\3\4" + struct.pack("<5H", 20, 0, 0, 0, 0) + sizes
    local += struct.pack("<2H", len(name), 0) + name + body
    entry = b"PK\1\2" + struct.pack("<6H", 20, 20, 0, 0, 0, 0) + sizes
    entry += struct.pack("<5H2I", len(name), 0, 0, 0, 0, 0, 0) + name
    place = struct.pack("<4H2IH", 0, 0, count, count, count * len(entry), len(local), 0)
    return local + entry * count + b"PK\5\6" + place


def with_second_directory() -> bytes:
    """One directory where the end says (a bomb), another right before it (harmless)."""
    bomb = archived({"archive/data.pkl": b"N.", "archive/data/0": bytes(1 << 20)}, 8)
    (size, place) = struct.unpack_from("<2I", bomb, len(bomb) - 10)
    padding = size - 47
    fake = b"PK\1\2" + struct.pack("<6H3I", *[20] * 2, *[0] * 7)
    fake += struct.pack("<5H2I", 1, 0, padding, 0, 0, 0, 0) + b"a" + b" " * padding
    end = struct.pack("<4H2IH", 0, 0, 2, 2, size, place, 0)
    return bomb[: place + size] + fake + b"PK\5\6" + end
