"""State_dicts as other tools write them: behind a prefix, or inside of something else."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.utils.training_loops import ConvNet, training_loop, weights_of
from utils.loops.checkpoint import CheckpointStore
from utils.process.errors import CheckpointError
from utils.untrusted.state_dict import load_state_dict

NUM_TENSORS = 4
PREFIXES = ["module.", "_orig_mod.", "model.", "module._orig_mod.", "_orig_mod.module.", "a.b.c."]


def _behind(prefix: str, state: dict[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
    found = ConvNet().state_dict() if state is None else state
    return {prefix + name: value + 1 for name, value in found.items()}


def _saved(path: Path, content: Any) -> str:
    torch.save(content, path)
    return str(path)


def _message(path: str) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_state_dict(ConvNet(), path)
    return str(caught.value)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_prefix_of_all_names_is_said_and_taken_off(tmp_path: Path, prefix: str) -> None:
    path, lines = _saved(tmp_path / "model.pt", _behind(prefix)), []
    state = load_state_dict(ConvNet(), path, lines.append)
    assert state.keys() == ConvNet().state_dict().keys()
    assert all(torch.equal(state[key], value + 1) for key, value in ConvNet().state_dict().items())
    assert len(lines) == 1 and path in lines[0] and repr(prefix) in lines[0]


def test_a_file_without_a_prefix_is_read_without_a_word(tmp_path: Path) -> None:
    lines: list[str] = []
    load_state_dict(ConvNet(), _saved(tmp_path / "model.pt", ConvNet().state_dict()), lines.append)
    assert lines == []


def test_a_prefix_that_some_names_lack_stays(tmp_path: Path) -> None:
    state = {**_behind("module."), "last.bias": torch.ones(1)}
    assert "(4): module.first.weight" in _message(_saved(tmp_path / "x.pt", state))


def test_what_does_not_fit_behind_a_prefix_is_compared_without_it(tmp_path: Path) -> None:
    state = _behind("module.") | {"module.last.bias": torch.ones(7)}
    message = _message(_saved(tmp_path / "x.pt", state))
    assert "prefix 'module.'" in message
    assert "last.bias (7,)" in message and "(1,)" in message and "missing" not in message


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod."])
def test_a_run_resumes_from_the_files_of_a_wrapper_without_a_manifest(
    tmp_path: Path, prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _saved(tmp_path / "model000003.pt", _behind(prefix))
    _saved(tmp_path / "ema_0.9_000003.pt", _behind(prefix))
    loop = training_loop(tmp_path, resume_checkpoint="auto", ema_rate="0.9", max_step=4)
    assert loop.step == 3
    expected = [value + 1 for value in ConvNet().state_dict().values()]
    assert all(map(torch.equal, weights_of(loop), expected))
    assert loop.run_loop()
    saved = CheckpointStore(str(tmp_path)).resolve("4")
    assert saved is not None
    for path in (saved.model_path, saved.ema_paths["0.9"]):
        assert torch.load(path, weights_only=True).keys() == ConvNet().state_dict().keys()


def _lightning() -> dict[str, Any]:
    state = {**_behind("model."), "loss.weight": torch.ones(2), "ema_model.steps": torch.ones(1)}
    return {"state_dict": state, "epoch": 3, "callbacks": {}, "optimizer_states": [{"state": {}}]}


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ({"state_dict": ConvNet().state_dict(), "epoch": 3}, '["state_dict"] (4 tensors)'),
        ({"model": ConvNet().state_dict(), "args": {"lr": 0.1}}, '["model"] (4 tensors)'),
        ({"model_state_dict": ConvNet().state_dict(), "loss": 0.5}, '["model_state_dict"] (4'),
        ({"ema": ConvNet().state_dict(), "step": torch.ones(())}, '["ema"] (4 tensors)'),
        ({"state": {"net": ConvNet().state_dict()}}, '["state"]["net"] (4 tensors)'),
        ({"it's": ConvNet().state_dict(), "n": 1}, '["it\'s"] (4 tensors)'),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_dict_around_the_weights_is_told_and_the_command_takes_them_out(
    tmp_path: Path, content: dict[str, Any], place: str
) -> None:
    message = _message(_saved(tmp_path / "theirs $HOME.pt", content))
    assert "theirs $HOME.pt" in message and place in message
    assert "\n" not in message
    taken_out = _run_command(message, tmp_path)
    assert load_state_dict(ConvNet(), taken_out).keys() == ConvNet().state_dict().keys()


def _run_command(message: str, folder: Path) -> str:
    """Does what the end of a message says; returns the file that it writes."""
    python, option, program = shlex.split(message[message.index("python -c ") :])
    assert (python, option) == ("python", "-c")
    before = os.getcwd()
    os.chdir(folder)
    try:
        exec(program, {})
    finally:
        os.chdir(before)
    return str(folder / "model000000.pt")


def test_of_several_dicts_the_largest_is_taken_out(tmp_path: Path) -> None:
    small = {"scale": torch.ones(1)}
    content = {"scaler": small, "ema": ConvNet().state_dict(), "head": small}
    message = _message(_saved(tmp_path / "x.pt", content))
    assert '["scaler"] (1 tensors)' in message and '["ema"]; torch.save(s' in message


def test_the_network_within_a_state_dict_of_more_is_told(tmp_path: Path) -> None:
    state = _lightning()["state_dict"]
    message = _message(_saved(tmp_path / "x.pt", state))
    assert "'model.'" in message and "python -c" in message
    taken_out = _run_command(message, tmp_path)
    assert load_state_dict(ConvNet(), taken_out).keys() == ConvNet().state_dict().keys()


def test_a_lightning_checkpoint_is_told_step_by_step(tmp_path: Path) -> None:
    message = _message(_saved(tmp_path / "x.ckpt", _lightning()))
    assert f'["state_dict"] ({NUM_TENSORS + 2} tensors)' in message
    assert "behind 'model.'" in _message(_run_command(message, tmp_path))


def test_an_entry_that_is_no_tensor_is_told(tmp_path: Path) -> None:
    message = _message(_saved(tmp_path / "x.pt", {**ConvNet().state_dict(), "epoch": 7}))
    assert "'epoch'" in message
    assert load_state_dict(ConvNet(), _run_command(message, tmp_path))


def test_the_state_of_an_optimizer_is_told(tmp_path: Path) -> None:
    optimizer = torch.optim.AdamW(ConvNet().parameters())
    message = _message(_saved(tmp_path / "opt000001.pt", optimizer.state_dict()))
    assert "optimizer" in message


def test_dicts_that_hold_each_other_end(tmp_path: Path) -> None:
    inner: dict[str, Any] = {"weights": ConvNet().state_dict()}
    content: dict[str, Any] = {f"key{i}": inner for i in range(1000)}
    inner.update({f"key{i}": content for i in range(1000)})
    assert '["key0"]["weights"] (4 tensors)' in _message(_saved(tmp_path / "x.pt", content))
