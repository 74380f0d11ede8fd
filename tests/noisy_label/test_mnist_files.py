"""``training.pt`` and ``test.pt``: made, checked, refused."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from noisy_label import files as mnist_files
from noisy_label.files import (
    TEST,
    TRAINING,
    load_split,
    read_digits,
    read_mnist,
    save_split,
    write_splits,
)
from tests.noisy_label.test_idx_files import idx_bytes
from tests.tiny import done, run, tree
from utils.process.errors import DataError

IMAGES = torch.randint(0, 256, (4, 28, 28), dtype=torch.uint8)
LABELS = torch.tensor([0, 9, 3, 3])


def test_digits_are_the_whole_set_in_two_parts(tmp_path: Path) -> None:
    done("mnist_data", ["--output_dir", str(tmp_path)])
    images, labels = load_split(str(tmp_path), TRAINING)
    test_images, test_labels = load_split(str(tmp_path), TEST)
    assert len(images) == 1437 and len(test_images) == 360
    assert images.dtype == torch.uint8 and images.shape[1:] == (28, 28)
    counts = torch.bincount(torch.cat([labels, test_labels]))
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert int(images.max()) > 240 and int(images.min()) == 0
    again = read_digits()
    assert torch.equal(again[TEST][0], test_images)


def _write_idx(folder: Path) -> None:
    for stem in ("train", "t10k"):
        (folder / f"{stem}-images-idx3-ubyte").write_bytes(idx_bytes(IMAGES.numpy()))
        labels = LABELS.numpy().astype(np.uint8)
        (folder / f"{stem}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))


def test_idx_files_become_the_two_splits(tmp_path: Path) -> None:
    _write_idx(tmp_path)
    out = tmp_path / "out"
    done("mnist_data", ["--source", "idx", "--idx_dir", str(tmp_path), "--output_dir", str(out)])
    for split in (TRAINING, TEST):
        images, labels = load_split(str(out), split)
        assert torch.equal(images, IMAGES) and torch.equal(labels, LABELS)


# ---- EMNIST


def _write_emnist(folder: Path, name: str, labels: np.ndarray[Any, Any], end: str = ".gz") -> None:
    """Both splits of a set, as it is published: each image with rows and columns exchanged."""
    upright = np.random.default_rng(0).integers(0, 256, (len(labels), 28, 28), dtype=np.uint8)
    contents = {
        "images-idx3-ubyte": idx_bytes(np.ascontiguousarray(upright.transpose(0, 2, 1))),
        "labels-idx1-ubyte": idx_bytes(labels.astype(np.uint8)),
    }
    for split in ("train", "test"):
        for kind, data in contents.items():
            data = gzip.compress(data) if end else data
            (folder / f"emnist-{name}-{split}-{kind}{end}").write_bytes(data)


@pytest.mark.parametrize(
    ("name", "num_classes", "first"), [("balanced", 47, 0), ("letters", 26, 1), ("byclass", 62, 0)]
)
@pytest.mark.parametrize("end", ["", ".gz"])
def test_a_set_of_emnist_becomes_the_two_splits(
    tmp_path: Path, name: str, num_classes: int, first: int, end: str
) -> None:
    _write_emnist(tmp_path, name, first + np.arange(num_classes), end)
    out = tmp_path / "out"
    flags = ["--source", "idx", "--idx_dir", str(tmp_path), "--output_dir", str(out)]
    said = done("mnist_data", flags).out
    assert f"EMNIST {name}: {num_classes}" in said and "turned upright" in said
    upright = np.random.default_rng(0).integers(0, 256, (num_classes, 28, 28), dtype=np.uint8)
    for split in (TRAINING, TEST):
        images, labels = load_split(str(out), split)
        assert np.array_equal(images.numpy(), upright)
        assert labels.tolist() == list(range(num_classes))


def test_of_several_sets_of_emnist_one_is_chosen(tmp_path: Path) -> None:
    _write_emnist(tmp_path, "letters", 1 + np.arange(26))
    _write_emnist(tmp_path, "digits", np.arange(10))
    flags = ["--source", "idx", "--idx_dir", str(tmp_path), "--output_dir", str(tmp_path / "out")]
    outcome = run("mnist_data", flags)
    assert outcome.code == 3 and "--idx_set" in outcome.err and "digits, letters" in outcome.err
    done("mnist_data", [*flags, "--idx_set", "letters"])
    assert int(load_split(str(tmp_path / "out"), TRAINING)[1].max()) == 25
    outcome = run("mnist_data", [*flags, "--idx_set", "balanced"])
    assert outcome.code == 3 and "emnist-balanced-train-images-idx3-ubyte" in outcome.err


def test_mnist_beside_emnist_is_taken_unless_a_set_is_named(tmp_path: Path) -> None:
    _write_idx(tmp_path)
    _write_emnist(tmp_path, "digits", np.arange(10))
    assert torch.equal(read_mnist(str(tmp_path))[TRAINING][1], LABELS)
    assert len(read_mnist(str(tmp_path), "digits")[TRAINING][1]) == 10


def test_labels_that_a_set_of_emnist_has_not_are_refused(tmp_path: Path) -> None:
    for wrong in (0, 27):
        _write_emnist(tmp_path, "letters", np.array([1, 2, wrong]))
        with pytest.raises(DataError, match=rf"label {wrong}.*1 to 26"):
            read_mnist(str(tmp_path))


def test_a_test_label_that_training_has_not_is_refused(tmp_path: Path) -> None:
    save_split(str(tmp_path), TEST, IMAGES, LABELS)
    assert load_split(str(tmp_path), TEST, 10)
    with pytest.raises(DataError, match=r"test\.pt .*0 to 9.*0 to 8"):
        load_split(str(tmp_path), TEST, 9)


# ---- what is refused
def test_another_data_set_is_replaced_on_request_alone(tmp_path: Path) -> None:
    _write_idx(tmp_path)
    out = tmp_path / "out"
    argv = ["--source", "idx", "--idx_dir", str(tmp_path), "--output_dir", str(out)]
    done("mnist_data", argv)
    before = tree(out)
    assert done("mnist_data", argv).out.count("there already") == 2
    assert tree(out) == before
    path = tmp_path / "train-labels-idx1-ubyte"
    path.write_bytes(idx_bytes(np.full(4, 7, np.uint8)))
    outcome = run("mnist_data", argv)
    assert outcome.code == 3 and f"{out}/training.pt" in outcome.err
    assert "--overwrite True" in outcome.err and "test.pt" not in outcome.err
    assert tree(out) == before
    done("mnist_data", [*argv, "--overwrite", "True"])
    assert load_split(str(out), TRAINING)[1].tolist() == [7] * 4
    after = tree(out)
    assert after["test.pt"] == before["test.pt"]


def test_a_file_that_is_no_data_set_is_not_replaced_in_silence(tmp_path: Path) -> None:
    (tmp_path / "test.pt").write_bytes(b"another tool's")
    outcome = run("mnist_data", ["--output_dir", str(tmp_path)])
    assert outcome.code == 3 and "test.pt" in outcome.err
    assert tree(tmp_path) == {"test.pt": b"another tool's"}
    done("mnist_data", ["--output_dir", str(tmp_path), "--overwrite", "True"])
    load_split(str(tmp_path), TEST)


def test_a_kill_while_a_data_set_is_replaced_leaves_none_of_two_halves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_splits(str(tmp_path), {TRAINING: (IMAGES, LABELS), TEST: (IMAGES, LABELS)})
    other = {TRAINING: (255 - IMAGES, LABELS), TEST: (255 - IMAGES, LABELS)}
    real, calls = mnist_files.save_split, list[Any]()

    def killed(*args: Any) -> str:
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(mnist_files, "save_split", killed)
    with pytest.raises(KeyboardInterrupt):
        write_splits(str(tmp_path), other, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["training.pt"]
    write_splits(str(tmp_path), other)  # the rest, without being asked to replace anything
    assert torch.equal(load_split(str(tmp_path), TEST)[0], 255 - IMAGES)


def test_files_of_two_sets_are_refused(tmp_path: Path) -> None:
    _write_idx(tmp_path)
    path = tmp_path / "t10k-labels-idx1-ubyte"
    path.write_bytes(idx_bytes(np.zeros(3, np.uint8)))
    with pytest.raises(DataError, match=r"4 images.*3 labels"):
        read_mnist(str(tmp_path))
    path.write_bytes(idx_bytes(np.full(4, 10, np.uint8)))
    with pytest.raises(DataError, match=r"label 10.*0 to 9.*emnist-"):
        read_mnist(str(tmp_path))
    path.unlink()
    outcome = run("mnist_data", ["--source", "idx", "--idx_dir", str(tmp_path)])
    assert outcome.code == 3 and "t10k-labels-idx1-ubyte.gz" in outcome.err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ((IMAGES.float(), LABELS), "torch.float32"),
        ((IMAGES[:, :27], LABELS), r"\(4, 27, 28\)"),
        ((IMAGES, LABELS[:3]), "4 images"),
        ((IMAGES, LABELS.int()), "torch.int32"),
        ((IMAGES, LABELS + 5), "5 to 14.*between"),
        ((IMAGES, LABELS - 1), "-1 to 8"),
        ((IMAGES, LABELS * 10**12), "0 to 9000000000000"),
        ((IMAGES[:0], LABELS[:0]), "0 images"),
        ({"images": IMAGES}, "images and labels"),
        ((IMAGES, [0, 1, 2, 3]), "pair of tensors"),
    ],
)
def test_other_contents_are_refused_by_name(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "training.pt")
    with pytest.raises(DataError, match=rf"training\.pt .*{message}"):
        load_split(str(tmp_path), TRAINING)


def test_missing_and_damaged_files_name_the_remedy(tmp_path: Path) -> None:
    outcome = run("mnist_classification", ["--data_dir", str(tmp_path), *_folders(tmp_path)])
    assert outcome.code == 3 and "python mnist_data.py --output_dir" in outcome.err
    path = Path(save_split(str(tmp_path), TRAINING, IMAGES, LABELS))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"training.pt"):
        load_split(str(tmp_path), TRAINING)


def _folders(root: Path) -> list[str]:
    return ["--log_dir", str(root / "log"), "--model_save_dir", str(root / "checkpoints")]
