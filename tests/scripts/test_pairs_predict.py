"""Networks of measured images of another kind than the true ones, from the list to predictions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from ddpm.info_dict import load_info_dict
from sr_var import Predictor
from sr_var.app.server import require_pictures
from tests.measured_pairs import (
    NET,
    NUM_PAIRS,
    check_pairs,
    kinds,
    pair_data,
    require_one_line,
    write_kinds,
)
from tests.pipeline import TRAINING
from tests.tiny import REGRESSION_NET, done, photo, run, words
from utils.process.errors import EXIT_DATA, CheckpointError

UNET = {**REGRESSION_NET, "large_size": 16, "small_size": 16}
# of the measured images, which are twice smaller where `factor` is 2
LARGE, FACTOR = 16, 2


@dataclass(frozen=True)
class Trained:
    """Networks of pairs below a folder, tested on the held-out ones."""

    root: Path

    @property
    def nets(self) -> dict[str, Path]:
        """The flags of sr_predict.py."""
        models = {"mean": "sr_mean", "var": "sr_var"}
        return {f"{k}_model_path": self.root / v / "model000002.pt" for k, v in models.items()}

    @property
    def names(self) -> list[str]:
        """Of the held-out pairs."""
        (entry,) = load_info_dict(str(self.root / "info" / "to_sample_data_info.pkl")).values()
        return list(entry["file_names"])

    def tested(self, name: str, what: str) -> NDArray[Any]:
        """`mean` or `std` of sr_mean_test.py and sr_var_test.py."""
        found: NDArray[Any] = np.load(self.root / "out" / name / f"high_res_{what}_2.npy")
        return found

    def predict(self, out: str, **flags: Any) -> list[str]:
        """The arguments of sr_predict.py."""
        folders = {"output_dir": self.root / out, "log_dir": self.root / "log_predict"}
        return words(self.nets, folders, **flags)


def _train(root: Path, net: dict[str, Any], *more: str) -> Trained:
    """From the folders `true` and `measured` to results of the held-out pairs."""
    assert check_pairs(root).code == 0
    data, found = pair_data(root), Trained(root)
    mean = {"mean_model_path": found.nets["mean_model_path"]}
    for task, own in (("sr_mean", {}), ("sr_var", {**mean, "last_layer_type": "softplus"})):
        folders = {"log_dir": root / f"log_{task}", "model_save_dir": root / task, "max_step": 2}
        done(f"{task}_train", [*words({**net, **data, **TRAINING, **folders, **own}), *more])
    data = pair_data(root, "to_sample_data_info.pkl") | {"output_dir": root / "out"}
    for task, own in (("sr_mean", {}), ("sr_var", mean)):
        model = {"log_dir": root / f"log_{task}", "model_path": root / task / "model000002.pt"}
        done(f"{task}_test", words({**data, **model, **own}))
    return found


def _write_grey_and_rgb(root: Path) -> None:
    """X: 16-bit grey PNGs, half as large as the 8-bit RGB ones beside them."""
    for folder in ("true", "measured"):
        (root / folder).mkdir()
    for seed in range(NUM_PAIRS):
        truth = photo(seed, (40, 44))
        grey = truth.mean(axis=2).reshape(20, FACTOR, 22, FACTOR).mean(axis=(1, 3))
        Image.fromarray(truth).save(root / "true" / f"p{seed:02}.png")
        Image.fromarray((257 * grey).astype(np.uint16)).save(root / "measured" / f"p{seed:02}.png")


def _require_same(found: Any, wanted: Any) -> None:
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-3)


def test_16_bit_grey_to_8_bit_colours(tmp_path: Path) -> None:
    """From two folders to mean, std and intervals of further images, in grey levels of RGB."""
    _write_grey_and_rgb(tmp_path)
    trained = _train(tmp_path, {**NET, "small_size": LARGE // FACTOR})
    given, truth = tmp_path / "x", tmp_path / "y"
    given.mkdir(), truth.mkdir()
    for name in trained.names:
        side, stem = LARGE // FACTOR, name.partition(".")[0]
        top, left = (20 - side) // 2, (22 - side) // 2
        x = np.asarray(Image.open(tmp_path / "measured" / f"{stem}.png"))
        Image.fromarray(x[top : top + side, left : left + side]).save(given / f"{stem}.png")
        y = np.asarray(Image.open(tmp_path / "true" / f"{stem}.png"))
        y = y[FACTOR * top :, FACTOR * left :][:LARGE, :LARGE]
        Image.fromarray(y).save(truth / f"{stem}.png")
    said = done("sr_predict", trained.predict("p", input=given, truth=truth)).out
    assert "unlike training: nothing" in said and "bilinear" not in said
    for name in trained.names:
        stem = name.partition(".")[0]
        found = {k: np.load(tmp_path / "p" / f"{stem}_{k}.npy") for k in ("mean", "std", "upper")}
        assert found["mean"].shape == (LARGE, LARGE, 3)
        _require_same(found["mean"], trained.tested(name, "mean"))
        _require_same(found["std"], trained.tested(name, "std"))
        record = json.loads((tmp_path / "p" / f"{stem}_result.json").read_text("utf-8"))
        judged, y = record["truth"], np.asarray(Image.open(truth / f"{stem}.png"))
        mse = ((found["mean"] - y) ** 2).mean(dtype=np.float64)
        assert judged["psnr"] == pytest.approx(10 * np.log10(255**2 / mse), abs=1e-3)
        assert not {"psnr_bilinear", "low_res_rms"} & judged.keys()  # X is no such image
        covered = (np.load(tmp_path / "p" / f"{stem}_lower.npy") <= y) & (y <= found["upper"])
        assert judged["coverage"] == pytest.approx(covered.mean())
    _require_whole_images_and_python(trained)
    _require_refused(trained)
    _require_calibrated(trained, given)


def _require_whole_images_and_python(trained: Trained) -> None:
    """Of other sizes than the training's, in tiles; the same from arrays and tensors."""
    x = np.asarray(Image.open(trained.root / "measured" / "p00.png"))
    given = trained.root / "measured" / "p00.png"
    done("sr_predict", trained.predict("whole", input=given, tile=7, format="tiff"))
    predictor = Predictor.from_checkpoints(*map(str, trained.nets.values()), "cpu")
    found = predictor(x)
    assert found.mean.shape == (40, 44, 3)
    (stored,) = (trained.root / "whole").glob("*_mean.tif")
    import tifffile

    with tifffile.TiffFile(stored) as file:
        _require_same(file.asarray(), found.mean)
        assert "grey levels" in str(file.pages[0].tags["ImageDescription"].value)
    with Image.open(trained.root / "whole" / "p00_overview.png") as overview:
        assert overview.width > 500
    floats = predictor(x[..., None].astype(np.float32))
    np.testing.assert_array_equal(floats.mean, found.mean)
    tensor = predictor(torch.from_numpy(x.astype(np.float32)))
    np.testing.assert_array_equal(tensor.std.permute(1, 2, 0), found.std)
    with pytest.raises(ValueError, match="--pairs_value_range is 0,65535"):
        predictor((x >> 8).astype(np.uint8))
    with pytest.raises(ValueError, match=r"\(20, 22, 2\): the networks take one of \(h, w, 1\)"):
        predictor(np.stack([x, x], axis=2))
    with pytest.raises(CheckpointError, match=r"units of the images \(0 to 65535\)"):
        require_pictures(predictor.pair)


def _require_refused(trained: Trained) -> None:
    """What is not of the kind of X, in one line."""
    x = np.asarray(Image.open(trained.root / "measured" / "p00.png"))
    wrong = {
        "8bit.png": ((x >> 8).astype(np.uint8), "--pairs_value_range is 0,65535"),
        "two.npy": (np.stack([x, x], axis=2), "it has 2 channels, --pairs_in_channels is 1"),
        "far.npy": (1e6 * x.astype(np.float32), "--pairs_value_range is 0,65535"),
    }
    for name, (pixels, told) in wrong.items():
        path = trained.root / name
        np.save(path, pixels) if name.endswith("npy") else Image.fromarray(pixels).save(path)
        require_one_line(
            run("sr_predict", trained.predict("no", input=path)), EXIT_DATA, name, told
        )
    # floats of another unit are told, as no file says which one it is
    np.save(trained.root / "unit.npy", (x / 65535).astype(np.float32))
    said = done("sr_predict", trained.predict("unit", input=trained.root / "unit.npy")).out
    assert "alone, of the range 0 to 65535" in said
    # colours are read as luma, as the trainings and tests read them
    np.save(trained.root / "rgb.npy", np.stack([x, x, x], axis=2))
    said = done("sr_predict", trained.predict("rgb", input=trained.root / "rgb.npy")).out
    assert "its colours become grey levels" in said


def _require_calibrated(trained: Trained, given: Path) -> None:
    root = trained.root
    steps = {"mean_model_step": 2, "var_model_step": 2, "sr_model_output_dir": root / "out"}
    own = {"large_size": LARGE, "small_size": LARGE // FACTOR, "level": 0.5, "log_dir": root / "l"}
    data = pair_data(root, "to_sample_data_info.pkl")
    done("sr_calibrate", words({**data, **steps, **own}, output_dir=root / "cal"))
    calibration = root / "cal" / "calibration.json"
    done("sr_predict", trained.predict("c", input=given, calibration=calibration))
    factor = json.loads((root / "c" / "predict.json").read_text("utf-8"))["intervals"]["factor"]
    stem = trained.names[0].partition(".")[0]
    mean, std, upper = (np.load(root / "c" / f"{stem}_{k}.npy") for k in ("mean", "std", "upper"))
    _require_same(upper - mean, factor * std)


@pytest.mark.parametrize(
    ("channels", "out_channels", "kind", "more"),
    [(4, 3, np.uint16, ()), (3, 1, np.float32, ("--pairs_value_range", "0,1000"))],
    ids=["four to three", "floats to grey"],
)
@pytest.mark.parametrize("net", [NET, UNET], ids=["subpixel", "unet"])
def test_arrays_of_other_kinds(
    tmp_path: Path,
    channels: int,
    out_channels: int,
    kind: Any,
    more: tuple[str, ...],
    net: dict[str, Any],
) -> None:
    write_kinds(tmp_path, *kinds(channels, out_channels, kind))
    trained = _train(tmp_path, net, *more)
    name = trained.names[0]
    x = np.load(tmp_path / "measured" / f"{name[:3]}.npy")[2:18, 2:18]
    np.save(tmp_path / "x.npy", x)
    said = done("sr_predict", trained.predict("p", input=tmp_path / "x.npy")).out
    assert "unlike training: nothing" in said
    _require_same(np.load(tmp_path / "p" / "x_mean.npy"), trained.tested(name, "mean"))
    _require_same(np.load(tmp_path / "p" / "x_std.npy"), trained.tested(name, "std"))
    assert trained.tested(name, "mean").shape == (16, 16, out_channels)
