"""Files of noisy labels: ours, those of other tools, and broken ones."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from noisy_label.files import NoisyLabels, held_out_file, load_labels, save_labels
from noisy_label.flags import NoiseFlags, SweepFlags
from noisy_label.noise import uniform_law
from noisy_label.sweep import noisy_runs
from utils.process.errors import DataError

LAW = uniform_law(np.array([3, 1, 4]), 0.7)


def test_labels_and_laws_come_back(tmp_path: Path) -> None:
    path = tmp_path / "uniform_noisy_label_0.7.pkl"
    save_labels(str(path), NoisyLabels(np.array([3, 0, 4]), LAW))
    found = load_labels(str(path), 3)
    assert found.labels.tolist() == [3, 0, 4]
    np.testing.assert_array_equal(found.law, LAW)
    with open(path, "rb") as file:
        (label, law), *rest = pickle.load(file)
    assert label == 3 and len(law) == 10 and len(rest) == 2


def test_shares_that_look_alike_have_files_and_folders_of_their_own() -> None:
    flags = [NoiseFlags(task="train_on_noisy_label", alpha=a) for a in (0.1234567, 0.1234568)]
    assert len({one.label_file for one in flags}) == len({one.run_name for one in flags}) == 2
    runs = noisy_runs(SweepFlags(alphas="0.1234567,0.1234568", num_seeds=1, noise_types="fix"))
    assert len({run.folder("") for run in runs}) == len(runs) == 2
    assert NoiseFlags(alpha=0.5).label_file == "data/mnist/uniform_noisy_label_0.5.pkl"


def test_arrays_as_other_tools_write_them_are_read(tmp_path: Path) -> None:
    path = tmp_path / "labels.pkl"
    rows = [(np.int64(2), row.astype(np.float32)) for row in LAW]
    path.write_bytes(pickle.dumps(rows, protocol=4))
    np.testing.assert_allclose(load_labels(str(path), 3).law, LAW, rtol=1e-6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([(0, [0.1] * 10)] * 2, "2 images"),
        ({"labels": 1}, "dict images"),
        ([(0, [0.2] * 5)] * 3, "10 probabilities"),
        ([(10, [0.1] * 10)] * 3, "10 to 10"),
        ([(0.5, [0.1] * 10)] * 3, "no list of"),
        ([(0, [0.2] * 10)] * 3, "sum to 1"),
        ([(0, [1.5, -0.5] + [0.0] * 8)] * 3, "negative"),
        ([(0, [float("nan")] * 10)] * 3, "not finite"),
        ([(0, [0.1] * 10), (0, [0.1] * 9), (0, [0.1] * 10)], "no list of"),
        ([0, 1, 2], "no list of"),
    ],
)
def test_other_contents_are_refused_by_name(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "labels.pkl"
    path.write_bytes(pickle.dumps(content, protocol=4))
    with pytest.raises(DataError, match=r"labels\.pkl") as error:
        load_labels(str(path), 3)
    assert message in str(error.value)


def test_missing_file_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--task generate_noisy_label"):
        load_labels(str(tmp_path / "labels.pkl"), 3)
    assert held_out_file("a/fix_noisy_label_0.5.pkl") == "a/fix_noisy_label_0.5_test.pkl"
