"""`--pairs_dir` from the check to results: measured inputs, and no others."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ddpm.info_dict import load_info_dict
from sr_var.stored_flags import load_args
from tests.measured_pairs import (
    NET,
    NUM_PAIRS,
    check_pairs,
    kinds,
    pair_data,
    require_one_line,
    without,
    write_kinds,
)
from tests.pipeline import TRAINING
from tests.tiny import REGRESSION_NET, ROOT, done, photo, run, words
from utils.process.errors import EXIT_CHECKPOINT, EXIT_DATA, EXIT_USAGE

GREY = {"in_channels": 1, "out_channels": 1, "value_range": "0,65535"}
SIDE = 42  # half of it is odd: true crops at the centre lie elsewhere than those of pairs


def _truth(seed: int, side: int = SIDE) -> NDArray[np.uint16]:
    """A gradient of its own slope, in 16 bits."""
    rows, columns = np.mgrid[:side, :side]
    return (900 * rows + (300 + 10 * seed) * columns).astype(np.uint16)


def _write(root: Path, factor: int) -> None:
    """True images, and measured ones that no degradation of the toolkit makes: negatives."""
    for folder in ("true", "measured"):
        (root / folder).mkdir()
    for seed in range(NUM_PAIRS):
        truth = _truth(seed)
        Image.fromarray(truth).save(root / "true" / f"p{seed:02}.png")
        np.save(root / "measured" / f"p{seed:02}.npy", 65535 - truth[::factor, ::factor])


def _training(root: Path, task: str, factor: int, **changes: Any) -> list[str]:
    folders = {"log_dir": root / f"log_{task}", "model_save_dir": root / task, "max_step": 2}
    net = {**NET, **GREY, "small_size": 16 // factor}
    return words({**net, **pair_data(root), **TRAINING, **folders}, **changes)


def _test(root: Path, task: str, **changes: Any) -> list[str]:
    model = {"log_dir": root / f"log_{task}", "model_path": root / task / "model000002.pt"}
    data = {
        **pair_data(root, "to_sample_data_info.pkl"),
        "output_dir": root / "out",
        "batch_size": 2,
    }
    return words({**data, **model, "value_range": "0,65535", "in_channels": 1}, **changes)


@pytest.mark.parametrize("factor", [1, 2])
def test_both_nets_of_measured_pairs(tmp_path: Path, factor: int) -> None:
    _write(tmp_path, factor)
    assert check_pairs(tmp_path).code == 0
    record = json.loads((tmp_path / "info" / "pairs.json").read_text(encoding="utf-8"))
    assert (record["factor"], record["pairs"], record["left_out"]) == (factor, NUM_PAIRS, [])
    mean = {"mean_model_path": tmp_path / "sr_mean" / "model000002.pt"}
    validated = {"val_share": 0.3, "random_flip": True}
    done("sr_mean_train", _training(tmp_path, "sr_mean", factor, **validated))
    variance = {**mean, "last_layer_type": "softplus"}
    done("sr_var_train", _training(tmp_path, "sr_var", factor, **variance))
    done("sr_mean_test", _test(tmp_path, "sr_mean"))
    done("sr_var_test", _test(tmp_path, "sr_var", **mean, var_npy=True))
    assert load_args(tmp_path / "log_sr_mean" / "mean_model_args.pkl")["degradation"] == "measured"
    tested = load_info_dict(str(tmp_path / "info" / "to_sample_data_info.pkl"))
    (entry,) = tested.values()
    for name in entry["file_names"]:
        folder = tmp_path / "out" / name
        assert np.load(folder / "high_res_var_2.npy").min() > 0
        # what the net saw is the negative, at the place of the crop
        shown = np.asarray(Image.open(folder / "low_res.png", formats=["PNG"])).astype(int)
        seed, start = int(name[1:3]), (SIDE // factor - 16 // factor) // 2 * factor
        seen = 65535 - _truth(seed)[::factor, ::factor].astype(np.float64)
        first, last = start // factor, (start + 16) // factor
        wanted = seen[first:last, first:last] * 255 / 65535
        if factor == 1:
            np.testing.assert_allclose(shown.reshape(16, 16, -1)[..., 0], wanted, atol=0.51)
        else:
            assert abs(shown.mean() - wanted.mean()) < 1
    _require_judged(tmp_path, factor, entry["file_names"])
    # a test without the measured images takes no others, nor those of another net
    alone = without(_test(tmp_path, "sr_mean", output_dir=tmp_path / "out2"), "--pairs_dir")
    require_one_line(run("sr_mean_test", alone), EXIT_DATA, "--pairs_dir")
    assert not list((tmp_path / "out2").rglob("*.npy"))
    area = without(_training(tmp_path, "sr_var", factor, **variance), "--pairs_dir")
    require_one_line(
        run("sr_var_train", [*area, "--model_save_dir", str(tmp_path / "x")]),
        EXIT_CHECKPOINT,
        "area",
    )


def test_a_diffusion_model_draws_of_measured_images(tmp_path: Path) -> None:
    _write(tmp_path, 2)
    assert check_pairs(tmp_path).code == 0
    net = {"network": "subpixel", "num_channels": 8, "num_res_blocks": 1, "predict_xstart": True}
    net |= {"large_size": 16, "small_size": 8, "in_channels": 1, "learn_sigma": False}
    process = {"diffusion_steps": 100, "timestep_respacing": "2", "value_range": "0,65535"}
    folders = {"log_dir": tmp_path / "log", "model_save_dir": tmp_path / "ddpm", "max_step": 2}
    done("ddpm_sr_train", words({**net, **process, **pair_data(tmp_path), **TRAINING, **folders}))
    data = pair_data(tmp_path, "to_sample_data_info.pkl")
    info = data.pop("data_info_dict_path")
    model = {"model_path": tmp_path / "ddpm" / "model000002.pt", "batch_size": 2}
    sampling = {**data, **model, "to_sample_images_dict_path": info, "num_samples_per_image": 2}
    argv = words(sampling, output_dir=tmp_path / "out", log_dir=tmp_path / "log_samples")
    require_one_line(run("ddpm_sr_sample", without(argv, "--pairs_dir")), EXIT_DATA, "pairs_dir")
    done("ddpm_sr_sample", argv)
    (entry,) = load_info_dict(str(info)).values()
    for name in entry["file_names"]:
        shown = np.asarray(Image.open(tmp_path / "out" / name / "low_res.png", formats=["PNG"]))
        seen = 65535 - _truth(int(name[1:3]))[::2, ::2].astype(np.float64)
        wanted = seen[6:14, 6:14] * 255 / 65535
        np.testing.assert_allclose(shown.reshape(8, 8, -1)[..., 0], wanted, atol=0.51)


def _require_judged(root: Path, factor: int, names: Sequence[str]) -> None:
    """The verification meets the same crops, and the input is the measured image."""
    flags = pair_data(root, "to_sample_data_info.pkl")
    steps = {"mean_model_step": 2, "var_model_step": 2, "sr_model_output_dir": root / "out"}
    judged = {**flags, **steps, "large_size": 16, "num_samples": 0, "log_dir": root / "judged"}
    done("sr_var_verification", words(judged, small_size=16 // factor))
    results = json.loads((root / "judged" / "results.json").read_text(encoding="utf-8"))
    assert results["degradation"] == "measured"
    start = (SIDE // factor - 16 // factor) // 2 * factor
    psnr = []
    for name in names:
        true = _truth(int(name[1:3]))[start:, start:][:16, :16].astype(np.float64)
        mean = np.load(root / "out" / name / "high_res_mean_2.npy")[..., 0]
        psnr.append(20 * np.log10(65535 / ((mean - true) ** 2).mean() ** 0.5))
    assert results["high_res"]["psnr_net"] == pytest.approx(np.mean(psnr), rel=1e-3)
    alone = without(words(judged, log_dir=root / "other"), "--pairs_dir")
    require_one_line(run("sr_var_verification", alone), EXIT_DATA, "--pairs_dir")


def test_predictions_and_calibration_of_measured_images(tmp_path: Path) -> None:
    _write(tmp_path, 2)
    assert check_pairs(tmp_path).code == 0
    nets = {"mean_model_path": tmp_path / "sr_mean" / "model000002.pt"}
    done("sr_mean_train", _training(tmp_path, "sr_mean", 2))
    variance = {**nets, "last_layer_type": "softplus"}
    done("sr_var_train", _training(tmp_path, "sr_var", 2, **variance))
    done("sr_mean_test", _test(tmp_path, "sr_mean"))
    done("sr_var_test", _test(tmp_path, "sr_var", **nets))
    # a measured image that is given is X
    given = tmp_path / "x.npy"
    np.save(given, (65535 - _truth(6)[::2, ::2])[6:14, 6:14])
    nets["var_model_path"] = tmp_path / "sr_var" / "model000002.pt"
    done("sr_predict", words(nets, input=given, output_dir=tmp_path / "p", log_dir=tmp_path / "lp"))
    (found,) = (tmp_path / "p").rglob("*mean*.npy")
    tested = np.load(tmp_path / "out" / "p06.png" / "high_res_mean_2.npy")
    np.testing.assert_allclose(np.load(found), tested, atol=1)
    steps = {"mean_model_step": 2, "var_model_step": 2, "sr_model_output_dir": tmp_path / "out"}
    sizes = {"large_size": 16, "small_size": 8, "level": 0.5, "output_dir": tmp_path / "cal"}
    argv = words({**pair_data(tmp_path, "to_sample_data_info.pkl"), **steps, **sizes})
    argv += words(log_dir=tmp_path / "log_cal")
    alone = run("sr_calibrate", without(argv, "--pairs_dir"))
    require_one_line(alone, EXIT_DATA, "--pairs_dir")
    done("sr_calibrate", argv)
    assert json.loads((tmp_path / "cal" / "calibration.json").read_text(encoding="utf-8"))


def test_a_function_restores_measured_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of negatives in blocks the negative is the true image at the first pixel of each block."""
    _write(tmp_path, 2)
    assert check_pairs(tmp_path).code == 0
    (tmp_path / "negatives.py").write_text(
        "def restore(x, size):\n    return -x.repeat_interleave(2, 2).repeat_interleave(2, 3)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    data = pair_data(tmp_path, "to_sample_data_info.pkl")
    net = {**GREY, "large_size": 16, "small_size": 8, "mean_module": "negatives:restore"}
    done("sr_mean_test", words({**data, **net, "output_dir": tmp_path / "out"}, log_dir=tmp_path))
    (entry,) = load_info_dict(str(tmp_path / "info" / "to_sample_data_info.pkl")).values()
    for name in entry["file_names"]:
        mean = np.load(tmp_path / "out" / name / "high_res_mean_0.npy")[..., 0]
        wanted = _truth(int(name[1:3]))[12:28:2, 12:28:2]
        np.testing.assert_allclose(mean[::2, ::2], wanted, atol=0.1)


def test_a_training_goes_on_with_its_own_measured_images(tmp_path: Path) -> None:
    """Wherever they lie, and whatever else lies there; others of the same names are refused."""
    _write(tmp_path, 2)
    assert check_pairs(tmp_path).code == 0
    done("sr_mean_train", _training(tmp_path, "sr_mean", 2))
    shutil.copytree(tmp_path / "measured", tmp_path / "moved")
    np.save(tmp_path / "moved" / "further.npy", _truth(0, 21))
    resumed = {"max_step": 4, "resume_checkpoint": "auto"}
    done(
        "sr_mean_train", _training(tmp_path, "sr_mean", 2, pairs_dir=tmp_path / "moved", **resumed)
    )
    # same names, same sizes in bytes: another exposure
    for path in (tmp_path / "moved").glob("p*.npy"):
        np.save(path, np.load(path) // 2)
    resumed["max_step"] = 6
    argv = _training(tmp_path, "sr_mean", 2, pairs_dir=tmp_path / "moved", **resumed)
    require_one_line(run("sr_mean_train", argv), EXIT_DATA, "other measured images", "--pairs_dir")
    assert not (tmp_path / "sr_mean" / "model000006.pt").exists()
    done("sr_mean_train", _training(tmp_path, "sr_mean", 2, **resumed))


@pytest.mark.parametrize("objective", ["nll", "quantile"])
def test_a_baseline_of_measured_pairs(tmp_path: Path, objective: str) -> None:
    _write(tmp_path, 2)
    assert check_pairs(tmp_path).code == 0
    of = {"objective": objective, "val_share": 0.3}
    done("sr_baseline_train", _training(tmp_path, "sr_baseline", 2, **of))
    argv = _test(tmp_path, "sr_baseline")
    require_one_line(
        run("sr_baseline_test", without(argv, "--pairs_dir")), EXIT_DATA, "--pairs_dir"
    )
    done("sr_baseline_test", argv)
    (entry,) = load_info_dict(str(tmp_path / "info" / "to_sample_data_info.pkl")).values()
    for name in entry["file_names"]:
        shown = np.asarray(Image.open(tmp_path / "out" / name / "low_res.png", formats=["PNG"]))
        seen = 65535 - _truth(int(name[1:3]))[::2, ::2].astype(np.float64)
        assert abs(shown.mean() - seen[6:14, 6:14].mean() * 255 / 65535) < 1
    _require_judged(tmp_path, 2, entry["file_names"])


@pytest.mark.parametrize(
    ("channels", "out_channels", "kind", "words_of_net"),
    [
        (1, 3, np.uint16, "measured:1@0.0,65535.0"),
        (4, 3, np.uint16, "measured:4@0.0,65535.0"),
        (3, 1, np.float32, "measured:3@0.0,1000.0"),
    ],
    ids=["grey to RGB", "four to three", "floats to grey"],
)
@pytest.mark.parametrize("network", ["subpixel", "unet"])
def test_measured_images_of_another_kind(
    tmp_path: Path, channels: int, out_channels: int, kind: Any, words_of_net: str, network: str
) -> None:
    """No flag says what the images are; the network sees all channels of X in its own range."""
    write_kinds(tmp_path, *kinds(channels, out_channels, kind))
    info = check_pairs(tmp_path)
    assert info.code == 0, info.err
    record = json.loads((tmp_path / "info" / "pairs.json").read_text(encoding="utf-8"))
    assert record["true"] == {"channels": out_channels, "value_range": ""}
    wanted = None if kind is np.float32 else "0,65535"
    assert record["measured"] == {"channels": channels, "value_range": wanted}
    of_net = (
        NET if network == "subpixel" else {**REGRESSION_NET, "large_size": 16, "small_size": 16}
    )
    folders = {"log_dir": tmp_path / "log_m", "model_save_dir": tmp_path / "m", "max_step": 2}
    argv = words({**of_net, **pair_data(tmp_path), **TRAINING, **folders})
    if kind is np.float32:
        require_one_line(run("sr_mean_train", argv), EXIT_USAGE, "--pairs_value_range is needed")
        argv += ["--pairs_value_range", "0,1000"]
    out = done("sr_mean_train", argv).out
    assert ("--small_size 16" in out) == (network == "subpixel")
    if network == "unet":
        told = run(
            "sr_mean_train", [*argv, "--predict_residual", "True", "--log_dir", str(tmp_path / "x")]
        )
        require_one_line(told, EXIT_USAGE, "--predict_residual", f"{channels} channels")
    made = load_args(tmp_path / "log_m" / "mean_model_args.pkl")
    assert (made["degradation"], made["in_channels"]) == (words_of_net, out_channels)
    mean = {"mean_model_path": tmp_path / "m" / "model000002.pt"}
    variance = {**of_net, **pair_data(tmp_path), **TRAINING, **mean, "last_layer_type": "softplus"}
    folders = {"log_dir": tmp_path / "log_v", "model_save_dir": tmp_path / "v", "max_step": 2}
    more = ["--pairs_value_range", "0,1000"] if kind is np.float32 else []
    done("sr_var_train", [*words({**variance, **folders}), *more])
    done("sr_mean_train", [*argv, "--max_step", "3", "--resume_checkpoint", "auto"])
    data = pair_data(tmp_path, "to_sample_data_info.pkl") | {"output_dir": tmp_path / "out"}
    own = {"log_dir": tmp_path / "log_m", "model_path": mean["mean_model_path"]}
    done("sr_mean_test", words({**data, **own}))
    require_one_line(
        run("sr_mean_test", words({**data, **own}, pairs_in_channels=channels + 1)),
        *(EXIT_CHECKPOINT, "--pairs_in_channels"),
    )
    own = {"log_dir": tmp_path / "log_v", "model_path": tmp_path / "v" / "model000002.pt"}
    done("sr_var_test", words({**data, **own, **mean}))
    _require_other_kind_judged(tmp_path, channels, 65535 if kind is np.uint16 else 1000)


def _require_other_kind_judged(root: Path, channels: int, most: int) -> None:
    """`low_res.png` is X as it is looked at, and nothing is said of its PSNR."""
    (entry,) = load_info_dict(str(root / "info" / "to_sample_data_info.pkl")).values()
    for name in entry["file_names"]:
        shown = np.asarray(Image.open(root / "out" / name / "low_res.png", formats=["PNG"]))
        x = np.load(root / "measured" / f"{name[:3]}.npy").astype(np.float64)[2:18, 2:18]
        seen = x if channels == 3 else np.repeat(x.mean(axis=2, keepdims=True), 3, axis=2)
        np.testing.assert_allclose(shown, seen * 255 / most, atol=0.51)
    steps = {"mean_model_step": 2, "var_model_step": 2, "sr_model_output_dir": root / "out"}
    judged = {**pair_data(root, "to_sample_data_info.pkl"), **steps, "large_size": 16}
    done("sr_var_verification", words(judged, num_samples=0, log_dir=root / "judged"))
    results = json.loads((root / "judged" / "results.json").read_text(encoding="utf-8"))
    assert "psnr_net" in results["high_res"] and "psnr_bilinear" not in results["high_res"]


def test_odd_ones_of_a_folder_are_no_pairs(tmp_path: Path) -> None:
    measured, truth = kinds(4, 3, np.uint16)
    write_kinds(tmp_path, measured, truth)
    np.save(tmp_path / "measured" / "p03.npy", measured[..., :2])
    np.save(tmp_path / "measured" / "p04.npy", measured.astype(np.uint8))
    Image.fromarray(truth[..., 0].astype(np.uint16)).save(tmp_path / "true" / "p05.png")
    Image.fromarray(truth[..., 0]).save(tmp_path / "true" / "p06.png")  # becomes RGB
    outcome = check_pairs(tmp_path)
    require_one_line(outcome, EXIT_DATA, "9 pairs", "3 that are none")
    told = [line for line in outcome.out.splitlines() if "no pair: " in line]
    for name, why in (
        ("p03.npy", "2 channels of uint16, others 4 channels of uint16"),
        ("p04.npy", "4 channels of uint8"),
        ("p05.png", "1 channel of uint16, others 3 channels of uint8"),
    ):
        assert any(name in line and why in line for line in told), (name, told)
    assert "1 images have other channels than most" in outcome.out
    assert check_pairs(tmp_path, on_bad_image="skip").code == 0


def _commands_of(section: str) -> list[list[str]]:
    """The commands of a section of docs/restoration.md, as a shell would read them."""
    text = (ROOT / "docs" / "restoration.md").read_text(encoding="utf-8")
    block = text.partition(f"## {section}\n")[2].partition("```bash\n")[2].partition("```")[0]
    variables: dict[str, str] = {}
    found = []
    for line in block.replace("\\\n", " ").splitlines():
        name, is_set, value = line.partition('="')
        if is_set:
            variables[name] = value.rstrip('"')
            continue
        for name, value in variables.items():
            line = line.replace(f"${name}", value)
        found += [shlex.split(line)] if line else []
    return found


@pytest.mark.parametrize("is_grey", [False, True], ids=["pictures", "16-bit grey and pictures"])
def test_the_five_commands_from_pairs_to_intervals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_grey: bool
) -> None:
    """As the page has them, but for sizes and steps."""
    monkeypatch.chdir(tmp_path)
    for seed in range(NUM_PAIRS):
        folder = "test" if seed < 3 else "train"
        for side in ("long", "short"):
            (tmp_path / side / folder).mkdir(parents=True, exist_ok=True)
        truth = photo(seed, (32, 40))
        Image.fromarray(truth).save(tmp_path / "long" / folder / f"{seed}.png")
        if is_grey:
            grey = (100 * truth.mean(axis=2)).astype(np.uint16)
            Image.fromarray(grey).save(tmp_path / "short" / folder / f"{seed}.png")
        else:
            Image.fromarray(truth // 2).save(tmp_path / "short" / folder / f"{seed}.bmp")
    shutil.copytree(tmp_path / "short" / "test", tmp_path / "new")
    smaller = {"64": "16", "32": "8", "4": "1", "400": "2", "200": "2"}
    commands = _commands_of("From pairs of your own to intervals")
    assert len(commands) == 5
    for _, script, *flags in commands:
        argv = [smaller.get(word, word.replace("model000400", "model000002")) for word in flags]
        out = done(script.removesuffix(".py"), argv).out
        assert ("% in the 90 % interval" in out) == ("--truth" in argv)
    pairs = json.loads((tmp_path / "data" / "own" / "pairs.json").read_text(encoding="utf-8"))
    assert (pairs["pairs"], pairs["factor"]) == (NUM_PAIRS, 1)
    for folder in ("own_test", "own"):
        written = tmp_path / "outputs" / "sr_predict" / folder
        stds = [np.load(path) for path in written.rglob("*std*.npy")]
        assert [std.shape for std in stds] == [(32, 40, 3)] * 3


def test_a_baseline_and_samples_of_another_kind(tmp_path: Path) -> None:
    write_kinds(tmp_path, *kinds(4, 3, np.uint16))
    assert check_pairs(tmp_path).code == 0
    net = {**NET, **pair_data(tmp_path), **TRAINING, "max_step": 2}
    folders = {"log_dir": tmp_path / "log_b", "model_save_dir": tmp_path / "b"}
    done("sr_baseline_train", words({**net, **folders}))
    data = pair_data(tmp_path, "to_sample_data_info.pkl")
    model = {"log_dir": tmp_path / "log_b", "model_path": tmp_path / "b" / "model000002.pt"}
    done("sr_baseline_test", words({**data, **model}, output_dir=tmp_path / "out"))
    _require_other_kind_judged(tmp_path, 4, 65535)
    net = {"network": "subpixel", "num_channels": 8, "num_res_blocks": 1, "predict_xstart": True}
    net |= {"large_size": 16, "learn_sigma": False, "diffusion_steps": 100}
    folders = {"log_dir": tmp_path / "log_d", "model_save_dir": tmp_path / "d", "max_step": 2}
    done("ddpm_sr_train", words({**net, **pair_data(tmp_path), **TRAINING, **folders}))
    info = data.pop("data_info_dict_path")
    more = {"to_sample_images_dict_path": info, "num_samples_per_image": 2, "batch_size": 2}
    more |= {"timestep_respacing": "2", "output_dir": tmp_path / "s", "log_dir": tmp_path / "ls"}
    done("ddpm_sr_sample", words({**data, **more}, model_path=tmp_path / "d" / "model000002.pt"))
    (entry,) = load_info_dict(str(info)).values()
    for name in entry["file_names"]:
        pictures = [tmp_path / one / name / "low_res.png" for one in ("out", "s")]
        both = [np.asarray(Image.open(one, formats=["PNG"])) for one in pictures]
        np.testing.assert_array_equal(*both)
    del more["to_sample_images_dict_path"]
    more["model_path"] = tmp_path / "d" / "model000002.pt"
    _require_same_as_they_are(tmp_path, more, entry["file_names"])


def _require_same_as_they_are(root: Path, flags: dict[str, Any], names: Sequence[str]) -> None:
    """`--base_samples` of measured crops are what `--pairs_dir` shows, as files and as an array."""
    (root / "x").mkdir()
    crops = [np.load(root / "measured" / f"{name[:3]}.npy")[2:18, 2:18] for name in names]
    for name, crop in zip(names, crops, strict=True):
        np.save(root / "x" / f"{name[:3]}.npy", crop)
    np.savez(root / "x.npz", np.stack(crops))
    for base, of in (("x", "{}.npy"), ("x.npz", "")):
        out = root / f"g_{base}"
        done("ddpm_sr_sample", words({**flags, "base_samples": root / base, "output_dir": out}))
        for index, name in enumerate(names):
            folder = out / (of.format(name[:3]) or f"{index:06d}")
            assert (folder / "high_res_samples" / "sample_1.png").exists()
            pictures = (folder / "low_res.png", root / "s" / name / "low_res.png")
            shown = [np.asarray(Image.open(one, formats=["PNG"])) for one in pictures]
            np.testing.assert_array_equal(*shown)
    np.savez(root / "bytes.npz", np.stack(crops).astype(np.uint8))
    np.save(root / "x" / f"{names[0][:3]}.npy", crops[0][..., :2])
    for base, told in (("bytes.npz", "--pairs_value_range is 0,65535"), ("x", "2 channels")):
        argv = words({**flags, "base_samples": root / base, "output_dir": root / "none"})
        require_one_line(run("ddpm_sr_sample", argv), EXIT_DATA, base, told)


def test_pairs_of_a_net_that_sees_block_means_are_refused(tmp_path: Path) -> None:
    _write(tmp_path, 2)
    assert check_pairs(tmp_path).code == 0
    done("sr_mean_train", without(_training(tmp_path, "sr_mean", 2), "--pairs_dir"))
    require_one_line(run("sr_mean_test", _test(tmp_path, "sr_mean")), EXIT_DATA, "--pairs_dir")


def test_what_is_no_pair(tmp_path: Path) -> None:
    _write(tmp_path, 2)
    measured = tmp_path / "measured"
    (measured / "p00.npy").unlink()
    np.save(measured / "strange.npy", _truth(0))
    np.save(measured / "p01.npy", _truth(1, 15))
    np.save(measured / "p02.npy", _truth(2, 14))
    (measured / "p03.npy").write_bytes(b"no array")
    outcome = check_pairs(tmp_path)
    require_one_line(outcome, EXIT_DATA, "8 pairs", "5 that are none", "--on_bad_image skip")
    told = [line for line in outcome.out.splitlines() if "no pair: " in line]
    assert len(told) == 5
    for words_of in (
        ("p00", "no measured"),
        ("strange.npy", "no true"),
        ("p01", "15×15"),
        ("p02", "3 times"),
        ("p03.npy", "opened"),
    ):
        assert any(all(word in line for word in words_of) for line in told), words_of
    assert not (tmp_path / "info" / "pairs.json").exists()
    assert check_pairs(tmp_path, on_bad_image="skip").code == 0
    record = json.loads((tmp_path / "info" / "pairs.json").read_text(encoding="utf-8"))
    assert (record["factor"], record["pairs"], len(record["left_out"])) == (2, 8, 5)
    (entry,) = load_info_dict(str(tmp_path / "info" / "data_info.pkl")).values()
    assert entry["file_names"] == [f"p{seed:02}.png" for seed in range(4, NUM_PAIRS)]


def test_bad_flags_and_files_of_a_training(tmp_path: Path) -> None:
    _write(tmp_path, 2)
    assert check_pairs(tmp_path).code == 0
    both = run("sr_mean_train", _training(tmp_path, "a", 2, degradation="noise:5"))
    require_one_line(both, EXIT_USAGE, "--pairs_dir", "--degradation noise:5")
    other = run("sr_mean_train", _training(tmp_path, "b", 4))
    require_one_line(other, EXIT_USAGE, "--small_size", "2 times apart", "pairs.json")
    (tmp_path / "info" / "pairs.json").unlink()
    other = run("sr_mean_train", _training(tmp_path, "b", 4))
    require_one_line(other, EXIT_DATA, "21×21", "42×42", "--small_size")
    alone = without(_training(tmp_path, "b", 2, pairs_in_channels=1), "--pairs_dir")
    require_one_line(run("sr_mean_train", alone), EXIT_USAGE, "--pairs_in_channels 1")
    strange = run("sr_mean_train", _training(tmp_path, "b", 2, pairs_in_channels=4))
    require_one_line(strange, EXIT_USAGE, "--pairs_in_channels 4", "have 1")
    (tmp_path / "measured" / "p05.npy").unlink()
    (tmp_path / "measured" / "p06.npy").unlink()
    everything = _training(
        tmp_path, "c", 2, data_info_dict_path=tmp_path / "info" / "data_info.pkl"
    )
    require_one_line(run("sr_mean_train", everything), EXIT_DATA, "2 of 12", "p05.png, p06.png")
    (tmp_path / "true" / "p00.png").unlink()
    np.save(tmp_path / "measured" / "p05.npy", _truth(0, 21))
    np.save(tmp_path / "measured" / "p06.npy", _truth(0, 21))
    require_one_line(run("sr_mean_train", everything), EXIT_DATA, "p00.png")
