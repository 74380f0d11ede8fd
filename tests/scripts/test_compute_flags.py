"""--compile and --batch_size auto through the scripts: the same results as without them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.pipeline import Pipeline
from tests.scripts.runs import flags_of
from tests.tiny import run, words
from utils.process.errors import EXIT_DONE


def trained(pipeline: Pipeline, root: Path, **changes: object) -> dict[str, torch.Tensor]:
    outcome = run("sr_mean_train", words(flags_of(pipeline, "sr_mean_train", root), **changes))
    assert outcome.code == EXIT_DONE, outcome.err
    return torch.load(root / "save" / "model000001.pt", weights_only=True)


def _assert_same_weights(pipeline: Pipeline, root: Path) -> None:
    small = {"channel_mult": "1", "num_res_blocks": 1, "attention_resolutions": ""}
    plain = trained(pipeline, root / "off", compile="off", **small)
    compiled = trained(pipeline, root / "on", compile="on", **small)
    assert compiled.keys() == plain.keys()
    for name, value in plain.items():
        # AdamW takes a step of lr in the sign of a gradient that may be nothing but rounding
        torch.testing.assert_close(compiled[name], value, rtol=0, atol=2.1e-4)
        close = (compiled[name] - value).abs() < 1e-5
        assert close.float().mean() > 0.9, name


def test_captured_training_ends_with_the_same_weights(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compiler's first half, which makes graphs of the network; they are run as they are."""
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, inputs: object) -> object:
        graphs.append(graph)
        return graph.forward

    real = torch.compile

    def captured(network: torch.nn.Module, *, dynamic: bool, mode: str | None) -> object:
        assert mode is None  # without CUDA graphs: gradients are taken
        return real(network, dynamic=dynamic, backend=backend)

    monkeypatch.setattr(torch, "compile", captured)
    _assert_same_weights(pipeline, tmp_path)
    assert len(graphs) == 1


@pytest.mark.long
@pytest.mark.slow
def test_compiled_training_ends_with_the_same_weights(pipeline: Pipeline, tmp_path: Path) -> None:
    _assert_same_weights(pipeline, tmp_path)


def test_batch_size_may_be_left_to_the_script(pipeline: Pipeline, tmp_path: Path) -> None:
    flags = flags_of(pipeline, "ddpm_sr_sample", tmp_path)
    outcome = run("ddpm_sr_sample", words(flags, batch_size="auto"))
    assert outcome.code == EXIT_DONE, outcome.err
    assert "--batch_size auto:" in outcome.out
    assert list((tmp_path / "out").rglob("*.png"))


def test_sizes_that_are_none_are_refused(pipeline: Pipeline, tmp_path: Path) -> None:
    flags = flags_of(pipeline, "ddpm_sr_sample", tmp_path)
    outcome = run("ddpm_sr_sample", words(flags, batch_size="some"))
    assert outcome.code == 2
    assert "--batch_size" in outcome.err
