"""export.py: what other programs load, checked before it is there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from image_ddpm.flags import ImageDiffusionFlags, ImageModelFlags
from image_ddpm.networks import create_image_model, image_identity, model_keywords
from models.subpixel import SubpixelModel
from models.unet import TimeConditionedUNet
from sr_var.flags.scripts import MeanModelFlags
from sr_var.script_util import create_mean_model
from sr_var.stored_flags import identity_of
from tests.models.nets import noise
from tests.pipeline import Pipeline
from tests.tiny import done, run, shake, tree, words
from utils.files.atomic import sha256_of
from utils.loops.checkpoint import CheckpointStore
from utils.process.errors import EXIT_CHECKPOINT, EXIT_DATA, EXIT_USAGE
from weights import onnx_graph, to_onnx, to_torch_export
from weights.source import read_source
from weights.source_graphs import used_as

_NET: dict[str, Any] = {
    "image_size": 16,
    "num_channels": 32,
    "num_res_blocks": 1,
    "channel_mult": "1,2",
    "attention_resolutions": "8",
}


def _silent(line: str) -> None: ...


def write_denoiser(folder: Path, **flags: Any) -> tuple[Path, TimeConditionedUNet]:
    """A checkpoint of random weights, with its manifest, and its network."""
    chain = ImageDiffusionFlags(
        noise_schedule="cosine",
        **{name: flags.pop(name) for name in ("learn_sigma", "diffusion_steps") if name in flags},
    )
    net = ImageModelFlags(**{**_NET, **flags})
    network = create_image_model(**model_keywords(net, chain))
    shake(network)
    manifest = image_identity(net, chain, is_training=True).record()
    CheckpointStore(str(folder)).save(7, {"model": network.state_dict()}, {**manifest, "state": {}})
    return folder / "model000007.pt", network.eval()


def write_mean_net(folder: Path) -> tuple[Path, SubpixelModel]:
    """A checkpoint of a sub-pixel mean net with random weights, and the net."""
    flags = MeanModelFlags(
        network="subpixel", large_size=32, small_size=8, model_channels=8, num_res_blocks=1
    )
    network = shake(create_mean_model(**vars(flags)))
    assert isinstance(network, SubpixelModel)
    manifest = identity_of(flags).record()
    CheckpointStore(str(folder)).save(7, {"model": network.state_dict()}, {**manifest, "state": {}})
    return folder / "model000007.pt", network.eval()


@pytest.mark.slow
def test_a_checkpoint_becomes_a_program_of_torch_export(tmp_path: Path) -> None:
    model, network = write_mean_net(tmp_path / "run")
    path = tmp_path / "out" / "net.pt2"
    flags = {"model_path": model, "output_path": path, "log_dir": tmp_path}
    said = done("export", words(flags, format="torch_export")).out
    assert "the largest difference is" in said
    about = {"step": ""}  # an empty one would stay empty
    program = torch.export.load(path, extra_files=about).module()
    assert about["step"] == "7" and about["checkpoint_sha256"] == sha256_of(model)
    low_res = noise(2, 3, 10, 6)
    with torch.no_grad():
        torch.testing.assert_close(program(low_res), network(low_res), rtol=1e-4, atol=1e-5)


def test_the_inputs_of_each_kind_of_checkpoint_are_told(pipeline: Pipeline, tmp_path: Path) -> None:
    checkpoints = {
        pipeline.mean_model: (["low_res"], "mean"),
        pipeline.var_model: (["low_res", "mean"], "variance"),
        pipeline.ddpm_model: (["x", "timesteps", "low_res", "labels"], "prediction"),
        write_denoiser(tmp_path)[0]: (["x", "timesteps"], "prediction"),
    }
    for path, (inputs, output) in checkpoints.items():
        table = used_as(read_source(str(path), _silent))
        names = re.findall(r"^\| (?:→ )?`(\w+)` \|", table, re.MULTILINE)
        assert names == [*inputs, output]


def test_what_differs_too_much_is_not_left_behind(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = SimpleNamespace(module=lambda: lambda low_res: torch.zeros(*low_res.shape[:2], 32, 32))
    monkeypatch.setattr(to_torch_export, "to_program", lambda graph, about: b"")
    monkeypatch.setattr(torch.export, "load", lambda file: wrong)
    path = tmp_path / "out" / "net.pt2"
    flags = {"model_path": pipeline.mean_model, "output_path": path, "log_dir": tmp_path / "logs"}
    outcome = run("export", words(flags, format="torch_export"))
    assert outcome.code == EXIT_DATA and "torch.export" in outcome.err
    assert tree(tmp_path / "out") == {}


@pytest.mark.slow
def test_a_checkpoint_becomes_an_onnx_file(tmp_path: Path) -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason=f"{name} is not installed (requirements-export.txt)")
    model, network = write_mean_net(tmp_path / "run")
    flags = {"model_path": model, "output_path": tmp_path / "net", "log_dir": tmp_path}
    said = done("export", words(flags, format="onnx")).out
    assert "onnxruntime against the network: the largest difference is" in said
    low_res = noise(2, 3, 10, 6)
    found = onnx_graph.run_onnx(str(tmp_path / "net" / "model.onnx"), {"low_res": low_res})
    with torch.no_grad():
        torch.testing.assert_close(found, network(low_res), rtol=1e-4, atol=1e-5)
    assert "low_res" in (tmp_path / "net" / "README.md").read_text(encoding="utf-8")


def test_onnx_without_its_packages_says_how_to_get_them(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_graph.importlib.util, "find_spec", lambda name: None)
    assert to_onnx.has_onnxruntime() is False
    flags = {"model_path": pipeline.mean_model, "log_dir": tmp_path, "format": "onnx"}
    outcome = run("export", words(flags, output_path=tmp_path / "net.onnx"))
    assert outcome.code == EXIT_USAGE and "onnxscript" in outcome.err
    assert not (tmp_path / "net.onnx").exists()


def test_an_image_denoiser_becomes_a_folder_of_diffusers(tmp_path: Path) -> None:
    path, network = write_denoiser(tmp_path / "run", learn_sigma=True, diffusion_steps=20)
    flags = {"model_path": path, "format": "diffusers", "output_path": tmp_path / "net"}
    done("export", words(flags, log_dir=tmp_path))
    assert set(tree(tmp_path / "net")) == {
        "README.md",
        "model_index.json",
        "scheduler/scheduler_config.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
    }
    assert "library_name: diffusers" in (tmp_path / "net" / "README.md").read_text("utf-8")
    config = json.loads((tmp_path / "net" / "unet" / "config.json").read_text())
    assert (config["in_channels"], config["out_channels"]) == (3, 6)
    diffusers = pytest.importorskip(
        "diffusers", reason="diffusers is not installed (requirements-bench.txt)"
    )
    pipe = diffusers.DDPMPipeline.from_pretrained(tmp_path / "net")
    x, t = noise(2, 3, 16, 16), torch.tensor([3, 19])
    with torch.no_grad():
        torch.testing.assert_close(pipe.unet(x, t).sample, network(x, t), rtol=1e-4, atol=1e-5)
    assert len(pipe.scheduler) == 1000 and pipe.scheduler.variance_type == "learned_range"
    pipe.set_progress_bar_config(disable=True)
    images = pipe(batch_size=2, num_inference_steps=20, output_type="np").images
    assert images.shape == (2, 16, 16, 3)


@pytest.mark.parametrize(
    ("flags", "there"),
    [
        ({"class_cond": True, "num_classes": 3}, {"scheduler", "unet"}),
        ({"diffusion_steps": 30}, {"unet"}),
    ],
)
def test_only_what_fits_is_written(tmp_path: Path, flags: dict[str, Any], there: set[str]) -> None:
    path, _ = write_denoiser(tmp_path, **flags)
    argv = words(model_path=path, format="diffusers", log_dir=tmp_path / "logs")
    said = done("export", argv).out
    assert {one.name for one in (tmp_path / "model000007_diffusers").iterdir()} == there
    assert "notice: no" in said


def test_a_computation_is_no_checkpoint(tmp_path: Path) -> None:
    for name in ("net.onnx", "net.pt2"):
        outcome = run("export", words(model_path=tmp_path / name, log_dir=tmp_path))
        assert outcome.code == EXIT_CHECKPOINT and ".safetensors" in outcome.err


def test_networks_that_diffusers_has_not_are_refused(pipeline: Pipeline, tmp_path: Path) -> None:
    path, _ = write_denoiser(tmp_path / "run", act="gelu")
    for model, code, word in (
        (path, EXIT_USAGE, "--act gelu"),
        (pipeline.mean_model, EXIT_CHECKPOINT, "UNetModel"),
    ):
        flags = {"model_path": model, "output_path": tmp_path / "net", "log_dir": tmp_path / "logs"}
        outcome = run("export", words(flags, format="diffusers"))
        assert outcome.code == code and word in outcome.err
        assert not (tmp_path / "net").exists()
