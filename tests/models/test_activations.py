"""Every activation of a U-Net against its formula in a network written plainly; names that stay."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from benchmarks.reference import unet as reference
from models.config import ACTIVATIONS
from models.encoder import EncoderUNet
from models.layers import SiLUInPlace
from models.unet import TimeConditionedUNet, UNetModel
from tests.models.nets import fill, noise, published_classifier, small_config

FORMULAS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": lambda x: x / (1 + torch.exp(-x)),
    "gelu": lambda x: x * 0.5 * (1 + torch.erf(x / 2**0.5)),
    "relu": lambda x: (x + x.abs()) / 2,
    "relu6": lambda x: x.clamp(0, 6),
    "lrelu": lambda x: torch.where(x > 0, x, 0.1 * x),
}
CLASSES = {"num_classes": 3, "use_scale_shift_norm": True, "resblock_updown": True}


def _denoiser(act: str) -> TimeConditionedUNet:
    return fill(TimeConditionedUNet(small_config(act=act, **CLASSES))).eval()


@pytest.mark.parametrize("has_gradients", [False, True])
@pytest.mark.parametrize("act", ACTIVATIONS)
def test_a_network_is_the_plain_one_with_that_formula_everywhere(
    act: str, has_gradients: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Plain(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return FORMULAS[act](x)

    monkeypatch.setattr(reference, "PlainSiLU", Plain)
    model = _denoiser(act)
    x, t, y = noise(2, 3, 16, 16), torch.tensor([3, 700]), torch.tensor([2, 0])
    with torch.set_grad_enabled(has_gradients):
        expected = reference.plain_twin(model)(x, t, y=y)
        found = model(x, t, y=y)
    expected, found = expected.detach(), found.detach()
    assert expected.std() > 0.1
    # fp32 sums in another order, as in tests/benchmarks/test_reference.py
    assert float((found - expected).abs().max()) < 1e-4


def test_they_differ_and_share_the_names_and_shapes_of_their_weights() -> None:
    x, t, y = noise(1, 3, 16, 16), torch.tensor([50]), torch.tensor([1])
    found = []
    for act in ACTIVATIONS:
        model = _denoiser(act)
        with torch.inference_mode():
            found.append(model(x, t, y=y))
        shapes = {name: value.shape for name, value in model.state_dict().items()}
        assert shapes == {n: v.shape for n, v in _denoiser("silu").state_dict().items()}
    for i, one in enumerate(found):
        assert all(not torch.allclose(one, other, atol=1e-3) for other in found[:i]), ACTIVATIONS[i]


def test_silu_still_overwrites_its_input_without_gradients() -> None:
    model = UNetModel(small_config())
    kinds = {type(part) for part in model.modules() if isinstance(part, nn.SiLU)}
    assert kinds == {SiLUInPlace}
    with torch.device("meta"):
        guide = EncoderUNet(published_classifier(64))
    assert any(isinstance(part, SiLUInPlace) for part in guide.modules())


def test_an_unknown_one_is_refused_with_all_names() -> None:
    with pytest.raises(ValueError, match=r"--act 'tanh': choose one of silu, gelu, relu, relu6"):
        small_config(act="tanh")
