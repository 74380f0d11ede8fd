"""Hostile and damaged tars: nothing is written outside, little is unpacked, damage has a name."""

from __future__ import annotations

import gzip
import io
import sys
import tarfile
import time
import tracemalloc
from pathlib import Path

import pytest

from image_ddpm.importers import archives as archive_files
from image_ddpm.importers.archives import MAX_IMAGE_BYTES, inner_members, tar_members
from tests.image_ddpm.importers.archives import member, tar_bytes
from utils.process.errors import DataError

FILES = {"a/n_1.png": b"x" * 700, "a/n_2.png": b"y" * 512, "b/n_3.png": b"", "n_4.png": b"z" * 9999}
MAX_SECONDS, MAX_MEMORY_BYTES = 5.0, 100_000_000


def _write(folder: Path, data: bytes, *, is_packed: bool) -> str:
    path = folder / "some.tar"
    path.write_bytes(gzip.compress(data) if is_packed else data)
    return str(path)


def _read(path: str) -> tuple[dict[str, bytes], list[str]]:
    messages: list[str] = []
    return {m.name: m.read() for m in tar_members(path, messages.append)}, messages


@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_members_come_whole_and_in_order(tmp_path: Path, form: int, is_packed: bool) -> None:
    buffer = io.BytesIO()
    # names are read in the encoding of the machine's own
    letter = "é" if sys.getfilesystemencoding() == "utf-8" else "e"
    files = {**FILES, "c/" + letter * 45 + "/" + "long" * 20 + "_5.png": b"v" * 1024}
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for name, data in files.items():
            tar.addfile(member(name, size=len(data)), io.BytesIO(data))
    path = _write(tmp_path, buffer.getvalue(), is_packed=is_packed)
    found, messages = _read(path)
    assert found == files and list(found) == list(files) and messages == []
    some = [m.name for m in tar_members(path, print)]  # without reading any
    assert some == list(files)


@pytest.mark.parametrize("is_packed", [False, True])
def test_tars_in_a_tar_are_read_without_unpacking_them(tmp_path: Path, is_packed: bool) -> None:
    data = tar_bytes({"x.tar": tar_bytes(FILES), "y.tar": tar_bytes(FILES), "z.png": b"end"})
    path = _write(tmp_path, data, is_packed=is_packed)
    found = {}
    for outer in tar_members(path, print):
        if outer.name == "x.tar":
            found = {m.name: m.read() for m in inner_members(outer, print)}
        elif outer.name == "y.tar":  # given up after the first
            first = next(iter(inner_members(outer, print)))
            assert first.read() == FILES["a/n_1.png"]
        else:
            assert outer.read() == b"end"
    assert found == FILES


HOSTILE = {
    "../up_1.png": (tarfile.REGTYPE, "has '..'"),
    "a/../../up_1.png": (tarfile.REGTYPE, "has '..'"),
    "/etc/root_1.png": (tarfile.REGTYPE, "is absolute"),
    "C:/x_1.png": (tarfile.REGTYPE, "is absolute"),
    "a\\..\\x_1.png": (tarfile.REGTYPE, "backslash"),
    "a\nb_1.png": (tarfile.REGTYPE, "printed"),
    "soft_1.png": (tarfile.SYMTYPE, "links"),
    "hard_1.png": (tarfile.LNKTYPE, "links"),
    "disk_1.png": (tarfile.BLKTYPE, "plain file"),
    "tty_1.png": (tarfile.CHRTYPE, "plain file"),
    "pipe_1.png": (tarfile.FIFOTYPE, "plain file"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_member_is_passed_by_with_a_message(tmp_path: Path, name: str) -> None:
    kind, reason = HOSTILE[name]
    data = tar_bytes(FILES, (member(name, kind, link="/etc/passwd"),))
    found, messages = _read(_write(tmp_path, data, is_packed=False))
    assert found == FILES
    assert len(messages) == 1 and reason in messages[0] and messages[0].isprintable()
    assert "some.tar: member" in messages[0]


def test_nul_in_a_long_name_is_passed_by(tmp_path: Path) -> None:
    data = tar_bytes({"a_1.png": b"x"}, (_with_pax("path", "evil\0_1.png"),))
    found, messages = _read(_write(tmp_path, data, is_packed=False))
    assert list(found) == ["a_1.png"] and "printed" in messages[0]


def _with_pax(key: str, value: str) -> tarfile.TarInfo:
    info = member("plain_1.png")
    info.pax_headers = {key: value}
    return info


def _refused(path: str, message: str) -> None:
    tracemalloc.start()
    started = time.process_time()
    try:
        with pytest.raises(DataError, match=message) as caught:
            _read(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "some.tar" in str(caught.value) and len(str(caught.value)) < 1000
    assert time.process_time() - started < MAX_SECONDS and peak < MAX_MEMORY_BYTES


@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize("size", [MAX_IMAGE_BYTES + 1, 1 << 40, (1 << 62)])
def test_member_that_claims_too_much_is_refused(tmp_path: Path, size: int, is_packed: bool) -> None:
    header = member("bomb_1.png", size=size).tobuf(tarfile.GNU_FORMAT)
    path = _write(tmp_path, header + bytes(4096), is_packed=is_packed)
    _refused(path, r"bomb_1\.png.*too many")
    # passed by unread, it is not there to be skipped either
    with pytest.raises(DataError, match="damaged"):
        list(tar_members(path, print))


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_header_that_claims_too_much_is_refused(tmp_path: Path, kind: bytes) -> None:
    header = member("x", kind, size=1 << 33).tobuf(tarfile.GNU_FORMAT)
    _refused(_write(tmp_path, header + bytes(100_000), is_packed=False), "header")
    behind = tar_bytes({"ok_1.png": b"x"})[:1024] + header + bytes(100_000)
    _refused(_write(tmp_path, behind, is_packed=True), r"ok_1\.png.*header")


def test_endless_headers_are_refused(tmp_path: Path) -> None:
    long_name = member("x", tarfile.GNUTYPE_LONGNAME, size=4).tobuf(tarfile.GNU_FORMAT)
    chain = (long_name + b"abc\0" + bytes(508)) * 5000
    _refused(_write(tmp_path, chain, is_packed=True), "damaged")


def test_gzip_bomb_is_stopped_by_its_ratio(tmp_path: Path) -> None:
    path = tmp_path / "some.tar"
    header = member("zeros_1.png", size=1 << 30).tobuf(tarfile.GNU_FORMAT)
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(header)
        for _ in range(300):
            file.write(bytes(1 << 20))
    assert path.stat().st_size < 2_000_000
    tracemalloc.start()
    with pytest.raises(DataError, match=r"zeros_1\.png.*100 times"):
        list(tar_members(str(path), print))
    assert tracemalloc.get_traced_memory()[1] < MAX_MEMORY_BYTES
    tracemalloc.stop()


def test_sparse_member_of_zeros_is_passed_by(tmp_path: Path) -> None:
    info = member("sparse_1.png", tarfile.GNUTYPE_SPARSE, size=0)
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b"%011o\0" % (1 << 30)
    header[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(header))[0]  # type: ignore[attr-defined]
    path = _write(tmp_path, bytes(header) + tar_bytes(FILES), is_packed=False)
    found, messages = _read(path)
    assert found == FILES and "plain file" in messages[0]


def test_too_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_files, "MAX_MEMBERS", 3)
    _refused(_write(tmp_path, tar_bytes(FILES), is_packed=False), "3 members")


@pytest.mark.parametrize("is_packed", [False, True])
def test_every_cut_is_told_with_the_last_member(tmp_path: Path, is_packed: bool) -> None:
    data = tar_bytes(FILES)
    end = data.rindex(b"z") + 1
    for length in [*range(0, end, 97), 1024, 1536, 2048, 3072, end]:
        path = _write(tmp_path, data[:length], is_packed=is_packed)
        with pytest.raises(DataError, match=r"some\.tar") as caught:
            _read(path)
        if 2048 <= length < 2500:
            assert "n_1.png" in str(caught.value) or "n_2.png" in str(caught.value)


def test_damaged_header_in_the_middle_is_no_end(tmp_path: Path) -> None:
    data = bytearray(tar_bytes(FILES))
    place = data.index(b"a/n_2.png")
    data[place] ^= 1
    _refused(_write(tmp_path, bytes(data), is_packed=False), r"n_1\.png.*bad checksum")


def test_damaged_gzip_is_told(tmp_path: Path) -> None:
    path = Path(_write(tmp_path, tar_bytes(FILES), is_packed=True))
    data = bytearray(path.read_bytes())
    for place in range(12, len(data), 7):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
        with pytest.raises(DataError, match=r"some\.tar"):
            _read(str(path))


@pytest.mark.parametrize("data", [b"", b"no tar at all" * 100, b"PK\x03\x04" + bytes(2000)])
def test_file_that_is_no_tar_is_refused(tmp_path: Path, data: bytes) -> None:
    _refused(_write(tmp_path, data, is_packed=False), "damaged")


def test_missing_file_and_device_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing.*--archive"):
        _read(str(tmp_path / "none.tar"))
    with pytest.raises(DataError, match="folder nor a file"):
        _read("/dev/zero")
