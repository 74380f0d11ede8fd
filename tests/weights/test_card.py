"""The model card: what a hub reads off it, what it says of the network, and whose it stays."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.pipeline import Pipeline
from tests.tiny import Outcome, run, words
from utils.files.atomic import sha256_of
from utils.process.errors import EXIT_DATA, EXIT_USAGE, CheckpointError
from weights.card import _code, card_text, read_metrics
from weights.flags import ExportFlags
from weights.source import Source


def _export(pipeline: Pipeline, output: Path, **flags: Any) -> Outcome:
    given = {"model_path": pipeline.var_model, "output_path": output, "log_dir": output.parent}
    return run("export", words(given, flags))


def _head(card: str) -> dict[str, Any]:
    found = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)
    assert found is not None
    head = yaml.safe_load(found[1])
    assert isinstance(head, dict)
    return head


def _cells(card: str) -> dict[str, list[str]]:
    lines = [line.strip("| ") for line in card.splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.split(" | ")] for line in lines]
    return {row[0]: row[1:] for row in rows}


def test_a_folder_gets_a_card_of_the_network_with_its_metrics(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    results = pipeline.log_dir("compare") / "results.json"
    outcome = _export(pipeline, tmp_path / "net", license="mit", results=results)
    assert outcome.code == 0, outcome.err
    card = (tmp_path / "net" / "README.md").read_text(encoding="utf-8")
    head, cells = _head(card), _cells(card)
    assert head["license"] == "mit" and head["pipeline_tag"] == "image-to-image"
    assert head["library_name"] == "conditional-risk-sr" and "super-resolution" in head["tags"]
    assert "safetensors" in head["tags"]
    assert cells["last_layer_type"] == ["`exp`"] and cells["model_channels"] == ["`8`"]
    assert cells["steps"] == ["3"] and cells["batch_size"] == ["`2`"]
    assert cells["sha256 of the checkpoint"] == [f"`{sha256_of(pipeline.var_model)}`"]
    assert sha256_of(pipeline.mean_model) in card  # whose residuals it learned
    assert "--var_model_path model.safetensors" in card
    numbers = json.loads(results.read_text(encoding="utf-8"))
    crps = numbers["calibration"]["nets"]["crps"]
    assert float(cells["CRPS"][0]) == pytest.approx(crps, rel=1e-5)
    assert sha256_of(results) in card and str(pipeline.root) not in card
    assert numbers["models"]["variance"][0] == sha256_of(pipeline.var_model)
    assert numbers["models"]["mean"] == [sha256_of(pipeline.mean_model)]
    assert numbers["models"]["samples"] == [sha256_of(pipeline.ddpm_model)]
    assert "names this checkpoint by its sha256 (of the variance)" in card


def test_metrics_of_other_networks_are_refused_and_of_unnamed_ones_said_to_be(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    numbers = json.loads((pipeline.log_dir("compare") / "results.json").read_text("utf-8"))
    results = tmp_path / "results.json"
    for models in ({"mean": ["5" * 64], "variance": ["7" * 64]}, {"mean": 5}, [], {"mean": [5]}):
        results.write_text(json.dumps({**numbers, "models": models}), "utf-8")
        outcome = _export(pipeline, tmp_path / "net", results=results)
        assert outcome.code == EXIT_DATA and str(results) in outcome.err
        assert not (tmp_path / "net").exists()
    del numbers["models"]
    results.write_text(json.dumps(numbers), "utf-8")
    assert _export(pipeline, tmp_path / "net", results=results).code == 0
    card = (tmp_path / "net" / "README.md").read_text(encoding="utf-8")
    assert "as given by who exported this file" in card


def test_a_card_is_replaced_as_long_as_nobody_edited_it(pipeline: Pipeline, tmp_path: Path) -> None:
    path = tmp_path / "net" / "README.md"
    assert _export(pipeline, tmp_path / "net").code == 0
    assert "license" not in _head(path.read_text(encoding="utf-8"))
    assert _export(pipeline, tmp_path / "net", license="apache-2.0").code == 0
    card = path.read_text(encoding="utf-8")
    assert _head(card)["license"] == "apache-2.0"
    (tmp_path / "net" / "model.safetensors").unlink()
    for text in (card.replace("step 3", "step 4"), "# mine\n", ""):
        path.write_text(text, encoding="utf-8")
        outcome = _export(pipeline, tmp_path / "net")
        assert outcome.code == EXIT_DATA and "README.md" in outcome.err
        assert path.read_text(encoding="utf-8") == text
        assert not (tmp_path / "net" / "model.safetensors").exists()


def test_words_for_a_card_that_is_not_written_are_a_slip(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    for flags in ({"license": "mit"}, {"results": tmp_path}):
        outcome = _export(pipeline, tmp_path / "net.safetensors", **flags)
        assert outcome.code == EXIT_USAGE and f"--{next(iter(flags))}" in outcome.err


@pytest.mark.parametrize("content", [None, "{", "[]", "{}", '{"num_images": 3}', '{"frechet": 5}'])
def test_results_without_a_metric_are_refused_before_anything_is_written(
    pipeline: Pipeline, tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "results.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    outcome = _export(pipeline, tmp_path / "net", results=path)
    assert outcome.code == EXIT_DATA and "results.json" in outcome.err
    assert not (tmp_path / "net").exists()


def test_metrics_of_every_script_are_found(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    content = {
        "num_images": 9,
        "calibration": {"nets": {"z2": 1.25, "crps": None, "ause": float("inf")}},
        "intervals": {"calibration.nets.z2": [1.0, 1.5], "num_images": [1]},
        "frechet": {"distance": 3.5},
        "total_bpd": {"mean": 2.0},
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    assert read_metrics(str(path)) == [
        ("images", 9, ""),
        ("squared error over variance (1 is right)", 1.25, "1 to 1.5"),
        ("Fréchet distance", 3.5, ""),
        ("bits per dimension", 2.0, ""),
    ]


def test_values_of_anybody_stay_in_their_cells() -> None:
    manifest = {
        "network": {"class": "SmallCNN", "flags": {"hidden_dims": "8|9`\n# no title"}},
        "data": {"digest": ["<b>"], "num_images": {"a": 1}},
        "state": {"classes": ["a|b", "", "c" * 500]},
    }
    source = Source("a/model000001.pt", 1, manifest, "0" * 64)
    card = card_text(source, ExportFlags(model_path="a", output_path="b"), "")
    assert "\n# no title" not in card and r"8\|9" in card
    titles = [line for line in card.splitlines() if line.startswith("#")]
    assert [title.lstrip("# ") for title in titles[1:]] == [
        "Use",
        "Inputs and output",
        "Flags of the network",
        "Training",
    ]
    assert _code("") == "` `" and _code("x" * 300) == f"`{'x' * 200}…`"


def test_classes_that_are_no_words_are_an_error_of_the_checkpoint() -> None:
    manifest = {"network": {"class": "SmallCNN", "flags": {}}, "state": {"classes": 5}}
    source = Source("a/model000001.pt", 1, manifest, "0" * 64)
    with pytest.raises(CheckpointError, match=r"model000001\.pt"):
        card_text(source, ExportFlags(model_path="a", output_path="b"), "")
