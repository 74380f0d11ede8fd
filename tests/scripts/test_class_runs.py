"""Nets that know the class, by the scripts themselves: from the trainings to the verdict."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sr_var.flags.app import AppFlags
from sr_var.flags.predict import NetPairFlags
from sr_var.predict.predictor import Predictor
from sr_var.stored_flags import load_args
from tests.pipeline import NUM_SAMPLES, TRAINING, Pipeline
from tests.scripts.runs import assert_refused
from tests.tiny import (
    CLASSES,
    LARGE,
    REGRESSION_NET,
    SMALL,
    TEST_NAMES,
    done,
    photo,
    run,
    tree,
    words,
)
from utils.loops.checkpoint import manifest_beside
from utils.process.errors import EXIT_CHECKPOINT, EXIT_DATA, EXIT_USAGE
from utils.untrusted.pickles import dump_pickle, load_array

STEPS = 3
LABELS = {"class_cond": True, "num_classes": 5}
UNET = {**REGRESSION_NET, **LABELS}
SUBPIXEL: dict[str, Any] = {
    "network": "subpixel",
    "large_size": LARGE,
    "small_size": SMALL,
    "model_channels": 8,
    "num_res_blocks": 1,
    **LABELS,
}


def _train(root: Path, pipeline: Pipeline, task: str, *groups: Any, **more: Any) -> list[str]:
    # the images to validate on are the test images: judged, not trained on
    validation = {"val_data_info_dict_path": pipeline.data.test_info, "val_interval": 2}
    folders = {"log_dir": root / f"log_{task}", "model_save_dir": root / task}
    shared = {**pipeline.data.train_flags, **TRAINING, **validation, **folders}
    return words(shared, {"max_step": STEPS, "lr": 0.01}, *groups, **more)


def _test(root: Path, pipeline: Pipeline, task: str, **more: Any) -> list[str]:
    """No flag of the network: the checkpoint has them."""
    flags = {"log_dir": root / f"log_{task}", "model_path": _model(root, task), "batch_size": 2}
    return words(pipeline.data.tested_flags, flags, output_dir=root / "out", **more)


def _model(root: Path, task: str) -> Path:
    return root / task / f"model{STEPS:06d}.pt"


def _mean(root: Path) -> dict[str, Any]:
    return {"mean_model_path": _model(root, "sr_mean")}


@pytest.fixture(scope="module", params=["unet", "subpixel"])
def trained(
    request: pytest.FixtureRequest, pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Both nets, trained and tested."""
    root, net = tmp_path_factory.mktemp(request.param), SUBPIXEL
    if request.param == "unet":
        net = UNET
    done("sr_mean_train", _train(root, pipeline, "sr_mean", net))
    variance = {"last_layer_type": "softplus", "loss": "itakura_saito", **_mean(root)}
    done("sr_var_train", _train(root, pipeline, "sr_var", net, variance))
    done("sr_mean_test", _test(root, pipeline, "sr_mean"))
    done("sr_var_test", _test(root, pipeline, "sr_var", **_mean(root)))
    return root


def test_what_the_files_keep_says_that_the_class_is_known(trained: Path) -> None:
    for task, kind in (("sr_mean", "mean"), ("sr_var", "var")):
        args = load_args(trained / f"log_{task}" / f"{kind}_model_args.pkl")
        manifest = manifest_beside(_model(trained, task))
        for found in (args, manifest["network"]["flags"]):
            assert (found["class_cond"], found["num_classes"]) == (True, 5)
        assert manifest["state"]["classes"] == [*list(CLASSES)[:2], "", "", "n01484850"]
        stamp = json.loads((trained / "out" / f".{kind}_{STEPS}.json").read_text())
        assert stamp["class_cond"] is True
        assert stamp["labels"] == dict(zip(TEST_NAMES, (0, 1, 4), strict=True))


def test_another_label_gives_another_mean_and_variance(
    trained: Path, pipeline: Pipeline, tmp_path: Path
) -> None:
    info = {
        key: {"y": CLASSES[key][0], "file_names": [TEST_NAMES[(i + 1) % 3]]}
        for i, key in enumerate(CLASSES)
    }
    dump_pickle(info, tmp_path / "turned.pkl")  # each image under the class of another one
    turned = {"data_info_dict_path": tmp_path / "turned.pkl"}
    for task, more in (("sr_mean", {}), ("sr_var", _mean(trained))):
        own = words(turned, more, output_dir=tmp_path / "out")
        done(f"{task}_test", [*_test(trained, pipeline, task), *own])
    for name in TEST_NAMES:
        folders = [root / "out" / name for root in (trained, tmp_path)]
        means = [np.load(folder / f"high_res_mean_{STEPS}.npy") for folder in folders]
        assert not np.array_equal(*means)
        variances = [load_array(folder / f"high_res_var_{STEPS}.pkl") for folder in folders]
        assert not np.array_equal(*variances)


def test_an_image_whose_label_has_changed_is_done_anew(
    trained: Path, pipeline: Pipeline, tmp_path: Path
) -> None:
    test = [*_test(trained, pipeline, "sr_mean"), *words(output_dir=tmp_path / "out")]
    done("sr_mean_test", test)
    before = tree(tmp_path / "out")
    info = {key: {"y": CLASSES[key][0], "file_names": []} for key in CLASSES}
    for name, key in zip(TEST_NAMES, ("n01443537", "n01443537", "n01484850"), strict=True):
        info[key]["file_names"].append(name)
    dump_pickle(info, tmp_path / "info.pkl")
    said = done("sr_mean_test", [*test, *words(data_info_dict_path=tmp_path / "info.pkl")]).out
    assert f"1 images have another label than before, as {TEST_NAMES[0]}" in said
    after = tree(tmp_path / "out")
    changed = {path for path in after if path.endswith(".npy") and after[path] != before[path]}
    assert changed == {f"{TEST_NAMES[0]}/high_res_mean_{STEPS}.npy"}
    done("sr_mean_test", test)  # and back
    assert {path: tree(tmp_path / "out")[path] for path in changed} == {
        path: before[path] for path in changed
    }


def test_the_verification_says_what_is_compared(
    trained: Path, pipeline: Pipeline, tmp_path: Path
) -> None:
    flags = {
        **pipeline.verification_flags,
        "sr_model_output_dir": trained / "out",
        "mean_model_step": STEPS,
        "var_model_step": STEPS,
    }
    said = done("sr_var_verification", words(flags, log_dir=tmp_path / "same")).out
    assert "know the class" not in said  # as the tiny sampler does, too
    results = json.loads((tmp_path / "same" / "results.json").read_text(encoding="utf-8"))
    assert results["class_cond"] == {"nets": True, "samples": True}
    none = {**flags, "num_samples": 0, "log_dir": tmp_path / "none"}
    assert "know the class" not in done("sr_var_verification", words(none)).out


def test_nets_without_classes_beside_samples_with_them_are_told(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    said = done("sr_var_verification", words(pipeline.verification_flags, log_dir=tmp_path)).out
    assert "the samples know the class of the image and the nets do not" in said
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert results["class_cond"] == {"nets": False, "samples": True}
    assert results["num_samples"] == NUM_SAMPLES


@pytest.mark.parametrize("script", ["sr_mean_train", "sr_var_train"])
def test_labels_beyond_the_number_of_classes_are_refused(
    pipeline: Pipeline, tmp_path: Path, script: str
) -> None:
    own = {"class_cond": True, "num_classes": 2}
    if script == "sr_var_train":  # the mean net that it is given knows none
        parts = ("sr_mean", "no class", "--class_cond False")
        assert_refused(pipeline, script, tmp_path, EXIT_CHECKPOINT, *parts, **own)
    else:
        parts = ("label 4", "0 to 1", "--num_classes")
        assert_refused(pipeline, script, tmp_path, EXIT_DATA, *parts, **own)


def test_no_number_of_classes_is_refused(pipeline: Pipeline, tmp_path: Path) -> None:
    own = {"class_cond": True, "num_classes": 0}
    assert_refused(pipeline, "sr_mean_train", tmp_path, EXIT_DATA, "--num_classes", **own)


def test_a_variance_net_without_classes_refuses_a_mean_net_with_them(
    trained: Path, pipeline: Pipeline, tmp_path: Path
) -> None:
    network = load_args(trained / "log_sr_mean" / "mean_model_args.pkl").get("network")
    net = UNET if network is None else SUBPIXEL
    argv = _train(tmp_path, pipeline, "sr_var", net, _mean(trained), class_cond=False)
    outcome = run("sr_var_train", argv)
    assert outcome.code == EXIT_CHECKPOINT and "--class_cond True" in outcome.err
    assert not (tmp_path / "sr_var").exists()


def test_classes_with_other_labels_are_refused(
    trained: Path, pipeline: Pipeline, tmp_path: Path
) -> None:
    info = {key: {"y": 3, "file_names": [TEST_NAMES[i]]} for i, key in enumerate(CLASSES)}
    dump_pickle({"n01443537": info["n01443537"]}, tmp_path / "other.pkl")
    argv = [*_test(trained, pipeline, "sr_mean"), *words(output_dir=tmp_path / "out")]
    outcome = run("sr_mean_test", [*argv, *words(data_info_dict_path=tmp_path / "other.pkl")])
    assert outcome.code == EXIT_DATA and "'n01443537'" in outcome.err
    assert not (tmp_path / "out").exists()


def test_resumed_nets_keep_their_classes_and_end_as_an_unbroken_run(
    trained: Path, pipeline: Pipeline, tmp_path: Path
) -> None:
    network = load_args(trained / "log_sr_mean" / "mean_model_args.pkl").get("network")
    net = UNET if network is None else SUBPIXEL
    done("sr_mean_train", _train(tmp_path, pipeline, "sr_mean", net, max_step=2))
    bare = {"large_size": LARGE, "small_size": SMALL, "resume_checkpoint": "auto"}
    done("sr_mean_train", _train(tmp_path, pipeline, "sr_mean", bare))
    assert _model(tmp_path, "sr_mean").read_bytes() == _model(trained, "sr_mean").read_bytes()


@pytest.mark.parametrize("net", [UNET, SUBPIXEL], ids=["unet", "subpixel"])
def test_a_net_with_classes_starts_from_the_weights_of_one_without(
    pipeline: Pipeline, tmp_path: Path, net: dict[str, Any]
) -> None:
    plain, labelled = tmp_path / "plain", tmp_path / "labelled"
    done("sr_mean_train", _train(plain, pipeline, "sr_mean", net, class_cond=False))
    start = {"init_from": _model(plain, "sr_mean"), "max_step": 1, "lr": 1e-12}
    said = done("sr_mean_train", _train(labelled, pipeline, "sr_mean", net, start)).out
    assert "begin as new ones" in said
    one = {"model_path": labelled / "sr_mean" / "model000001.pt"}
    done("sr_mean_test", _test(plain, pipeline, "sr_mean"))
    done("sr_mean_test", [*_test(labelled, pipeline, "sr_mean"), *words(one)])
    for name in TEST_NAMES:
        means = [
            np.load(root / "out" / name / f"high_res_mean_{step}.npy")
            for root, step in ((plain, STEPS), (labelled, 1))
        ]
        # grey levels: one step of 1e-12 is below the digits of fp32, of which these have 24 bits
        np.testing.assert_allclose(*means, rtol=0, atol=1e-4)


@pytest.mark.parametrize("objective", ["nll", "quantile"])
def test_baselines_know_classes_too(pipeline: Pipeline, tmp_path: Path, objective: str) -> None:
    own = {"objective": objective}
    done("sr_baseline_train", _train(tmp_path, pipeline, "sr_baseline", SUBPIXEL, own))
    outcome = run("sr_baseline_test", _test(tmp_path, pipeline, "sr_baseline", truth="oracle"))
    assert outcome.code == EXIT_USAGE and "--truth oracle" in outcome.err
    done("sr_baseline_test", _test(tmp_path, pipeline, "sr_baseline"))
    assert manifest_beside(_model(tmp_path, "sr_baseline"))["state"]["classes"]
    folder = tmp_path / "out" / TEST_NAMES[0]
    assert np.isfinite(np.load(folder / f"high_res_mean_{STEPS}.npy")).all()


def _predict(root: Path, image: Path, out: Path, **more: Any) -> list[str]:
    nets = {**_mean(root), "var_model_path": _model(root, "sr_var")}
    return words(nets, {"input": image, "output_dir": out, "log_dir": out.parent / "log"}, **more)


def test_own_images_are_given_a_label_by_number_or_by_name(
    trained: Path, pipeline: Pipeline, tmp_path: Path
) -> None:
    Image.fromarray(photo(3, (12, 8))).save(tmp_path / "own.png")
    arrays = {}
    for label, number in (("4", 4), ("n01484850", 4), ("0", 0)):
        out = tmp_path / label
        done("sr_predict", _predict(trained, tmp_path / "own.png", out, label=label))
        arrays[label] = np.load(out / "own_mean.npy")
        assert json.loads((out / ".predict.json").read_text())["label"] == number
    np.testing.assert_array_equal(arrays["4"], arrays["n01484850"])
    assert not np.array_equal(arrays["4"], arrays["0"])
    again = _predict(trained, tmp_path / "own.png", tmp_path / "4", label="0")
    assert run("sr_predict", again).code == EXIT_DATA  # a folder holds results of one label


@pytest.mark.parametrize(
    ("label", "words"),
    [("", "give its --label"), ("3", "--label 3"), ("5", "--label 5"), ("cat", "--label cat")],
)
def test_labels_that_the_networks_do_not_know_are_refused(
    trained: Path, tmp_path: Path, label: str, words: str
) -> None:
    Image.fromarray(photo(3, (12, 8))).save(tmp_path / "own.png")
    argv = _predict(trained, tmp_path / "own.png", tmp_path / "out", label=label)
    outcome = run("sr_predict", argv)
    assert outcome.code == EXIT_USAGE and words in outcome.err and "4 'n01484850'" in outcome.err


def test_the_page_needs_a_label_for_networks_that_know_classes(trained: Path) -> None:
    nets = NetPairFlags(
        mean_model_path=str(_model(trained, "sr_mean")),
        var_model_path=str(_model(trained, "sr_var")),
    )
    build = partial(Predictor.from_flags, device=torch.device("cpu"), log=[].append)
    with pytest.raises(ValueError, match="give its --label"):
        build(nets, AppFlags(), set())
    predictor = build(nets, AppFlags(label="n01443537"), {"label"})
    assert predictor.pair.label == 1
    image = photo(3, (12, 8))
    by_number = Predictor.from_checkpoints(
        nets.mean_model_path, nets.var_model_path, "cpu", label=1
    )
    np.testing.assert_array_equal(predictor(image).mean, by_number(image).mean)


def test_networks_without_classes_take_no_label(pipeline: Pipeline, tmp_path: Path) -> None:
    Image.fromarray(photo(3, (12, 8))).save(tmp_path / "own.png")
    nets = {"mean_model_path": pipeline.mean_model, "var_model_path": pipeline.var_model}
    folders = {"output_dir": tmp_path / "out", "log_dir": tmp_path / "log"}
    outcome = run("sr_predict", words(nets, folders, input=tmp_path / "own.png", label="1"))
    assert outcome.code == EXIT_USAGE and "know no classes" in outcome.err


def test_a_mean_net_without_classes_does_not_join_a_variance_net_with_them(
    trained: Path, pipeline: Pipeline, tmp_path: Path
) -> None:
    Image.fromarray(photo(3, (12, 8))).save(tmp_path / "own.png")
    plain = {"mean_model_path": pipeline.mean_model, "label": "0"}
    outcome = run("sr_predict", _predict(trained, tmp_path / "own.png", tmp_path / "out", **plain))
    assert outcome.code == EXIT_CHECKPOINT and "--class_cond False" in outcome.err


def test_cross_fitted_nets_know_classes_too(pipeline: Pipeline, tmp_path: Path) -> None:
    folds = {"cross_fit": 3}  # so that no class is in one fold alone
    for fold in range(3):
        own = {**folds, "fold": fold, "model_save_dir": tmp_path / f"fold_{fold}"}
        done("sr_mean_train", _train(tmp_path, pipeline, "sr_mean", SUBPIXEL, own))
    means = {"mean_model_path": f"{tmp_path}/fold_{{fold}}/model{STEPS:06d}.pt"}
    own = {**folds, **means, "last_layer_type": "softplus", "leakage_images": 4}
    said = done("sr_var_train", _train(tmp_path, pipeline, "sr_var", SUBPIXEL, own)).out
    assert "squared residuals" in said
    done("sr_var_test", _test(tmp_path, pipeline, "sr_var", **folds, **means))
    assert load_array(tmp_path / "out" / TEST_NAMES[0] / f"high_res_var_{STEPS}.pkl").min() > 0


@pytest.mark.parametrize("script", ["sr_mean_train", "sr_var_train"])
def test_folds_of_whole_classes_are_refused(
    pipeline: Pipeline, tmp_path: Path, script: str
) -> None:
    own: dict[str, Any] = {**LABELS, "cross_fit": 2, "fold_by": "class"}
    own |= {"fold": 0} if script == "sr_mean_train" else {"mean_model_path": "x_{fold}.pt"}
    assert_refused(pipeline, script, tmp_path, EXIT_USAGE, "--fold_by image", **own)
