"""--compile and --batch_size auto through the scripts: the same results as without them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.pipeline import Pipeline
from tests.scripts.runs import flags_of
from tests.tiny import run, words
from utils.errors import EXIT_DONE


def trained(pipeline: Pipeline, root: Path, **changes: object) -> dict[str, torch.Tensor]:
    outcome = run("sr_mean_train", words(flags_of(pipeline, "sr_mean_train", root), **changes))
    assert outcome.code == EXIT_DONE, outcome.err
    return torch.load(root / "save" / "model000001.pt", weights_only=True)


@pytest.mark.slow
def test_compiled_training_ends_with_the_same_weights(pipeline: Pipeline, tmp_path: Path) -> None:
    small = {"channel_mult": "1", "num_res_blocks": 1, "attention_resolutions": ""}
    plain = trained(pipeline, tmp_path / "off", compile="off", **small)
    compiled = trained(pipeline, tmp_path / "on", compile="on", **small)
    assert compiled.keys() == plain.keys()
    for name, value in plain.items():
        # AdamW takes a step of lr in the sign of a gradient that may be nothing but rounding
        torch.testing.assert_close(compiled[name], value, rtol=0, atol=2.1e-4)
        close = (compiled[name] - value).abs() < 1e-5
        assert close.float().mean() > 0.9, name


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
