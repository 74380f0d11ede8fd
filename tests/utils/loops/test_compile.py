"""Compiled networks: the same values, one batch size, the trained weights."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch

from tests.utils.training_loops import training_loop
from utils.loops.networks import CompiledNetwork, compiled_for, is_to_be_compiled


class _Scaled(torch.nn.Module):
    """Remembers the batch sizes that it is called with, when it is not compiled."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([2.0, 3.0]))

    def forward(self, x: torch.Tensor, shift: torch.Tensor, factor: float = 1.0) -> torch.Tensor:
        return factor * x * self.weight + shift


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """In the place of the compiler: the sizes of the batches that it would see."""
    seen: list[int] = []

    def fake(network: torch.nn.Module, **options: object) -> object:
        assert options["dynamic"] is False

        def call(x: torch.Tensor, *args: object, **kwargs: object) -> object:
            seen.append(len(x))
            return network(x, *args, **kwargs)

        return call

    monkeypatch.setattr(torch, "compile", fake)
    return seen


def test_smaller_batches_are_filled_up_and_cut_again(sizes: list[int]) -> None:
    plain = _Scaled()
    network = CompiledNetwork(plain)
    for size in (4, 1, 3, 4):
        x, shift = torch.randn(size, 2), torch.randn(size, 2)
        found = network(x, shift=shift, factor=0.5)
        assert torch.equal(found, plain(x, shift, 0.5))
    assert sizes == [4, 4, 4, 4]


def test_rows_that_were_filled_in_have_no_gradient(sizes: list[int]) -> None:
    plain = _Scaled()
    network = CompiledNetwork(plain)
    network(torch.randn(4, 2), torch.zeros(4, 2))
    x = torch.randn(3, 2)
    (found,) = torch.autograd.grad(network(x, torch.zeros(3, 2)).sum(), plain.weight)
    assert sizes == [4, 4]
    torch.testing.assert_close(found, x.sum(0))


@pytest.mark.slow
def test_compiler_sees_one_shape_and_gives_the_same_values(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network, num_graphs = _Scaled(), 0

    def backend(graph: torch.fx.GraphModule, inputs: object) -> object:
        nonlocal num_graphs
        num_graphs += 1
        return graph.forward

    real = functools.partial(torch.compile, backend=backend)
    monkeypatch.setattr(torch, "compile", lambda net, dynamic, mode: real(net, dynamic=dynamic))
    compiled = CompiledNetwork(network)
    for size in (4, 1, 3):
        x, shift = torch.randn(size, 2), torch.randn(size, 2)
        torch.testing.assert_close(compiled(x, shift), network(x, shift))
    assert num_graphs == 1


def test_auto_leaves_cpus_alone(sizes: list[int]) -> None:
    cpu, network, lines = torch.device("cpu"), _Scaled(), []
    assert not is_to_be_compiled("auto", cpu)
    assert is_to_be_compiled("on", cpu)
    assert not is_to_be_compiled("off", torch.device("cuda"))
    assert compiled_for(network, "auto", cpu, lines.append, is_trained=True) is network
    assert lines == []
    assert compiled_for(network, "on", cpu, lines.append, is_trained=True) is not network
    assert "--compile off" in lines[0]


def test_training_updates_the_weights_that_are_saved(tmp_path: Path, sizes: list[int]) -> None:
    loops = [
        training_loop(tmp_path / mode, compile=mode, max_step=3, microbatch=1)
        for mode in ("on", "off")
    ]
    for loop in loops:
        assert loop.run_loop()
    compiled, plain = (loop.model.state_dict() for loop in loops)
    assert sizes
    assert compiled.keys() == plain.keys()
    for name, value in plain.items():
        torch.testing.assert_close(compiled[name], value)
