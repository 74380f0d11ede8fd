"""Images of any unit and number of channels, from the list to the report."""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sr_var.values import settle_values
from tests import tiny
from tests.native_files import geo_tiff, png16_of, tiff_of
from tests.pipeline import MEAN_STEPS, TRAINING, VAR_STEPS
from tests.tiny import done, run, words
from utils.process.errors import EXIT_CHECKPOINT, EXIT_DATA, EXIT_USAGE
from utils.untrusted.pickles import load_array

tifffile = pytest.importorskip("tifffile")
NUM_IMAGES = 8


def image(seed: int, num_channels: int, low: float, high: float) -> Any:
    """(H, W, C) float64 between two values: a photograph's channels, stretched."""
    pixels = tiny.photo(seed).astype(np.float64)[..., [0, 1, 2, 0, 1][:num_channels]]
    return low + (high - low) * pixels / 255


@dataclass(frozen=True)
class Data:
    """A folder of images, which a script is told of by `flags`, and how to read them."""

    root: Path
    flags: Mapping[str, Any]
    reading: Mapping[str, Any] = field(default_factory=dict)

    @property
    def images(self) -> Path:
        """Where they lie."""
        return self.root / "images"

    def run_all(self) -> None:
        """List, train both nets, test both, judge them."""
        done(
            "sr_data_info",
            words(
                data_dir=self.images,
                output_dir=self.root / "info",
                test_share=0.25,
                large_size=tiny.LARGE,
                log_dir=self.root / "logs",
            ),
        )
        done("sr_mean_train", words(self.mean_train, self.flags))
        done("sr_var_train", words(self.var_train))
        done("sr_mean_test", words(self.test("mean", MEAN_STEPS)))
        done("sr_var_test", words(self.test("var", VAR_STEPS), self.mean_net))
        done("sr_var_verification", words(self.verification))

    def part(self, name: str) -> dict[str, Any]:
        """The list of training or of test images."""
        path = self.root / "info" / f"{name}_data_info.pkl"
        return {"data_dir": self.images, "data_info_dict_path": path, **self.reading}

    @property
    def mean_train(self) -> dict[str, Any]:
        """Training of the mean net, but for `flags`."""
        return {**self.part("train"), **self._training("mean", MEAN_STEPS)}

    @property
    def var_train(self) -> dict[str, Any]:
        """Training of the variance net."""
        own = {"last_layer_type": "softplus", **self.flags}
        return {**self.part("train"), **self._training("var", VAR_STEPS), **self.mean_net, **own}

    def _training(self, kind: str, max_step: int) -> dict[str, Any]:
        folders = {"log_dir": self.root / kind, "model_save_dir": self.root / kind}
        return {**tiny.REGRESSION_NET, **TRAINING, **folders, "max_step": max_step}

    @property
    def mean_net(self) -> dict[str, Any]:
        """The mean net of the variance scripts."""
        return {"mean_model_path": self.model("mean", MEAN_STEPS)}

    def model(self, kind: str, step: int) -> Path:
        """A checkpoint."""
        return self.root / kind / f"model{step:06d}.pt"

    def test(self, kind: str, step: int) -> dict[str, Any]:
        """The test of a net."""
        own = {"log_dir": self.root / kind, "model_path": self.model(kind, step)}
        return {**self.part("to_sample"), **own, "output_dir": self.root / "nets"}

    @property
    def verification(self) -> dict[str, Any]:
        """The verdict without samples."""
        own = {"mean_model_step": MEAN_STEPS, "var_model_step": VAR_STEPS, "num_samples": 0}
        sizes = {"large_size": tiny.LARGE, "small_size": tiny.SMALL}
        folders = {"sr_model_output_dir": self.root / "nets", "log_dir": self.root / "compare"}
        return {**self.part("to_sample"), **own, **sizes, **folders}

    def results(self) -> tuple[Any, Any]:
        """Mean and variance of the first test image."""
        folder = next(path.parent for path in sorted(self.root.glob("nets/*/*_mean_*.npy")))
        mean = np.load(folder / f"high_res_mean_{MEAN_STEPS}.npy")
        return mean, load_array(str(folder / f"high_res_var_{VAR_STEPS}.pkl"))


def make(root: Path, kind: str, flags: Mapping[str, Any]) -> Data:
    """Images of a kind: their number type, and how many channels."""
    dtype, num_channels, low, high = {
        "16-bit grey": (np.uint16, 1, 1000, 60000),
        "16-bit of 4 channels": (np.uint16, 4, 1000, 60000),
        "floats of 2 channels": (np.float32, 2, -3, 5),
        "8-bit grey": (np.uint8, 1, 0, 255),
    }[kind]
    (root / "images").mkdir(parents=True)
    for seed in range(NUM_IMAGES):
        pixels = image(seed, num_channels, low, high).astype(dtype).squeeze()
        options = {"photometric": "minisblack"} | (
            {"planarconfig": "contig"} if num_channels > 1 else {}
        )
        (root / "images" / f"{seed}.tif").write_bytes(tiff_of(pixels, **options))
    return Data(root, flags)


@pytest.fixture(scope="module")
def deep_grey(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """16-bit grey TIFF files, from the list to the report."""
    data = make(tmp_path_factory.mktemp("deep"), "16-bit grey", {"in_channels": 1})
    data.run_all()
    return data


def test_16_bit_grey_tiff_goes_from_the_list_to_the_report(deep_grey: Data) -> None:
    mean, variance = deep_grey.results()
    assert mean.shape == variance.shape == (tiny.LARGE, tiny.LARGE, 1)
    assert mean.dtype == variance.dtype == np.float32
    # in the unit of the files: a net that was hardly trained says what the low-res image says
    assert 5_000 < mean.mean() < 60_000
    found = json.loads((deep_grey.root / "compare" / "results.json").read_text())
    assert found["units"] == {
        "low": 0,
        "high": 65535,
        "grey_level": 257,
        "text": "Grey levels are 255ths of the range from 0 to 65535 of the images; one is 257 of "
        "their units.",
    }
    assert 0 < found["high_res"]["psnr_bilinear"] < 60
    page = (deep_grey.root / "compare" / "report.html").read_text(encoding="utf-8")
    assert "255ths of the range from 0 to 65535" in page and "0 to 255." not in page
    assert list((deep_grey.root / "compare" / "panels").glob("*.png"))


def test_samples_of_16_bit_grey_images_are_compared(deep_grey: Data) -> None:
    """The denoiser, its samples, and the verdict against them."""
    root, flags = deep_grey.root, tiny.PROCESS
    net = {**tiny.NET, "num_channels": 8, "learn_sigma": True, **deep_grey.flags}
    folders = {"log_dir": root / "ddpm", "model_save_dir": root / "ddpm", "max_step": 2}
    process = {**flags, "timestep_respacing": ""}
    done("ddpm_sr_train", words(net, process, deep_grey.part("train"), TRAINING, folders))
    sampling = {
        "data_dir": deep_grey.images,
        "to_sample_images_dict_path": root / "info" / "to_sample_data_info.pkl",
        "model_path": root / "ddpm" / "model000002.pt",
        "output_dir": root / "samples",
        "log_dir": root / "ddpm",
    }
    # all flags of the network are those of the checkpoint
    few = {"num_samples_per_image": 4, "batch_size": 4, "timestep_respacing": "4"}
    done("ddpm_sr_sample", words(sampling, few))
    with np.load(next(root.glob("samples/*/moments.npz"))) as moments:
        assert moments["mean"].shape == (tiny.LARGE, tiny.LARGE, 1)
    compared = {"num_samples": 4, "ddpm_sr_output_dir": root / "samples"}
    log_dir = {"log_dir": root / "compare_samples"}
    done("sr_var_verification", words(deep_grey.verification, compared, log_dir))
    found = json.loads((root / "compare_samples" / "results.json").read_text())
    assert found["mean"]["mse"] > 0 and found["ceiling"]["reliability"] is not None
    # the reference variance is in the images' unit, as the nets' is
    samples = load_array(str(next(root.glob("samples/*/high_res_var.pkl"))))
    mean_std = found["calibration"]["samples"]["sharpness_rms_std"] * 257
    assert samples.shape == (tiny.LARGE, tiny.LARGE, 1)
    assert 0.2 < np.sqrt(samples.mean()) / mean_std < 5
    # pictures alone are enough for one channel
    for path in root.glob("samples/*/moments.npz"):
        path.unlink()
    done("sr_var_verification", words(deep_grey.verification, compared, log_dir))


@pytest.mark.parametrize(
    "more",
    [{"cache_dir": "cache"}, {"random_crop": True, "num_workers": 0}, {"crop": "native"}],
)
def test_caches_and_random_crops_take_16_bit_images(
    deep_grey: Data, tmp_path: Path, more: Mapping[str, Any]
) -> None:
    folders = {"log_dir": tmp_path / "run", "model_save_dir": tmp_path / "run"}
    if "cache_dir" in more:
        more = {"cache_dir": tmp_path / "cache"}
    for _ in range(2):
        started = {**folders, "resume_checkpoint": "auto", "random_flip": True}
        done("sr_mean_train", words(deep_grey.mean_train, deep_grey.flags, started, more))
    if "cache_dir" in more:
        (path,) = (tmp_path / "cache").glob("*/crops.f4")
        crops = np.fromfile(path, np.float32).reshape(-1, tiny.LARGE, tiny.LARGE, 1)
        assert 0 < crops.mean() < 255 and (crops != np.rint(crops)).any()


def test_precision_of_16_bits_reaches_the_nets(deep_grey: Data) -> None:
    """Values that differ in their low bytes alone: 8 bits would make them one."""
    from utils.images.crops.native_crops import NativeCrop

    pixels = np.arange(64 * 64).reshape(64, 64).astype(np.uint16) % 200 + 30_000
    folder = deep_grey.root / "fine"
    folder.mkdir()
    (folder / "x.tif").write_bytes(tiff_of(pixels))
    crop = NativeCrop(str(folder), 64, 1, low=0.0, high=65535.0).cut("x.tif").pixels
    np.testing.assert_allclose(crop[..., 0] * 257, pixels, atol=0.01)


def test_floats_of_two_channels_go_to_the_report_in_their_unit(tmp_path: Path) -> None:
    flags = {"in_channels": 2, "value_range": "-3,5"}
    data = make(tmp_path, "floats of 2 channels", flags)
    data.run_all()
    mean, variance = data.results()
    assert mean.shape == variance.shape == (tiny.LARGE, tiny.LARGE, 2)
    assert -3 < mean.mean() < 5 and (mean.min() < 0 or mean.max() < 5)
    found = json.loads((data.root / "compare" / "results.json").read_text())
    assert found["units"]["low"] == -3 and found["units"]["high"] == 5


SUBPIXEL = {"network": "subpixel", "num_res_blocks": 1, "large_size": tiny.LARGE}
# of tiny.REGRESSION_NET, which a sub-pixel net does not have
OF_NO_UNET = {"attention_resolutions": "16,8", "channel_mult": "", "num_heads": 4}


def test_subpixel_nets_see_patches_of_four_channels_of_16_bits(tmp_path: Path) -> None:
    """Mean, variance and samples at the images' own resolution, trained on turned patches."""
    flags = {**SUBPIXEL, **OF_NO_UNET, "in_channels": 4}
    data = make(tmp_path, "16-bit of 4 channels", {**flags, "random_turn": True})
    data = Data(data.root, data.flags, {"crop": "native"})
    data.run_all()
    mean, variance = data.results()
    assert mean.shape == variance.shape == (tiny.LARGE, tiny.LARGE, 4)
    denoiser = {
        **SUBPIXEL,
        "small_size": tiny.SMALL,
        "num_channels": 8,
        "in_channels": 4,
        "predict_xstart": True,
        "noise_schedule": "shifted_cosine",
        "diffusion_steps": 20,
        "random_turn": True,
    }
    folders = {"log_dir": tmp_path / "ddpm", "model_save_dir": tmp_path / "ddpm", "max_step": 2}
    done("ddpm_sr_train", words(denoiser, data.part("train"), TRAINING, folders))
    sampling = {
        "data_dir": data.images,
        "to_sample_images_dict_path": tmp_path / "info" / "to_sample_data_info.pkl",
        "model_path": tmp_path / "ddpm" / "model000002.pt",
        "output_dir": tmp_path / "samples",
        "log_dir": tmp_path / "ddpm",
        "num_samples_per_image": 2,
        "timestep_respacing": "4",
    }
    done("ddpm_sr_sample", words(sampling, data.reading))
    compared = {"num_samples": 2, "ddpm_sr_output_dir": tmp_path / "samples"}
    done("sr_var_verification", words(data.verification, compared))
    # the sub-pixel denoiser keeps the block means of the patch in the middle of the file
    for path in tmp_path.glob("samples/*/moments.npz"):
        name = path.parent.name
        pixels = tifffile.imread(data.images / name).astype(np.float64) / 257
        top, left = ((side - tiny.LARGE) // 2 for side in pixels.shape[:2])
        patch = pixels[top : top + tiny.LARGE, left : left + tiny.LARGE]
        means = [_block_means(image) for image in (patch, np.load(path)["mean"])]
        # but for blocks with pixels that are clipped to the range
        assert np.median(np.abs(means[0] - means[1])) < 1e-3


def _block_means(image: Any) -> Any:
    factor = tiny.LARGE // tiny.SMALL
    return image.reshape(tiny.SMALL, factor, tiny.SMALL, factor, -1).mean(axis=(1, 3))


def test_8_bit_grey_keeps_grey_levels_and_their_words(tmp_path: Path) -> None:
    data = make(tmp_path, "8-bit grey", {"in_channels": 1, "network": "subpixel"})
    data = Data(data.root, {**data.flags, **OF_NO_UNET})
    data.run_all()
    mean, _ = data.results()
    assert 20 < mean.mean() < 235
    assert "units" not in json.loads((data.root / "compare" / "results.json").read_text())


@pytest.mark.parametrize(
    ("changes", "code", "parts"),
    [
        ({"value_range": "0,4095"}, EXIT_CHECKPOINT, ("--value_range 0,4095", "leave")),
        ({"in_channels": 3}, EXIT_CHECKPOINT, ("1 channels", "leave --in_channels")),
    ],
)
def test_other_values_than_those_of_the_checkpoint_are_refused(
    deep_grey: Data, changes: Mapping[str, Any], code: int, parts: tuple[str, ...]
) -> None:
    found = run("sr_mean_test", words(deep_grey.test("mean", MEAN_STEPS), changes, dry_run=True))
    assert found.code == code and all(part in found.err for part in parts), found.err
    again = {"resume_checkpoint": "auto", "max_step": MEAN_STEPS + 1}
    found = run("sr_mean_train", words(deep_grey.mean_train, deep_grey.flags, again, changes))
    assert found.code == code and all(part in found.err for part in parts), found.err


@pytest.fixture(scope="module")
def low_res(deep_grey: Data) -> Path:
    """A folder with the low-res version of a test image, 16-bit grey TIFF, of a known place."""
    path = deep_grey.root / "low" / "0.tif"
    path.parent.mkdir()
    high = tifffile.imread(deep_grey.images / "0.tif").astype(np.float64)
    high = high[: high.shape[0] // 4 * 4, : high.shape[1] // 4 * 4]
    low = high.reshape(len(high) // 4, 4, -1, 4).mean(axis=(1, 3))
    path.write_bytes(geo_tiff(np.rint(low).astype(np.uint16)))
    (deep_grey.root / "high").mkdir()
    (deep_grey.root / "high" / "0.tif").write_bytes(tiff_of(high.astype(np.uint16)))
    return path.parent


def _prediction(data: Data, place: Path, tmp_path: Path, **more: Any) -> list[str]:
    """The command line of sr_predict.py."""
    nets = {**data.mean_net, "var_model_path": data.model("var", VAR_STEPS)}
    folders = {"output_dir": tmp_path / "out", "log_dir": tmp_path / "log", "input": place}
    return words(nets, folders, more)


def test_nets_of_16_bit_grey_images_predict_them(
    deep_grey: Data, low_res: Path, tmp_path: Path
) -> None:
    truth = deep_grey.root / "high"
    found = done(
        "sr_predict", _prediction(deep_grey, low_res, tmp_path, format="tiff", truth=truth)
    )
    assert "units of the images (0 to 65535) on average" in found.out and "warning" not in found.out
    low, mean = (
        tifffile.imread(path) for path in (low_res / "0.tif", tmp_path / "out" / "0_mean.tif")
    )
    assert mean.dtype == np.float32 and mean.shape == tuple(4 * side for side in low.shape)
    # a net that was hardly trained says what the low-res image says
    assert abs(mean.mean() - low.mean()) < 9000
    with tifffile.TiffFile(tmp_path / "out" / "0_std.tif") as file:
        assert file.pages[0].tags[33550].value == (2.5, 5.0, 0.0)
    record = json.loads((tmp_path / "out" / "0_result.json").read_text())
    assert record["truth"]["low_res_rms"] < 1 and 5 < record["truth"]["psnr_bilinear"] < 60
    for name in ("0_mean.png", "0_std.png", "0_overview.png", "0_error.png"):
        assert (tmp_path / "out" / name).exists()


def test_prediction_refuses_images_of_another_type(deep_grey: Data, tmp_path: Path) -> None:
    """In one line, with the exit code of data, and nothing is written of them."""
    Image.fromarray(tiny.photo(0)).save(tmp_path / "x.png")
    found = run("sr_predict", _prediction(deep_grey, tmp_path / "x.png", tmp_path))
    assert found.code == EXIT_DATA and "--value_range is 0,65535" in found.err
    assert found.err.count("error:") == 1 and "x.png" in found.err
    assert not list((tmp_path / "out").glob("x_*"))


def test_variance_net_takes_no_mean_net_of_other_values(deep_grey: Data, tmp_path: Path) -> None:
    folders = {"log_dir": tmp_path, "model_save_dir": tmp_path}
    found = run("sr_var_train", words(deep_grey.var_train, folders, value_range="0,60000"))
    assert found.code == EXIT_CHECKPOINT and "--value_range 0,65535" in found.err


@pytest.mark.parametrize(
    ("kind", "flags", "code", "part"),
    [
        ("floats of 2 channels", {"in_channels": 2}, EXIT_USAGE, "--value_range is needed"),
        ("floats of 2 channels", {"in_channels": 2, "value_range": "5"}, EXIT_USAGE, "two numbers"),
        ("floats of 2 channels", {"in_channels": 2, "value_range": "5,1"}, EXIT_USAGE, "two num"),
        (
            "floats of 2 channels",
            {"in_channels": 2, "value_range": "100,200"},
            EXIT_DATA,
            "--value_range is 100,200",
        ),
        ("floats of 2 channels", {"value_range": "-3,5"}, EXIT_DATA, "has 2 channels"),
        ("16-bit grey", {"in_channels": 5}, EXIT_DATA, "has 1 channels"),
        ("8-bit grey", {"in_channels": 1, "value_range": "0,65535"}, EXIT_DATA, "uint8"),
        ("16-bit grey", {"in_channels": 0}, EXIT_USAGE, "--in_channels 0"),
        ("16-bit grey", {"in_channels": 1, "out_channels": 3}, EXIT_USAGE, "--out_channels 3"),
    ],
)
def test_images_and_flags_that_do_not_fit_are_refused_in_a_line(
    tmp_path: Path, kind: str, flags: Mapping[str, Any], code: int, part: str
) -> None:
    data = make(tmp_path, kind, {})
    tiny.dump_pickle(
        {"a": {"y": 0, "file_names": [f"{i}.tif" for i in range(NUM_IMAGES)]}},
        str(tmp_path / "info.pkl"),
    )
    listed = {"data_info_dict_path": tmp_path / "info.pkl"}
    found = run("sr_mean_train", words(data.mean_train, listed, flags))
    assert found.code == code and part in found.err, found.err
    assert not list(tmp_path.glob("mean/model*"))


@pytest.mark.parametrize(
    ("kinds", "num_channels", "wanted"),
    [
        (["8", "8"], 3, ""),
        (["8", "8"], 1, ""),
        (["8", "8"], 4, "0,255"),
        (["16", "16"], 3, "0,65535"),
        (["16", "8"], 3, ""),
        (["8", "16"], 3, ""),
        (["tif", "tif"], 1, "0,65535"),
        (["gone", "8"], 3, ""),
    ],
)
def test_range_that_was_left_out_is_that_of_the_images(
    tmp_path: Path, kinds: list[str], num_channels: int, wanted: str
) -> None:
    photo = tiny.photo(0)
    contents = {
        "8": tiny_png(photo),
        "16": png16_of(photo.astype(np.uint16), (0,)),
        "tif": tiff_of(photo[..., 0].astype(np.uint16)),
    }
    names = [f"{i}.{'tif' if kind == 'tif' else 'png'}" for i, kind in enumerate(kinds)]
    for name, kind in zip(names, kinds, strict=True):
        if kind in contents:
            (tmp_path / name).write_bytes(contents[kind])
    tiny.dump_pickle({"a": {"y": 0, "file_names": names}}, str(tmp_path / "info.pkl"))
    args = argparse.Namespace(
        data_dir=str(tmp_path),
        data_info_dict_path=str(tmp_path / "info.pkl"),
        in_channels=num_channels,
        out_channels=3,
        value_range="",
        given_flags=frozenset({"in_channels"}),
    )
    found = settle_values(args)
    assert (found.value_range, found.out_channels) == (wanted, num_channels)


def tiny_png(pixels: Any) -> bytes:
    """A PNG of 8 bits."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_pages_and_alpha_of_tiff_files_are_counted(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    deep = tiny.photo(0).astype(np.uint16)
    stack = tiff_of(np.stack([deep[..., 0]] * 2), photometric="minisblack")
    clear = tiff_of(
        np.dstack([deep, deep[..., :1]]), photometric="rgb", extrasamples=["unassalpha"]
    )
    for name, content in (("a", stack), ("b", clear)):
        (tmp_path / "images" / f"{name}.tif").write_bytes(content)
    flags = {"data_dir": tmp_path / "images", "large_size": 32, "log_dir": tmp_path}
    found = done("sr_data_info", words(flags, output_dir=tmp_path / "info", test_share=0.5))
    assert "1 of 2 images have several pages, of which the first is read; the first: a" in found.out
    assert "1 of 2 images have an alpha channel" in found.out
