"""The snippets of docs/export.md run as they stand, on files of these names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.config import SubpixelConfig
from models.subpixel import SubpixelModel
from tests.tiny import ROOT, done, shake, words
from tests.weights.test_formats import write_denoiser
from weights.graphs import Graph, mean_graph
from weights.onnx_graph import to_onnx
from weights.to_torch_export import to_program


def _snippet(word: str) -> str:
    """The one block of Python of the page that has the word."""
    page = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (block,) = [one for one in blocks if word in one]
    assert isinstance(block, str)
    return block


def _run(word: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    exec(compile(_snippet(word), "docs/export.md", "exec"), values)
    return values


@pytest.fixture
def graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Graph:
    """A mean net of the factor of the page, whose files lie in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs" / "export").mkdir(parents=True)
    config = SubpixelConfig(factor=4, model_channels=8, num_res_blocks=1)
    return mean_graph(shake(SubpixelModel(config)).eval().requires_grad_(False), 4)


def _expected(graph: Graph) -> np.ndarray[Any, Any]:
    output: np.ndarray[Any, Any] = graph.module(torch.zeros(1, 3, 64, 48)).numpy()
    return output


@pytest.mark.slow
def test_onnxruntime_runs_the_file(graph: Graph) -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason=f"{name} is not installed (requirements-export.txt)")
    Path("outputs/export/mean.onnx").write_bytes(to_onnx(graph, {"step": "7"}))
    found = _run("import onnxruntime")
    np.testing.assert_allclose(found["mean"], _expected(graph), rtol=1e-4, atol=1e-5)
    assert found["session"].get_modelmeta().custom_metadata_map == {"step": "7"}


def test_torch_runs_the_program(graph: Graph, capsys: pytest.CaptureFixture[str]) -> None:
    about = {"inputs": "low_res", "step": "7"}
    Path("outputs/export/mean.pt2").write_bytes(to_program(graph, about))
    found = _run("torch.export.load")
    np.testing.assert_allclose(found["mean"].detach().numpy(), _expected(graph), atol=1e-5)
    assert capsys.readouterr().out == "low_res 7\n"


def test_diffusers_runs_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("diffusers", reason="diffusers is not installed (requirements-bench.txt)")
    monkeypatch.chdir(tmp_path)
    path, _ = write_denoiser(tmp_path / "run", diffusion_steps=20)
    flags = {"model_path": path, "output_path": "outputs/export/digits", "log_dir": "logs"}
    done("export", words(flags, format="diffusers"))
    found = _run("DDPMPipeline")
    assert [image.size for image in found["images"]] == [(16, 16)] * 4
    assert found["unet"].config.sample_size == 16
