"""Which convolutions a run has: by its flag, by its CPU, and the same ones after a stop."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.config import UNetConfig
from models.layers import Conv3x3
from models.unet import UNetModel
from tests import cpus
from tests.utils.training_loops import read_manifest, training_loop
from utils.loops.networks import settle_kernels

CPU = torch.device("cpu")


class _Wide(torch.nn.Module):
    """A network that has a choice."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.used: list[str] = []

    def use_kernels(self, kernels: str) -> tuple[str, str]:
        self.used.append(kernels)
        return ("winograd", "by rule") if kernels == "auto" else (kernels, "as asked")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight


def test_a_run_goes_on_with_the_kernels_that_it_began_with(tmp_path: Path) -> None:
    first = training_loop(tmp_path, model=_Wide(), max_step=1, kernels="direct")
    assert first.run_loop()
    assert read_manifest(tmp_path, 1)["state"]["kernels"] == "direct"
    goes_on = {"max_step": 2, "resume_checkpoint": "auto"}
    for kernels, used in (("auto", "direct"), ("winograd", "winograd")):
        network = _Wide()
        training_loop(tmp_path, model=network, kernels=kernels, **goes_on)
        assert network.used == [used]


def test_networks_without_a_choice_say_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    narrow = UNetModel(UNetConfig(image_size=32, model_channels=32, channel_mult=(1,)))
    for network, device in ((torch.nn.Linear(1, 1), CPU), (narrow, CPU), (_Wide(), "cuda")):
        found = settle_kernels(network, "auto", torch.device(device), said.append, is_trained=False)
        assert found == ""
    assert said == []
    assert training_loop(tmp_path, max_step=1).run_loop()
    assert "kernels" not in read_manifest(tmp_path, 1)["state"]


@pytest.mark.parametrize("cpu", ["Zen 4", "Sapphire Rapids"])
def test_the_choice_reaches_every_layer(cpu: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cpus.compute_on(cpus.ALL[cpu], monkeypatch)
    network = UNetModel(UNetConfig(image_size=32, model_channels=96, channel_mult=(1,)))
    layers = [module for module in network.modules() if isinstance(module, Conv3x3)]
    usual = "winograd" if cpu == "Zen 4" else "direct"
    for choice, wanted in (("direct", "direct"), ("winograd", "winograd"), ("auto", usual)):
        said: list[str] = []
        assert settle_kernels(network, choice, CPU, said.append, is_trained=False) == wanted
        assert {layer.kernels for layer in layers} == {choice}
        assert said[0].startswith(f"kernels: {wanted} (") and len(said) == 1
    network.convert_torso(torch.bfloat16)
    assert settle_kernels(network, "auto", CPU, said.append, is_trained=False) == ""
