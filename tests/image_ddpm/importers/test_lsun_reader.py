"""The process that reads LSUN exports, with a stand-in for lmdb: its values, its errors, its death.

``test_lsun.py`` has the real library, where it is installed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from image_ddpm.importers.sources import read_lsun
from tests.image_ddpm.importers.archives import image_bytes
from tests.tiny import run, words
from utils.process.errors import DataError

# a value a line of data.mdb, in hexadecimal; other lines are what the library does to its process
STAND_IN = """
import contextlib, os

class Error(Exception):
    pass

class open:
    def __init__(self, folder, **options):
        assert options["readonly"] and not options["lock"]
        self.lines = __builtins__["open"](folder + "/data.mdb").read().split()
    def __enter__(self):
        return self
    def __exit__(self, *error):
        pass
    def stat(self):
        return {"entries": len(self.lines) - self.lines.count("more"), "psize": 1}
    def info(self):
        return {"last_pgno": 0}
    @contextlib.contextmanager
    def begin(self, buffers):
        yield self
    def cursor(self):
        return self
    def iternext(self, keys, values):
        for line in self.lines:
            if line == "die":
                os.abort()
            if line == "fail":
                raise Error("MDB_CORRUPTED")
            yield memoryview(b"" if line == "more" else bytes.fromhex(line))
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for an export, with the stand-in in the place of the library."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code/lmdb.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(tmp_path / "code")
    monkeypatch.delitem(sys.modules, "lmdb", raising=False)
    (tmp_path / "tower_val_lmdb").mkdir()
    return tmp_path / "tower_val_lmdb"


def _write(folder: Path, *lines: str) -> str:
    (folder / "data.mdb").write_text("\n".join(lines))
    return str(folder)


def test_values_come_in_order_with_their_names(stand_in: Path) -> None:
    source = read_lsun(_write(stand_in, "aa", "bbcc"))
    found = [(item.stem, item.label, item.load()) for item in source.items]
    assert source.total == 2
    assert found == [
        ("tower_val_0000001", "tower", b"\xaa"),
        ("tower_val_0000002", "tower", b"\xbb\xcc"),
    ]


@pytest.mark.parametrize(
    ("last", "message"),
    [
        ("die", r"3 images, 2 .*-6.*zip file"),
        ("fail", "image 2: MDB_CORRUPTED.*zip file"),
        ("more", "2 images, 3 "),
    ],
)
def test_end_of_the_reader_is_a_data_error(stand_in: Path, last: str, message: str) -> None:
    source = read_lsun(_write(stand_in, "aa", "bb", last))
    with pytest.raises(DataError, match=message):
        list(source.items)


def test_script_tells_of_a_dead_reader_and_keeps_what_came_before(
    stand_in: Path, tmp_path: Path
) -> None:
    archive = _write(stand_in, *(image_bytes(i).hex() for i in range(64)), "die")
    argv = words({"source": "lsun", "archive": archive}, output_dir=tmp_path / "out")
    outcome = run("image_data", [*argv, "--log_dir", str(tmp_path / "logs")])
    assert outcome.code == 3 and "tower_val_lmdb/data.mdb: damaged" in outcome.err
    assert len(list((tmp_path / "out").glob("tower_val_*.jpg"))) == 64


def test_category_whose_folder_cannot_be_listed_is_an_error(
    stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root, permissions do not count: the refusal is made up."""
    _write(stand_in, "aa")
    (stand_in.parent / "bridge_val_lmdb").mkdir()
    listed = os.listdir

    def refusing(path: str) -> list[str]:
        if path.endswith("bridge_val_lmdb"):
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr(os, "listdir", refusing)
    with pytest.raises(DataError, match="bridge_val_lmdb"):
        read_lsun(str(stand_in.parent))
