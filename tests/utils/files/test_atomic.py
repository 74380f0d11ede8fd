"""Atomic files survive failing writers, full disks and kills; stale temporary files go."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import random
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest

from utils.files import atomic as atomic_file
from utils.files.atomic import (
    MAX_TEMP_AGE_HOURS,
    SpecialFileError,
    atomic_write,
    open_binary,
    read_up_to,
    remove_stale_temp_files,
    sha256_of,
    write_bytes_atomic,
    write_json_atomic,
    write_text_atomic,
)
from utils.files.storage import MAX_NAME_BYTES
from utils.process.errors import StorageError

ROOT = Path(__file__).resolve().parents[3]
NUM_KILLS = 20


def _run_python(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *args],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_content_is_replaced_and_no_temporary_file_is_left(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    for content in (b"first", b"", b"third" * 1000):
        write_bytes_atomic(path, content)
        assert path.read_bytes() == content
        assert os.listdir(tmp_path) == ["file.bin"]


def test_reader_sees_the_old_content_until_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    with atomic_write(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("error", [KeyError("bug"), KeyboardInterrupt(), ValueError("bug")])
def test_failing_writer_leaves_the_old_content_and_no_temporary_file(
    tmp_path: Path, error: BaseException
) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    with pytest.raises(type(error)), atomic_write(path) as file:
        file.write(b"half of the new")
        raise error
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file.bin"]


def test_failing_writer_of_a_new_file_leaves_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), atomic_write(tmp_path / "file.bin") as file:
        file.write(bytes(1 // 0))
    assert os.listdir(tmp_path) == []


def test_runtime_error_of_a_bug_is_not_called_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"^out of luck$"), atomic_write(tmp_path / "file"):
        raise RuntimeError("out of luck")


def test_missing_folder_is_a_storage_error_that_names_the_path(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "file.bin"
    with pytest.raises(StorageError, match=r"nowhere/file\.bin") as caught:
        write_bytes_atomic(path, b"x")
    assert caught.value.errno == 2


def test_longest_name_that_a_file_can_have_is_written(tmp_path: Path) -> None:
    for name in ("n" * MAX_NAME_BYTES, "é" * (MAX_NAME_BYTES // 2)):
        write_bytes_atomic(tmp_path / name, b"x")
    assert len(os.listdir(tmp_path)) == 2


def test_longer_name_is_a_storage_error_that_says_so(tmp_path: Path) -> None:
    path = tmp_path / ("n" * (MAX_NAME_BYTES + 1))
    with pytest.raises(StorageError, match=r"n: .*too long") as caught:
        write_bytes_atomic(path, b"x")
    assert caught.value.errno == errno.ENAMETOOLONG and "space" not in str(caught.value)


def test_symbolic_link_stays_a_link_and_its_target_is_replaced(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    write_text_atomic(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_permissions_follow_the_umask_like_those_of_any_new_file(tmp_path: Path) -> None:
    write_bytes_atomic(tmp_path / "atomic", b"")
    (tmp_path / "plain").write_bytes(b"")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_text_is_utf8_and_json_round_trips(tmp_path: Path) -> None:
    write_text_atomic(tmp_path / "t", "σ² äöü\n")
    assert (tmp_path / "t").read_bytes() == "σ² äöü\n".encode()
    value = {"a": [1, 2.5, None, True], "σ": {"b": "c"}, "of a name": "no UTF-8: \udce9"}
    write_json_atomic(tmp_path / "j", value)
    assert json.loads((tmp_path / "j").read_text(encoding="utf-8")) == value


def test_unserialisable_json_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "j"
    write_json_atomic(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json_atomic(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert os.listdir(tmp_path) == ["j"]


@pytest.mark.parametrize("mode", ["ab", "r+b", "r", "x", "a"])
def test_modes_that_cannot_be_atomic_are_refused(tmp_path: Path, mode: str) -> None:
    with pytest.raises(ValueError, match="mode"), atomic_write(tmp_path / "f", mode):
        pass


def test_sha256_equals_that_of_the_content(tmp_path: Path) -> None:
    content = random.Random(0).randbytes(3_000_000)
    write_bytes_atomic(tmp_path / "f", content)
    assert sha256_of(tmp_path / "f") == hashlib.sha256(content).hexdigest()


FULL_DISK = """
import resource, sys
from utils.files.atomic import atomic_write
from utils.process.errors import StorageError
kind, path = sys.argv[1:]
if kind == "torch":
    import torch
    state = {"a": torch.zeros(500_000)}
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    with atomic_write(path) as file:
        if kind == "torch":
            torch.save(state, file)
        else:
            file.write(bytes(2_000_000))
except StorageError as error:
    print(error)
"""


@pytest.mark.parametrize("kind", ["bytes", "torch"])
def test_full_disk_is_a_storage_error_with_path_and_free_space(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "model000010.pt"
    path.write_bytes(b"old")
    done = _run_python(FULL_DISK, kind, str(path))
    assert done.returncode == 0, done.stderr
    assert str(path) in done.stdout
    assert "MiB free" in done.stdout
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == [path.name]


ENDLESS_WRITER = """
import sys
from utils.files.atomic import write_bytes_atomic
print("ready", flush=True)
for i in range(10**9):
    write_bytes_atomic(sys.argv[1], bytes([i % 251]) * 4_000_000)
"""


def test_kill_at_any_time_leaves_a_whole_file(tmp_path: Path) -> None:
    rng = random.Random(0)
    path = tmp_path / "file.bin"
    path.write_bytes(b"\0" * 4_000_000)
    num_temp_files = 0
    for _ in range(NUM_KILLS):
        command = [sys.executable, "-S", "-c", ENDLESS_WRITER, str(path)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(rng.uniform(0.0, 0.03))
            process.kill()
        content = path.read_bytes()
        assert len(content) == 4_000_000
        assert content.count(content[:1]) == len(content)
        num_temp_files += len(remove_stale_temp_files(tmp_path))
        assert os.listdir(tmp_path) == [path.name]
    assert num_temp_files > 0, "no kill fell into a write; the test showed nothing"


def _dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    return process.pid


def test_only_temporary_files_of_dead_or_long_gone_writers_are_stale(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a.pt"):
        (own,) = tmp_path.iterdir()
        unique = own.name.split(".")[-2]
        foreign = f"{int(unique[:8], 16) ^ 1:08x}{unique[8:]}"
        kept = [own.name, "model.tmp", ".a.pt.x.0123456789abcdef.tmp", "a.pt.7.tmp"]
        kept.append(f".a.pt.{_dead_pid()}.{foreign}.tmp")
        stale = [f".b.pt.{_dead_pid()}.{unique}.tmp", f".c.pt.{os.getpid()}.{foreign}.tmp"]
        for name in kept[1:] + stale:
            (tmp_path / name).write_bytes(b"")
        long_ago = time.time() - 3600.0 * (MAX_TEMP_AGE_HOURS + 1.0)
        os.utime(tmp_path / stale[1], (long_ago, long_ago))
        assert sorted(path.name for path in remove_stale_temp_files(tmp_path)) == sorted(stale)
        assert sorted(os.listdir(tmp_path)) == sorted(kept)


def test_missing_folder_has_no_stale_files(tmp_path: Path) -> None:
    assert remove_stale_temp_files(tmp_path / "nowhere") == []


class _Bucket:
    """Stands in for blobfile: an object appears when its file is closed, whatever happened."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def open(self, path: str, mode: str) -> io.BytesIO:
        bucket = self

        class Blob(io.BytesIO):
            def close(self) -> None:
                if mode == "wb" and not self.closed:
                    bucket.objects[path] = self.getvalue()
                super().close()

        return Blob(self.objects[path] if mode == "rb" else b"")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> _Bucket:
    bucket = _Bucket()
    module: Any = types.ModuleType("blobfile")
    module.BlobFile = bucket.open
    monkeypatch.setitem(sys.modules, "blobfile", module)
    return bucket


def test_remote_object_is_complete_or_untouched(bucket: _Bucket) -> None:
    write_bytes_atomic("gs://bucket/a", b"old")
    with pytest.raises(KeyError), atomic_write("gs://bucket/a") as file:
        file.write(b"half")
        raise KeyError
    assert bucket.objects == {"gs://bucket/a": b"old"}
    assert sha256_of("gs://bucket/a") == hashlib.sha256(b"old").hexdigest()
    write_text_atomic("gs://bucket/b", "σ")
    assert bucket.objects["gs://bucket/b"] == "σ".encode()


def test_pipe_or_device_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a pipe would wait for somebody who writes into it."""
    os.mkfifo(tmp_path / "pipe")
    opened: list[object] = []
    monkeypatch.setattr(atomic_file, "open", lambda *args: opened.append(args), raising=False)
    for path, kind in ((str(tmp_path / "pipe"), "pipe"), (os.devnull, "device")):
        for read in (open_binary, sha256_of, lambda path: read_up_to(path, 9)):
            with pytest.raises(SpecialFileError, match=rf"{path}: a {kind}"):
                read(path)
    assert opened == []
