"""Super-resolution of images that are not square, 8x4 → 32x16, by every script."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sr_var.degradation import area_downsample, bilinear_upsample
from sr_var.degrade.language import Degradation
from sr_var.results.folder import LOW_RES_FILE, sample_path
from sr_var.results.moments import MOMENTS_FILE, load_moments
from sr_var.script_util import create_mean_model, create_var_model, sr_create_model_and_diffusion
from sr_var.verify.api import verify_results
from tests import tiny
from tests.image_ddpm.tiny import read_samples
from tests.pipeline import NUM_SAMPLES, TRAINING, Pipeline, copy_model_flags, flags_of_steps
from tests.tiny import TEST_NAMES, TinyData, done, run, words
from utils.images.files import center_crop_arr, open_image, resolve_image_path
from utils.images.pixels import bytes_to_image, image_to_255, to_hwc
from utils.loops.checkpoint import manifest_beside
from utils.untrusted.pickles import load_array, load_pickle

SIZES = {"large_size": "32x16", "small_size": "8x4"}
NAME = TEST_NAMES[0]


@pytest.fixture(scope="module")
def shaped(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """Every script once, with a cache of crops and a validation; read only."""
    root = tmp_path_factory.mktemp("shaped")
    made = Pipeline(root, TinyData.write(root / "images", root / "info"))
    for script, flags in flags_of_steps(made).items():
        sizes = {name: SIZES[name] for name in SIZES.keys() & {*flags, "large_size"}}
        if script in ("sr_mean_test", "sr_var_test", "ddpm_sr_sample"):
            sizes = {}  # the checkpoint says it
            flags = {k: v for k, v in flags.items() if k not in SIZES}
        if script == "sr_mean_train":
            flags = {**flags, "cache_dir": root / "cache", "val_share": 0.3, "val_interval": 2}
        if script == "ddpm_sr_sample":
            flags = {**flags, "output_npz": True}
        if script == "sr_mean_test":
            copy_model_flags(made)
        made.said[script] = done(script, words({**flags, **sizes}))
    return made


def _truth(made: Pipeline, name: str) -> np.ndarray[Any, Any]:
    path = resolve_image_path(str(made.data.data_dir), name)
    return center_crop_arr(open_image(path), (32, 16))


def test_sizes_are_texts_in_manifests_and_stored_flags(shaped: Pipeline) -> None:
    for path in (shaped.mean_model, shaped.var_model, shaped.ddpm_model):
        assert SIZES.items() <= manifest_beside(str(path))["network"]["flags"].items()
    assert SIZES.items() <= load_pickle(shaped.log_dir("sr_mean") / "mean_model_args.pkl").items()
    (folder,) = (shaped.root / "cache").iterdir()
    assert folder.name.startswith("32x16x3_")
    assert "smaller than --large_size 32x16" in shaped.said["sr_data_info"].out


def test_results_of_the_nets_have_the_shape_and_are_of_the_image(shaped: Pipeline) -> None:
    for name in TEST_NAMES:
        folder = shaped.nets_dir / name
        mean = np.load(folder / f"high_res_mean_{shaped.mean_steps}.npy")
        variance = load_array(str(folder / f"high_res_var_{shaped.var_steps}.pkl"))
        assert mean.shape == variance.shape == (32, 16, 3) and (variance > 0).all()
        label = bytes_to_image(torch.from_numpy(_truth(shaped, name).transpose(2, 0, 1)[None]))
        seen = bilinear_upsample(area_downsample(label, (8, 4)), (32, 16))
        with Image.open(folder / LOW_RES_FILE, formats=("PNG",)) as picture:
            found = np.asarray(picture).astype(float)
        assert np.abs(found - to_hwc(image_to_255(seen[0]))).max() <= 1


def test_samples_and_their_moments_have_the_shape(shaped: Pipeline) -> None:
    for name in TEST_NAMES:
        folder = shaped.samples_dir / name
        with Image.open(folder / LOW_RES_FILE, formats=("PNG",)) as picture:
            low_res = np.asarray(picture).astype(float)
        blocks = _truth(shaped, name).reshape(8, 4, 4, 4, 3).mean(axis=(1, 3))
        assert low_res.shape == (8, 4, 3) and np.abs(low_res - blocks).max() <= 1
        stored = load_moments(str(folder / MOMENTS_FILE))
        assert stored is not None and stored.moments is not None and stored.blocks is not None
        assert stored.moments.mean.shape == (32, 16, 3) and stored.blocks.mean.shape == (8, 4, 3)
        of_blocks = stored.moments.mean.reshape(8, 4, 4, 4, 3).mean(axis=(1, 3))
        np.testing.assert_allclose(stored.blocks.mean, of_blocks, atol=1e-3)
        with Image.open(sample_path(str(folder), 0), formats=("PNG",)) as picture:
            assert picture.size == (16, 32)
    number = len(TEST_NAMES) * NUM_SAMPLES
    assert read_samples(shaped.samples_dir)["arr_0"].shape == (number, 32, 16, 3)


def test_verification_judges_every_pixel(shaped: Pipeline) -> None:
    (path,) = shaped.root.rglob("results.json")
    found = json.loads(path.read_text())
    assert found["num_images"] == len(TEST_NAMES)
    truth, mean = (
        np.stack(images)
        for images in (
            [_truth(shaped, name) for name in TEST_NAMES],
            [
                np.load(shaped.nets_dir / name / f"high_res_mean_{shaped.mean_steps}.npy")
                for name in TEST_NAMES
            ],
        )
    )
    psnr = [10 * np.log10(255**2 / ((a - b) ** 2).mean()) for a, b in zip(truth, mean, strict=True)]
    assert found["high_res"]["psnr_net"] == pytest.approx(float(np.mean(psnr)), abs=1e-3)
    (page,) = shaped.root.rglob("report.html")
    text = page.read_text(encoding="utf-8")
    data = json.loads(text.split('id="gallery-data"')[1].split(">", 1)[1].split("</script>")[0])
    assert (data["height"], data["width"]) == (data["map_height"], data["map_width"]) == (32, 16)


def test_size_of_the_results_is_that_of_their_files(shaped: Pipeline) -> None:
    """From Python, where no flag says it."""
    where = str(shaped.nets_dir), str(shaped.data.data_dir), str(shaped.data.test_info)
    found = verify_results(*where, ddpm_sr_output_dir=str(shaped.samples_dir), num_samples=4)
    (path,) = shaped.root.rglob("results.json")
    assert found["high_res"] == json.loads(path.read_text())["high_res"]


def test_samples_of_an_image_model_of_the_small_size_are_enlarged(
    shaped: Pipeline, tmp_path: Path
) -> None:
    base = np.random.default_rng(0).integers(0, 256, (2, 8, 4, 3), np.uint8)
    flags: dict[str, Any] = {"model_path": shaped.ddpm_model, "log_dir": tmp_path / "log"}
    flags |= {**tiny.PROCESS, "num_samples_per_image": 1, "output_npz": True}
    for name, array in (("fit", base), ("turned", base.transpose(0, 2, 1, 3))):
        np.savez(tmp_path / f"{name}.npz", arr_0=array, arr_1=np.array([0, 4]))
    own = {"base_samples": tmp_path / "fit.npz", "output_dir": tmp_path / "out"}
    done("ddpm_sr_sample", words(flags, own))
    assert read_samples(tmp_path / "out")["arr_0"].shape == (2, 32, 16, 3)
    own = {"base_samples": tmp_path / "turned.npz", "output_dir": tmp_path / "turned"}
    outcome = run("ddpm_sr_sample", words(flags, own))
    assert outcome.code == 3 and "uint8 (N, 8, 4, 3)" in outcome.err


def test_nets_predict_images_of_any_size(shaped: Pipeline, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name, shape in (("own", (8, 4)), ("other", (6, 10))):
        Image.fromarray(tiny.photo(0, shape)).save(pictures / f"{name}.png")
    flags = {"mean_model_path": shaped.mean_model, "var_model_path": shaped.var_model}
    folders = {"input": pictures, "output_dir": tmp_path / "out", "log_dir": tmp_path / "log"}
    done("sr_predict", words(flags, folders))
    shapes = [np.load(path).shape for path in (tmp_path / "out").rglob("*mean*.npy")]
    assert sorted(shapes) == [(24, 40, 3), (32, 16, 3)]


def test_patches_that_lie_side_by_side_are_counted_by_both_sides(
    shaped: Pipeline, tmp_path: Path
) -> None:
    """Ten images of 40 x 52 (height x width)."""
    folders = {"data_dir": shaped.data.data_dir, "output_dir": tmp_path, "log_dir": tmp_path}
    for size, patches, shape in (("32x16", 30, "32×16"), ("16x32", 20, "16×32"), (16, 60, "16×16")):
        said = done("sr_data_info", words(folders, {"crop": "native", "large_size": size})).out
        assert f"{patches} patches of {shape} pixels" in said, said


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"large_size": "32x"}, ("--large_size", "'32x'", "96x64")),
        ({"small_size": "0x4"}, ("--small_size", "'0x4'", "at least 1 pixel")),
        ({"large_size": "32x16x3"}, ("--large_size", "'32x16x3'")),
        ({"small_size": 4}, ("--large_size 32x16", "--small_size 4", "height and width")),
        ({"small_size": "8x2"}, ("--large_size 32x16", "--small_size 8x2", "--large_size 32x8")),
        (
            {"large_size": "33x18", "small_size": "11x6"},
            ("33x18 is not divisible by 2", "--channel_mult"),
        ),
    ],
)
@pytest.mark.parametrize("script", ["sr_mean_train", "ddpm_sr_train"])
def test_sizes_that_do_not_fit_are_usage_errors(
    shaped: Pipeline, tmp_path: Path, script: str, changes: dict[str, Any], parts: tuple[str, ...]
) -> None:
    net = tiny.DENOISER if script == "ddpm_sr_train" else tiny.REGRESSION_NET
    folders = {"log_dir": tmp_path, "model_save_dir": tmp_path}
    flags = {**net, **SIZES, **shaped.data.train_flags, **TRAINING, **folders, **changes}
    outcome = run(script, words(flags))
    assert outcome.code == 2 and all(part in outcome.err for part in parts), outcome.err


def test_mean_net_of_another_size_is_refused(shaped: Pipeline, tmp_path: Path) -> None:
    sizes = {"large_size": 16, "small_size": 4}
    folders = {"log_dir": tmp_path, "model_save_dir": tmp_path, "last_layer_type": "exp"}
    flags = {**tiny.REGRESSION_NET, **sizes, **shaped.data.train_flags, **TRAINING, **folders}
    outcome = run("sr_var_train", words({**flags, **shaped.mean_net_flags, "max_step": 1}))
    assert outcome.code == 4 and "8x4 → 32x16" in outcome.err and "4 → 16" in outcome.err


@pytest.mark.parametrize("network", ["unet", "subpixel"])
def test_networks_take_the_shape(network: str) -> None:
    """And have the weights of the square of the shorter side."""
    own = {"network": network, "num_res_blocks": 1, "model_channels": 8}
    if network == "unet":
        own |= {"channel_mult": "1,2", "attention_resolutions": "16", "num_heads": 2}
    process = {"predict_xstart": True, "learn_sigma": False, "diffusion_steps": 200}
    denoiser = {**own, **process, "rescale_timesteps": False}
    denoiser["num_channels"] = denoiser.pop("model_channels")
    low_res, image = torch.zeros(2, 3, 8, 4), torch.zeros(2, 3, 32, 16)
    found = []
    for sizes in (SIZES, {"large_size": 16, "small_size": 4}):
        mean, var = create_mean_model(**own, **sizes), create_var_model(**own, **sizes)
        model, _ = sr_create_model_and_diffusion(**denoiser, **sizes)
        found.append(
            [{k: v.shape for k, v in net.state_dict().items()} for net in (mean, var, model)]
        )
        assert mean(low_res, (32, 16)).shape == var(low_res, image).shape == image.shape
        assert model(image, torch.zeros(2, dtype=torch.int64), low_res=low_res).shape == image.shape
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "words_of_it",
    ["noise:20", "poisson:30", "blur:1.5", "mask:0.4", "jpeg:30", "grey", "bits:3"]
    + ["bicubic:4", "area:4", "blur:1+area:2+noise:5&bicubic:2"],
)
def test_degradations_of_the_shape_are_those_of_its_turn(words_of_it: str) -> None:
    """What is not random turns with the image; all have the shape."""
    factor = 4 if ":4" in words_of_it and "mask" not in words_of_it else 1
    factor = 2 if ":2" in words_of_it and "+" in words_of_it else factor
    degradation = Degradation.parse(words_of_it, factor, 3)
    image = torch.rand(2, 3, 32, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    x = degradation.apply(image, [0, 1])
    assert x.shape[2:] == (32 // factor, 16 // factor)
    if not degradation.is_random and "jpeg" not in words_of_it:
        turned = degradation.apply(image.transpose(2, 3), [0, 1]).transpose(2, 3)
        torch.testing.assert_close(turned, x, atol=1e-5, rtol=1e-5)


def test_nets_restore_masked_images_of_the_shape(shaped: Pipeline, tmp_path: Path) -> None:
    sizes = {"large_size": "32x16", "small_size": "32x16", "degradation": "mask:0.3+noise:10"}
    net = {**tiny.REGRESSION_NET, **sizes, **shaped.data.train_flags, **TRAINING, "max_step": 1}
    done("sr_mean_train", words(net, {"log_dir": tmp_path / "log", "model_save_dir": tmp_path}))
    flags = {"model_path": tmp_path / "model000001.pt", "output_dir": tmp_path / "out"}
    done("sr_mean_test", words(shaped.data.tested_flags, flags, {"log_dir": tmp_path / "test"}))
    assert np.load(tmp_path / "out" / NAME / "high_res_mean_1.npy").shape == (32, 16, 3)
