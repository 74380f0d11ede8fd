"""A large info dict is read once; its index gives the same images, or is made again."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ddpm import info_dict
from ddpm.info_dict import listed_entries, load_info_dict
from tests.tiny import ROOT
from utils.flags.groups import CropFlags
from utils.images.crops.dataset import CropDataset
from utils.images.listing import Entry
from utils.process.errors import DataError
from utils.untrusted import index as indexes
from utils.untrusted.pickles import dump_pickle
from utils.untrusted.safe_tensors import map_safetensors, write_safetensors

INFO = {
    "tench": {"y": 4, "file_names": [f"a/{i}" for i in range(200)]},
    "empty": {"y": 9, "file_names": []},
    "größe": {"y": 0, "file_names": [f"b c/ü{i}.png" for i in range(300)]},
}
ENTRIES = [Entry(name, one["y"], key) for key, one in INFO.items() for name in one["file_names"]]  # type: ignore[attr-defined, arg-type]


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An info dict that counts as large, beside which indexes can be kept."""
    monkeypatch.setattr(info_dict, "INDEXED_BYTES", 100)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    (tmp_path / "set").mkdir()
    dump_pickle(INFO, tmp_path / "set" / "info.pkl")
    return tmp_path / "set" / "info.pkl"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the pickles that are read from now on."""
    found, plain = [], info_dict.loads_pickle

    def counting(data: bytes, *, name: str) -> Any:
        found.append(name)
        return plain(data, name=name)

    monkeypatch.setattr(info_dict, "loads_pickle", counting)
    return found


def _index(path: Path) -> Path:
    return path.with_name(f".{path.name}.index.safetensors")


def _listed(path: Path) -> Any:
    return listed_entries(str(path), str(path.parent))


def test_later_starts_read_the_index_and_not_the_pickle(path: Path, reads: list[str]) -> None:
    for _ in range(3):
        images = _listed(path)
        assert images == ENTRIES
        assert [one.group for one in images] == [one.group for one in ENTRIES]
        assert images.digest()["num_images"] == 500
    assert reads == [str(path)] and _index(path).exists()


def test_small_info_dict_has_no_index(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(info_dict, "INDEXED_BYTES", 1 << 20)
    assert _listed(path) == ENTRIES
    assert [one.name for one in path.parent.iterdir()] == ["info.pkl"]


def test_changed_info_dict_is_read_again(path: Path, reads: list[str]) -> None:
    _listed(path)
    dump_pickle({"one": {"y": 1, "file_names": ["x" * 200]}}, path)
    assert _listed(path) == _listed(path) == [Entry("x" * 200, 1)]
    assert len(reads) == 2


@pytest.mark.parametrize("place", [0, 40, -1])
@pytest.mark.parametrize("kind", ["flip", "cut", "empty"])
def test_damaged_index_is_made_again(path: Path, reads: list[str], place: int, kind: str) -> None:
    _listed(path)
    whole = _index(path).read_bytes()
    damaged = bytearray(whole)
    damaged[place] ^= 0x11
    content = {"flip": bytes(damaged), "cut": whole[:place], "empty": b""}[kind]
    _index(path).write_bytes(content)
    assert _listed(path) == ENTRIES
    assert len(reads) == 2 and _index(path).read_bytes() == whole


def test_index_of_another_list_version_or_of_hostile_names_is_made_again(
    path: Path, reads: list[str]
) -> None:
    _listed(path)
    whole = _index(path).read_bytes()
    arrays, words = map_safetensors(str(_index(path)))
    names = arrays["names"].copy()
    names[:3] = [*b"../"]
    key = words[indexes.KEY]
    for changed, other in [
        ({**arrays, "names": names}, key),
        (arrays, key.replace("format 1", "format 0")),
        (arrays, key[:10] + "0" * 64 + key[74:]),
        ({"names": names}, key),
    ]:
        write_safetensors(str(_index(path)), changed, {**words, indexes.KEY: other})
        assert _listed(path) == ENTRIES
        assert _index(path).read_bytes() == whole
    assert len(reads) == 5


def test_folder_that_takes_no_file_has_its_index_in_the_users_cache(
    path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = indexes.try_lock

    def refused(name: str) -> Any:
        if name.startswith(str(path.parent)):
            raise PermissionError(13, "read-only")
        return plain(name)

    monkeypatch.setattr(indexes, "try_lock", refused)
    assert _listed(path) == _listed(path) == ENTRIES
    assert len(reads) == 1 and not _index(path).exists()
    monkeypatch.setattr(indexes, "try_lock", lambda name: refused(str(path.parent)))
    monkeypatch.setenv("XDG_CACHE_HOME", str(path.parent / "none"))
    assert _listed(path) == _listed(path) == ENTRIES  # kept nowhere
    assert len(reads) == 3


def test_full_disk_leaves_the_list_usable(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(indexes, "write_safetensors", full)
    assert _listed(path) == ENTRIES
    assert "no index is kept" in capsys.readouterr().out


def test_bad_info_dict_is_refused_with_or_without_an_index(path: Path) -> None:
    _listed(path)
    dump_pickle({"bad": {"y": 0, "file_names": ["../x"] * 50}}, path)
    with pytest.raises(DataError, match=r"info\.pkl.*'bad'"):
        _listed(path)
    path.unlink()
    with pytest.raises(DataError, match=r"--data_info_dict_path .*does not exist"):
        _listed(path)


def test_processes_that_start_together_read_the_pickle_once(path: Path) -> None:
    code = (
        "import sys\nfrom ddpm import info_dict\ninfo_dict.INDEXED_BYTES = 100\n"
        f"print(len(info_dict.listed_images({str(path)!r})), 'images')"
    )
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(3)
    ]
    said = "".join(process.communicate()[0] for process in running)
    assert said.count("500 images") == 3 and said.count("reading ") == 1


def test_data_set_travels_as_the_path_of_its_list(path: Path) -> None:
    dataset = CropDataset(_listed(path), 8, CropFlags(data_dir=str(path.parent)), 0)
    data = pickle.dumps(dataset)
    assert len(data) < 2000 and str(_index(path)).encode() in data
    assert pickle.loads(data).entries == ENTRIES
    _index(path).unlink()
    with pytest.raises(DataError, match="run again"):
        pickle.loads(data)


def test_index_says_what_the_info_dict_says(path: Path) -> None:
    info = load_info_dict(path)
    groups = [key for key, one in info.items() for _ in one["file_names"]]
    assert [one.group for one in _listed(path)] == groups
