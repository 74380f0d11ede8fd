"""Optimizers: the steps and the files of torch's classes, without the compiler that they import."""

from __future__ import annotations

import copy
import io
import subprocess
import sys
from typing import Any

import pytest
import torch

from tests.tiny import ROOT
from utils.flags.training import ADAM, ADAMW, SGD
from utils.optimizers import MOMENTUM, SGD_MOMENTUM, Optimizer, create_optimizer

RATE, DECAY = 1e-2, 0.1
TORCHS: dict[str, Any] = {ADAM: torch.optim.Adam, ADAMW: torch.optim.AdamW, SGD: torch.optim.SGD}
# a training needs none of it, and it takes as long as torch itself
COMPILER = ("torch._dynamo", "torch._inductor", "sympy")


def _parameters() -> list[torch.nn.Parameter]:
    torch.manual_seed(1)
    conv = torch.randn(5, 3, 3, 3).to(memory_format=torch.channels_last)
    return [torch.nn.Parameter(conv), torch.nn.Parameter(torch.randn(7))]


def _both(name: str) -> tuple[Optimizer, torch.optim.Optimizer]:
    own = create_optimizer(name, _parameters(), (), lr=RATE, weight_decay=DECAY)
    assert isinstance(own, Optimizer)
    more = {"momentum": SGD_MOMENTUM} if name == SGD else {}
    plain = TORCHS[name](_parameters(), lr=RATE, weight_decay=DECAY, fused=True, **more)
    if name == SGD:
        for parameter in plain.param_groups[0]["params"]:
            plain.state[parameter][MOMENTUM] = torch.zeros_like(parameter)
    return own, plain


def _step(optimizer: Any, seed: int, *, is_bad: bool = False) -> list[torch.Tensor]:
    """The parameters after a step of gradients that the seed tells."""
    torch.manual_seed(seed)
    parameters: list[torch.Tensor] = optimizer.param_groups[0]["params"]
    for parameter in parameters:
        parameter.grad = torch.empty_like(parameter).copy_(torch.randn(parameter.shape))
    optimizer.found_inf = torch.tensor(float(is_bad))
    optimizer.param_groups[0]["lr"] = RATE / (1 + seed)
    optimizer.step()
    return [parameter.detach().clone() for parameter in parameters]


def _file(optimizer: Any) -> bytes:
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    return file.getvalue()


@pytest.mark.parametrize("name", TORCHS)
def test_steps_and_files_are_those_of_torch_bit_for_bit(name: str) -> None:
    own, plain = _both(name)
    for seed in range(4):
        found, wanted = (_step(each, seed, is_bad=seed == 2) for each in (own, plain))
        assert all(map(torch.equal, found, wanted)), seed
        assert _file(own) == _file(plain), seed


@pytest.mark.parametrize("name", TORCHS)
def test_state_goes_on_in_either(name: str) -> None:
    own, plain = _both(name)
    for seed in range(2):
        for each in (own, plain):
            _step(each, seed)
    others = _both(name)
    for other, state in zip(others, (plain.state_dict(), own.state_dict()), strict=True):
        other.load_state_dict(copy.deepcopy(state))
        with torch.no_grad():
            for parameter, known in zip(
                other.param_groups[0]["params"], own.param_groups[0]["params"], strict=True
            ):
                parameter.copy_(known)
    wanted = _step(plain, 2)
    for other in others:
        assert all(map(torch.equal, _step(other, 2), wanted))


def test_state_of_other_parameters_is_refused() -> None:
    own, _ = _both(ADAMW)
    other = create_optimizer(ADAMW, _parameters()[:1], (), lr=RATE, weight_decay=0.0)
    with pytest.raises(ValueError, match="1 parameters instead of 2"):
        own.load_state_dict(other.state_dict())


def test_parameter_without_gradient_stays_and_has_no_state() -> None:
    own, _ = _both(ADAMW)
    first, second = own.param_groups[0]["params"]
    before, first.grad = second.detach().clone(), torch.ones_like(first)
    own.step()
    assert torch.equal(second, before)
    assert list(own.state_dict()["state"]) == [0]


def test_training_imports_no_compiler() -> None:
    """In a process of its own; `--optimizer muon` has torch's class, which imports it."""
    program = f"""
import sys, torch
import sr_mean_train, sr_var_train, ddpm_sr_train, utils.train_util
from utils.fp16_util import MixedPrecisionTrainer
for name in {[*TORCHS]}:
    trainer = MixedPrecisionTrainer(torch.nn.Linear(3, 2), lr=1e-3, optimizer=name)
    trainer.backward(trainer.model(torch.ones(1, 3)).sum())
    trainer.step(1e-3)
    trainer.optimizer.load_state_dict(trainer.optimizer.state_dict())
print(sorted({{*{COMPILER}}} & {{*sys.modules}}))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
