"""A checkpoint's own flags: left out they are followed, given otherwise they are an error."""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddpm.flags import apply_preset, make_preset
from ddpm.stored_flags import Start, follow_checkpoint
from image_ddpm.flags import ImageDiffusionFlags, ImageModelFlags
from tests.image_ddpm.tiny import (
    CLASSES,
    NET,
    PROCESS,
    TRAINING,
    named_images,
    read_samples,
    rewrite_manifest,
    write_images,
)
from tests.tiny import ROOT, Outcome, done, run, words
from utils.process.errors import CheckpointError
from utils.script_util import flag, flags_of
from utils.untrusted.state_dict import read_torch_file

NETWORK = {**NET, **CLASSES, **PROCESS, "dropout": 0.1, "predict_xstart": True}
FEW = {"num_samples": 2, "batch_size": 2, "timestep_respacing": "2"}
OTHER = [
    {"noise_schedule": "linear"},
    {"diffusion_steps": 40},
    {"predict_xstart": False},
    {"rescale_timesteps": False},
    {"num_heads": 1},
    {"class_dropout": 0.1},
]


@dataclass(frozen=True)
class Trained:
    """A run of one step; read only."""

    images: Path
    log_dir: Path

    @property
    def model(self) -> Path:
        return self.log_dir / "model000001.pt"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    root = tmp_path_factory.mktemp("stored")
    run_of = Trained(named_images(root / "images"), root / "log")
    done("image_train", _training(run_of.images, run_of.log_dir, **NETWORK))
    return run_of


def _training(images: Path, log_dir: Path, **more: Any) -> list[str]:
    return words(TRAINING, {"data_dir": images, "log_dir": log_dir, "max_step": 1}, more)


@pytest.fixture
def copied(trained: Trained, tmp_path: Path) -> Trained:
    shutil.copytree(trained.log_dir, tmp_path / "copy")
    return Trained(trained.images, tmp_path / "copy")


# ---- left out


def test_the_manifest_keeps_network_process_and_classes(trained: Trained) -> None:
    manifest = json.loads((trained.log_dir / "ckpt000001.json").read_text())
    assert manifest["network"]["class"] == "TimeConditionedUNet"
    found = {**manifest["network"]["flags"], **manifest["process"]}
    assert {name: found[name] for name in NETWORK} == NETWORK
    assert manifest["state"]["classes"] == ["cat", "dog", "eel"]


def test_a_checkpoint_alone_is_enough_to_sample(trained: Trained, tmp_path: Path) -> None:
    model = {"model_path": trained.log_dir / "ema_0.9_000001.pt", **FEW}
    said = done("image_sample", words(model, log_dir=tmp_path / "alone")).out
    (notice,) = [line for line in said.splitlines() if "left out" in line]
    assert "--noise_schedule 'cosine'" in notice and "--channel_mult '1,2'" in notice
    done("image_sample", words(NETWORK, model, log_dir=tmp_path / "given"))
    one, other = (read_samples(tmp_path / name) for name in ("alone", "given"))
    assert all(np.array_equal(one[name], other[name]) for name in ("arr_0", "arr_1"))
    args = json.loads((tmp_path / "alone" / "args.json").read_text())["flags"]
    assert args["num_heads"] == 2 and "notices" not in args


def test_a_checkpoint_alone_is_enough_for_the_likelihood(trained: Trained, tmp_path: Path) -> None:
    common = {"model_path": trained.model, "data_dir": trained.images, "num_samples": 1}
    done("image_nll", words(common, log_dir=tmp_path / "alone"))
    done("image_nll", words(NETWORK, common, log_dir=tmp_path / "given"))
    one, other = ((tmp_path / name / "results.json").read_text() for name in ("alone", "given"))
    assert one == other


def test_a_run_goes_on_without_the_flags_of_its_network(copied: Trained, tmp_path: Path) -> None:
    go_on = {"resume_checkpoint": "auto", "max_step": 2}
    done("image_train", _training(copied.images, copied.log_dir, **go_on))
    whole = {**NETWORK, "max_step": 2}
    done("image_train", _training(copied.images, tmp_path / "whole", **whole))
    one, other = (
        read_torch_file(str(folder / "model000002.pt"))
        for folder in (copied.log_dir, tmp_path / "whole")
    )
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_new_run_from_weights_has_their_network(copied: Trained, tmp_path: Path) -> None:
    start = {"init_from": copied.model, "resume_checkpoint": "auto", "noise_schedule": "linear"}
    said = done("image_train", _training(copied.images, tmp_path / "new", **start)).out
    assert "new run" in said and "--noise_schedule 'linear'" in said
    manifest = json.loads((tmp_path / "new" / "ckpt000001.json").read_text())
    assert manifest["process"]["noise_schedule"] == "linear"
    assert manifest["network"]["flags"]["num_heads"] == 2


# ---- given otherwise


@pytest.mark.parametrize("change", OTHER, ids=str)
@pytest.mark.parametrize("script", ["image_sample", "image_nll"])
def test_another_network_or_process_than_the_trained_one_is_refused(
    trained: Trained, tmp_path: Path, script: str, change: dict[str, Any]
) -> None:
    flags = {"model_path": trained.model, "log_dir": tmp_path / "log"}
    flags |= {"data_dir": trained.images} if script == "image_nll" else {}
    _assert_refused(run(script, words(flags, change)), trained.model, change)
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize("change", [*OTHER, {"use_kl": True}, {"learn_sigma": False}], ids=str)
def test_a_run_of_another_network_or_process_is_not_gone_on_with(
    copied: Trained, change: dict[str, Any]
) -> None:
    flags = {**NETWORK, "resume_checkpoint": "auto", **change}
    outcome = run("image_train", _training(copied.images, copied.log_dir, **flags))
    _assert_refused(outcome, copied.model, change)
    assert "--init_from" in outcome.err


def _assert_refused(outcome: Outcome, model: Path, change: dict[str, Any]) -> None:
    ((name, value),) = change.items()
    assert outcome.code == 4, outcome
    assert str(model) in outcome.err and f"--{name} {value!r}" in outcome.err


@pytest.mark.parametrize(
    "free",
    [
        {"use_kl": True},
        {"rescale_learned_sigmas": False},
        {"sigma_small": True},
        {"timestep_respacing": "3"},
        {"dropout": 0.5},
        {"use_checkpoint": True},
    ],
    ids=str,
)
def test_what_trained_weights_do_not_depend_on_is_free_in_sampling(
    trained: Trained, tmp_path: Path, free: dict[str, Any]
) -> None:
    flags = {**FEW, "model_path": trained.model, "log_dir": tmp_path, "dry_run": True}
    done("image_sample", words(flags, free))


def test_dropout_may_change_in_a_run_that_goes_on_unless_flags_are_strict(copied: Trained) -> None:
    flags = {"resume_checkpoint": "auto", "max_step": 2, "dropout": 0.2}
    strict = run(
        "image_train", _training(copied.images, copied.log_dir, **flags, strict_flags=True)
    )
    assert strict.code == 4 and "--dropout 0.2" in strict.err
    done("image_train", _training(copied.images, copied.log_dir, **flags))


def test_a_checkpoint_of_another_network_is_refused(trained: Trained, tmp_path: Path) -> None:
    shutil.copytree(trained.log_dir, tmp_path / "log")
    rewrite_manifest(
        tmp_path / "log" / "ckpt000001.json",
        lambda content: content["network"].update({"class": "SuperResModel"}),
    )
    flags = {"model_path": tmp_path / "log" / "model000001.pt", "log_dir": tmp_path / "out"}
    outcome = run("image_sample", words(flags))
    assert outcome.code == 4 and "SuperResModel" in outcome.err


def test_a_checkpoint_without_a_manifest_is_used_with_the_flags_as_they_are(
    trained: Trained, tmp_path: Path
) -> None:
    shutil.copy(trained.model, tmp_path / "model.pt")
    flags = {**NETWORK, **FEW, "model_path": tmp_path / "model.pt", "num_heads": 1}
    said = done("image_sample", words(flags, log_dir=tmp_path, dry_run=True)).out
    assert "left out" not in said


def test_a_wrong_flag_is_refused_before_torch_is_imported(tmp_path: Path) -> None:
    """Where no checkpoint has to be looked at first."""
    code = (
        "import sys, image_train\n"
        "try: image_train.main(['--data_dir', 'x', '--batch_size', '0'])\n"
        "except SystemExit as stop: sys.exit(stop.code if 'torch' not in sys.modules else 99)"
    )
    outcome = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert outcome.returncode == 2 and "--batch_size 0" in outcome.stderr


# ---- presets, manifests of others


def _args(*argv: str, **manifest: Any) -> argparse.Namespace:
    """The settled arguments of the sampler."""
    args = importlib.import_module("image_sample").create_parser().parse_args(list(argv))
    return _followed(args, **manifest)


def _followed(
    args: argparse.Namespace, is_resumed: bool = False, **made: Any
) -> argparse.Namespace:
    start = Start("model.pt", {"network": {"flags": made}}, is_resumed=is_resumed)
    flags = (*flags_of(ImageModelFlags), *flags_of(ImageDiffusionFlags))
    return follow_checkpoint(args, start, flags)


def test_what_a_preset_says_counts_as_given() -> None:
    presets = {"x": make_preset("x.pt", num_channels=64)}
    args = importlib.import_module("image_sample").create_parser().parse_args([])
    args = apply_preset(argparse.Namespace(**{**vars(args), "preset": "x"}), presets, "here")
    with pytest.raises(CheckpointError, match="--num_channels 64"):
        _followed(args, num_channels=32)
    assert _followed(args, num_channels=64, num_heads=2).num_heads == 2


def test_blanks_between_words_are_no_difference() -> None:
    args = _args("--attention_resolutions", "16, 8", attention_resolutions="16,8")
    assert args.attention_resolutions == "16,8"  # records of settings see one spelling


@pytest.mark.parametrize(
    ("argv", "is_resumed", "expected"),
    [
        ((), True, (True, False)),
        ((), False, (False, False)),  # samples are drawn in fp32 unless the command says otherwise
        (("--use_bf16", "True"), True, (False, True)),
        (("--use_bf16", "True"), False, (False, True)),
    ],
)
def test_the_precision_is_that_of_the_run(
    argv: tuple[str, ...], is_resumed: bool, expected: tuple[bool, bool]
) -> None:
    args = importlib.import_module("image_sample").create_parser().parse_args(list(argv))
    args = _followed(args, is_resumed, use_fp16=True, use_bf16=False)
    assert (args.use_fp16, args.use_bf16) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_heads", [2]),
        ("num_heads", True),
        ("num_heads", 10**400),
        ("num_heads", 2.0),
        ("dropout", float("nan")),
        ("class_cond", 1),
        ("channel_mult", "1," * 1000),
        ("channel_mult", None),
        ("noise_schedule", "../x"),
        ("image_size", {"a": 1}),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_manifest_puts_nothing_else_into_a_flag_than_a_command_line_could(
    name: str, value: Any
) -> None:
    with pytest.raises(CheckpointError) as caught:
        _args(**{name: value})
    assert "model.pt" in str(caught.value) and f"--{name}" in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_manifest_says_nothing_about_flags_beside_network_and_process() -> None:
    args = _args(log_dir="/elsewhere", num_samples=1, model_path="other.pt", num_heads=2)
    assert (args.log_dir, args.num_samples, args.model_path) == ("", 10000, "")
    assert args.num_heads == 2


def test_a_whole_number_will_do_where_a_fraction_is_meant() -> None:
    args = _args(dropout=0)
    assert args.dropout == 0.0 and isinstance(args.dropout, float)


@dataclass(frozen=True)
class _Newer:
    num_heads: int = flag(4, "heads")
    new_flag: int = flag(7, "not known to older checkpoints")


def test_a_flag_that_an_older_checkpoint_does_not_know_keeps_its_default() -> None:
    args = argparse.Namespace(num_heads=4, new_flag=7, given_flags=frozenset())
    start = Start("model.pt", {"network": {"flags": {"num_heads": 2}}})
    found = follow_checkpoint(args, start, flags_of(_Newer))
    assert (found.num_heads, found.new_flag) == (2, 7)


# ---- classes of a run that starts from a checkpoint


def test_images_of_some_classes_keep_their_labels_in_a_run_from_weights(
    copied: Trained, tmp_path: Path
) -> None:
    rest = write_images(tmp_path / "rest", ["dog_1.png", "dog_2.png", "eel_1.png"])
    said = done("image_train", _training(rest, tmp_path / "new", init_from=copied.model)).out
    assert "warning: labels" not in said
    manifest = json.loads((tmp_path / "new" / "ckpt000001.json").read_text())
    assert manifest["state"]["classes"] == ["", "dog", "eel"]


def test_a_run_from_weights_may_have_other_classes_and_says_so(
    copied: Trained, tmp_path: Path
) -> None:
    others = write_images(tmp_path / "others", ["ant_1.png", "ant_2.png", "cat_1.png"])
    said = done("image_train", _training(others, tmp_path / "new", init_from=copied.model)).out
    assert "notice: labels" in said and "'ant'" in said
    manifest = json.loads((tmp_path / "new" / "ckpt000001.json").read_text())
    assert manifest["state"]["classes"] == ["ant", "cat"]


def test_a_resumed_run_that_lacks_a_class_shifts_no_label(copied: Trained, tmp_path: Path) -> None:
    """A checkpoint of an earlier version, which keeps names and no digest of its images."""
    rest = write_images(tmp_path / "rest", ["dog_1.png", "dog_2.png", "eel_1.png"])
    flags = {"resume_checkpoint": "auto", "max_step": 2}
    refused = run("image_train", _training(rest, copied.log_dir, **flags))
    assert refused.code == 3 and "list of images" in refused.err
    rewrite_manifest(copied.log_dir / "ckpt000001.json", lambda content: content.pop("data"))
    done("image_train", _training(rest, copied.log_dir, **flags))
    manifest = json.loads((copied.log_dir / "ckpt000002.json").read_text())
    assert manifest["state"]["classes"] == ["cat", "dog", "eel"]


def test_names_of_classes_that_are_no_words_are_refused(copied: Trained, tmp_path: Path) -> None:
    rewrite_manifest(
        copied.log_dir / "ckpt000001.json", lambda content: content["state"].update(classes=[1])
    )
    outcome = run("image_sample", words(FEW, model_path=copied.model, log_dir=tmp_path / "out"))
    assert outcome.code == 4 and str(copied.model) in outcome.err
