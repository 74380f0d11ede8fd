"""R12: no ``.pt`` file runs code, hangs, crashes or takes much memory; the message names it."""

from __future__ import annotations

import io
import os
import pickle
import random
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.reliability.confined import Command, Outcome, assert_all_well, outcomes, slowest
from tests.reliability.extent import extent
from tests.reliability.hostile_archives import (
    PICKLES,
    archived,
    members,
    overlapping,
    saved,
    with_pickle,
    with_second_directory,
)
from tests.reliability.mutations import mutate, mutations
from tests.tiny import ROOT
from utils.process.errors import CheckpointError
from utils.untrusted.safe_tensors import write_safetensors
from utils.untrusted.state_dict import check_zip, read_state_dict, read_torch_file

_PLAIN = {"w": torch.ones(2, 3), "n": torch.arange(4)}
_OPTIMIZER = {
    "state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.ones(2)}},
    "param_groups": [{"lr": 0.1, "betas": (0.9, 0.99), "params": [0]}],
}
_READ = """
import sys
from utils.process.errors import run_main
from utils.untrusted.state_dict import read_torch_file
run_main(lambda: read_torch_file(sys.argv[1]) and 0)
"""


def _read(folder: Path) -> Callable[[bytes], object]:
    path = folder / "model000001.pt"

    def read(data: bytes) -> object:
        path.write_bytes(data)
        return read_torch_file(str(path))

    return read


def _refused(folder: Path, *payloads: bytes) -> list[Outcome]:
    found = outcomes(_read(folder), payloads)
    assert assert_all_well(found, payloads, "model000001.pt") == len(payloads)
    return found


@pytest.mark.parametrize("kind", ["zip", "torch.save", "legacy", "bare pickle"])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_hostile_file_is_refused_and_nothing_in_it_runs(
    tmp_path: Path, kind: str, protocol: int
) -> None:
    path, marker = tmp_path / "model000001.pt", tmp_path / "ran"
    payload = pickle.dumps({"weight": Command(marker)}, protocol=protocol)
    if kind == "zip":
        path.write_bytes(with_pickle(payload))
    elif kind == "bare pickle":
        path.write_bytes(payload)
    else:
        is_zip = kind == "torch.save"
        options = {"pickle_protocol": max(protocol, 2), "_use_new_zipfile_serialization": is_zip}
        torch.save({"weight": Command(marker)}, path, **options)
    # the sentence is held on purpose: a hostile file is refused
    with pytest.raises(CheckpointError, match="no checkpoint that can be loaded safely"):
        read_torch_file(str(path))
    assert not marker.exists()


def test_environment_cannot_switch_the_safe_reader_off(tmp_path: Path) -> None:
    path, marker = tmp_path / "model000001.pt", tmp_path / "ran"
    torch.save({"weight": Command(marker)}, path)
    done = subprocess.run(
        [sys.executable, "-c", _READ, str(path)],
        cwd=ROOT,
        env={**os.environ, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 4 and "LOAD is set" in done.stderr and "unset it" in done.stderr
    assert not marker.exists()


def test_torchscript_archive_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "script.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch wants other formats by now
        torch.jit.save(torch.jit.trace(torch.nn.Identity(), torch.ones(1, 2)), path)
    with pytest.raises(CheckpointError, match="TorchScript"):
        read_torch_file(path)


def test_compressed_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt"
    path.write_bytes(archived({"archive/data.pkl": bytes(10**7)}, zipfile.ZIP_DEFLATED))
    assert path.stat().st_size < 20_000
    with pytest.raises(CheckpointError, match="compressed"):
        check_zip(str(path))


@pytest.mark.parametrize("name", PICKLES)
def test_pickle_that_does_more_than_tensors_need_is_refused(tmp_path: Path, name: str) -> None:
    payload, reason = PICKLES[name]
    assert reason in _refused(tmp_path, with_pickle(payload))[0].message


def test_pickles_of_the_older_format_are_looked_through(tmp_path: Path) -> None:
    file = io.BytesIO(saved(_PLAIN, _use_new_zipfile_serialization=False))
    for _ in range(3):  # magic number, protocol, sizes of types
        pickle.load(file)
    hostile = file.getvalue()[: file.tell()] + PICKLES["key of tuples"][0]
    assert "tuple" in _refused(tmp_path, hostile)[0].message


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (overlapping(3000), "overlap"),
        (with_second_directory(), "directory is not"),
        (saved(_PLAIN) + b"\0", "is damaged"),
        (archived([*members(saved(_PLAIN)).items(), ("archive/DATA.pkl", b"N.")]), "one name"),
        (archived({"archive/version": b"3"}), "no data.pkl"),
    ],
    ids=["overlapping", "two directories", "tail", "two of a name", "no pickle"],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_archive_that_can_be_read_in_two_ways_is_refused(
    tmp_path: Path, data: bytes, reason: str
) -> None:
    assert reason in _refused(tmp_path, data)[0].message


def test_member_names_lead_nowhere(tmp_path: Path) -> None:
    """Members are never unpacked: whatever they are called, no file appears."""
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    names = ["../../out", "/out", "archive/../../out", "C:\\out"]
    data = archived({**members(saved(_PLAIN)), **dict.fromkeys(names, b"x")})
    outcomes(_read(folder), [data])
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["model000001.pt"]
    assert not Path("/out").exists()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_nested_tensor_is_no_plain_one(tmp_path: Path) -> None:
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    _refused(tmp_path, saved({"w": nested}))


def test_random_mutation_of_a_checkpoint_is_refused_or_read(
    tmp_path: Path, figure: Callable[[str], None]
) -> None:
    files = [saved(_PLAIN), saved(_OPTIMIZER), saved(_PLAIN, _use_new_zipfile_serialization=False)]
    payloads = mutations(files, extent(250, 10_000), seed=3)
    # whole archives around damaged pickles: no checksum tells
    rng = random.Random(4)
    plain = [members(data) for data in files[:2]]
    pickles = [part["archive/data.pkl"] for part in plain]
    for _ in range(extent(250, 10_000)):
        part = rng.choice(plain)
        damaged = mutate(part["archive/data.pkl"], rng, pickles)
        payloads.append(archived({**part, "archive/data.pkl": damaged}))
    found = outcomes(_read(tmp_path), payloads)
    num_refused = assert_all_well(found, payloads, "model000001.pt")
    assert 0 < num_refused < len(found)
    hostile = [with_pickle(payload) for payload, _ in PICKLES.values()]
    figure(
        f"{len(hostile)}/{len(hostile)} hostile pickles refused, "
        f"{slowest(_refused(tmp_path, *hostile))}; {len(found)}/{len(found)} mutations refused "
        f"({num_refused}) or read, {slowest(found)}"
    )


def test_damaged_safetensors_file_is_refused_or_read(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    write_safetensors(str(path), _PLAIN, {})
    seed = path.read_bytes()

    def read(data: bytes) -> object:
        path.write_bytes(data)
        return read_state_dict(str(path))

    payloads = mutations([seed], extent(200, 5000), seed=5)
    assert_all_well(outcomes(read, payloads), payloads, "net.safetensors")
