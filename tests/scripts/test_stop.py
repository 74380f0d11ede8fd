"""A signal ends every script with exit code 75; run again, it leaves what one run leaves."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sr_var.data.info
import sr_var.verify.images
from sr_var.ddpm_sr_utils import SRDiffusionTrainLoop
from sr_var.mean_utils import SRMeanTestLoop, SRMeanTrainLoop
from sr_var.sampling import SRSampler
from sr_var.var_utils import SRVarTestLoop, SRVarTrainLoop
from tests.pipeline import Pipeline
from tests.scripts.runs import SCRIPTS, TRAININGS, flags_of
from tests.tiny import done, run, tree, words
from utils.process.errors import EXIT_STOPPED

# what each script calls once per unit of work
PLACES: dict[str, tuple[Any, str]] = {
    "sr_data_info": (sr_var.data.info, "read_image"),
    "sr_mean_train": (SRMeanTrainLoop, "_post_process"),
    "sr_var_train": (SRVarTrainLoop, "_post_process"),
    "ddpm_sr_train": (SRDiffusionTrainLoop, "_post_process"),
    "sr_mean_test": (SRMeanTestLoop, "_post_process"),
    "sr_var_test": (SRVarTestLoop, "_post_process"),
    "ddpm_sr_sample": (SRSampler, "_store"),
    "sr_var_verification": (sr_var.verify.images, "verify_image"),
}
SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1]


def _signal_once(monkeypatch: pytest.MonkeyPatch, script: str, number: signal.Signals) -> None:
    """The first call of the script's unit of work gets two signals, as a scheduler sends them."""
    owner, name = PLACES[script]
    real, state = getattr(owner, name), {"is_first": True}

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        if state.pop("is_first", False):
            for _ in range(2):
                os.kill(os.getpid(), number)
            time.sleep(0.01)
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, interrupted)


def _flags(pipeline: Pipeline, script: str, root: Path) -> dict[str, Any]:
    flags = flags_of(pipeline, script, root)
    if script in TRAININGS:
        return {**flags, "max_step": 2, "resume_checkpoint": "auto"}
    if script == "ddpm_sr_sample":
        return {**flags, "num_samples_per_image": 2, "batch_size": 4}
    return {**flags, "batch_size": 2} if "batch_size" in flags or "test" in script else flags


def _results(root: Path) -> dict[str, bytes]:
    return {
        path: content
        for path, content in tree(root).items()
        if path.startswith(("out/", "save/model", "save/opt")) and Path(path).name[0] != "."
    }


@pytest.mark.parametrize(("script", "number"), [(s, SIGNALS[i % 3]) for i, s in enumerate(SCRIPTS)])
def test_signal_stops_with_code_75_and_the_next_run_completes_the_work(
    pipeline: Pipeline,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    number: signal.Signals,
) -> None:
    argv = {name: words(_flags(pipeline, script, tmp_path / name)) for name in ("one", "two")}
    done(script, argv["one"])
    with monkeypatch.context() as patch:
        _signal_once(patch, script, number)
        outcome = run(script, argv["two"])
    assert outcome.code == EXIT_STOPPED, outcome.err
    assert "stopped" in outcome.out and "run again" in outcome.out
    # the launcher's next signals do not replace the exit code
    assert [signal.getsignal(n) for n in SIGNALS] == [signal.SIG_IGN] * 3
    done(script, argv["two"])
    one, two = _results(tmp_path / "one"), _results(tmp_path / "two")
    if script in TRAININGS:
        assert "save/model000001.pt" in two  # saved when it was stopped
        for path in one:
            _assert_same_state(tmp_path / "one" / path, tmp_path / "two" / path)
    else:
        assert one.keys() == two.keys()
        for path in one:
            _assert_same_file(path, one[path], two[path])


def _assert_same_state(one: Path, two: Path) -> None:
    states = [torch.load(path, weights_only=True) for path in (one, two)]
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)


def _assert_same_file(path: str, one: bytes, two: bytes) -> None:
    if not path.endswith("moments.npz"):
        assert one == two, path
        return
    import io

    with np.load(io.BytesIO(one)) as first, np.load(io.BytesIO(two)) as second:
        for key in first:
            scale = np.abs(first[key]).max() if first[key].size else 0
            np.testing.assert_allclose(first[key], second[key], rtol=0, atol=2e-7 * scale)
