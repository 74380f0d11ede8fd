"""Every documented command of the super-resolution and the noisy-label task parses; those of the
former run, small. Those of plain image diffusion are in ``test_image_commands``.

They run as written: flags that make them small are appended, and the last one wins.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch

from sr_var.script_util import create_sr_model
from tests.golden_recipe import GOLDENS_DIR
from tests.scripts.seed_commands import blocks, python_commands, with_tail
from tests.tiny import ROOT, TEST_NAMES, Outcome, TinyData, run, save_weights, shake, words

BLOCKS = blocks()
IMAGE = [name for name in BLOCKS if name.startswith("image/")]
NOW = [name for name in BLOCKS if name not in IMAGE and "extract" not in name]

SIZES: dict[str, Any] = {
    "large_size": 32,
    "small_size": 8,
    "channel_mult": "1,2",
    "num_res_blocks": 1,
}
NET = {**SIZES, "model_channels": 16}
DENOISER = {**SIZES, "num_channels": 16, "num_head_channels": 8}
TAILS: dict[str, dict[str, Any]] = {
    "sr_mean_train": {**NET, "batch_size": 2, "microbatch": 1, "log_interval": 1},
    "sr_var_train": {**NET, "batch_size": 2, "microbatch": 1, "log_interval": 1},
    "sr_mean_test": {**NET, "batch_size": 2},
    "sr_var_test": {**NET, "batch_size": 2},
    "ddpm_sr_sample": {
        **DENOISER,
        "timestep_respacing": 2,
        "num_samples_per_image": 2,
        "batch_size": 2,
    },
    "sr_var_verification": {"large_size": 32, "num_samples": 2},
}


def _command(name: str) -> tuple[str, list[str]]:
    (found,) = python_commands(BLOCKS[name])
    return found


@pytest.mark.parametrize("name", NOW)
def test_command_parses_and_every_flag_keeps_its_value(name: str) -> None:
    script, argv = _command(name)
    args = vars(importlib.import_module(script).create_parser().parse_args(argv))
    for flag, value in zip(argv[::2], argv[1::2], strict=True):
        found = args[flag.removeprefix("--")]
        if isinstance(found, bool):
            assert found == (value in ("True", "yes"))
        else:
            assert found == type(found)(value)


@pytest.mark.parametrize("sizes", ["64_256", "128_512"])
def test_preset_of_an_upsampler_is_what_its_documented_command_says(sizes: str) -> None:
    from sr_var.flags.nets import apply_presets

    script, argv = _command(f"toolkit/sample_{sizes}")
    parser = importlib.import_module(script).create_parser()
    documented = vars(parser.parse_args(argv))
    settled = vars(apply_presets(parser.parse_args(["--preset", f"{sizes}_upsampler"])))
    own = ("use_fp16", "timestep_respacing", "batch_size", "log_dir", "output_dir", "preset")
    ignored = {*own, "given_flags"}
    assert {k: v for k, v in settled.items() if k not in ignored} == {
        k: v for k, v in documented.items() if k not in ignored
    }


@pytest.mark.parametrize("name", ["toolkit/sample_64_256", "toolkit/sample_128_512"])
def test_command_of_the_sampler_describes_the_published_upsampler(name: str) -> None:
    from ddpm.flags import DiffusionFlags
    from sr_var.flags.scripts import SRDiffusionModelFlags
    from sr_var.script_util import denoiser_flags
    from utils.script_util import from_args

    script, argv = _command(name)
    args = importlib.import_module(script).create_parser().parse_args(argv)
    flags = denoiser_flags(from_args(SRDiffusionModelFlags, args), from_args(DiffusionFlags, args))
    with torch.device("meta"):
        model = create_sr_model(**flags)
    golden = json.loads((GOLDENS_DIR / f"keys_sr_{name[15:]}.json").read_text())
    found = [[key, list(value.shape)] for key, value in model.state_dict().items()]
    assert found == [[key, list(shape)] for key, shape in golden["keys"]]


def test_documented_archives_are_unpacked_and_removed(tmp_path: Path) -> None:
    for archive, name in (("a.tar", "n01440764_1.JPEG"), ("b.tar", "n01443537_2.JPEG")):
        (tmp_path / name).write_bytes(b"picture")
        with tarfile.open(tmp_path / archive, "w") as file:
            file.add(tmp_path / name, name)
        (tmp_path / name).unlink()
    assert BLOCKS["toolkit/extract"] == BLOCKS["paper/extract"]
    command = ["bash", "-euc", BLOCKS["paper/extract"]]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=60)
    assert sorted(os.listdir(tmp_path)) == ["n01440764_1.JPEG", "n01443537_2.JPEG"]


class Workplace:
    """A working directory laid out as the documents say, with the images beside it."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "work"
        self.folder.mkdir()
        TinyData.write(root / "datasets" / "imagenet" / "train", self.folder / "data/sr_imagenet")

    def run(self, name: str, **more: Any) -> Outcome:
        """Runs a block with flags appended that make it small."""
        script, argv = _command(name)
        return run(script, [*argv, *words(TAILS[script], **more)])

    def done(self, name: str, **more: Any) -> str:
        """Runs a block, which must end well; returns what it said."""
        outcome = self.run(name, **more)
        assert outcome.code == 0, f"{name}: {outcome.code}\n{outcome.out}\n{outcome.err}"
        return outcome.out

    def add_upsampler(self, path: str) -> None:
        """The published sampler's place is taken by a small network of random weights."""
        flags = {"class_cond": True, "resblock_updown": True}
        heads = {"num_heads": 4, "num_head_channels": 8, "attention_resolutions": "32,16,8"}
        if "128_512" in path:
            heads["attention_resolutions"] = "32,16"
        model = create_sr_model(learn_sigma=True, **{**DENOISER, **heads, **flags})
        save_weights(shake(model), self.folder / path)

    def pretend_trained(self, folder: str, step: int) -> None:
        """Renames the newest set to that of a longer run by the original toolkit: no manifest."""
        save_dir = self.folder / folder
        (manifest,) = save_dir.glob("ckpt*.json")
        made = manifest.stem.removeprefix("ckpt")
        for kind in ("model", "opt"):
            (save_dir / f"{kind}{made}.pt").rename(save_dir / f"{kind}{step:06d}.pt")
        manifest.unlink()


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    """Where the commands run; ``../datasets/imagenet/train`` is there."""
    place = Workplace(tmp_path)
    monkeypatch.chdir(place.folder)
    return place


def _assert_outputs(run_name: str) -> None:
    for name in TEST_NAMES:
        folder = Path("outputs/sr_var") / run_name / name
        assert {path.name for path in folder.iterdir()} == {
            "low_res.png",
            "high_res_mean_90000.png",
            "high_res_mean_90000.npy",
            "high_res_var_50000.pkl",
            "high_res_std_50000.npy",
            "high_res_std_50000.png",
        }


def _assert_samples(run_name: str) -> None:
    for name in TEST_NAMES:
        folder = Path("outputs/ddpm_sr") / run_name / name
        assert (folder / "high_res_samples" / "sample_1.png").exists()


def test_commands_of_the_toolkit_run_for_64_to_256(workplace: Workplace) -> None:
    workplace.add_upsampler("checkpoints/ddpm_sr/64_256_upsampler.pt")
    workplace.done("toolkit/sample_64_256")
    _assert_samples("64_256_step_250")

    _trains_from_a_named_checkpoint(workplace, "toolkit/mean_train_64_256", "sr_mean", 90000)
    said = workplace.done("toolkit/mean_test_64_256")
    slip, right = (f"data/{name}/to_sample_data_info.pkl" for name in ("imagenet", "sr_imagenet"))
    assert any(f"notice: {slip}" in line and right in line for line in said.splitlines())
    assert "parameters: " in said  # --debug_mode yes

    said = _trains_from_a_named_checkpoint(workplace, "toolkit/var_train_64_256", "sr_var", 50000)
    slip = "logs/sr_mean/64_256mean_model_args.pkl"
    assert any(
        slip in line and "logs/sr_mean/64_256/mean_model_args.pkl" in line
        for line in said.splitlines()
    )
    workplace.done("toolkit/var_test_64_256")
    _assert_outputs("64_256")

    workplace.done("toolkit/verify_64_256")
    figures = json.loads(Path("logs/sr_compare/64_256/results.json").read_text(encoding="utf-8"))
    assert figures["num_images"] == 3 and figures["num_images_with_float_moments"] == 3


def _trains_from_a_named_checkpoint(workplace: Workplace, name: str, task: str, step: int) -> str:
    """The documented command goes on from a step that an earlier run must have reached."""
    outcome = workplace.run(name, max_step=step + 1)
    assert outcome.code == 4 and f"model{step:06d}.pt" in outcome.err
    workplace.done(name, resume_checkpoint="", max_step=1)
    workplace.pretend_trained(f"checkpoints/{task}/64_256", step)
    said = workplace.done(name, max_step=step + 1)
    assert f"model{step:06d}.pt (step {step})" in said  # resumed
    assert Path(f"checkpoints/{task}/64_256/model{step + 1:06d}.pt").exists()
    return said


def test_commands_of_the_toolkit_run_for_128_to_512(workplace: Workplace) -> None:
    workplace.add_upsampler("checkpoints/ddpm_sr/128_512_upsampler.pt")
    workplace.done("toolkit/sample_128_512")
    _assert_samples("128_512_step_250")

    workplace.done("toolkit/mean_train_128_512", max_step=2)
    outcome = workplace.run("toolkit/mean_test_128_512")
    assert outcome.code == 4 and "model090000.pt" in outcome.err
    assert "model000002.pt" in outcome.err  # of the run that is not finished
    workplace.pretend_trained("checkpoints/sr_mean/128_512", 90000)
    workplace.done("toolkit/mean_test_128_512")

    workplace.done("toolkit/var_train_128_512", max_step=1)
    workplace.pretend_trained("checkpoints/sr_var/128_512", 50000)
    workplace.done("toolkit/var_test_128_512")
    _assert_outputs("128_512")

    # at its own size the command finds this folder by itself
    more = {"sr_model_output_dir": "outputs/sr_var/128_512"}
    workplace.done("toolkit/verify_128_512", **more)
    assert Path("logs/sr_compare/128_512/results.json").exists()


def test_commands_of_the_paper_run(workplace: Workplace) -> None:
    workplace.add_upsampler("checkpoints/ddpm_sr/64_256_upsampler.pt")
    workplace.done("paper/sample")
    workplace.done("paper/mean_train", max_step=2)
    workplace.pretend_trained("checkpoints/sr_mean/64_256", 90000)
    workplace.done("paper/mean_test")
    workplace.done("paper/var_train", max_step=1)
    workplace.pretend_trained("checkpoints/sr_var/64_256", 50000)
    workplace.done("paper/var_test")
    _assert_outputs("64_256")
    workplace.done("paper/verify")  # no flag but those that make it small
    figures = json.loads(Path("logs/sr_compare/64_256/results.json").read_text(encoding="utf-8"))
    assert figures["num_samples"] == 2


def _in_a_shell(workplace: Workplace, name: str) -> subprocess.CompletedProcess[str]:
    """Runs a block by bash with the real python; the scripts lie in the working directory."""
    script, _ = _command(name)
    link, python = workplace.folder / f"{script}.py", workplace.folder / "bin" / "python"
    if not link.exists():
        link.symlink_to(ROOT / link.name)
    python.parent.mkdir(exist_ok=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-euc", with_tail(BLOCKS[name], words(TAILS[script]))],
        cwd=workplace.folder,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PATH": path},
    )


@pytest.mark.dist
def test_command_runs_in_a_real_shell(workplace: Workplace) -> None:
    workplace.done("paper/mean_train", max_step=1)
    workplace.pretend_trained("checkpoints/sr_mean/64_256", 90000)
    outcome = _in_a_shell(workplace, "paper/mean_test")
    assert outcome.returncode == 0, outcome.stderr
    assert len(list(Path("outputs/sr_var/64_256").glob("*/high_res_mean_90000.npy"))) == 3
    Path("checkpoints/sr_mean/64_256/model090000.pt").unlink()
    outcome = _in_a_shell(workplace, "toolkit/mean_test_64_256")
    assert outcome.returncode == 4 and outcome.stderr.startswith("error: ")
    assert "Traceback" not in outcome.stderr


def test_appended_flags_only_reduce_sizes_and_counts() -> None:
    allowed = {
        *SIZES,
        *("model_channels", "num_channels", "num_head_channels", "batch_size", "microbatch"),
        *("log_interval", "timestep_respacing", "num_samples_per_image", "num_samples"),
    }
    assert {flag for tail in TAILS.values() for flag in tail} <= allowed
