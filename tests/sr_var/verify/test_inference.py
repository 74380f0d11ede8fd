"""Real small images from end to end: exact nets are never called different, biased ones are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sr_var import verify_results
from sr_var.data.oracle import IMAGE_FOLDER
from sr_var.verify.numbers.intervals import MIN_UNITS
from tests.tiny import done
from utils.untrusted.pickles import dump_pickle

NUM_SAMPLES = 8


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pieces of the twelve test photographs of data/demo, 32² given 8², and exact samples."""
    root = tmp_path_factory.mktemp("oracle")
    words = {
        "data_dir": "data/demo",
        "output_dir": root / "data",
        "sample_dir": root / "samples",
        "log_dir": root / "log",
        "large_size": 32,
        "small_size": 8,
        "num_train_crops": 1,
        "num_draws": 1,
        "num_test_crops": MIN_UNITS,
        "num_samples": NUM_SAMPLES,
        "sample_pictures": False,
    }
    done("oracle_data", [word for key, value in words.items() for word in (f"--{key}", str(value))])
    return root


def _verdict(root: Path, factor: float, cluster: str) -> dict[str, object]:
    """Of nets with the exact mean and `factor` times the exact variance."""
    samples = root / "samples"
    nets = root / f"nets_{factor:g}"
    for file in samples.rglob("exact_moments.npz"):
        folder = nets / file.parent.relative_to(samples)
        folder.mkdir(parents=True, exist_ok=True)
        with np.load(file) as law:
            np.save(folder / "high_res_mean_1.npy", law["mean"].astype(np.float32))
            dump_pickle(
                (factor * law["variance"]).astype(np.float32), folder / "high_res_var_1.pkl"
            )
    return verify_results(
        str(nets),
        str(root / "data" / IMAGE_FOLDER),
        str(root / "data" / "to_sample_data_info.pkl"),
        ddpm_sr_output_dir=str(samples),
        num_samples=NUM_SAMPLES,
        margin=0.2,
        cluster=cluster,
    )


def test_exact_nets_are_equivalent_and_biased_ones_differ(oracle: Path) -> None:
    exact, biased = (_verdict(oracle, factor, "image")["verdict"] for factor in (1.0, 1.5))
    words = {part: exact[part]["verdict"] for part in ("mean", "variance", "bias")}
    assert "different" not in words.values() and words["bias"] == "equivalent"
    assert biased["bias"]["verdict"] == biased["variance"]["verdict"] == "different"
    assert biased["mean"]["verdict"] == words["mean"]
    low, high = biased["bias"]["interval"]
    assert low < 0.5 < high


def test_twelve_photographs_are_too_few_however_many_pieces(oracle: Path) -> None:
    found = _verdict(oracle, 1.5, "auto")
    assert found["clusters"]["kind"] == "photograph" and found["clusters"]["count"] == 12
    assert found["intervals"] == {} and found["verdict"]["bias"]["verdict"] is None
    assert f"it takes {MIN_UNITS} photographs, here are 12" in found["verdict"]["text"]
    error = found["verdict"]["bias"]["standard_error"]
    assert abs(found["verdict"]["bias"]["value"] - 0.5) < 4 * error
