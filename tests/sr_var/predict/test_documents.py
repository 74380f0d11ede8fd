"""The examples of docs/python.md and the notebook run as they stand, one after the other."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.sr_var.predict.conftest import STEPS, Nets
from tests.tiny import ROOT, TinyData, done, photo, words


@pytest.fixture
def workplace(tmp_path: Path, subpixel_nets: Nets, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as the four commands leave it, with a photograph; the current one."""
    for task, path in (("sr_mean", subpixel_nets.mean), ("sr_var", subpixel_nets.var)):
        shutil.copytree(path.parent, tmp_path / "checkpoints" / task / "mine")
    Image.fromarray(photo(2, (12, 17))).save(tmp_path / "cat.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tested_images(workplace: Path, tiny_data: TinyData, subpixel_nets: Nets) -> None:
    """The photographs, their list, and what the two tests of the page leave."""
    (workplace / "data").mkdir(exist_ok=True)
    shutil.copytree(tiny_data.data_dir, workplace / "data" / "demo")
    (workplace / "data" / "mine").mkdir()
    shutil.copy(tiny_data.test_info, workplace / "data" / "mine" / "to_sample_data_info.pkl")
    for task, more in (("sr_mean", {}), ("sr_var", {"mean_model_path": subpixel_nets.mean})):
        net = subpixel_nets.mean if task == "sr_mean" else subpixel_nets.var
        folders = {"log_dir": workplace / "logs" / task, "output_dir": "outputs/sr_var/mine"}
        done(f"{task}_test", words(tiny_data.tested_flags, more, folders, model_path=net))


def run_blocks(blocks: list[str], names: dict[str, Any]) -> None:
    """Run pieces of code in one namespace; checkpoints are of the tests' last step."""
    for block in blocks:
        code = block.replace("model000400", f"model{STEPS:06d}")
        exec(compile(code, "example", "exec"), names)


@pytest.mark.usefixtures("workplace", "tested_images")
def test_examples_of_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 5
    run_blocks(blocks, {})
    said = capsys.readouterr().out
    assert "grey levels of std on average" in said
    assert "dB over bilinear upsampling" in said and "in the 90 % interval" in said


def test_cells_of_the_notebook(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    photograph = workplace / "data" / "demo" / "test" / "giraffe.jpg"
    photograph.parent.mkdir(parents=True)
    Image.fromarray(photo(7, (61, 83))).save(photograph)
    path = ROOT / "examples" / "your_own_images.ipynb"
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(cells) == 6
    # nothing of a run is kept with it
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    run_blocks(["".join(cell["source"]) for cell in cells], {})
    said = capsys.readouterr().out
    assert "20×15 pixels become 80×60" in said and "in the 90 % interval" in said
